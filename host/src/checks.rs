//! The checks that a package passes before it is visible, by name and in their order: what metrics
//! count refusals by, and what `modelet inspect` lists.

use serde::{Deserialize, Serialize};

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The upload is whole and its parts are what they say.
    Upload,
    /// The component has bytes, and not too many.
    Size,
    /// It is a component in binary form.
    Binary,
    /// It is valid.
    Valid,
    /// It has no more parts than any real component.
    Counts,
    /// It imports what this host offers and exports what a model must.
    World,
    /// It compiles within its limits.
    Compile,
    /// It fits the pool of instances.
    Pool,
    /// What it imports and exports has the world's types.
    Types,
    /// The graph is an ONNX model within its limits.
    GraphFormat,
    /// What it names as external data are assets beside it.
    GraphFiles,
    /// The engine loads it.
    GraphLoad,
    /// It runs once on made-up inputs without harm.
    GraphRun,
    /// An instance starts.
    Start,
    /// It describes itself.
    Describe,
    /// What it describes can be served.
    Signature,
    /// The registry takes the version.
    Registry,
}

impl Check {
    /// The checks of a component by itself, in their order.
    pub const OF_COMPONENT: [Self; 11] = [
        Self::Size,
        Self::Binary,
        Self::Valid,
        Self::Counts,
        Self::World,
        Self::Compile,
        Self::Pool,
        Self::Types,
        Self::Start,
        Self::Describe,
        Self::Signature,
    ];

    /// The checks of a graph, in their order.
    pub const OF_GRAPH: [Self; 4] =
        [Self::GraphFormat, Self::GraphFiles, Self::GraphLoad, Self::GraphRun];

    /// The spelling in answers and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Size => "size",
            Self::Binary => "binary",
            Self::Valid => "valid",
            Self::Counts => "counts",
            Self::World => "world",
            Self::Compile => "compile",
            Self::Pool => "pool",
            Self::Types => "types",
            Self::GraphFormat => "graph_format",
            Self::GraphFiles => "graph_files",
            Self::GraphLoad => "graph_load",
            Self::GraphRun => "graph_run",
            Self::Start => "start",
            Self::Describe => "describe",
            Self::Signature => "signature",
            Self::Registry => "registry",
        }
    }

    /// What passing it means, for people.
    pub const fn claim(self) -> &'static str {
        match self {
            Self::Upload => "the upload is whole",
            Self::Size => "it is not empty and not too large",
            Self::Binary => "it is a component in binary form",
            Self::Valid => "it is valid WebAssembly",
            Self::Counts => "it has no more parts than any real component",
            Self::World => "it imports what the host offers and exports what a model must",
            Self::Compile => "it compiles within the limits",
            Self::Pool => "it fits the pool of instances",
            Self::Types => "its imports and exports have the world's types",
            Self::GraphFormat => "it is an ONNX model within the limits",
            Self::GraphFiles => "its external data is beside it",
            Self::GraphLoad => "the engine loads it",
            Self::GraphRun => "it runs once on made-up inputs within the limits",
            Self::Start => "an instance starts",
            Self::Describe => "it describes itself",
            Self::Signature => "its signature can be served",
            Self::Registry => "the registry takes it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_spelled_alike_everywhere() {
        for check in Check::OF_COMPONENT.into_iter().chain(Check::OF_GRAPH) {
            assert_eq!(serde_json::to_value(check).unwrap(), check.as_str());
            assert!(!check.claim().is_empty());
        }
        assert!(Check::OF_COMPONENT.is_sorted() && Check::OF_GRAPH.is_sorted());
    }
}
