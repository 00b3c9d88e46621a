//! Write a model for Modelet: a struct, what it loads, what it takes and gives.
//!
//! ```
//! use modelet_guest::{Graph, Result, Tensor, model};
//!
//! struct Doubler {
//!     graph: Graph,
//! }
//!
//! #[model]
//! impl Doubler {
//!     /// Once per instance.
//!     fn load() -> Result<Self> {
//!         Ok(Self { graph: Graph::load("model.onnx")? })
//!     }
//!
//!     /// Once per call. Callers know the tensors by these names, datatypes and shapes.
//!     #[output("y", [-1, 4])]
//!     fn infer(&mut self, #[input([-1, 4])] x: Tensor<f32>) -> Result<Tensor<f32>> {
//!         self.graph.run().input("x", &x).compute()?.take("y")
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! `modelet build` makes a component of it, `modelet publish` a version that any client of the Open
//! Inference Protocol can call. On the author's machine the same code runs under `cargo test`, against
//! the host of [`testing`].

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
mod element;
#[cfg(all(feature = "rten", not(target_arch = "wasm32")))]
mod engine;
mod error;
#[doc(hidden)]
pub mod export;
mod graph;
mod host;
#[cfg(all(feature = "getrandom", target_arch = "wasm32"))]
mod randomness;
pub mod reply;
mod scores;
mod signature;
mod surroundings;
pub mod tasks;
mod tensor;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use element::{Datatype, Element};
pub use error::{BadInput, Error, Result};
pub use graph::{Graph, Outputs, Run};
#[doc(hidden)]
pub use host::Handle;
pub use modelet_guest_macro::model;
pub use scores::highest;
pub use signature::{Model, Signature, TensorSpec};
pub use surroundings::{assets, config, log};
pub use tensor::Tensor;
#[doc(hidden)]
pub use tensor::{Input, Outputs as ModelOutputs};
