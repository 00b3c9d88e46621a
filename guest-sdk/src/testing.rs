//! A host for tests on the author's machine, with a fake engine or a real one.

use std::rc::Rc;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::Handle;
pub use crate::host::Level;
use crate::host::native::{self, Engine, Surroundings};
use crate::tensor::Tensor;

/// A host to be set up: assets, settings and graphs of the version under test.
///
/// ```
/// use modelet_guest::testing::{Host, Inputs};
/// use modelet_guest::{Graph, Tensor, assets};
///
/// let double = |inputs: &mut Inputs| {
///     let x = inputs.take::<f32>("x")?;
///     let doubled = x.data().iter().map(|x| x * 2.0).collect();
///     Ok(vec![("y", Tensor::new(x.shape(), doubled)?.into())])
/// };
/// let _host = Host::new().asset("labels.txt", "cat\ndog").graph("model.onnx", double).install();
///
/// assert_eq!(assets::text("labels.txt")?, "cat\ndog");
/// let graph = Graph::load("model.onnx")?;
/// let y = graph.run().input("x", &Tensor::vector(vec![1.0f32])).compute()?.take::<f32>("y")?;
/// assert_eq!(y.data(), [2.0]);
/// # Ok::<(), modelet_guest::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a host is used once it is installed"]
pub struct Host {
    surroundings: Surroundings,
}

impl Host {
    /// A host with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ships an asset.
    pub fn asset(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.surroundings.assets.insert(name.to_owned(), bytes.into());
        self
    }

    /// Sets a key that the model may read.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.surroundings.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Has the caller ask for a stream.
    pub fn streamed(mut self) -> Self {
        self.surroundings.streamed = true;
        self
    }

    /// Has `compute` answer for the graph in the asset of this name.
    pub fn graph<F>(mut self, asset: &str, compute: F) -> Self
    where
        F: Fn(&mut Inputs) -> Result<Vec<(&'static str, Output)>> + 'static,
    {
        self.surroundings.graphs.insert(asset.to_owned(), Rc::new(Fake(compute)));
        self
    }

    /// Has rten, a real engine, run an ONNX graph under this asset's name.
    ///
    /// # Errors
    /// When rten cannot load it.
    #[cfg(feature = "rten")]
    pub fn onnx(mut self, asset: &str, graph: &[u8]) -> Result<Self> {
        let engine = crate::engine::Rten::load(graph)?;
        self.surroundings.graphs.insert(asset.to_owned(), Rc::new(engine));
        Ok(self.asset(asset, graph))
    }

    /// Makes it the host of this thread until what this gives is dropped.
    pub fn install(self) -> Installed {
        let host = Rc::new(self.surroundings);
        let before = native::replace(Rc::clone(&host));
        Installed { host, before }
    }
}

/// A host in use by this thread.
#[must_use = "the host is gone when this is dropped"]
pub struct Installed {
    host: Rc<Surroundings>,
    before: Rc<Surroundings>,
}

impl Installed {
    /// What the model has logged.
    pub fn log(&self) -> Vec<(Level, String)> {
        self.host.lines.borrow().clone()
    }

    /// The partial answers that the model has emitted, each by the names of its outputs.
    pub fn emitted(&self) -> Vec<crate::Outputs> {
        let emitted = self.host.emitted.borrow();
        emitted.iter().map(|outputs| crate::Outputs::new("the model", outputs.clone())).collect()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        native::replace(Rc::clone(&self.before));
    }
}

/// What a graph was given, by name.
pub struct Inputs(Vec<(String, Handle)>);

impl Inputs {
    /// Takes the input of this name.
    ///
    /// # Errors
    /// When there is none (any more), or its elements are of another type.
    pub fn take<T: Element>(&mut self, name: &str) -> Result<Tensor<T>> {
        let place = self.0.iter().position(|(given, _)| given == name);
        let place = place.ok_or_else(|| Error::failed(format!("there is no input '{name}'")))?;
        Tensor::from_handle(self.0.swap_remove(place).1, None).map_err(|error| error.about(name))
    }
}

/// A tensor of any type, that a fake graph gives or a model is called with.
pub struct Output(Result<Handle>);

impl<T: Element> From<Tensor<T>> for Output {
    fn from(tensor: Tensor<T>) -> Self {
        Self(tensor.to_handle())
    }
}

struct Fake<F>(F);

impl<F> Engine for Fake<F>
where
    F: Fn(&mut Inputs) -> Result<Vec<(&'static str, Output)>>,
{
    fn compute(&self, inputs: Vec<(String, Handle)>) -> Result<Vec<(String, Handle)>> {
        let outputs = (self.0)(&mut Inputs(inputs))?;
        outputs.into_iter().map(|(name, output)| Ok((name.to_owned(), output.0?))).collect()
    }
}

/// Calls a model as a host does: by the names of its tensors.
///
/// # Errors
/// What a caller would be told.
pub fn call<M: crate::Model>(
    model: &mut M,
    inputs: Vec<(&'static str, Output)>,
) -> Result<crate::Outputs> {
    let named = |(name, input): (&str, Output)| Ok((name.to_owned(), input.0?));
    let inputs = inputs.into_iter().map(named).collect::<Result<_>>()?;
    let answer = model.call(crate::export::Inputs::new(inputs))?;
    Ok(crate::Outputs::new("the model", answer.into_tensors()))
}

/// A tensor as `infer` gets it from a host: with the name that it has in errors.
///
/// # Errors
/// What the host would answer in the model's stead: elements that are none of their type.
pub fn input<T: Element>(name: &str, tensor: &Tensor<T>) -> Result<Tensor<T>> {
    Tensor::from_handle(tensor.to_handle()?, Some(name))
}
