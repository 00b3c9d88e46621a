//! rten behind the test host, so that an author's tests run the real graph.

use rten::{Model, NodeId, Value, ValueOrView};
use rten_tensor::prelude::*;

use crate::element::{Datatype, Element};
use crate::error::{Error, Result};
use crate::host::Handle;
use crate::host::native::Engine;

/// A graph that rten has loaded.
pub(crate) struct Rten(Model);

impl Rten {
    pub(crate) fn load(graph: &[u8]) -> Result<Self> {
        Ok(Self(Model::load(graph.to_vec())?))
    }

    fn name(&self, node: NodeId) -> Result<String> {
        let name = self.0.node_info(node).and_then(|info| info.name().map(str::to_owned));
        name.ok_or_else(|| Error::failed("an output of the graph has no name"))
    }
}

impl Engine for Rten {
    fn compute(&self, inputs: Vec<(String, Handle)>) -> Result<Vec<(String, Handle)>> {
        let given = inputs.iter().map(|(name, handle)| {
            let node = self.0.node_id(name)?;
            let value = value(handle).map_err(|error| error.about(name))?;
            Ok((node, ValueOrView::from(value)))
        });
        let outputs = self.0.output_ids();
        let values = self.0.run(given.collect::<Result<_>>()?, outputs, None)?;
        let named = outputs.iter().zip(values);
        named.map(|(node, value)| Ok((self.name(*node)?, handle(value)?))).collect()
    }
}

fn value(handle: &Handle) -> Result<Value> {
    let (shape, data) = (handle.shape(), handle.data());
    let elements = |message: String| Error::failed(message);
    Ok(match handle.datatype() {
        Datatype::Fp32 => Value::from_shape(&shape, f32::decode(&data).map_err(elements)?)?,
        Datatype::Int32 => Value::from_shape(&shape, i32::decode(&data).map_err(elements)?)?,
        Datatype::Int8 => Value::from_shape(&shape, i8::decode(&data).map_err(elements)?)?,
        Datatype::Uint8 => Value::from_shape(&shape, data)?,
        Datatype::Bool => Value::from_shape(&shape, data.into_iter().map(i32::from).collect())?,
        // rten has 32 bits for them.
        Datatype::Int64 => {
            let wide = i64::decode(&data).map_err(elements)?;
            let narrow = wide.into_iter().map(i32::try_from).collect::<Result<Vec<_>, _>>()?;
            Value::from_shape(&shape, narrow)?
        }
        other => return Err(Error::failed(format!("rten has no {other}"))),
    })
}

fn handle(value: Value) -> Result<Handle> {
    fn made<T: Element>(shape: &[usize], elements: &[T]) -> Result<Handle> {
        Handle::make(T::DATATYPE, shape, &T::encode(elements))
    }
    match value {
        Value::FloatTensor(tensor) => made(tensor.shape(), &tensor.to_vec()),
        Value::Int8Tensor(tensor) => made(tensor.shape(), &tensor.to_vec()),
        Value::UInt8Tensor(tensor) => made(tensor.shape(), &tensor.to_vec()),
        // What the graph calls INT64 or BOOL is 32 bits here too.
        Value::Int32Tensor(tensor) => Ok(made(tensor.shape(), &tensor.to_vec())?.widening()),
        _ => Err(Error::failed("an output of the graph is no tensor that can be served")),
    }
}
