//! Everything a Modelet server does, as a library.
//!
//! Modules stand in the order a reader needs them.

pub mod digest;
pub mod names;
pub mod tensor;
pub mod version;
