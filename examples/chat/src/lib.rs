//! A conversation in, its next message out, token by token: SmolLM2-135M-Instruct.
//!
//! What the graph remembers of a conversation, its keys and values of every position, stays in the host:
//! each run gives the handles that the next one takes, and none of their bytes come here.

mod entropy;
pub mod prompt;
pub mod sampling;
pub mod text;

use modelet_guest::{BadInput as _, Error, Graph, Result, Tensor, assets, config, model, reply};

use crate::prompt::{Prompt, Tokens};
use crate::sampling::{Defaults, Parameters, Sampler};
use crate::text::Growing;

/// Positions of a conversation: as many as the graph has turns for.
const POSITIONS: usize = 2048;
/// Tokens of a prompt that go through the graph at once: a run stays so short that others get their turn
/// and that a caller who left is noticed.
const PROMPT_CHUNK: usize = 128;
/// Axes of the remembered keys, and of the values: layers, conversations, heads, positions, numbers.
const CACHE: [usize; 5] = [30, 1, 3, 0, 64];

/// The model of an instance.
pub struct Chat {
    tokens: Tokens,
    graph: Graph,
    defaults: Defaults,
}

#[model(task = "chat")]
impl Chat {
    fn load() -> Result<Self> {
        let system = config::get("system");
        let tokens = Tokens::new(&assets::read("tokenizer.json")?, system)?;
        let defaults = Defaults::from_config()?;
        Ok(Self { tokens, graph: Graph::load("model.onnx")?, defaults })
    }

    #[output("text", [1])]
    #[output("finish_reason", [1])]
    #[output("usage", [2])]
    fn infer(
        &mut self,
        #[input([1])] messages: Tensor<String>,
        #[input([1])] parameters: Tensor<String>,
    ) -> Result<(Tensor<String>, Tensor<String>, Tensor<i64>)> {
        let prompt: Prompt = serde_json::from_str(one(&messages)).bad_input("messages")?;
        let parameters: Parameters =
            serde_json::from_str(one(&parameters)).bad_input("parameters")?;
        let prompt = self.tokens.encode(&prompt)?;
        let room = POSITIONS.saturating_sub(prompt.len());
        if prompt.is_empty() || room == 0 {
            let count = prompt.len();
            let range = format!("{count} tokens, and it has to be 1 to {}", POSITIONS - 1);
            return Err(messages.error(range));
        }
        let most = parameters.max_tokens.unwrap_or(self.defaults.max_tokens).min(room);
        let stops = parameters.stop.clone();
        let seed = parameters.seed.map_or_else(entropy::seed, i64::cast_unsigned);
        let mut sampler = Sampler::new(parameters, &self.defaults, seed);
        let answer = self.generate(&prompt, most, stops, &mut sampler)?;
        let usage = [prompt.len(), answer.tokens].map(i64::try_from);
        let usage = usage.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok((text(answer.text), text(answer.reason.to_owned()), Tensor::vector(usage)))
    }

    /// Goes on with a prompt until the model, a stop text or the count of tokens ends it.
    fn generate(
        &self,
        prompt: &[u32],
        most: usize,
        stops: Vec<String>,
        sampler: &mut Sampler,
    ) -> Result<Answer> {
        let mut context = Context::new(&self.graph)?;
        sampler.prompt(prompt);
        let mut scores = context.read(prompt)?;
        let mut growing = Growing::new(stops);
        let mut tokens = 0;
        let reason = loop {
            let token = sampler.next(scores.data())?;
            tokens += 1;
            if self.tokens.is_end(token) {
                break "stop";
            }
            let is_over = growing.push(&self.tokens.bytes(token)?);
            if reply::is_streamed() {
                let part = growing.part();
                if !part.is_empty() {
                    reply::output("text", &text(part.to_owned())).emit()?;
                }
            }
            if is_over {
                break "stop";
            }
            if tokens == most {
                break "length";
            }
            scores = context.read(&[token])?;
        };
        Ok(Answer { text: growing.finish(), reason, tokens })
    }
}

/// What was generated.
struct Answer {
    text: String,
    /// Why it ends there.
    reason: &'static str,
    tokens: usize,
}

/// What the graph has read of a conversation.
struct Context<'a> {
    graph: &'a Graph,
    /// Keys and values of every position so far, in the host.
    keys: Tensor<f32>,
    values: Tensor<f32>,
}

impl<'a> Context<'a> {
    fn new(graph: &'a Graph) -> Result<Self> {
        let nothing = || Tensor::new(CACHE, Vec::new());
        Ok(Self { graph, keys: nothing()?, values: nothing()? })
    }

    /// Reads tokens, of which there is at least one, and gives each token's score to come behind them.
    fn read(&mut self, tokens: &[u32]) -> Result<Tensor<f32>> {
        let mut scores = None;
        for chunk in tokens.chunks(PROMPT_CHUNK) {
            let ids = chunk.iter().map(|token| i64::from(*token)).collect();
            let run = self.graph.run().input("input_ids", &Tensor::new([1, chunk.len()], ids)?);
            let run = run.input("past_k", &self.keys).input("past_v", &self.values);
            let mut outputs = run.compute()?;
            (self.keys, self.values) = (outputs.take("present_k")?, outputs.take("present_v")?);
            scores = Some(outputs.take("logits")?);
        }
        scores.ok_or_else(|| Error::failed("nothing to read"))
    }
}

fn text(text: String) -> Tensor<String> {
    Tensor::vector(vec![text])
}

/// The element of a tensor of one, which the host has checked.
fn one(tensor: &Tensor<String>) -> &str {
    tensor.data().first().map(String::as_str).unwrap_or_default()
}
