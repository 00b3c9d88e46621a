//! Partial answers, for callers that asked for a stream.
//!
//! ```
//! use modelet_guest::{Result, Tensor, model, reply};
//!
//! struct Counter;
//!
//! #[model]
//! impl Counter {
//!     fn load() -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     /// Counts up to `to`, and tells of every number as it comes to it.
//!     #[output("number", [1])]
//!     fn infer(&mut self, #[input([1])] to: Tensor<i64>) -> Result<Tensor<i64>> {
//!         let to = to.data()[0];
//!         for number in 0..to {
//!             if reply::is_streamed() {
//!                 reply::output("number", &Tensor::vector(vec![number])).emit()?;
//!             }
//!         }
//!         Ok(Tensor::vector(vec![to]))
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! use modelet_guest::testing::{Host, call};
//!
//! let host = Host::new().streamed().install();
//! let mut outputs = call(&mut Counter, vec![("to", Tensor::vector(vec![3i64]).into())])?;
//! assert_eq!(outputs.take::<i64>("number")?.data(), [3]);
//! let numbers = host.emitted().into_iter().map(|mut partial| partial.take::<i64>("number"));
//! let numbers = numbers.collect::<Result<Vec<_>>>()?;
//! assert_eq!(numbers.iter().flat_map(|number| number.data()).collect::<Vec<_>>(), [&0, &1, &2]);
//! # Ok(())
//! # }
//! ```

use crate::element::Element;
use crate::error::Result;
use crate::host::{self, Handle};
use crate::tensor::Tensor;

/// Whether the caller asked for a stream, so that there is somebody to emit to.
pub fn is_streamed() -> bool {
    host::is_streamed()
}

/// Begins a partial answer with one of the model's outputs.
pub fn output<T: Element>(name: &str, tensor: &Tensor<T>) -> Partial {
    Partial { outputs: Ok(Vec::new()) }.output(name, tensor)
}

/// A partial answer that has not been sent.
#[must_use = "nothing is sent until `emit`"]
#[derive(Debug)]
pub struct Partial {
    outputs: Result<Vec<(String, Handle)>>,
}

impl Partial {
    /// Puts another of the model's outputs in. One that came from the host is not copied.
    pub fn output<T: Element>(mut self, name: &str, tensor: &Tensor<T>) -> Self {
        if let Ok(outputs) = &mut self.outputs {
            match tensor.to_handle() {
                Ok(handle) => outputs.push((name.to_owned(), handle)),
                Err(error) => self.outputs = Err(error.about(name)),
            }
        }
        self
    }

    /// Sends it. While the caller does not keep up, this waits; when the caller leaves, the call ends
    /// here, as anywhere else.
    ///
    /// # Errors
    /// When the caller asked for no stream, or the model declares no such outputs.
    pub fn emit(self) -> Result<()> {
        host::emit(self.outputs?)
    }
}
