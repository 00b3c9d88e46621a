//! Why a version cannot be made ready, and whose fault it is.

use std::sync::Arc;

use super::super::call::DescribeError;
use super::super::compile::CompileError;
use crate::checks::Check;
use crate::nn::graph::GraphError;

/// Why a version cannot be made ready.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum LoadError {
    #[error("{0}")]
    Component(Arc<CompileError>),
    #[error("the component does not fit the world it is written for: {0}")]
    Link(String),
    #[error("the component does not fit the pool of instances: {0}")]
    Room(String),
    #[error("{0}")]
    Graph(Arc<GraphError>),
    #[error("{0}")]
    Describe(Arc<DescribeError>),
    #[error("the component cannot be read: {0}")]
    Blob(String),
    #[error("loading the version was interrupted")]
    Interrupted,
    #[error("it is still being loaded")]
    StillLoading,
    #[error(
        "its graphs take {wanted} bytes, and the graphs in use leave {left} of {limit} (compute.resident_graph_bytes)"
    )]
    GraphsFull { wanted: u64, left: u64, limit: u64 },
    #[error(
        "instances kept even when idle (min_instances), those of other versions included, would take {0}"
    )]
    Minima(String),
    #[error("{0}")]
    Quarantined(Arc<String>),
}

impl LoadError {
    /// The check that the package does not pass, so that publishing it again as it is cannot help;
    /// none where the host is at fault.
    pub fn check(&self) -> Option<Check> {
        match self {
            Self::Component(error) => match &**error {
                CompileError::Refused(refusal) => Some(refusal.check),
                CompileError::Worker(_)
                | CompileError::Broken(_)
                | CompileError::Store(_)
                | CompileError::Load(_) => None,
            },
            Self::Link(_) => Some(Check::Types),
            Self::Room(_) | Self::Minima(_) => Some(Check::Pool),
            Self::Graph(error) => error.check(),
            Self::Describe(error) => error.check(),
            Self::Blob(_)
            | Self::Interrupted
            | Self::StillLoading
            | Self::GraphsFull { .. }
            | Self::Quarantined(_) => None,
        }
    }
}
