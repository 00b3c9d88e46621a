//! Completions: a text that is gone on with as it stands.

use serde_json::{Value, json};

use super::generation::{self, Form};
use super::{Context, refuse, sampling};
use crate::error::Error;
use crate::http::fields::{Fields, parsed, wrong};
use crate::http::route::Called;
use crate::http::stream::Request;
use crate::http::task::{self, Prompt};

pub(super) fn decode(
    called: Called,
    model: String,
    fields: &Fields,
    context: &Context<'_>,
) -> Result<Request, Error> {
    sampling::refuse_the_rest(fields)?;
    let best_of = fields.integer("best_of", 1)?.is_some_and(|best| best > 1);
    refuse("best_of", best_of, "a request has one answer here: send several requests")?;
    refuse("echo", fields.get::<bool>("echo")? == Some(true), "the prompt is not sent back")?;
    let suffix = fields.get::<String>("suffix")?.is_some_and(|suffix| !suffix.is_empty());
    refuse("suffix", suffix, "a text is only gone on with at its end")?;
    let prompt = Prompt::Text(prompt(fields)?);
    let signature = &called.version.record.signature;
    let inputs = task::generation(signature, prompt, sampling::parameters(fields)?)?;
    let answer = generation::answer(Completion, &called, model, fields, context)?;
    Ok(Request { called, inputs, answer })
}

/// The prompt: a text, or a list of one.
fn prompt(fields: &Fields) -> Result<String, Error> {
    const PROMPT: &str = "prompt";
    let raw = fields.raw(PROMPT).ok_or_else(|| wrong(PROMPT, "\"prompt\" is missing"))?;
    if raw.starts_with('"') {
        return parsed(PROMPT, raw);
    }
    let prompts: Vec<Value> = parsed(PROMPT, raw)?;
    match prompts.as_slice() {
        [Value::String(prompt)] => Ok(prompt.clone()),
        _ => {
            Err(wrong(PROMPT, "the prompt is one text: no tokens, and several in several requests"))
        }
    }
}

/// How completions are written.
#[derive(Debug, Clone, Copy)]
struct Completion;

impl Form for Completion {
    const PREFIX: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const PART: &'static str = "text_completion";

    fn whole(self, text: &str) -> Value {
        json!({ "text": text })
    }

    fn part(self, text: &str, _is_first: bool) -> Value {
        json!({ "text": text })
    }

    fn end(self) -> Value {
        json!({ "text": "" })
    }
}
