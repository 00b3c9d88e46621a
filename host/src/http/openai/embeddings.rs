//! Texts to vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::http::fields::{Fields, parsed, wrong};
use crate::http::route::Called;
use crate::http::stream::{Answer, Request};
use crate::http::task::Embedding;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

pub(super) fn decode(called: Called, model: String, fields: &Fields) -> Result<Request, Error> {
    let task = Embedding::of(&called.version.record.signature)?;
    let texts = texts(fields)?;
    let encoding = match fields.get::<String>("encoding_format")?.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            return Err(wrong("encoding_format", "the encoding format is not float or base64"));
        }
    };
    let dimensions = fields.integer("dimensions", 1)?;
    let inputs = vec![task.input(texts.iter().map(String::as_str))?];
    let count = texts.len();
    let answer = Answer::Whole(Box::new(move |outputs| {
        let (vectors, length) = task.vectors(outputs, count)?;
        if let Some(other) = dimensions.filter(|wanted| usize::try_from(*wanted) != Ok(length)) {
            let message = format!("the model's vectors have {length} elements, and not {other}");
            return Err(wrong("dimensions", message));
        }
        let tokens = task.tokens(outputs).unwrap_or(0);
        let data = vectors.chunks(length * size_of::<f32>()).enumerate().map(|(index, vector)| {
            let embedding = written(vector, encoding)?;
            Ok(json!({ "object": "embedding", "index": index, "embedding": embedding }))
        });
        let document = json!({
            "object": "list",
            "model": model,
            "data": data.collect::<Result<Vec<_>, Error>>()?,
            "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        });
        Ok(serde_json::to_vec(&document).expect("documents have only string keys"))
    }));
    Ok(Request { called, inputs, answer })
}

/// The texts: one, or a list of them.
fn texts(fields: &Fields) -> Result<Vec<String>, Error> {
    const INPUT: &str = "input";
    let raw = fields.raw(INPUT).ok_or_else(|| wrong(INPUT, "\"input\" is missing"))?;
    if raw.starts_with('"') {
        return Ok(vec![parsed(INPUT, raw)?]);
    }
    let elements: Vec<&RawValue> = parsed(INPUT, raw)?;
    let texts = elements.into_iter().enumerate().map(|(index, element)| {
        if element.get().starts_with('"') {
            return parsed(INPUT, element.get());
        }
        let message = format!("element {index} is no text, and tokens are not taken: send texts");
        Err(wrong(INPUT, message))
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() {
        return Err(wrong(INPUT, "there is no text"));
    }
    Ok(texts)
}

/// A vector of little-endian FP32.
fn written(vector: &[u8], encoding: Encoding) -> Result<Value, Error> {
    let elements = || vector.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    match encoding {
        Encoding::Base64 => Ok(STANDARD.encode(vector).into()),
        Encoding::Float if elements().all(f32::is_finite) => {
            // By way of their own shortest text: as FP64 they would have digits that they do not have.
            serde_json::to_value(elements().collect::<Vec<_>>())
                .map_err(|error| Error::internal(&error))
        }
        Encoding::Float => {
            let message = "the vector has elements that JSON cannot express";
            Err(Error::new(Kind::BadRequest, message)
                .at("encoding_format")
                .remedy("ask for base64"))
        }
    }
}
