//! What goes wrong in the codecs: [`DecodeError`] for requests, [`EncodeError`] for answers.
//!
//! Every message is for the caller: it says what is wrong, in which tensor, and what to do, and
//! shows nothing but what the caller sent and the model's public signature.

use std::fmt;

use crate::limit::Limit;
use crate::tensor::{Datatype, TensorError, UnknownDatatype};

/// Which kind of refusal a [`DecodeError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The request is not what the protocol or the model's signature asks for.
    BadRequest,
    /// The request may be well formed, and is over a limit of this host.
    TooLarge,
    /// The budget has no room for what the request would become.
    NoRoom,
}

/// Why a request was not decoded.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DecodeError(Box<Refusal>);

impl DecodeError {
    /// Which kind of refusal it is.
    pub fn kind(&self) -> DecodeErrorKind {
        match &self.0.problem {
            Problem::TooMany { .. }
            | Problem::TooManyElements { .. }
            | Problem::Tensor(TensorError::Overflow(_)) => DecodeErrorKind::TooLarge,
            Problem::NoRoom { .. } => DecodeErrorKind::NoRoom,
            // Nesting and rank past their limits are no large request, just a wrong one.
            _ => DecodeErrorKind::BadRequest,
        }
    }

    /// The limit that the request is over, where it is over one.
    pub fn limit(&self) -> Option<Limit> {
        match &self.0.problem {
            Problem::TooMany { what, .. } => Some(what.limit()),
            Problem::TooManyElements { .. } | Problem::Tensor(TensorError::Overflow(_)) => {
                Some(Limit::TensorElements)
            }
            Problem::Rank { .. } => Some(Limit::TensorRank),
            Problem::TooDeep { .. } => Some(Limit::JsonDepth),
            Problem::NoRoom { .. } => Some(Limit::InflightBytes),
            _ => None,
        }
    }

    /// The name of the input or output that is at fault, where one is.
    pub fn tensor(&self) -> Option<&str> {
        match &self.0.subject {
            Subject::Request => None,
            Subject::Input(name) | Subject::Output(name) => Some(name),
        }
    }

    /// Where in the request it is, such as `inputs[0].data`, a header's name, or a line and column.
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }
}

/// A problem, what it is about, and where it was found.
#[derive(Debug, thiserror::Error)]
#[error("{subject}{problem}")]
struct Refusal {
    subject: Subject,
    place: Option<String>,
    problem: Problem,
}

/// What a problem is about, as the beginning of its message.
#[derive(Debug)]
enum Subject {
    Request,
    Input(String),
    Output(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Input(name) => write!(f, "input {name:?}: "),
            Self::Output(name) => write!(f, "output {name:?}: "),
        }
    }
}

/// What can be wrong with a request. Text from the caller is stored as an [`excerpt`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "the header {header} is {given:?}: give the length of the body's JSON part in bytes",
        header = super::JSON_LENGTH_HEADER
    )]
    Header { given: String },
    #[error("the JSON part is said to be {json} bytes long, and the body has {body}")]
    HeaderPastBody { json: u64, body: u64 },

    #[error("the body is empty: send a JSON object with \"inputs\"")]
    Empty,
    #[error("the JSON part is not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("the JSON part is not an inference request: {message}")]
    Json { message: String },
    #[error(
        "the JSON part holds NaN or Infinity, which JSON cannot express; send that input as \
         binary data (parameter binary_data_size)"
    )]
    NotFiniteJson,
    #[error("the JSON part nests deeper than the limit of {limit} (limits.json_depth)")]
    TooDeep { limit: usize },

    #[error("{given} {what} are over the limit of {limit} ({key})", key = .what.limit().key())]
    TooMany { what: Listed, given: usize, limit: usize },
    #[error("shape {shape} is over the limit of {limit} elements (limits.tensor_elements)")]
    TooManyElements { shape: String, limit: usize },
    #[error("{given} axes are over the limit of {limit} (limits.tensor_rank)")]
    Rank { given: usize, limit: usize },
    #[error("the host has no room for its {bytes} bytes now")]
    NoRoom { bytes: usize },

    #[error("the field {0:?} is missing")]
    MissingField(&'static str),
    #[error("the field {field:?} must be {wanted}")]
    Field { field: &'static str, wanted: &'static str },
    #[error("the parameter {name:?} must be {wanted}")]
    Parameter { name: String, wanted: &'static str },
    #[error(
        "the parameter {name:?} is reserved: names that begin with triton_ are not for callers"
    )]
    ReservedParameter { name: String },
    #[error(
        "shared memory is not enabled on this server: send the data in the request, and take \
         outputs from the answer"
    )]
    SharedMemory,

    #[error("the model has no such input; it takes {known}")]
    UnknownInput { known: String },
    #[error("it is given twice")]
    Duplicate,
    #[error("it is missing; the model takes it as {wanted}")]
    MissingInput { wanted: String },
    #[error("the model has no such output; it gives {known}")]
    UnknownOutput { known: String },
    #[error(transparent)]
    UnknownDatatype(UnknownDatatype),
    #[error("the model takes {wanted}, and the request gives {given}")]
    NotAsDeclared { wanted: String, given: String },
    #[error("shape {shape} has a negative axis: a request gives every length")]
    NegativeAxis { shape: String },
    #[error(
        "axis 0 is the batch and has length {given}, where input {other:?} has {wanted}: give all \
         inputs as many rows"
    )]
    Rows { given: usize, other: String, wanted: usize },

    #[error("it has both \"data\" and the parameter binary_data_size: give one of them")]
    DataTwice,
    #[error("it has neither \"data\" nor the parameter binary_data_size: give one of them")]
    NoData,
    #[error(
        "binary_data_size is {wanted}, and {left} bytes of binary data are left in the body; check \
         it and the header {header}",
        header = super::JSON_LENGTH_HEADER
    )]
    BinaryPastEnd { wanted: u64, left: usize },
    #[error("unexpected additional input data: {bytes} bytes follow the last binary input")]
    Leftover { bytes: usize },
    #[error(transparent)]
    Tensor(TensorError),

    #[error("{0} data cannot be given as JSON; please use the binary data format")]
    OnlyBinary(Datatype),
    #[error("\"data\" must be an array: nested to shape {shape}, or flat")]
    NotArray { shape: String },
    #[error("\"data\" holds {given} elements, and shape {shape} has {wanted}")]
    Count { given: usize, wanted: usize, shape: String },
    #[error(
        "\"data\" has {given} entries on axis {axis}, and shape {shape} has {wanted}: nest it to \
         the shape, or make it flat"
    )]
    Axis { given: usize, axis: usize, wanted: usize, shape: String },
    #[error("\"data\" is neither nested to shape {shape} nor flat")]
    Nesting { shape: String },
    #[error("element {index} is {given}, and {datatype} takes {}", takes(*.datatype))]
    Element { index: usize, given: String, datatype: Datatype },

    #[error(
        "a request without JSON (header {header}: 0) is for models of one input, and this one \
         takes {known}",
        header = super::JSON_LENGTH_HEADER
    )]
    RawInputs { known: String },
    #[error(
        "a request without JSON needs at most one axis of open length, and the model takes \
         {wanted}: name the shape in a JSON part"
    )]
    RawAxes { wanted: String },
    #[error(
        "a request without JSON is one element of BYTES, and the model takes {wanted}: send a JSON \
         part"
    )]
    RawElements { wanted: String },
    #[error("{given} bytes are not a whole number of rows of {wanted}, {row} bytes each")]
    RawBytes { given: usize, wanted: String, row: usize },

    #[error("the message is not a ModelInferRequest: {message}")]
    Message { message: String },
    #[error(
        "raw_input_contents has {raw} entries for {inputs} inputs: give one for every input, or \
         none and the contents of each"
    )]
    RawCount { raw: usize, inputs: usize },
    #[error("it has both contents and an entry of raw_input_contents: give one of them")]
    RawAndTyped,
    #[error("{0} has no typed contents: use raw_input_contents")]
    OnlyRaw(Datatype),
    #[error("{datatype} is given in {given}, and it goes into {wanted}")]
    WrongField { given: &'static str, datatype: Datatype, wanted: &'static str },
    #[error("{field} holds {given} elements, and shape {shape} has {wanted}")]
    TypedCount { given: usize, wanted: usize, shape: String, field: &'static str },
}

/// The lists of a request that have a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Inputs,
    Outputs,
    Parameters,
}

impl Listed {
    fn limit(self) -> Limit {
        match self {
            Self::Inputs => Limit::Inputs,
            Self::Outputs => Limit::Outputs,
            Self::Parameters => Limit::Parameters,
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
            Self::Parameters => "parameters",
        })
    }
}

impl Problem {
    pub(super) fn header(given: &str) -> Self {
        Self::Header { given: excerpt(given) }
    }

    /// The problem as an error about the request as a whole.
    pub(super) fn at(self, place: impl Into<String>) -> DecodeError {
        self.about(Subject::Request, Some(place.into()))
    }

    /// The problem as an error that has no one place.
    pub(super) fn anywhere(self) -> DecodeError {
        self.about(Subject::Request, None)
    }

    /// The problem as an error about an input.
    pub(super) fn in_input(self, name: &str, place: impl Into<String>) -> DecodeError {
        self.about(Subject::Input(excerpt(name)), Some(place.into()))
    }

    /// The problem as an error about a requested output.
    pub(super) fn in_output(self, name: &str, place: impl Into<String>) -> DecodeError {
        self.about(Subject::Output(excerpt(name)), Some(place.into()))
    }

    fn about(self, subject: Subject, place: Option<String>) -> DecodeError {
        DecodeError(Box::new(Refusal { subject, place, problem: self }))
    }
}

/// Which kind of failure an [`EncodeError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeErrorKind {
    /// The caller asked for an output in a form that cannot carry it.
    BadRequest,
    /// The model's answer lacks an output that its signature declares.
    GuestError,
    /// The budget has no room for the answer's JSON.
    NoRoom,
}

/// Why an answer was not encoded.
#[derive(Debug, thiserror::Error)]
#[error("output {tensor:?} {failure}")]
pub struct EncodeError {
    tensor: String,
    failure: Failure,
}

impl EncodeError {
    pub(super) fn new(tensor: &str, failure: Failure) -> Self {
        Self { tensor: tensor.to_owned(), failure }
    }

    /// Which kind of failure it is.
    pub fn kind(&self) -> EncodeErrorKind {
        match self.failure {
            Failure::NotFinite { .. }
            | Failure::NotUtf8 { .. }
            | Failure::OnlyBinary(_)
            | Failure::OnlyRaw(_)
            | Failure::NoClasses(_) => EncodeErrorKind::BadRequest,
            Failure::Missing => EncodeErrorKind::GuestError,
            Failure::NoRoom { .. } => EncodeErrorKind::NoRoom,
        }
    }

    /// The name of the output.
    pub fn tensor(&self) -> &str {
        &self.tensor
    }
}

/// What can be wrong with an output.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("is missing from the model's answer")]
    Missing,
    #[error("finds no room on the host: the answer would take {bytes} bytes of JSON")]
    NoRoom { bytes: usize },
    #[error(
        "holds NaN or infinity at element {index}, which JSON cannot express; ask for it with \
         binary_data=true"
    )]
    NotFinite { index: usize },
    #[error(
        "is not UTF-8 at element {index}, which JSON cannot express; ask for it with \
         binary_data=true"
    )]
    NotUtf8 { index: usize },
    #[error("is {0}, which JSON cannot express; ask for it with binary_data=true")]
    OnlyBinary(Datatype),
    #[error("is {0}, which has no typed contents; ask for it with binary_data=true")]
    OnlyRaw(Datatype),
    #[error("is {0}, which has no order to classify by; ask for it without classification")]
    NoClasses(Datatype),
}

/// The beginning of a caller's text, for a message: all of it could be megabytes.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What the JSON form of a datatype takes, as the end of a sentence.
fn takes(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "true and false",
        Datatype::Uint8 => "whole numbers from 0 to 255",
        Datatype::Uint16 => "whole numbers from 0 to 65535",
        Datatype::Uint32 => "whole numbers from 0 to 4294967295",
        Datatype::Uint64 => "whole numbers from 0 to 18446744073709551615",
        Datatype::Int8 => "whole numbers from -128 to 127",
        Datatype::Int16 => "whole numbers from -32768 to 32767",
        Datatype::Int32 => "whole numbers from -2147483648 to 2147483647",
        Datatype::Int64 => "whole numbers from -9223372036854775808 to 9223372036854775807",
        Datatype::Fp32 => "numbers up to 3.4028235e38",
        Datatype::Fp64 => "numbers up to 1.7976931348623157e308",
        Datatype::Fp16 | Datatype::Bf16 => "binary data only",
        Datatype::Bytes => "strings",
    }
}
