//! The limits of one request, each with its default and the reason for it.

use super::document::PARSED_ENTRIES;
use crate::tensor::MAX_RANK;

/// Nesting of the JSON part. Triton's own limit; a tensor of the highest rank nests 32 deep, and
/// what is around it some four.
pub const DEFAULT_MAX_JSON_DEPTH: usize = 100;
/// Elements of one input: what a body of 64 MiB, the usual limit, holds of the smallest datatype.
/// An input of more can only be a mistake, or JSON that would grow eightfold when decoded.
pub const DEFAULT_MAX_TENSOR_ELEMENTS: usize = 64 << 20;
/// Inputs of one request: a language model with a key and a value for each of a hundred layers
/// stays below.
pub const DEFAULT_MAX_INPUTS: usize = 512;
/// Outputs asked for by one request; such a model returns its caches too.
pub const DEFAULT_MAX_OUTPUTS: usize = 512;
/// Parameters of a request, an input or an output: clients send fewer than ten.
pub const DEFAULT_MAX_PARAMETERS: usize = 64;

const _: () = assert!(
    DEFAULT_MAX_INPUTS <= PARSED_ENTRIES
        && DEFAULT_MAX_OUTPUTS <= PARSED_ENTRIES
        && DEFAULT_MAX_PARAMETERS <= PARSED_ENTRIES,
    "what a limit lets through must also be parsed"
);

/// How large a request's parts may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Arrays and objects inside each other in the JSON part, those in text fields not counted.
    pub json_depth: usize,
    /// Elements of one input tensor, and the length of any one axis.
    pub tensor_elements: usize,
    /// Axes of one input tensor, at most [`MAX_RANK`].
    pub rank: usize,
    /// Inputs of one request, at most 1024.
    pub inputs: usize,
    /// Outputs asked for by one request, at most 1024.
    pub outputs: usize,
    /// Parameters of a request, of an input or of an output, at most 1024 each.
    pub parameters: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            json_depth: DEFAULT_MAX_JSON_DEPTH,
            tensor_elements: DEFAULT_MAX_TENSOR_ELEMENTS,
            rank: MAX_RANK,
            inputs: DEFAULT_MAX_INPUTS,
            outputs: DEFAULT_MAX_OUTPUTS,
            parameters: DEFAULT_MAX_PARAMETERS,
        }
    }
}

/// Where the memory comes from that a codec is about to take beyond what it was given. Asked before
/// anything is allocated; a codec that is refused returns an error of the kind `NoRoom`.
pub trait Budget {
    /// Takes room for so many bytes; false if there is none.
    fn take(&mut self, bytes: usize) -> bool;
}

/// A budget without an end, for what is bounded otherwise.
pub struct Unlimited;

impl Budget for Unlimited {
    fn take(&mut self, _bytes: usize) -> bool {
        true
    }
}

impl<F: FnMut(usize) -> bool> Budget for F {
    fn take(&mut self, bytes: usize) -> bool {
        self(bytes)
    }
}
