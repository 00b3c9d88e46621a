//! One input of a call: what was typed, matched with what the model says of it.

use std::fs;
use std::path::Path;

use modelet_host::tensor::{Datatype, ShapeText};
use modelet_host::version::TensorSpec;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::shape;
use crate::body::{self, OpenFile};
use crate::failure::Failure;

/// How the text behind `NAME=` is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// JSON, or `@FILE` with JSON in it.
    Json,
    /// `FILE[:SHAPE]` with raw little-endian elements.
    File,
}

/// An input that is ready to be sent.
#[derive(Debug)]
pub(super) struct Input<'a> {
    spec: &'a TensorSpec,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// As it was typed, so that no digit is lost.
    Json(Box<RawValue>),
    File(OpenFile),
}

/// An input in the JSON part of the request.
#[derive(Debug, Serialize)]
pub(super) struct Head<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// Says that the input's data stands behind the JSON part, and how much it is.
#[derive(Debug, Serialize)]
struct BinarySize {
    binary_data_size: u64,
}

impl<'a> Input<'a> {
    /// Reads `NAME=...` for one of `specs`.
    ///
    /// # Errors
    /// When the model has no such input, the data cannot be read, or no shape fits it.
    pub(super) fn read(
        given: &str,
        source: Source,
        specs: &'a [TensorSpec],
    ) -> Result<Self, Failure> {
        let (spec, text) = split(given, specs)?;
        let read = match source {
            Source::Json => read_json(spec, text),
            Source::File => read_file(spec, text),
        };
        read.map(|(shape, data)| Self { spec, shape, data })
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(super) fn head(&self) -> Head<'_> {
        let (parameters, data) = match &self.data {
            Data::Json(json) => (None, Some(&**json)),
            Data::File(file) => (Some(BinarySize { binary_data_size: file.length() }), None),
        };
        let (name, datatype) = (self.spec.name.as_str(), self.spec.datatype);
        Head { name, datatype, shape: &self.shape, parameters, data }
    }

    /// The file whose bytes go behind the JSON part.
    pub(super) fn into_file(self) -> Option<OpenFile> {
        match self.data {
            Data::Json(_) => None,
            Data::File(file) => Some(file),
        }
    }
}

/// Splits `NAME=...` at the model's own names, since a name may itself hold a `=`.
fn split<'a, 'b>(
    given: &'b str,
    specs: &'a [TensorSpec],
) -> Result<(&'a TensorSpec, &'b str), Failure> {
    let rest = |spec: &TensorSpec| given.strip_prefix(spec.name.as_str())?.strip_prefix('=');
    let matches = specs.iter().filter_map(|spec| Some((spec, rest(spec)?)));
    if let Some(longest) = matches.max_by_key(|(spec, _)| spec.name.len()) {
        return Ok(longest);
    }
    let name = given.split_once('=').map_or(given, |(name, _)| name);
    let known = specs.iter().map(|spec| format!("{} ({})", spec.name, spec.describe()));
    Err(Failure::usage(format!(
        "the model has no input '{}'",
        name.chars().take(80).collect::<String>()
    ))
    .remedy(format!("write NAME=... with one of: {}", known.collect::<Vec<_>>().join(", "))))
}

fn read_json(spec: &TensorSpec, text: &str) -> Result<(Vec<usize>, Data), Failure> {
    let wrong = |problem: &str| {
        Failure::usage(format!("the JSON of input '{}' cannot be used: {problem}", spec.name))
            .remedy(format!(
                "it is {}; nest the JSON to that shape, or give it flat",
                spec.describe()
            ))
    };
    let from_file = match text.strip_prefix('@').map(Path::new) {
        None => None,
        Some(path) => {
            Some(fs::read_to_string(path).map_err(|error| body::unreadable(path, &error))?)
        }
    };
    let text = from_file.as_deref().unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    let shape = shape::of_json(&spec.shape, &value).map_err(|problem| wrong(&problem))?;
    let raw =
        RawValue::from_string(text.trim().to_owned()).map_err(|error| wrong(&error.to_string()))?;
    // The protocol's data is always an array, also that of a scalar.
    let raw = if value.is_array() { Ok(raw) } else { RawValue::from_string(format!("[{raw}]")) };
    Ok((shape, Data::Json(raw.map_err(|error| wrong(&error.to_string()))?)))
}

fn read_file(spec: &TensorSpec, text: &str) -> Result<(Vec<usize>, Data), Failure> {
    let typed = text.rsplit_once(':').and_then(|(path, text)| Some((path, shape::parse(text)?)));
    let path = Path::new(typed.as_ref().map_or(text, |(path, _)| path));
    let wrong = |problem: String| {
        Failure::usage(format!("'{}' cannot be input '{}': {problem}", path.display(), spec.name))
            .at(format!("input '{}' is {}", spec.name, spec.describe()))
            .remedy("give raw little-endian elements of that datatype, as NAME=FILE:SHAPE")
    };
    let file = body::open(path)?;
    let Some(size) = spec.datatype.size() else {
        // Elements of BYTES have lengths of their own; counting them is the server's.
        let shape = typed.map_or_else(|| shape::smallest(&spec.shape), |(_, shape)| shape);
        return Ok((shape, Data::File(file)));
    };
    let length = usize::try_from(file.length()).unwrap_or(usize::MAX);
    if !length.is_multiple_of(size) {
        return Err(wrong(format!("{length} bytes are no whole number of {size}-byte elements")));
    }
    let count = length / size;
    let shape = match typed {
        None => shape::of_elements(&spec.shape, count).map_err(wrong)?,
        Some((_, shape)) if shape::product(&shape) == Some(count) => shape,
        Some((_, shape)) => {
            return Err(wrong(format!(
                "{count} elements do not fill the shape {}",
                ShapeText(&shape)
            )));
        }
    };
    Ok((shape, Data::File(file)))
}
