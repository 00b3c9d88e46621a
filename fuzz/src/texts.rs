//! Requests in the shape of OpenAI's API and of generate: what is taken fits the signature, and every
//! answer to it can be written.

use std::sync::LazyLock;

use bytes::Bytes;
use modelet_host::config::Limits;
use modelet_host::error::{Error, Kind};
use modelet_host::http::fields::Fields;
use modelet_host::http::generate;
use modelet_host::http::openai::{self, Context, Operation};
use modelet_host::http::route::Called;
use modelet_host::http::stream::{Answer, Request};
use modelet_host::names::Target;
use modelet_host::registry::Snapshot;
use modelet_host::tensor::{Datatype, NamedTensor, Tensor};
use modelet_host::version::TensorSpec;
use serde_json::{Value, json};

use crate::names::snapshot;
use crate::{Outcome, first_line, tensor};

/// The first line says what is asked for, and of which model; the rest is the body.
///
/// # Panics
/// When a property of a decoder does not hold.
pub fn texts(data: &[u8]) -> Outcome {
    let (asked, body) = first_line(data);
    let (snapshot, operation) = match asked {
        b"chat" => (&MODELS.chat, Some(Operation::Chat)),
        b"chat completions" => (&MODELS.chat, Some(Operation::Completions)),
        b"completions" => (&MODELS.completion, Some(Operation::Completions)),
        b"embeddings" => (&MODELS.embedding, Some(Operation::Embeddings)),
        b"transcriptions" => (&MODELS.transcription, Some(Operation::Transcriptions)),
        b"generate" => (&MODELS.chat, None),
        _ => (&MODELS.plain, None),
    };
    let fields = match operation {
        Some(Operation::Transcriptions) => form(body),
        _ => Fields::read(body),
    };
    let decoded = fields.and_then(|fields| match operation {
        Some(operation) => {
            let context = Context { snapshot, ticket: 0, id: "id", now_s: 1 };
            openai::decode(operation, &fields, &context)
        }
        None => generate::decode(called(snapshot), &fields, true, &Limits::default()),
    });
    match decoded {
        Ok(request) => check(request),
        Err(error) => check_error(&error),
    }
}

/// A form of a file and the texts of an object.
fn form(body: &[u8]) -> Result<Fields, Error> {
    let texts = Fields::read(body)?;
    let names: Vec<_> = texts.names().map(str::to_owned).collect();
    let texts = names.into_iter().map(|name| {
        let text = texts.get::<String>(&name)?.unwrap_or_default();
        Ok((name, text))
    });
    let texts = texts.collect::<Result<Vec<_>, Error>>()?;
    Fields::of_form(texts, Some(Bytes::from_static(b"RIFF")))
}

fn check_error(error: &Error) -> Outcome {
    let known = matches!(error.kind(), Kind::BadRequest | Kind::NotFound | Kind::TooLarge);
    assert!(known, "{:?}", error.kind());
    assert!(error.text().len() < 8_000, "{} bytes of error", error.text().len());
    let body = openai::error::body(error);
    let param = body.pointer("/error/param");
    assert!(param.is_some_and(|param| param.is_null() || param.is_string()), "{body}");
    Outcome::Refused
}

fn check(request: Request) -> Outcome {
    let signature = &request.called.version.record.signature;
    assert_eq!(request.inputs.len(), signature.inputs.len());
    for spec in &signature.inputs {
        let mut given = request.inputs.iter().filter(|(name, _)| *name == spec.name);
        let (Some((_, given_tensor)), None) = (given.next(), given.next()) else {
            panic!("{:?} is not there once", spec.name);
        };
        tensor::check(given_tensor);
        assert_eq!(given_tensor.datatype(), spec.datatype);
        assert!(spec.accepts_shape(given_tensor.shape()), "{given_tensor:?} for {spec:?}");
        let element = given_tensor.bytes_elements().next().unwrap_or_default();
        match spec.name.as_str() {
            "parameters" => assert!(read(element).is_object()),
            "messages" => assert!(read(element).is_string() || is_conversation(&read(element))),
            _ => {}
        }
    }
    let outputs: Vec<NamedTensor> = signature
        .outputs
        .iter()
        .map(|spec| (spec.name.clone(), output(spec, &request.inputs)))
        .collect();
    check_answer(request.answer, &outputs);
    Outcome::Accepted
}

fn is_conversation(messages: &Value) -> bool {
    let has_text = |turn: &Value, name| turn.get(name).is_some_and(Value::is_string);
    let is_turn = |turn: &Value| has_text(turn, "role") && has_text(turn, "content");
    messages.as_array().is_some_and(|turns| !turns.is_empty() && turns.iter().all(is_turn))
}

/// What a model could answer.
fn output(spec: &TensorSpec, inputs: &[NamedTensor]) -> Tensor {
    let rows = inputs.first().and_then(|(_, tensor)| tensor.shape().first()).copied();
    let shape: Vec<_> =
        spec.shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(rows.unwrap_or(1))).collect();
    let count: usize = shape.iter().product();
    let data = match spec.datatype.size() {
        Some(size) => vec![0; count * size],
        None => b"\x04\0\0\0stop".repeat(count),
    };
    Tensor::new(spec.datatype, shape, data.into()).expect("it fits its own shape")
}

fn check_answer(answer: Answer, outputs: &[NamedTensor]) {
    match answer {
        Answer::Whole(encode) => match encode(outputs) {
            Ok(document) => assert!(read(&document).is_object()),
            // A length of vectors that the model has not.
            Err(error) => assert_eq!(error.kind(), Kind::BadRequest, "{error}"),
        },
        Answer::Text(content_type, encode) => {
            assert!(content_type.starts_with("text/"), "{content_type}");
            let text = encode(outputs).expect("it has everything");
            assert!(std::str::from_utf8(&text).is_ok());
        }
        Answer::Stream(mut events) => {
            let part = outputs.iter().filter(|(name, _)| name == "text");
            let part: Vec<_> = part.cloned().collect();
            if !part.is_empty() {
                check_events(&events.partial(&part).expect("it has a text"), false);
            }
            check_events(&events.last(outputs).expect("it has everything"), true);
            check_events(&events.error(&Error::internal("why")), false);
        }
    }
}

/// Every event is one line of JSON; only the last of all may say that it is.
fn check_events(events: &Bytes, is_end: bool) {
    let text = std::str::from_utf8(events).expect("JSON is UTF-8");
    let events = text.strip_suffix("\n\n").expect("an event has an end");
    for event in events.split("\n\n") {
        let data = event.strip_prefix("data: ").expect("an event has data");
        let done = is_end && data == "[DONE]";
        assert!(done || read(data.as_bytes()).is_object(), "{event}");
    }
}

fn read(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error} in what was written"))
}

fn called(snapshot: &Snapshot) -> Called {
    let model = snapshot.get("m").expect("it was made so");
    let version = model.resolve(&Target::Live, 0).expect("its first version is live");
    Called { model: model.clone(), version: version.clone() }
}

/// A registry for each task.
struct Models {
    chat: Snapshot,
    completion: Snapshot,
    embedding: Snapshot,
    transcription: Snapshot,
    plain: Snapshot,
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let spec = |name: &str, datatype: Datatype, shape: &[i64]| json!({ "name": name, "datatype": datatype, "shape": shape });
    let text = |name: &str| spec(name, Datatype::Bytes, &[1]);
    let generated = [text("text"), text("finish_reason"), spec("usage", Datatype::Int64, &[2])];
    let generating = |task: &str, prompt: &str| {
        let inputs = [text(prompt), text("parameters")];
        snapshot(&json!({ "inputs": inputs, "outputs": generated, "task": task }))
    };
    Models {
        chat: generating("chat", "messages"),
        completion: generating("completion", "prompt"),
        embedding: snapshot(&json!({
            "inputs": [spec("text", Datatype::Bytes, &[-1])],
            "outputs": [spec("v", Datatype::Fp32, &[-1, 4]), spec("tokens", Datatype::Int64, &[-1])],
            "task": "embedding",
        })),
        transcription: snapshot(&json!({
            "inputs": [text("audio"), text("parameters")],
            "outputs": [
                text("text"),
                spec("duration", Datatype::Fp32, &[1]),
                spec("segments", Datatype::Fp32, &[-1, 2]),
                spec("segment_text", Datatype::Bytes, &[-1]),
            ],
            "task": "transcription",
        })),
        plain: snapshot(&json!({
            "inputs": [spec("x", Datatype::Fp32, &[-1, 2]), spec("name", Datatype::Bytes, &[-1])],
            "outputs": [spec("y", Datatype::Bool, &[-1])],
        })),
    }
});
