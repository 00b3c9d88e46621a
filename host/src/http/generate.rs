//! Generate: Triton's extension for text, whole and as a stream of events.
//!
//! A model that generates text gets `text_input` and `parameters` as its task says, and gives
//! `text_output`. Any other model gets the fields that are named like its inputs, each as a tensor, and
//! gives its outputs by their names.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::decode::{self, decode_limits};
use super::fields::{Fields, parsed, wrong};
use super::oip;
use super::openai::sampling;
use super::route::Called;
use super::stream::{Answer, Events, Request, event};
use super::task::{self, Generation, Growing, Prompt};
use crate::config::Limits;
use crate::error::{Error, Kind};
use crate::tensor::{NamedTensor, ShapeText, Tensor};
use crate::version::{Signature, TensorSpec};

/// Fields that are no inputs.
const OWN_FIELDS: [&str; 4] = ["id", "parameters", "text_input", "stream"];

/// Decodes a request.
///
/// # Errors
/// [`Kind::BadRequest`] with the field that the model does not take.
pub fn decode(
    called: Called,
    fields: &Fields,
    stream: bool,
    limits: &Limits,
) -> Result<Request, Error> {
    let signature = &called.version.record.signature;
    let generates = task::generates(signature);
    let inputs = match generates {
        true => text(fields, signature)?,
        false => by_name(fields, signature, limits)?,
    };
    let encoder = Encoder {
        id: fields.get("id")?,
        called: called.clone(),
        growing: generates.then(Growing::default),
    };
    let answer = match stream {
        true => Answer::Stream(Box::new(encoder)),
        false => Answer::Whole(Box::new(move |outputs| {
            Ok(serde_json::to_vec(&encoder.answer(outputs)?)
                .expect("documents have only string keys"))
        })),
    };
    Ok(Request { called, inputs, answer })
}

fn text(fields: &Fields, signature: &Signature) -> Result<Vec<NamedTensor>, Error> {
    let prompt = Prompt::Text(fields.required("text_input")?);
    let parameters = match fields.raw("parameters") {
        None => Map::new(),
        Some(raw) => {
            let object = Fields::read(raw.as_bytes());
            let object = object.map_err(|_| wrong("parameters", "the parameters are no object"))?;
            sampling::parameters(&object)?
        }
    };
    task::generation(signature, prompt, parameters)
}

/// Fields as the inputs of their names. They are written out as inputs of the Open Inference Protocol,
/// so that one codec says what JSON a datatype takes.
fn by_name(
    fields: &Fields,
    signature: &Signature,
    limits: &Limits,
) -> Result<Vec<NamedTensor>, Error> {
    let mut inputs = Vec::new();
    for name in fields.names() {
        let spec = signature.inputs.iter().find(|spec| spec.name == name);
        match (spec, fields.raw(name)) {
            (Some(spec), Some(json)) => inputs.push(input(spec, json)?),
            // What is meant for models of another kind.
            _ if OWN_FIELDS.contains(&name) => {}
            _ => {
                let known: Vec<_> =
                    signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
                let message = format!("the model has no input {name:?}; its inputs are {known:?}");
                return Err(wrong(name, message));
            }
        }
    }
    let document =
        serde_json::to_vec(&json!({ "inputs": inputs })).expect("documents have only string keys");
    let whole = oip::json_length(None, None).map_err(decode::decode_error)?;
    let decoded = oip::decode_infer(document.into(), whole, signature, &decode_limits(limits));
    decoded.map(|request| request.inputs).map_err(decode::decode_error)
}

fn input(spec: &TensorSpec, json: &str) -> Result<Value, Error> {
    let mut data: Value = parsed(&spec.name, json)?;
    let mut shape = shape_of(&data);
    // One row, or one element, of a model that takes several.
    while shape.len() < spec.shape.len() {
        data = Value::Array(vec![data]);
        shape.insert(0, 1);
    }
    if !spec.accepts_shape(&shape) {
        let (given, wanted) = (ShapeText(&shape), ShapeText(&spec.shape));
        let message =
            format!("{:?} has the shape {given}, and the model takes {wanted}", spec.name);
        return Err(wrong(spec.name.as_str(), message));
    }
    let data = if data.is_array() { data } else { Value::Array(vec![data]) };
    Ok(json!({ "name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data }))
}

/// The lengths of arrays inside each other, by the first of each; that all are as long is checked where
/// they are read.
fn shape_of(data: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut inner = Some(data);
    while let Some(Value::Array(elements)) = inner {
        shape.push(elements.len());
        inner = elements.first();
    }
    shape
}

/// How the answers of one request are written.
struct Encoder {
    id: Option<String>,
    called: Called,
    /// The text so far, where the model generates text.
    growing: Option<Growing>,
}

impl Encoder {
    fn answer(&self, outputs: &[NamedTensor]) -> Result<Value, Error> {
        match self.growing {
            Some(_) => {
                let Generation { text, .. } = Generation::of(outputs)?;
                Ok(self.document([("text_output".to_owned(), Value::String(text))]))
            }
            None => self.by_name(outputs),
        }
    }

    fn by_name(&self, outputs: &[NamedTensor]) -> Result<Value, Error> {
        let value = |(name, tensor): &NamedTensor| Ok((name.clone(), value(name, tensor)?));
        Ok(self.document(outputs.iter().map(value).collect::<Result<Vec<_>, Error>>()?))
    }

    fn document(&self, outputs: impl IntoIterator<Item = (String, Value)>) -> Value {
        let mut document: Map<_, _> = outputs.into_iter().collect();
        if let Some(id) = &self.id {
            document.insert("id".to_owned(), id.as_str().into());
        }
        let version = &self.called.version;
        document.insert("model_name".to_owned(), version.model.as_str().into());
        document.insert("model_version".to_owned(), version.name.as_str().into());
        Value::Object(document)
    }
}

impl Events for Encoder {
    fn partial(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error> {
        let document = match &mut self.growing {
            Some(growing) => {
                let part = growing.part(outputs)?.into();
                self.document([("text_output".to_owned(), part)])
            }
            None => self.by_name(outputs)?,
        };
        Ok(event(&document))
    }

    fn last(&mut self, outputs: &[NamedTensor]) -> Result<Bytes, Error> {
        let Some(growing) = &self.growing else { return Ok(event(&self.by_name(outputs)?)) };
        let Generation { text, .. } = Generation::of(outputs)?;
        let rest = growing.rest(&text)?.into();
        Ok(event(&self.document([("text_output".to_owned(), rest)])))
    }

    fn error(&self, error: &Error) -> Bytes {
        event(&error.body())
    }
}

/// A tensor as a field: its one element, or all of them.
fn value(name: &str, tensor: &Tensor) -> Result<Value, Error> {
    let cannot = |problem: String| {
        Error::new(Kind::BadRequest, problem)
            .at(format!("output {name:?}"))
            .remedy("POST to /v2/models/{model}/infer, which has a binary form")
    };
    Ok(match oip::json_elements(tensor).map_err(cannot)? {
        Value::Array(mut elements) if elements.len() == 1 => elements.remove(0),
        all => all,
    })
}
