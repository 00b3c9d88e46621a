//! What `#[model]` expands to stands on this: the exports of the component, and the tensors of a call.

use crate::error::{Error, Result};
use crate::host::Handle;
use crate::tensor::{Input, Outputs};

/// The tensors of a call, by name.
pub struct Inputs(Vec<(String, Handle)>);

/// The tensors of an answer, by name.
pub struct Answer(Vec<(String, Handle)>);

impl Inputs {
    /// The tensors of a call.
    pub(crate) fn new(tensors: Vec<(String, Handle)>) -> Self {
        Self(tensors)
    }

    /// Takes the tensor of this name.
    ///
    /// # Errors
    /// When it is not there or not of this type, which a host checks before it calls.
    pub fn take<T: Input>(&mut self, name: &str) -> Result<T> {
        let place = self.0.iter().position(|(given, _)| given == name);
        let place = place.ok_or_else(|| Error::bad_input(name, "it is missing"))?;
        T::from_handle(name, self.0.swap_remove(place).1)
    }
}

impl Answer {
    /// An answer of outputs under these names.
    ///
    /// # Errors
    /// When the host takes no more tensors.
    pub fn new(names: &[&str], outputs: impl Outputs) -> Result<Self> {
        let handles = outputs.into_handles().into_iter();
        let named = names.iter().zip(handles).map(|(name, handle)| {
            handle.map(|handle| ((*name).to_owned(), handle)).map_err(|error| error.about(*name))
        });
        named.collect::<Result<_>>().map(Self)
    }

    pub(crate) fn into_tensors(self) -> Vec<(String, Handle)> {
        self.0
    }
}

/// The component's exports, over the one model of the instance.
#[cfg(target_arch = "wasm32")]
pub mod component {
    use std::cell::RefCell;

    use super::{Error, Handle, Inputs, Result};
    use crate::bindings::modelet::model::types;
    pub use crate::bindings::{Description, Failure, Guest, NamedTensor, export_model};
    use crate::error::Kind;
    use crate::host;
    use crate::signature::{Model, TensorSpec};

    /// `describe`.
    pub fn describe<M: Model>() -> Description {
        let signature = M::signature();
        let spec = |spec: TensorSpec| types::TensorSpec {
            name: spec.name.to_owned(),
            datatype: host::datatype_to_wit(spec.datatype),
            shape: spec.shape.to_vec(),
        };
        Description::Explicit(types::Signature {
            inputs: signature.inputs.into_iter().map(spec).collect(),
            outputs: signature.outputs.into_iter().map(spec).collect(),
            batch: signature.batch,
            task: signature.task.map(str::to_owned),
        })
    }

    /// `infer`: loads the model with the instance's first call.
    pub fn infer<M: Model>(
        model: &RefCell<Option<M>>,
        inputs: Vec<NamedTensor>,
    ) -> std::result::Result<Vec<NamedTensor>, Failure> {
        call(model, inputs).map_err(failure)
    }

    fn call<M: Model>(
        model: &RefCell<Option<M>>,
        inputs: Vec<NamedTensor>,
    ) -> Result<Vec<NamedTensor>> {
        let mut slot = model.borrow_mut();
        let model = match &mut *slot {
            Some(model) => model,
            empty => {
                // A panic ends the instance; without this nobody would know why.
                std::panic::set_hook(Box::new(|panic| crate::log::error(panic)));
                empty.insert(M::load_model()?)
            }
        };
        let named = |(name, tensor)| (name, Handle::new(tensor));
        let answer = model.call(Inputs::new(inputs.into_iter().map(named).collect()))?;
        Ok(answer
            .into_tensors()
            .into_iter()
            .map(|(name, handle)| (name, handle.into_inner()))
            .collect())
    }

    fn failure(error: Error) -> Failure {
        let (kind, message, tensor) = error.into_parts();
        let problem = types::Problem { message, tensor };
        match kind {
            Kind::BadInput => Failure::InvalidInput(problem),
            Kind::Unavailable => Failure::Unavailable(problem),
            Kind::Failed => Failure::Failed(problem),
        }
    }
}

/// Exports a model from the component; on the author's machine it only counts as used.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($model:ty) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::Result<$model> = <$model as $crate::Model>::load_model;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::export::component as exports;

            ::std::thread_local! {
                static MODEL: ::std::cell::RefCell<::std::option::Option<$model>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            struct Component;

            impl exports::Guest for Component {
                fn describe() -> exports::Description {
                    exports::describe::<$model>()
                }

                fn infer(
                    inputs: ::std::vec::Vec<exports::NamedTensor>,
                ) -> ::std::result::Result<::std::vec::Vec<exports::NamedTensor>, exports::Failure>
                {
                    MODEL.with(|model| exports::infer::<$model>(model, inputs))
                }
            }

    exports::export_model!(Component with_types_in $crate::bindings);
        };
    };
}
