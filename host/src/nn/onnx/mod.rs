//! Reads ONNX model files: what a graph takes and gives, which operators it uses, and where its
//! weights stand.
//!
//! A graph is native code's input, outside every sandbox, so it is read here first. An engine gets
//! only the bytes that [`Onnx::resolve_external`] gives, in which no location of any file is left:
//! an engine that is handed a location opens it, whoever wrote it.

mod bounded;
#[cfg(test)]
pub(crate) mod build;
pub mod elements;
mod external;
pub mod limits;
pub mod proto;
mod rows;
mod signature;
mod walk;

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::names::{AssetName, NameError};
use crate::version::Signature;
use external::External;
use proto::ModelProto;

/// A parsed model. Its weights are views of the bytes it was parsed from.
#[derive(Debug, Clone)]
pub struct Onnx {
    /// The file as it came.
    bytes: Bytes,
    /// The same, decoded.
    model: ModelProto,
    /// The tensors whose data is elsewhere, in the order the walk meets them.
    external: Vec<External>,
}

/// An operator: the set it belongs to and its name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operator {
    /// The operator set, such as `com.microsoft`; the default one is always spelled `ai.onnx`.
    pub domain: String,
    /// The name, such as `Conv`.
    pub op_type: String,
}

impl Operator {
    /// An operator as a node spells it: an absent or empty domain is `ai.onnx`.
    pub fn new(domain: &str, op_type: &str) -> Self {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        Self { domain: domain.to_owned(), op_type: op_type.to_owned() }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.domain, self.op_type)
    }
}

/// Why some bytes are not a model that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum OnnxError {
    #[error(
        "the model has {bytes} bytes, with external data inlined, and the limit is {}",
        limits::MAX_MODEL_BYTES
    )]
    TooLarge { bytes: u64 },
    #[error("not an ONNX model: {problem}")]
    Malformed { problem: String },
    #[error("the model nests messages deeper than the limit of {}", limits::MAX_NESTING)]
    Nesting,
    #[error("the model has more nodes than the limit of {}", limits::MAX_NODES)]
    Nodes,
    #[error(
        "the model's structure would take more than the limit of {} bytes of memory",
        limits::MAX_STRUCTURE_BYTES
    )]
    Structure,
    #[error("graph {direction} {name:?} cannot be served: {problem}")]
    Unservable { direction: Direction, name: String, problem: String },
    #[error("tensor {tensor:?} cannot be: {problem}")]
    Tensor { tensor: String, problem: String },
    #[error(
        "tensor {tensor:?} has its data in {location:?}: external data must name an asset of the same version; {source}"
    )]
    Location { tensor: String, location: String, source: NameError },
    #[error("tensor {tensor:?} has its data in {location:?}, and the version has no such asset")]
    MissingAsset { tensor: String, location: AssetName },
    #[error("tensor {tensor:?} says wrongly where its data is: {problem}")]
    ExternalData { tensor: String, problem: String },
}

impl OnnxError {
    fn malformed(problem: String) -> Self {
        Self::Malformed { problem }
    }
}

/// Whether a value goes into a graph or comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It goes in.
    Input,
    /// It comes out.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

impl Onnx {
    /// Parses a model file, within the limits of [`limits`].
    ///
    /// # Errors
    /// When the bytes are no ONNX model or go beyond a limit. Where external data stands is not
    /// judged here; see [`Self::external_files`].
    pub fn parse(bytes: Bytes) -> Result<Self, OnnxError> {
        limits::check(&bytes).map_err(|error| explain(error, &bytes))?;
        let mut model = ModelProto::decode(bytes.clone())
            .map_err(|error| explain(OnnxError::malformed(error.to_string()), &bytes))?;
        if model.graph.is_none() {
            return Err(explain(OnnxError::malformed("it holds no graph".to_owned()), &bytes));
        }
        let mut external = Vec::new();
        walk::tensors(&mut model, &mut |tensor| {
            if let Some(problem) = elements::impossible(&tensor.dims, tensor.data_type()) {
                return Err(OnnxError::Tensor { tensor: tensor.name().to_owned(), problem });
            }
            external.extend(External::of(tensor)?);
            Ok(())
        })?;
        Ok(Self { bytes, model, external })
    }

    /// The model, decoded.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// What the graph takes and gives, as it declares them.
    ///
    /// Inputs are the graph's inputs that have no initializer. An axis without a fixed length is
    /// -1, and an output without a shape is `[-1]`: what the engine returns is the truth for
    /// outputs. `batch` is set where axis 0 of every input and output carries one and the same
    /// name.
    ///
    /// # Errors
    /// When an input or output is no dense tensor, has no name, has elements that callers have no
    /// datatype for, or is an input whose rank is not known.
    pub fn signature(&self) -> Result<Signature, OnnxError> {
        signature::of(self.model.graph.as_ref())
    }

    /// Every operator that an engine must have: those of subgraphs and function bodies too, without
    /// the functions that the model itself defines.
    pub fn operators(&self) -> BTreeSet<Operator> {
        walk::operators(&self.model)
    }

    /// Whether the work of one run follows from the shapes of its inputs alone: no value in them makes
    /// it longer.
    pub fn is_bounded(&self) -> bool {
        bounded::is_bounded(&self.model)
    }

    /// Proves that each output's row follows from the same row of the inputs alone, so that rows of
    /// several callers may share a run.
    ///
    /// # Errors
    /// Why that is not so, or cannot be proven.
    pub fn rows_stay_apart(&self) -> Result<(), String> {
        if !self.signature().is_ok_and(|signature| signature.batch) {
            return Err("axis 0 of its inputs and outputs does not carry one name".to_owned());
        }
        rows::stay_apart(&self.model)
    }

    /// The assets that hold weights of this model.
    ///
    /// # Errors
    /// When a tensor names no location, or one that cannot be an asset: an absolute path, one with
    /// `..`, a backslash or an empty segment.
    pub fn external_files(&self) -> Result<BTreeSet<AssetName>, OnnxError> {
        self.external.iter().map(External::asset).collect()
    }

    /// The model as an engine may have it: all external data inside, no location left. A model
    /// without external data is the very bytes it was parsed from.
    ///
    /// # Errors
    /// When `assets` does not know a location, when an offset or length lies outside its asset,
    /// when a length is not what the tensor's shape takes, or when the whole exceeds
    /// [`limits::MAX_MODEL_BYTES`].
    pub fn resolve_external(
        self,
        assets: &dyn Fn(&AssetName) -> Option<Bytes>,
    ) -> Result<Bytes, OnnxError> {
        if self.external.is_empty() {
            return Ok(self.bytes);
        }
        external::inline(self.model, self.bytes.len(), assets)
    }
}

/// Names the formats that are taken for ONNX most often.
fn explain(error: OnnxError, bytes: &[u8]) -> OnnxError {
    let problem = if bytes.get(4..8) == Some(b"ORTM") {
        "this is ONNX Runtime's own .ort format; give the .onnx file it was made from"
    } else if bytes.starts_with(b"GGUF") {
        "this is a GGUF file; convert it to ONNX first"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "this is a zip archive, as PyTorch writes; export it to ONNX first"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "this is a Git LFS pointer; fetch the file it points to"
    } else if bytes.is_empty() {
        "it is empty"
    } else {
        return error;
    };
    OnnxError::malformed(problem.to_owned())
}

#[cfg(test)]
mod tests;
