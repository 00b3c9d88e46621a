//! Weights that stand in other files: which ones, and how they come into the model.

use bytes::Bytes;
use prost::Message as _;

use super::proto::{ModelProto, TensorProto};
use super::{OnnxError, elements, limits, walk};
use crate::names::AssetName;

/// `TensorProto.data_location`: the data is in the tensor itself.
const DEFAULT: i32 = 0;
/// `TensorProto.data_location`: the data is where `external_data` says.
const EXTERNAL: i32 = 1;

/// Where the data of one tensor stands, as the model says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct External {
    tensor: String,
    location: String,
    offset: u64,
    length: Option<u64>,
}

impl External {
    /// Where `tensor` says its data is; none when it is in the tensor.
    pub(super) fn of(tensor: &TensorProto) -> Result<Option<Self>, OnnxError> {
        match tensor.data_location.unwrap_or(DEFAULT) {
            DEFAULT => return Ok(None),
            EXTERNAL => {}
            // Another decoder may take such a number for either; nothing is left to that.
            other => {
                return Err(wrong(tensor.name(), format!("data location {other} is not known")));
            }
        }
        let mut external = Self {
            tensor: tensor.name().to_owned(),
            location: String::new(),
            offset: 0,
            length: None,
        };
        for entry in &tensor.external_data {
            match entry.key() {
                "location" => entry.value().clone_into(&mut external.location),
                "offset" => external.offset = external.number("offset", entry.value())?,
                "length" => external.length = Some(external.number("length", entry.value())?),
                // A checksum, or what an engine packed beside it, which it packs again.
                _ => {}
            }
        }
        Ok(Some(external))
    }

    /// The asset that holds the data.
    pub(super) fn asset(&self) -> Result<AssetName, OnnxError> {
        // Exporters write `./weights.bin` as well, which means the same file.
        let location = self.location.strip_prefix("./").unwrap_or(&self.location);
        location.parse().map_err(|source| OnnxError::Location {
            tensor: self.tensor.clone(),
            location: self.location.clone(),
            source,
        })
    }

    fn number(&self, key: &str, value: &str) -> Result<u64, OnnxError> {
        value.parse().map_err(|_| wrong(&self.tensor, format!("{key} {value:?} is not a number")))
    }

    /// The part of `asset` that is the data of `tensor`.
    fn data(&self, tensor: &TensorProto, asset: &Bytes) -> Result<Bytes, OnnxError> {
        let needed = byte_count(tensor);
        let rest = (asset.len() as u64).saturating_sub(self.offset);
        let length = self.length.or(needed).unwrap_or(rest);
        if needed.is_some_and(|needed| needed != length) {
            let needed = needed.unwrap_or_default();
            return Err(wrong(
                &self.tensor,
                format!("its length is {length} bytes, and its shape takes {needed}"),
            ));
        }
        let end = self.offset.checked_add(length).filter(|end| *end <= asset.len() as u64);
        let range = end
            .and_then(|end| Some(usize::try_from(self.offset).ok()?..usize::try_from(end).ok()?));
        let Some(range) = range else {
            return Err(wrong(
                &self.tensor,
                format!(
                    "{length} bytes at offset {} of {:?}, which has {}",
                    self.offset,
                    self.location,
                    asset.len()
                ),
            ));
        };
        Ok(asset.slice(range))
    }
}

/// `model`, which has `bytes` bytes, with all external data inside.
pub(super) fn inline(
    mut model: ModelProto,
    bytes: usize,
    assets: &dyn Fn(&AssetName) -> Option<Bytes>,
) -> Result<Bytes, OnnxError> {
    let mut total = bytes as u64;
    walk::tensors(&mut model, &mut |tensor| {
        let Some(external) = External::of(tensor)? else { return Ok(()) };
        let location = external.asset()?;
        let Some(asset) = assets(&location) else {
            return Err(OnnxError::MissingAsset { tensor: external.tensor, location });
        };
        let data = external.data(tensor, &asset)?;
        // Many tensors may name the same bytes, so the sum is not bounded by the assets.
        total = total.saturating_add(data.len() as u64);
        if total > limits::MAX_MODEL_BYTES as u64 {
            return Err(OnnxError::TooLarge { bytes: total });
        }
        tensor.raw_data = Some(data);
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    })?;
    let encoded = model.encoded_len();
    if encoded > limits::MAX_MODEL_BYTES {
        return Err(OnnxError::TooLarge { bytes: encoded as u64 });
    }
    Ok(model.encode_to_vec().into())
}

/// The bytes that a tensor's shape and type take in raw form; none where that is not known.
fn byte_count(tensor: &TensorProto) -> Option<u64> {
    let bits = elements::bits(tensor.data_type())?;
    let elements = tensor
        .dims
        .iter()
        .try_fold(1u64, |count, dim| count.checked_mul(u64::try_from(*dim).ok()?))?;
    // Elements of less than a byte are packed, the last byte padded.
    Some(elements.checked_mul(bits)?.div_ceil(8))
}

fn wrong(tensor: &str, problem: String) -> OnnxError {
    OnnxError::ExternalData { tensor: tensor.to_owned(), problem }
}
