//! The seam to the host: the real one in WebAssembly, a stand-in on the author's machine.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::Context;
#[cfg(not(target_arch = "wasm32"))]
pub use native::Handle;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{asset, asset_names, emit, is_streamed, log, setting};
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::Context;
#[cfg(target_arch = "wasm32")]
pub use wasm::Handle;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{asset, asset_names, datatype_to_wit, emit, is_streamed, log, setting};

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever debugs the model.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}
