//! The commands of model authors: a new project, its component, its package, and the loop around them.

pub(crate) mod build;
pub(crate) mod dev;
pub(crate) mod new;
pub(crate) mod package;
pub(crate) mod shell;
mod toolchain;
