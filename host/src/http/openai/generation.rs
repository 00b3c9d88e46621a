//! What chat completions and completions have in common: a text that is generated, whole or in parts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, usage};
use crate::error::Error;
use crate::http::fields::{Fields, parsed};
use crate::http::route::Called;
use crate::http::stream::{Answer, Events, event};
use crate::http::task::{Generation, Growing};
use crate::tensor::NamedTensor;

/// How one of the two writes.
pub(super) trait Form: Copy + Send + 'static {
    /// What ids begin with.
    const PREFIX: &'static str;
    /// What a whole answer is called.
    const OBJECT: &'static str;
    /// What a part of one is called.
    const PART: &'static str;

    /// The choice of a whole answer.
    fn whole(self, text: &str) -> Value;
    /// The choice of a part, the first of all or a later one.
    fn part(self, text: &str, is_first: bool) -> Value;
    /// The choice that ends a stream.
    fn end(self) -> Value;
}

/// Whether the caller wants a stream, and the usage at its end.
///
/// # Errors
/// Where a field is none.
pub(super) fn answer<F: Form>(
    form: F,
    called: &Called,
    model: String,
    fields: &Fields,
    context: &Context<'_>,
) -> Result<Answer, Error> {
    let stream = fields.get::<bool>("stream")?.unwrap_or(false);
    let include_usage = match fields.raw("stream_options") {
        Some(raw) => parsed::<StreamOptions>("stream_options", raw)?.include_usage,
        None => false,
    };
    let common = Common {
        id: format!("{}-{}", F::PREFIX, context.id),
        created: context.now_s,
        model,
        system_fingerprint: fingerprint(called),
    };
    if stream {
        let growing = Growing::default();
        return Ok(Answer::Stream(Box::new(Parts {
            form,
            common,
            include_usage,
            growing,
            has_begun: false,
        })));
    }
    Ok(Answer::Whole(Box::new(move |outputs| {
        let generation = Generation::of(outputs)?;
        let document = Document {
            common: &common,
            object: F::OBJECT,
            choices: &[Choice::new(form.whole(&generation.text), Some(generation.finish_reason))],
            usage: Some(usage(generation.prompt_tokens, generation.completion_tokens)),
        };
        Ok(serde_json::to_vec(&document).expect("documents have only string keys"))
    })))
}

/// What every part of an answer has.
#[derive(Serialize)]
struct Common {
    id: String,
    created: u64,
    model: String,
    system_fingerprint: String,
}

/// An answer, or a part of one.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    common: &'a Common,
    object: &'static str,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    #[serde(flatten)]
    content: Value,
    /// Always null: there are none.
    logprobs: (),
    finish_reason: Option<&'static str>,
}

impl Choice {
    fn new(content: Value, finish_reason: Option<&'static str>) -> Self {
        Self { index: 0, content, logprobs: (), finish_reason }
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Names what made the answer, so that a caller sees when that changes: a version never does.
fn fingerprint(called: &Called) -> String {
    let digest = called.version.digest.to_string();
    let hex: String = digest.rsplit(':').next().unwrap_or_default().chars().take(12).collect();
    format!("fp_{hex}")
}

/// An answer in parts.
struct Parts<F> {
    form: F,
    common: Common,
    /// Whether the last part is to have the usage, and no choice.
    include_usage: bool,
    growing: Growing,
    has_begun: bool,
}

impl<F: Form> Parts<F> {
    fn chunk(&self, choices: &[Choice], usage: Value) -> Bytes {
        let usage = self.include_usage.then_some(usage);
        event(&Document { common: &self.common, object: F::PART, choices, usage })
    }

    fn text(&mut self, text: &str) -> Bytes {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        self.chunk(&[Choice::new(self.form.part(text, is_first), None)], Value::Null)
    }
}

impl<F: Form> Events for Parts<F> {
    fn partial(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error> {
        let part = self.growing.part(outputs)?;
        Ok(self.text(part))
    }

    fn last(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error> {
        let generation = Generation::of(outputs)?;
        let rest = self.growing.rest(&generation.text)?;
        let mut events = Vec::new();
        if !rest.is_empty() || !self.has_begun {
            events.push(self.text(rest));
        }
        let end = Choice::new(self.form.end(), Some(generation.finish_reason));
        events.push(self.chunk(&[end], Value::Null));
        if self.include_usage {
            let usage = usage(generation.prompt_tokens, generation.completion_tokens);
            events.push(self.chunk(&[], usage));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Ok(events.concat().into())
    }

    fn error(&self, error: &Error) -> Bytes {
        event(&super::error::body(error))
    }
}
