//! The functions that move a tensor's bytes between host and guest, linked in place of the generated
//! ones: those hand every list over in a vector of its own, which is one more copy each way, and for a
//! large tensor as many page faults as it has pages.

use wasmtime::StoreContextMut;
use wasmtime::component::{Lift, Linker, WasmList};

use crate::engine::contract::{own, standard, types};
use crate::engine::state::GuestState;
use crate::tensor::{AlignedBuffer, Datatype, Tensor};

/// Links them over the generated ones of both namespaces.
///
/// # Errors
/// What wasmtime says of a function that it cannot link.
pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    namespace::<standard::wasi::nn::tensor::TensorType>(
        linker,
        "wasi:nn/tensor@0.2.0-rc-2024-10-28",
        "modelet:model/tensors@0.1.0",
    )?;
    namespace::<own::modelet::nn::tensor::TensorType>(
        linker,
        "modelet:nn/tensor@0.1.0",
        "modelet:model/tensors-own@0.1.0",
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type Store<'a> = StoreContextMut<'a, GuestState>;

fn namespace<TensorType>(
    linker: &mut Linker<GuestState>,
    tensor: &str,
    tensors: &str,
) -> wasmtime::Result<()>
where
    TensorType: Into<Datatype> + Lift + 'static,
{
    let mut instance = linker.instance(tensor)?;
    instance.func_wrap("[method]tensor.data", |store: Store<'_>, (this,)| {
        Ok((store.data().data_of(&this)?,))
    })?;
    instance.func_wrap("[constructor]tensor", |mut store: Store<'_>, made: Made<TensorType>| {
        let (dimensions, datatype, data) = made;
        let built = build(&mut store, &dimensions, datatype.into(), &data);
        Ok((store.data_mut().constructed(built)?,))
    })?;
    let mut instance = linker.instance(tensors)?;
    instance.func_wrap("make", |mut store: Store<'_>, made: MadeOfAny| {
        let (datatype, dimensions, data) = made;
        let built = build(&mut store, &dimensions, datatype.into(), &data);
        Ok((store.data_mut().made(built)?,))
    })
}

/// What wasi-nn's constructor is given.
type Made<TensorType> = (Vec<u32>, TensorType, WasmList<u8>);

/// What `make` is given.
type MadeOfAny = (types::Datatype, Vec<u32>, WasmList<u8>);

/// A tensor of the bytes that stand in the guest's memory: copied once, to where engines want them.
fn build(
    store: &mut Store<'_>,
    dimensions: &[u32],
    datatype: Datatype,
    data: &WasmList<u8>,
) -> Result<Tensor, String> {
    store.data_mut().check_room_for(data.len() as u64)?;
    let mut copy = AlignedBuffer::with_capacity(data.len());
    copy.extend(data.as_le_slice(&*store));
    let shape = dimensions.iter().map(|dim| *dim as usize).collect();
    Tensor::new(datatype, shape, copy.freeze()).map_err(|error| error.to_string())
}
