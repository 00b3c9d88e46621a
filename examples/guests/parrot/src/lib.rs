//! A chat model without weights, for tests of everything around one: it says the last message again,
//! word by word, and keeps to the contract of the task `chat` in all that can be seen from outside.
//!
//! A message may have it do what models do: `!fail TEXT` fails with that text, before the first word or,
//! behind some words, after them; `!parameters` says the parameters, and `!messages` the conversation.

use modelet_guest::{BadInput as _, Error, Result, Tensor, model, reply};
use serde::Deserialize;

/// The model.
pub struct Parrot;

/// What the caller wants of it; everything may be missing.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    /// Words at most.
    max_tokens: Option<usize>,
    /// Texts before which it ends.
    #[serde(default)]
    stop: Vec<String>,
    /// The place at which it begins to repeat itself: another for another seed, the same for the same.
    seed: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    /// A text to be gone on with.
    Text(String),
    /// A conversation.
    Messages(Vec<Message>),
}

#[derive(Debug, Deserialize)]
struct Message {
    content: String,
}

#[model(task = "chat")]
impl Parrot {
    fn load() -> Result<Self> {
        Ok(Self)
    }

    #[output("text", [1])]
    #[output("finish_reason", [1])]
    #[output("usage", [2])]
    fn infer(
        &mut self,
        #[input([1])] messages: Tensor<String>,
        #[input([1])] parameters: Tensor<String>,
    ) -> Result<(Tensor<String>, Tensor<String>, Tensor<i64>)> {
        let (given, wanted) = (one(&messages), one(&parameters));
        let prompt: Prompt = serde_json::from_str(given).bad_input("messages")?;
        let parameters: Parameters = serde_json::from_str(wanted).bad_input("parameters")?;
        let heard = match &prompt {
            Prompt::Text(text) => vec![text.as_str()],
            Prompt::Messages(messages) => {
                messages.iter().map(|message| message.content.as_str()).collect()
            }
        };
        let last = heard.last().copied().unwrap_or_default();
        let said = match last {
            "!parameters" => say(wanted, &Parameters::default())?,
            "!messages" => say(given, &Parameters::default())?,
            text => say(text, &parameters)?,
        };
        let heard = heard.iter().map(|text| text.split_whitespace().count()).sum::<usize>();
        let usage = Tensor::vector(vec![i64::try_from(heard)?, i64::try_from(said.words)?]);
        Ok((text(said.text), text(said.finish_reason.to_owned()), usage))
    }
}

struct Said {
    text: String,
    words: usize,
    finish_reason: &'static str,
}

/// Says a text word by word, until something ends it.
fn say(given: &str, parameters: &Parameters) -> Result<Said> {
    let mut words: Vec<_> = given.split_whitespace().collect();
    if let Some(seed) = parameters.seed {
        let place = usize::try_from(seed.unsigned_abs())? % words.len().max(1);
        words.rotate_left(place);
    }
    let fails_at = words.iter().position(|word| *word == "!fail");
    let (heard, failure) = words.split_at(fails_at.unwrap_or(words.len()));
    let most = parameters.max_tokens.unwrap_or(usize::MAX).min(heard.len());
    let (heard, left) = heard.split_at(most);
    let mut whole = heard.join(" ");
    // Nothing is said that a stop would take back.
    let stop = parameters.stop.iter().filter_map(|stop| whole.find(stop.as_str())).min();
    whole.truncate(stop.unwrap_or(whole.len()));
    let tokens: Vec<_> = whole.split_inclusive(' ').collect();
    for token in &tokens {
        if reply::is_streamed() {
            reply::output("text", &text((*token).to_owned())).emit()?;
        }
    }
    match (stop, left, failure) {
        (None, [], [_, reason @ ..]) => Err(Error::failed(reason.join(" "))),
        (None, [_, ..], _) => {
            Ok(Said { words: tokens.len(), finish_reason: "length", text: whole })
        }
        _ => Ok(Said { words: tokens.len(), finish_reason: "stop", text: whole }),
    }
}

fn text(text: String) -> Tensor<String> {
    Tensor::vector(vec![text])
}

fn one(tensor: &Tensor<String>) -> &str {
    tensor.data().first().map(String::as_str).unwrap_or_default()
}
