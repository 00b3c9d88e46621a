//! Tasks: what a model that serves a standard one takes and gives, as `docs/tasks.md` says it, and how
//! the host makes tensors of a caller's texts and texts of a model's tensors.

use serde_json::{Map, Value};

use crate::error::{Error, Kind};
use crate::tensor::{AlignedBuffer, Datatype, NamedTensor, Tensor};
use crate::version::{Signature, TensorSpec};

/// The task of models that make vectors of texts.
pub const EMBEDDING: &str = "embedding";
/// The task of models that go on with a conversation.
pub const CHAT: &str = "chat";
/// The task of models that go on with a text.
pub const COMPLETION: &str = "completion";
/// The task of models that write down what is said in a recording.
pub const TRANSCRIPTION: &str = "transcription";

const MESSAGES: &str = "messages";
const PROMPT: &str = "prompt";
const PARAMETERS: &str = "parameters";
const TEXT: &str = "text";
const FINISH_REASON: &str = "finish_reason";
const USAGE: &str = "usage";
const TOKENS: &str = "tokens";
const AUDIO: &str = "audio";
const DURATION: &str = "duration";
const SEGMENTS: &str = "segments";
const SEGMENT_TEXT: &str = "segment_text";

/// Whether a model says that it generates text.
pub fn generates(signature: &Signature) -> bool {
    matches!(signature.task.as_deref(), Some(CHAT | COMPLETION))
}

/// What a model is to go on with.
#[derive(Debug)]
pub enum Prompt {
    /// A conversation: a JSON list of messages.
    Messages(Value),
    /// A text as it stands.
    Text(String),
}

/// The inputs of a model that generates text.
///
/// # Errors
/// [`Kind::BadRequest`] where the model is of another task; [`Kind::ModelUnavailable`] where it does not
/// keep to its task.
pub fn generation(
    signature: &Signature,
    prompt: Prompt,
    parameters: Map<String, Value>,
) -> Result<Vec<NamedTensor>, Error> {
    let prompt = match (signature.task.as_deref(), prompt) {
        (Some(CHAT), Prompt::Messages(messages)) => (MESSAGES, messages.to_string()),
        // Distinguished from messages by being a JSON string.
        (Some(CHAT), Prompt::Text(text)) => (MESSAGES, Value::String(text).to_string()),
        (Some(COMPLETION), Prompt::Text(text)) => (PROMPT, text),
        (task, prompt) => {
            let wanted = if matches!(prompt, Prompt::Text(_)) { COMPLETION } else { CHAT };
            return Err(other_task(task, wanted));
        }
    };
    let inputs = [(prompt.0, Datatype::Bytes), (PARAMETERS, Datatype::Bytes)];
    let outputs =
        [(TEXT, Datatype::Bytes), (FINISH_REASON, Datatype::Bytes), (USAGE, Datatype::Int64)];
    keeps_to(signature, &inputs, &outputs)?;
    let parameters = Value::Object(parameters).to_string();
    [prompt, (PARAMETERS, parameters)]
        .into_iter()
        .map(|(name, text)| Ok((name.to_owned(), texts(vec![1], [text.as_str()])?)))
        .collect()
}

/// What a model has generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// All of the text.
    pub text: String,
    /// Why it ends there: `stop` or `length`.
    pub finish_reason: &'static str,
    /// Tokens that the model was given.
    pub prompt_tokens: u64,
    /// Tokens that it has made.
    pub completion_tokens: u64,
}

impl Generation {
    /// Reads a model's answer.
    ///
    /// # Errors
    /// [`Kind::NoResponse`] where it is none of its task.
    pub fn of(outputs: &[NamedTensor]) -> Result<Self, Error> {
        let finish_reason = match text(outputs, FINISH_REASON)? {
            "stop" => "stop",
            "length" => "length",
            other => {
                let shown: String = other.chars().take(40).collect();
                return Err(unusable(FINISH_REASON, &format!("{shown:?} is not stop or length")));
            }
        };
        let usage = find(outputs, USAGE)?;
        let (counts, rest) = usage.data().as_chunks();
        let counts: Vec<_> =
            counts.iter().map(|count| u64::try_from(i64::from_le_bytes(*count))).collect();
        let (&[Ok(prompt_tokens), Ok(completion_tokens)], []) = (counts.as_slice(), rest) else {
            return Err(unusable(USAGE, "it is not two counts of tokens"));
        };
        let text = text(outputs, TEXT)?.to_owned();
        Ok(Self { text, finish_reason, prompt_tokens, completion_tokens })
    }
}

/// The text of a stream as it comes in parts.
#[derive(Debug, Default)]
pub struct Growing {
    /// Bytes that have been sent.
    sent: usize,
}

impl Growing {
    /// What a partial answer adds.
    ///
    /// # Errors
    /// [`Kind::NoResponse`] where it has no text.
    pub fn part<'a>(&mut self, outputs: &'a [NamedTensor]) -> Result<&'a str, Error> {
        let part = text(outputs, TEXT)?;
        self.sent += part.len();
        Ok(part)
    }

    /// What the whole text adds to its parts.
    ///
    /// # Errors
    /// [`Kind::NoResponse`] where the parts are more than the whole.
    pub fn rest<'a>(&self, whole: &'a str) -> Result<&'a str, Error> {
        whole.get(self.sent..).ok_or_else(|| {
            let sent = self.sent;
            unusable(TEXT, &format!("{sent} bytes were emitted, which are not its beginning"))
        })
    }
}

/// The inputs of a model that writes down speech.
///
/// # Errors
/// [`Kind::BadRequest`] where the model is of another task, or the file too long for a tensor;
/// [`Kind::ModelUnavailable`] where it does not keep to its task.
pub fn transcription(
    signature: &Signature,
    file: &[u8],
    parameters: Map<String, Value>,
) -> Result<Vec<NamedTensor>, Error> {
    if signature.task.as_deref() != Some(TRANSCRIPTION) {
        return Err(other_task(signature.task.as_deref(), TRANSCRIPTION));
    }
    let inputs = [(AUDIO, Datatype::Bytes), (PARAMETERS, Datatype::Bytes)];
    keeps_to(signature, &inputs, &[(TEXT, Datatype::Bytes)])?;
    let parameters = Value::Object(parameters).to_string();
    [(AUDIO, file), (PARAMETERS, parameters.as_bytes())]
        .into_iter()
        .map(|(name, bytes)| Ok((name.to_owned(), elements(vec![1], [bytes])?)))
        .collect()
}

/// What a model has heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcription {
    /// All of the words.
    pub text: String,
    /// Seconds of the recording; 0 where the model does not say.
    pub duration: f32,
    /// Its parts, in order; none where the model does not say.
    pub segments: Vec<Segment>,
}

/// A part of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Seconds from the recording's beginning.
    pub start: f32,
    /// Where it ends, as well.
    pub end: f32,
    /// What is said in it.
    pub text: String,
}

impl Transcription {
    /// Reads a model's answer.
    ///
    /// # Errors
    /// [`Kind::NoResponse`] where it is none of its task.
    pub fn of(outputs: &[NamedTensor]) -> Result<Self, Error> {
        let floats = |name| {
            let data = find(outputs, name).ok().map(|tensor| tensor.data().as_chunks().0);
            data.unwrap_or_default().iter().map(|bytes| f32::from_le_bytes(*bytes))
        };
        let duration = floats(DURATION).next().unwrap_or(0.0);
        let texts = match find(outputs, SEGMENT_TEXT) {
            Ok(tensor) => tensor.bytes_elements().map(|text| utf8(SEGMENT_TEXT, text)).collect(),
            Err(_) => Ok(Vec::new()),
        }?;
        let times: Vec<_> = floats(SEGMENTS).collect();
        let (times, rest) = times.as_chunks();
        if times.len() != texts.len() || !rest.is_empty() {
            return Err(unusable(SEGMENTS, "they are not two times for each text"));
        }
        if times.as_flattened().iter().chain([&duration]).any(|time| !time.is_finite()) {
            return Err(unusable(SEGMENTS, "a time is no number"));
        }
        let segments = times.iter().zip(texts);
        let segments = segments.map(|([start, end], text)| Segment {
            start: *start,
            end: *end,
            text: text.to_owned(),
        });
        let text = text(outputs, TEXT)?.to_owned();
        Ok(Self { text, duration, segments: segments.collect() })
    }
}

/// How a model takes texts and gives vectors.
#[derive(Debug)]
pub struct Embedding {
    /// The input's name and rank.
    input: (String, usize),
    /// The output with the vectors.
    output: String,
    /// Whether it says how many tokens each text has.
    counts: bool,
}

impl Embedding {
    /// How this model does.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] where it is of another task; [`Kind::ModelUnavailable`] where it does not keep
    /// to its task.
    pub fn of(signature: &Signature) -> Result<Self, Error> {
        if signature.task.as_deref() != Some(EMBEDDING) {
            return Err(other_task(signature.task.as_deref(), EMBEDDING));
        }
        let input = match signature.inputs.as_slice() {
            [input]
                if input.datatype == Datatype::Bytes && (1..=2).contains(&input.shape.len()) =>
            {
                (input.name.clone(), input.shape.len())
            }
            _ => return Err(no_task(signature, "one input BYTES [-1]")),
        };
        let is_vectors =
            |spec: &&TensorSpec| spec.datatype == Datatype::Fp32 && spec.shape.len() == 2;
        let mut vectors = signature.outputs.iter().filter(is_vectors);
        let (Some(output), None) = (vectors.next(), vectors.next()) else {
            return Err(no_task(signature, "one output FP32 [-1,N]"));
        };
        let is_count = |spec: &TensorSpec| spec.name == TOKENS && spec.datatype == Datatype::Int64;
        let counts = signature.outputs.iter().any(is_count);
        Ok(Self { input, output: output.name.clone(), counts })
    }

    /// Its input for some texts.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] where a text is too long for a tensor.
    pub fn input<'a>(
        &self,
        given: impl ExactSizeIterator<Item = &'a str> + Clone,
    ) -> Result<NamedTensor, Error> {
        let (name, rank) = &self.input;
        let shape = std::iter::once(given.len()).chain(std::iter::repeat_n(1, rank - 1)).collect();
        Ok((name.clone(), texts(shape, given)?))
    }

    /// The vectors for `count` texts, as bytes of FP32, and the length of each.
    ///
    /// # Errors
    /// [`Kind::NoResponse`] where the model's answer is none of its task.
    pub fn vectors<'a>(
        &self,
        outputs: &'a [NamedTensor],
        count: usize,
    ) -> Result<(&'a [u8], usize), Error> {
        let vectors = find(outputs, &self.output)?;
        match vectors.shape() {
            [rows, length] if *rows == count && *length > 0 => Ok((vectors.data(), *length)),
            shape => {
                Err(unusable(&self.output, &format!("its shape is {shape:?} for {count} texts")))
            }
        }
    }

    /// Tokens of all texts together; none where the model does not say.
    pub fn tokens(&self, outputs: &[NamedTensor]) -> Option<u64> {
        let counts = self.counts.then(|| find(outputs, TOKENS).ok()).flatten()?;
        let counts = counts.data().as_chunks().0.iter().map(|count| i64::from_le_bytes(*count));
        Some(counts.filter_map(|count| u64::try_from(count).ok()).sum())
    }
}

/// A tensor of texts.
fn texts<'a>(
    shape: Vec<usize>,
    texts: impl IntoIterator<Item = &'a str, IntoIter: Clone>,
) -> Result<Tensor, Error> {
    elements(shape, texts.into_iter().map(str::as_bytes))
}

/// A tensor of strings of bytes.
fn elements<'a>(
    shape: Vec<usize>,
    elements: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
) -> Result<Tensor, Error> {
    let elements = elements.into_iter();
    let bytes = elements.clone().map(|element| element.len() + size_of::<u32>()).sum();
    let mut data = AlignedBuffer::with_capacity(bytes);
    for element in elements {
        let length = u32::try_from(element.len())
            .map_err(|_| Error::new(Kind::BadRequest, "a text has more bytes than a tensor may"))?;
        data.extend(&length.to_le_bytes());
        data.extend(element);
    }
    Tensor::new(Datatype::Bytes, shape, data.freeze())
        .map_err(|error| Error::new(Kind::BadRequest, error.to_string()))
}

fn find<'a>(outputs: &'a [NamedTensor], name: &str) -> Result<&'a Tensor, Error> {
    let found = outputs.iter().find(|(output, _)| output == name);
    found.map(|(_, tensor)| tensor).ok_or_else(|| unusable(name, "it is not there"))
}

/// The one text of an output.
fn text<'a>(outputs: &'a [NamedTensor], name: &str) -> Result<&'a str, Error> {
    let mut elements = find(outputs, name)?.bytes_elements();
    let (Some(element), None) = (elements.next(), elements.next()) else {
        return Err(unusable(name, "it is not one text"));
    };
    utf8(name, element)
}

fn utf8<'a>(name: &str, element: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(element).map_err(|error| unusable(name, &error.to_string()))
}

fn unusable(output: &str, problem: &str) -> Error {
    Error::new(Kind::NoResponse, format!("the model's answer cannot be used: {problem}"))
        .at(format!("output {output:?}"))
}

fn other_task(task: Option<&str>, wanted: &str) -> Error {
    let serves = match task {
        Some(task) => format!("the model serves the task {task:?}, and not {wanted:?}"),
        None => format!("the model says of no task that it serves it, and not of {wanted:?}"),
    };
    Error::new(Kind::BadRequest, serves).at("model").remedy("POST to /v2/models/{model}/infer")
}

fn no_task(signature: &Signature, wanted: &str) -> Error {
    let task = signature.task.as_deref().unwrap_or_default();
    Error::new(
        Kind::ModelUnavailable,
        format!("the model says that it serves the task {task:?}, but has not {wanted}"),
    )
    .remedy("docs/tasks.md says what a model of a task takes and gives")
}

/// Whether a signature has exactly these inputs, each of one element, and these outputs.
fn keeps_to(
    signature: &Signature,
    inputs: &[(&str, Datatype)],
    outputs: &[(&str, Datatype)],
) -> Result<(), Error> {
    let has = |specs: &[TensorSpec], (name, datatype): &(&str, Datatype)| {
        specs.iter().any(|spec| spec.name == *name && spec.datatype == *datatype)
    };
    for wanted in inputs {
        if !has(&signature.inputs, wanted) {
            return Err(no_task(signature, &format!("the input {:?} {}", wanted.0, wanted.1)));
        }
    }
    for wanted in outputs {
        if !has(&signature.outputs, wanted) {
            return Err(no_task(signature, &format!("the output {:?} {}", wanted.0, wanted.1)));
        }
    }
    let other = signature.inputs.iter().find(|spec| {
        !spec.accepts_shape(&[1]) || inputs.iter().all(|(name, _)| spec.name != *name)
    });
    match other {
        None => Ok(()),
        Some(spec) => {
            Err(no_task(signature, &format!("only inputs of shape [1]: {:?}", spec.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn chat() -> Signature {
        Signature {
            inputs: vec![
                spec(MESSAGES, Datatype::Bytes, &[1]),
                spec(PARAMETERS, Datatype::Bytes, &[1]),
            ],
            outputs: vec![
                spec(TEXT, Datatype::Bytes, &[1]),
                spec(FINISH_REASON, Datatype::Bytes, &[1]),
                spec(USAGE, Datatype::Int64, &[2]),
            ],
            batch: false,
            task: Some(CHAT.to_owned()),
        }
    }

    fn prompt() -> Prompt {
        Prompt::Text("a".to_owned())
    }

    fn answer(text: &str, reason: &str, usage: &[i64]) -> Vec<NamedTensor> {
        let counts = usage.iter().flat_map(|count| count.to_le_bytes()).collect::<Bytes>();
        let counts = Tensor::new(Datatype::Int64, vec![usage.len()], counts).unwrap();
        vec![
            (TEXT.to_owned(), texts(vec![1], [text]).unwrap()),
            (FINISH_REASON.to_owned(), texts(vec![1], [reason]).unwrap()),
            (USAGE.to_owned(), counts),
        ]
    }

    #[test]
    fn a_chat_model_takes_conversations_and_prompts_and_says_which() {
        let given = |prompt| {
            let inputs = generation(&chat(), prompt, Map::new()).unwrap();
            String::from_utf8(inputs[0].1.bytes_elements().next().unwrap().to_vec()).unwrap()
        };
        assert_eq!(given(prompt()), "\"a\"");
        assert_eq!(given(Prompt::Messages(serde_json::json!([1]))), "[1]");
        let completes = Signature { task: Some(COMPLETION.to_owned()), ..chat() };
        let error = generation(&completes, Prompt::Messages(Value::Null), Map::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadRequest);
    }

    #[test]
    fn a_model_that_does_not_keep_to_its_task_is_not_called() {
        let lacks = |change: fn(&mut Signature)| {
            let mut signature = chat();
            change(&mut signature);
            generation(&signature, prompt(), Map::new()).unwrap_err()
        };
        for (error, words) in [
            (lacks(|s| s.inputs.truncate(1)), "the input \"parameters\" BYTES"),
            (lacks(|s| s.outputs.truncate(2)), "the output \"usage\" INT64"),
            (lacks(|s| s.inputs[0].datatype = Datatype::Uint8), "the input \"messages\" BYTES"),
            (lacks(|s| s.inputs[0].shape = vec![2]), "only inputs of shape [1]: \"messages\""),
            (lacks(|s| s.inputs.push(spec("x", Datatype::Fp32, &[1]))), "only inputs of shape"),
        ] {
            assert_eq!(error.kind(), Kind::ModelUnavailable);
            assert!(error.text().contains(words), "{error}");
        }
        for (inputs, outputs) in [(2, 1), (1, 2), (0, 1), (1, 0)] {
            let signature = Signature {
                inputs: vec![spec("text", Datatype::Bytes, &[-1]); inputs],
                outputs: vec![spec("v", Datatype::Fp32, &[-1, 4]); outputs],
                task: Some(EMBEDDING.to_owned()),
                batch: true,
            };
            assert_eq!(Embedding::of(&signature).unwrap_err().kind(), Kind::ModelUnavailable);
        }
    }

    #[test]
    fn an_answer_that_is_none_of_the_task_is_told_with_its_output() {
        let wanted = Generation {
            text: "a".to_owned(),
            finish_reason: "length",
            prompt_tokens: 3,
            completion_tokens: 1,
        };
        assert_eq!(Generation::of(&answer("a", "length", &[3, 1])).unwrap(), wanted);
        for (outputs, words) in [
            (answer("a", "tired", &[3, 1]), "output \"finish_reason\""),
            (answer("a", "stop", &[3]), "output \"usage\""),
            (answer("a", "stop", &[3, -1]), "output \"usage\""),
            (answer("a", "stop", &[3, 1])[1..].to_vec(), "output \"text\""),
        ] {
            let error = Generation::of(&outputs).unwrap_err();
            assert_eq!(error.kind(), Kind::NoResponse);
            assert!(error.text().contains(words), "{error}");
        }
        let no_text = Tensor::new(Datatype::Bytes, vec![1], Bytes::from_static(b"\x01\0\0\0\xff"));
        let outputs = [(TEXT.to_owned(), no_text.unwrap())];
        assert!(text(&outputs, TEXT).unwrap_err().text().contains("utf-8"));
    }

    #[test]
    fn a_recording_goes_to_a_model_that_writes_it_down() {
        let signature = Signature {
            inputs: vec![
                spec(AUDIO, Datatype::Bytes, &[1]),
                spec(PARAMETERS, Datatype::Bytes, &[1]),
            ],
            outputs: vec![spec(TEXT, Datatype::Bytes, &[1])],
            batch: false,
            task: Some(TRANSCRIPTION.to_owned()),
        };
        let inputs = transcription(&signature, b"RI\xff", Map::new()).unwrap();
        assert_eq!(inputs[0].1.bytes_elements().next().unwrap(), b"RI\xff");
        let error = transcription(&chat(), b"", Map::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadRequest);
        let lacks = Signature { outputs: Vec::new(), ..signature };
        let error = transcription(&lacks, b"", Map::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::ModelUnavailable);
    }

    #[test]
    fn segments_are_a_text_and_two_times_each() {
        let named = |name: &str, tensor| (name.to_owned(), tensor);
        let times = |times: &[f32]| {
            let data: Vec<u8> = times.iter().flat_map(|time| time.to_le_bytes()).collect();
            named(SEGMENTS, Tensor::new(Datatype::Fp32, vec![times.len()], data.into()).unwrap())
        };
        let said =
            |count: usize| named(SEGMENT_TEXT, texts(vec![count], vec!["a"; count]).unwrap());
        let text = || named(TEXT, texts(vec![1], ["a"]).unwrap());
        let whole = Transcription::of(&[text()]).unwrap();
        assert_eq!((whole.text.as_str(), whole.duration, whole.segments.len()), ("a", 0.0, 0));
        let parts = Transcription::of(&[text(), times(&[0.0, 1.0]), said(1)]).unwrap();
        assert_eq!(parts.segments, [Segment { start: 0.0, end: 1.0, text: "a".to_owned() }]);
        for wrong in [
            vec![text(), times(&[0.0, 1.0]), said(2)],
            vec![text(), times(&[0.0]), said(0)],
            vec![text(), times(&[0.0, f32::NAN]), said(1)],
            vec![times(&[]), said(0)],
        ] {
            assert_eq!(Transcription::of(&wrong).unwrap_err().kind(), Kind::NoResponse);
        }
    }

    #[test]
    fn parts_are_the_beginning_of_the_whole() {
        let mut growing = Growing::default();
        assert_eq!(growing.part(&answer("Gr", "stop", &[0, 0])[..1]).unwrap(), "Gr");
        assert_eq!(growing.part(&answer("ü", "stop", &[0, 0])[..1]).unwrap(), "ü");
        assert_eq!(growing.rest("Grüße").unwrap(), "ße");
        assert_eq!(growing.rest("Grü").unwrap(), "");
        // Shorter than what was sent, and a character over its end.
        for other in ["Gr", "Gr€"] {
            assert_eq!(growing.rest(other).unwrap_err().kind(), Kind::NoResponse, "{other}");
        }
    }

    #[test]
    fn vectors_are_as_many_as_texts() {
        let signature = Signature {
            inputs: vec![spec("t", Datatype::Bytes, &[-1, 1])],
            outputs: vec![
                spec("v", Datatype::Fp32, &[-1, 2]),
                spec(TOKENS, Datatype::Int64, &[-1]),
            ],
            task: Some(EMBEDDING.to_owned()),
            batch: true,
        };
        let task = Embedding::of(&signature).unwrap();
        let (name, tensor) = task.input(["a", "b"].into_iter()).unwrap();
        assert_eq!((name.as_str(), tensor.shape()), ("t", &[2, 1][..]));
        let vectors = Tensor::new(Datatype::Fp32, vec![2, 2], Bytes::from(vec![0; 16])).unwrap();
        let counts = [5i64, 6].map(i64::to_le_bytes).concat();
        let counts = Tensor::new(Datatype::Int64, vec![2], counts.into()).unwrap();
        let outputs = [("v".to_owned(), vectors), (TOKENS.to_owned(), counts)];
        assert_eq!(task.vectors(&outputs, 2).unwrap().1, 2);
        assert_eq!(task.vectors(&outputs, 3).unwrap_err().kind(), Kind::NoResponse);
        assert_eq!(task.tokens(&outputs), Some(11));
    }
}
