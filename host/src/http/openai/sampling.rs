//! How a text is to be gone on with: the parameters that a model is told, checked.

use serde_json::{Map, Value};

use super::refuse;
use crate::error::Error;
use crate::http::fields::{Fields, parsed, wrong};

/// Texts at which a model may be told to stop, as OpenAI's own API takes them.
const STOPS: usize = 4;

/// The parameters that the caller has set, in one object: what is absent is the model's to choose.
///
/// # Errors
/// Where one is none, with its field.
pub fn parameters(fields: &Fields) -> Result<Map<String, Value>, Error> {
    let mut parameters = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            parameters.insert(name.to_owned(), value);
        }
    };
    for (name, least, most) in [
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
        ("repetition_penalty", 0.1, 10.0),
    ] {
        put(name, fields.number(name, least, most)?.map(Value::from));
    }
    put("top_k", fields.integer("top_k", 1)?.map(Value::from));
    put("seed", fields.integer("seed", i64::MIN)?.map(Value::from));
    // The newer name, and the one that older clients send.
    let newer = fields.integer("max_completion_tokens", 1)?;
    put("max_tokens", newer.or(fields.integer("max_tokens", 1)?).map(Value::from));
    put("stop", stops(fields)?.map(Value::from));
    Ok(parameters)
}

fn stops(fields: &Fields) -> Result<Option<Vec<String>>, Error> {
    const STOP: &str = "stop";
    let Some(raw) = fields.raw(STOP) else { return Ok(None) };
    let stops: Vec<String> = match raw.starts_with('"') {
        true => vec![parsed(STOP, raw)?],
        false => parsed(STOP, raw)?,
    };
    if stops.len() > STOPS || stops.iter().any(String::is_empty) {
        let message = format!("\"stop\" is one text or up to {STOPS}, none of them empty");
        return Err(wrong(STOP, message));
    }
    Ok((!stops.is_empty()).then_some(stops))
}

/// Refuses what would make another answer and is not there.
pub(super) fn refuse_the_rest(fields: &Fields) -> Result<(), Error> {
    let several = fields.integer("n", 1)?.is_some_and(|n| n > 1);
    refuse("n", several, "a request has one answer here: send several requests")?;
    let biased = fields.get::<Map<String, Value>>("logit_bias")?.is_some_and(|b| !b.is_empty());
    refuse("logit_bias", biased, "biases of single tokens are not taken")?;
    // A number in one API, a truth value in the other.
    let logprobs = fields.raw("logprobs").is_some_and(|raw| raw != "false");
    refuse("logprobs", logprobs, "log probabilities are not given")
}
