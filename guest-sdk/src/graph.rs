//! Graphs: assets that the host's engine runs.

use std::collections::BTreeMap;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::{Context, Handle};
use crate::tensor::Tensor;

/// A graph of this version, loaded once per host and shared by all instances.
#[derive(Debug)]
pub struct Graph {
    asset: String,
    context: Context,
}

impl Graph {
    /// The graph in the asset of this name, such as `model.onnx`.
    ///
    /// # Errors
    /// When the version has no such asset, or the engine cannot run it.
    pub fn load(asset: &str) -> Result<Self> {
        Ok(Self { asset: asset.to_owned(), context: Context::load(asset)? })
    }

    /// A run of it, to be given its inputs.
    ///
    /// ```no_run
    /// # use modelet_guest::{Graph, Result, Tensor};
    /// # fn example(graph: &Graph, ids: Tensor<i64>, mask: Tensor<i64>) -> Result<Tensor<f32>> {
    /// let mut outputs = graph.run().input("input_ids", &ids).input("mask", &mask).compute()?;
    /// outputs.take("embedding")
    /// # }
    /// ```
    pub fn run(&self) -> Run<'_> {
        Run { graph: self, inputs: Ok(Vec::new()) }
    }
}

/// A run of a graph that has not begun.
#[must_use = "a run does nothing until `compute`"]
#[derive(Debug)]
pub struct Run<'a> {
    graph: &'a Graph,
    inputs: Result<Vec<(String, Handle)>>,
}

impl Run<'_> {
    /// Gives it a tensor. One that came from the host, as inputs of the model and outputs of graphs do,
    /// is not copied.
    pub fn input<T: Element>(mut self, name: &str, tensor: &Tensor<T>) -> Self {
        if let Ok(inputs) = &mut self.inputs {
            match tensor.to_handle() {
                Ok(handle) => inputs.push((name.to_owned(), handle)),
                Err(error) => self.inputs = Err(error.about(name)),
            }
        }
        self
    }

    /// Runs the graph.
    ///
    /// # Errors
    /// What the engine refuses: a name, datatype or shape that the graph does not take, or a run that
    /// failed or took too long.
    pub fn compute(self) -> Result<Outputs> {
        let outputs = self.graph.context.compute(self.inputs?)?;
        let asset = self.graph.asset.clone();
        Ok(Outputs { asset, handles: outputs.into_iter().collect() })
    }
}

/// What a run gave, by name.
#[derive(Debug)]
pub struct Outputs {
    asset: String,
    handles: BTreeMap<String, Handle>,
}

impl Outputs {
    /// What `asset` gave.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(asset: &str, outputs: Vec<(String, Handle)>) -> Self {
        Self { asset: asset.to_owned(), handles: outputs.into_iter().collect() }
    }

    /// Takes the output of this name. Its elements stay in the host until somebody looks.
    ///
    /// # Errors
    /// When there is none (any more), or its elements are of another type.
    pub fn take<T: Element>(&mut self, name: &str) -> Result<Tensor<T>> {
        let handle = self.handles.remove(name).ok_or_else(|| {
            let names: Vec<_> = self.handles.keys().collect();
            Error::failed(format!("{} gave no output '{name}'; there are {names:?}", self.asset))
        })?;
        Tensor::from_handle(handle, None).map_err(|error| error.about(name))
    }

    /// The names of the outputs that have not been taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.handles.keys().map(String::as_str)
    }
}
