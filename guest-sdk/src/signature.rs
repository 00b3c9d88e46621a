//! What a model takes and gives.

use crate::element::Datatype;

/// One tensor that a model takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name callers use.
    pub name: &'static str,
    /// The type of every element.
    pub datatype: Datatype,
    /// The length of each axis, -1 where it may vary; empty for a scalar.
    pub shape: &'static [i64],
}

/// What a model takes and gives, as the macro `model` reads it off `infer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The tensors a call must bring.
    pub inputs: Vec<TensorSpec>,
    /// The tensors an answer carries.
    pub outputs: Vec<TensorSpec>,
    /// Whether axis 0 of every input and output is one batch of independent rows.
    pub batch: bool,
    /// The standard task it serves, if it serves one.
    pub task: Option<&'static str>,
}

/// A model: what `#[model]` makes of an `impl` block.
pub trait Model: Sized + 'static {
    /// What it takes and gives.
    fn signature() -> Signature;
    #[doc(hidden)]
    fn load_model() -> crate::Result<Self>;
    #[doc(hidden)]
    fn call(&mut self, inputs: crate::export::Inputs) -> crate::Result<crate::export::Answer>;
}
