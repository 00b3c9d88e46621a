//! The host that runs the component, through the imports of the world `model`.

use crate::bindings::modelet::model::{self as imports, types};
use crate::bindings::wasi::nn;
use crate::element::Datatype;
use crate::error::{Error, Result};

use super::Level;

/// A tensor in the host.
#[derive(Debug)]
pub struct Handle(nn::tensor::Tensor);

impl Handle {
    pub(crate) fn new(tensor: nn::tensor::Tensor) -> Self {
        Self(tensor)
    }

    pub(crate) fn into_inner(self) -> nn::tensor::Tensor {
        self.0
    }

    /// Copies elements into the host.
    pub(crate) fn make(datatype: Datatype, shape: &[usize], data: &[u8]) -> Result<Self> {
        let axis = |axis: &usize| u32::try_from(*axis).map_err(Error::from);
        let shape = shape.iter().map(axis).collect::<Result<Vec<_>>>()?;
        let tensor = imports::tensors::make(datatype_to_wit(datatype), &shape, data);
        tensor.map(Self).map_err(|problem| Error::failed(problem.message))
    }

    /// It as a tensor of this type: a real host's are what they are.
    pub(crate) fn wanted_as(self, _: Datatype) -> Self {
        self
    }

    pub(crate) fn datatype(&self) -> Datatype {
        datatype_from_wit(imports::tensors::datatype(&self.0))
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        self.0.dimensions().into_iter().map(|axis| axis as usize).collect()
    }

    /// Copies the elements into the guest.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.0.data()
    }

    /// Another handle to the same elements.
    pub(crate) fn share(&self) -> Self {
        Self(imports::tensors::share(&self.0))
    }

    /// A handle to some of the rows of axis 0, which stay where they are.
    pub(crate) fn rows(&self, start: usize, count: usize) -> Result<Self> {
        let rows = imports::tensors::rows(&self.0, u32::try_from(start)?, u32::try_from(count)?);
        rows.map(Self).map_err(|problem| Error::failed(problem.message))
    }
}

/// A graph made ready to compute.
#[derive(Debug)]
pub(crate) struct Context(nn::inference::GraphExecutionContext);

impl Context {
    pub(crate) fn load(asset: &str) -> Result<Self> {
        let graph = nn::graph::load_by_name(asset).map_err(|error| named(asset, error))?;
        graph.init_execution_context().map(Self).map_err(|error| named(asset, error))
    }

    pub(crate) fn compute(&self, inputs: Vec<(String, Handle)>) -> Result<Vec<(String, Handle)>> {
        let inputs = inputs.into_iter().map(|(name, handle)| (name, handle.0)).collect();
        let outputs = self.0.compute(inputs).map_err(|error| of_host(&error))?;
        Ok(outputs.into_iter().map(|(name, tensor)| (name, Handle(tensor))).collect())
    }
}

fn named(asset: &str, error: nn::errors::Error) -> Error {
    Error::failed(format!("graph '{asset}': {}", error.data()))
}

fn of_host(error: &nn::errors::Error) -> Error {
    use nn::errors::ErrorCode;
    match error.code() {
        ErrorCode::Timeout | ErrorCode::TooLarge => Error::unavailable(error.data()),
        _ => Error::failed(error.data()),
    }
}

pub(crate) fn asset(name: &str) -> Option<Vec<u8>> {
    imports::assets::read(name)
}

pub(crate) fn asset_names() -> Vec<String> {
    imports::assets::names()
}

pub(crate) fn setting(key: &str) -> Option<String> {
    imports::config::get(key)
}

pub(crate) fn log(level: Level, message: &str) {
    use imports::log::Level as Wit;
    let level = match level {
        Level::Trace => Wit::Trace,
        Level::Debug => Wit::Debug,
        Level::Info => Wit::Info,
        Level::Warn => Wit::Warn,
        Level::Error => Wit::Error,
    };
    imports::log::write(level, message);
}

pub(crate) fn is_streamed() -> bool {
    imports::reply::is_streamed()
}

/// Sends a partial answer, and waits while the caller does not keep up.
pub(crate) fn emit(outputs: Vec<(String, Handle)>) -> Result<()> {
    let outputs = outputs.into_iter().map(|(name, handle)| (name, handle.0)).collect();
    imports::reply::emit(outputs).map_err(|problem| {
        let error = Error::failed(problem.message);
        match problem.tensor {
            Some(tensor) => error.about(tensor),
            None => error,
        }
    })
}

/// Both ways between the datatypes of the contract and of this crate.
macro_rules! datatypes {
    ($($wit:ident = $own:ident),*) => {
        fn datatype_from_wit(datatype: types::Datatype) -> Datatype {
            match datatype { $(types::Datatype::$wit => Datatype::$own),* }
        }

        pub(crate) fn datatype_to_wit(datatype: Datatype) -> types::Datatype {
            match datatype { $(Datatype::$own => types::Datatype::$wit),* }
        }
    };
}
datatypes!(
    Boolean = Bool,
    Uint8 = Uint8,
    Uint16 = Uint16,
    Uint32 = Uint32,
    Uint64 = Uint64,
    Int8 = Int8,
    Int16 = Int16,
    Int32 = Int32,
    Int64 = Int64,
    Fp16 = Fp16,
    Fp32 = Fp32,
    Fp64 = Fp64,
    Bf16 = Bf16,
    Bytes = Bytes
);
