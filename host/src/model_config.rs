//! A version's configuration as the protocol's clients read it: what it takes and gives, in how large a
//! batch, and where it runs.

use std::collections::BTreeMap;

use crate::grpc::proto::model_instance_group::Kind;
use crate::grpc::proto::{
    DataType, ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter,
    ModelTransactionPolicy,
};
use crate::http::task;
use crate::registry::Version;
use crate::tensor::Datatype;
use crate::version::{Signature, TensorSpec};

/// The configuration of a version that runs on `platform`, on a host that takes requests of at most
/// `request_bytes`.
pub fn describe(version: &Version, platform: &str, request_bytes: u64) -> ModelConfig {
    let (record, name) = (&version.record, version.model.as_str());
    let signature = &record.signature;
    let dims = |spec: &TensorSpec| {
        let batch = usize::from(signature.batch);
        spec.shape.get(batch..).unwrap_or_default().to_vec()
    };
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
    };
    let parameter = |(key, value): (&String, &String)| {
        (key.clone(), ModelParameter { string_value: value.clone() })
    };
    ModelConfig {
        name: name.to_owned(),
        platform: platform.to_owned(),
        backend: "modelet".to_owned(),
        max_batch_size: max_batch_size(signature, request_bytes),
        input: signature.inputs.iter().map(input).collect(),
        output: signature.outputs.iter().map(output).collect(),
        instance_group: vec![ModelInstanceGroup {
            name: format!("{name}_0"),
            count: i32::try_from(record.pool.max_instances).unwrap_or(i32::MAX),
            kind: Kind::Cpu.into(),
        }],
        parameters: record.config.iter().map(parameter).collect::<BTreeMap<_, _>>(),
        model_transaction_policy: Some(ModelTransactionPolicy {
            decoupled: task::generates(signature),
        }),
    }
}

/// The rows that one request may bring: as many as its largest body holds, or the signature says; 0
/// where axis 0 is not a batch.
fn max_batch_size(signature: &Signature, request_bytes: u64) -> i32 {
    if !signature.batch {
        return 0;
    }
    let fixed = signature.inputs.iter().filter_map(|spec| spec.shape.first());
    let fixed = fixed.filter_map(|axis| u64::try_from(*axis).ok()).min();
    let row: u64 = signature.inputs.iter().map(row_bytes).fold(0, u64::saturating_add);
    let rows = fixed.unwrap_or(request_bytes / row.max(1)).max(1);
    i32::try_from(rows).unwrap_or(i32::MAX)
}

/// Bytes of a row of the shortest axes there are.
fn row_bytes(spec: &TensorSpec) -> u64 {
    let axes = spec.shape.get(1..).unwrap_or_default();
    let length = |axis: &i64| u64::try_from(*axis).unwrap_or(1);
    // A BYTES element has a length at least.
    let element = spec.datatype.size().unwrap_or(4) as u64;
    axes.iter().map(length).fold(element, u64::saturating_mul)
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Bytes => DataType::TypeString,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(batch: bool, shape: &[i64]) -> Signature {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
        Signature { inputs: vec![spec], batch, ..Signature::default() }
    }

    #[test]
    fn a_batch_is_what_fits_a_request() {
        assert_eq!(max_batch_size(&signature(false, &[-1, 3]), 1200), 0);
        assert_eq!(max_batch_size(&signature(true, &[-1, 3]), 1200), 100);
        assert_eq!(max_batch_size(&signature(true, &[-1, -1, 3]), 1200), 100);
        assert_eq!(max_batch_size(&signature(true, &[8, 3]), 1200), 8);
        assert_eq!(max_batch_size(&signature(true, &[-1, 3]), 2), 1);
        assert_eq!(max_batch_size(&signature(true, &[-1, 3]), u64::MAX), i32::MAX);
    }

    #[test]
    fn json_spells_datatypes_and_leaves_out_what_would_choose_a_scheduler() {
        let input =
            ModelInput { name: "x".into(), data_type: DataType::TypeString.into(), dims: vec![-1] };
        let group = ModelInstanceGroup { kind: Kind::Cpu.into(), ..ModelInstanceGroup::default() };
        let (input, instance_group) = (vec![input], vec![group]);
        let config = ModelConfig { input, instance_group, ..ModelConfig::default() };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["input"][0]["data_type"], "TYPE_STRING");
        assert_eq!(json["instance_group"][0]["kind"], "KIND_CPU");
        for absent in ["dynamic_batching", "sequence_batching", "response_cache"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }
}
