//! The ONNX reader against models made here, whole and damaged.

use proptest::prelude::*;

use super::build::{self, Axis};
use super::proto::{
    AttributeProto, FunctionProto, NodeProto, SparseTensorProto, TensorProto, TrainingInfoProto,
    TypeProto, type_proto,
};
use super::*;
use crate::tensor::Datatype;

fn parse(model: &ModelProto) -> Onnx {
    Onnx::parse(model.encode_to_vec().into()).unwrap()
}

fn no_assets(_: &AssetName) -> Option<Bytes> {
    None
}

fn names(operators: &BTreeSet<Operator>) -> Vec<String> {
    operators.iter().map(ToString::to_string).collect()
}

#[test]
fn a_signature_is_the_inputs_without_initializers() {
    let mut model = build::add(build::weights("w", &[2], &[1.0, 2.0]));
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(build::value("w", Datatype::Fp32, &[Axis::Is(2)]));
    let signature = parse(&model).signature().unwrap();
    assert_eq!(signature.inputs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["x"]);
    assert_eq!(signature.inputs[0].describe(), "FP32 [2]");
    assert!(!signature.batch);
}

#[test]
fn every_datatype_and_a_scalar_are_in_the_signature() {
    for datatype in Datatype::ALL {
        let onnx = Onnx::parse(build::identity(datatype, &[])).unwrap();
        let signature = onnx.signature().unwrap();
        assert_eq!(signature.inputs[0].describe(), format!("{datatype} []"));
        assert_eq!(signature.outputs[0].datatype, datatype);
    }
}

#[test]
fn a_constant_of_a_shape_that_cannot_be_is_named() {
    for dims in [vec![1 << 62, 4], vec![-1], vec![1 << 62, 8, 0], vec![1; 40]] {
        let weights = TensorProto { dims, ..build::weights("w", &[1], &[1.0]) };
        let error = Onnx::parse(build::add(weights).encode_to_vec().into()).unwrap_err();
        assert!(error.to_string().starts_with("tensor \"w\" cannot be: it"), "{error}");
    }
}

#[test]
fn a_batch_is_one_name_on_axis_0_of_everything() {
    let batch = |x: &[Axis], y: &[Axis]| {
        let graph = build::graph(
            vec![build::value("x", Datatype::Fp32, x)],
            vec![build::value("y", Datatype::Fp32, y)],
            vec![],
        );
        let signature = parse(&build::model(graph)).signature().unwrap();
        (signature.batch, signature.inputs[0].shape.clone())
    };
    let n = Axis::Named("n");
    assert_eq!(batch(&[n, Axis::Is(3)], &[n]), (true, vec![-1, 3]));
    assert!(!batch(&[n], &[Axis::Named("m")]).0);
    assert!(!batch(&[n], &[Axis::Is(1)]).0);
    assert!(!batch(&[n], &[]).0);
    assert_eq!(batch(&[Axis::Named("")], &[Axis::Named("")]), (false, vec![-1]));
    assert_eq!(batch(&[Axis::Is(-1)], &[n]).1, [-1]);
}

#[test]
fn what_is_no_tensor_is_refused_by_name() {
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(TypeProto::default())) };
    let sequence = build::typed("s", type_proto::Value::SequenceType(Box::new(sequence)));
    let x = || build::value("x", Datatype::Fp32, &[]);
    let refused = |input, output| {
        let model = build::model(build::graph(vec![input], vec![output], vec![]));
        parse(&model).signature().unwrap_err().to_string()
    };
    assert_eq!(
        refused(x(), sequence.clone()),
        "graph output \"s\" cannot be served: it is a sequence, not a tensor"
    );
    assert!(refused(sequence, x()).starts_with("graph input \"s\" cannot be served"));
    let float8 = type_proto::Tensor { elem_type: Some(17), shape: None };
    let float8 = build::typed("f", type_proto::Value::TensorType(float8));
    assert!(refused(x(), float8).contains("FLOAT8E4M3FN"));
    assert!(refused(build::value("", Datatype::Fp32, &[]), x()).contains("it has no name"));
}

#[test]
fn an_unknown_rank_is_refused_for_inputs_and_open_for_outputs() {
    let unknown = |name| {
        let tensor = type_proto::Tensor { elem_type: Some(elements::FLOAT), shape: None };
        build::typed(name, type_proto::Value::TensorType(tensor))
    };
    let x = build::value("x", Datatype::Fp32, &[]);
    let open = build::model(build::graph(vec![x.clone()], vec![unknown("y")], vec![]));
    assert_eq!(parse(&open).signature().unwrap().outputs[0].shape, [-1]);
    let refused = build::model(build::graph(vec![unknown("y")], vec![x], vec![]));
    let error = parse(&refused).signature().unwrap_err();
    assert!(error.to_string().contains("its rank is not declared"), "{error}");
}

#[test]
fn operators_of_subgraphs_and_function_bodies_are_found() {
    let mut branch = build::node("If", &["x"], &["y"]);
    let contrib =
        NodeProto { domain: Some("com.microsoft".into()), ..build::node("Gelu", &[], &[]) };
    branch.attribute =
        vec![build::body("then_branch", build::graph(vec![], vec![], vec![contrib]))];
    let own = NodeProto { domain: Some("own".into()), ..build::node("Twice", &["y"], &["z"]) };
    let mut model = build::model(build::graph(vec![], vec![], vec![branch, own]));
    model.functions = vec![FunctionProto {
        name: Some("Twice".into()),
        domain: Some("own".into()),
        node: vec![build::node("Add", &["a", "a"], &["b"])],
        ..FunctionProto::default()
    }];
    assert_eq!(
        names(&parse(&model).operators()),
        ["ai.onnx::Add", "ai.onnx::If", "com.microsoft::Gelu"]
    );
}

#[test]
fn weights_are_shared_with_the_file() {
    let bytes = Bytes::from(build::add(build::weights("w", &[2], &[1.0, 2.0])).encode_to_vec());
    let onnx = Onnx::parse(bytes.clone()).unwrap();
    let weights = onnx.model().graph.as_ref().unwrap().initializer[0].raw_data.clone().unwrap();
    assert!(bytes.as_ptr_range().contains(&weights.as_ptr()));
}

#[test]
fn a_model_without_external_data_stays_the_bytes_it_was() {
    let bytes = build::identity(Datatype::Fp32, &[]);
    let resolved = Onnx::parse(bytes.clone()).unwrap().resolve_external(&no_assets).unwrap();
    assert_eq!(resolved.as_ptr(), bytes.as_ptr());
}

#[test]
fn external_data_comes_into_the_model() {
    let entries = [("location", "./weights/a.bin"), ("offset", "4"), ("length", "8")];
    let onnx = parse(&build::add(build::elsewhere("w", &[2], &entries)));
    let files = onnx.external_files().unwrap();
    assert_eq!(files.iter().map(AssetName::as_str).collect::<Vec<_>>(), ["weights/a.bin"]);
    let asset = Bytes::from_static(b"....\0\0\x80\x3f\0\0\0\x40....");
    let resolved = onnx
        .resolve_external(&|name| (name.as_str() == "weights/a.bin").then(|| asset.clone()))
        .unwrap();
    let expected = build::add(build::weights("w", &[2], &[1.0, 2.0]));
    assert_eq!(ModelProto::decode(resolved).unwrap(), expected);
}

#[test]
fn a_missing_length_is_what_the_shape_takes() {
    let onnx = parse(&build::add(build::elsewhere("w", &[2], &[("location", "a")])));
    let resolved = onnx.resolve_external(&|_| Some(Bytes::from_static(&[0; 100]))).unwrap();
    let expected = build::add(build::weights("w", &[2], &[0.0, 0.0]));
    assert_eq!(ModelProto::decode(resolved).unwrap(), expected);
}

#[test]
fn an_existing_file_of_the_host_is_no_asset() {
    // The first is a spelling that ONNX Runtime opens relative to its working directory, the last
    // its own mark for "a pointer into this process".
    for location in ["etc/os-release", "Cargo.toml", "*/_ORT_MEM_ADDR_/*"] {
        let onnx = parse(&build::add(build::elsewhere("w", &[2], &[("location", location)])));
        let error = onnx.resolve_external(&no_assets).unwrap_err();
        assert!(matches!(error, OnnxError::MissingAsset { .. }), "{error}");
        assert!(error.to_string().contains(location), "{error}");
    }
}

#[test]
fn a_location_that_cannot_be_an_asset_is_refused_with_its_tensor() {
    for location in ["/etc/os-release", "../secret", "a/../../b", "C:\\weights", "", "a//b", "a\0"]
    {
        let onnx = parse(&build::add(build::elsewhere("w", &[2], &[("location", location)])));
        let error = onnx.external_files().unwrap_err();
        assert!(matches!(error, OnnxError::Location { .. }), "{error}");
        assert!(error.to_string().starts_with("tensor \"w\" has its data in"), "{error}");
        assert!(onnx.resolve_external(&|_| Some(Bytes::new())).is_err());
    }
}

#[test]
fn a_part_outside_its_asset_is_refused() {
    let max = u64::MAX.to_string();
    for (offset, length) in
        [("93", "8"), ("101", "8"), (max.as_str(), "8"), ("0", "7"), ("0", "100")]
    {
        let entries = [("location", "a"), ("offset", offset), ("length", length)];
        let onnx = parse(&build::add(build::elsewhere("w", &[2], &entries)));
        let error = onnx.resolve_external(&|_| Some(Bytes::from_static(&[0; 100]))).unwrap_err();
        assert!(matches!(error, OnnxError::ExternalData { .. }), "{error}");
    }
    for entries in [[("location", "a"), ("offset", "-1")], [("location", "a"), ("length", "many")]]
    {
        let model = build::add(build::elsewhere("w", &[2], &entries));
        assert!(Onnx::parse(model.encode_to_vec().into()).is_err());
    }
}

#[test]
fn an_unknown_data_location_is_refused() {
    let mut weights = build::weights("w", &[1], &[1.0]);
    weights.data_location = Some(2);
    let error = Onnx::parse(build::add(weights).encode_to_vec().into()).unwrap_err();
    assert!(error.to_string().contains("data location 2 is not known"), "{error}");
}

#[test]
fn many_tensors_of_one_asset_stay_within_the_limit_of_a_model() {
    let length = (limits::MAX_MODEL_BYTES / 3).to_string();
    let entries = [("location", "a"), ("length", length.as_str())];
    let mut weights = build::elsewhere("w", &[(limits::MAX_MODEL_BYTES / 3) as i64], &entries);
    weights.data_type = Some(elements::INT8);
    let mut model = build::add(weights.clone());
    model.graph.as_mut().unwrap().initializer = vec![weights; 4];
    let asset = Bytes::from(vec![0; limits::MAX_MODEL_BYTES / 3]);
    let error = parse(&model).resolve_external(&|_| Some(asset.clone())).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { .. }), "{error}");
}

#[test]
fn external_data_is_found_wherever_a_tensor_may_stand() {
    let out = |name: &str| build::elsewhere(name, &[1], &[("location", name)]);
    let mut branch = build::node("If", &[], &[]);
    let mut inner = build::graph(vec![], vec![], vec![]);
    inner.initializer = vec![out("in-subgraph")];
    branch.attribute = vec![
        build::body("then_branch", inner.clone()),
        AttributeProto { graphs: vec![inner], tensors: vec![out("in-list")], ..Default::default() },
        build::constant("value", out("in-attribute")),
    ];
    let sparse = || SparseTensorProto {
        values: Some(out("sparse-values")),
        indices: Some(out("sparse-indices")),
        dims: vec![1],
    };
    branch.attribute.push(AttributeProto {
        sparse_tensor: Some(Box::new(sparse())),
        ..AttributeProto::default()
    });
    let mut graph = build::graph(vec![], vec![], vec![branch]);
    graph.sparse_initializer = vec![sparse()];
    let mut model = build::model(graph);
    let in_function = build::constant("value", out("in-function"));
    model.functions = vec![FunctionProto {
        node: vec![NodeProto { attribute: vec![in_function], ..Default::default() }],
        attribute_proto: vec![build::constant("default", out("in-default"))],
        ..FunctionProto::default()
    }];
    let mut training = build::graph(vec![], vec![], vec![]);
    training.initializer = vec![out("in-training")];
    model.training_info =
        vec![TrainingInfoProto { algorithm: Some(training), ..Default::default() }];
    let onnx = parse(&model);
    let files = onnx.external_files().unwrap();
    assert_eq!(
        files.iter().map(AssetName::as_str).collect::<Vec<_>>(),
        [
            "in-attribute",
            "in-default",
            "in-function",
            "in-list",
            "in-subgraph",
            "in-training",
            "sparse-indices",
            "sparse-values"
        ]
    );
    let resolved = onnx.resolve_external(&|_| Some(Bytes::from_static(&[0; 4]))).unwrap();
    assert!(parse(&ModelProto::decode(resolved).unwrap()).external_files().unwrap().is_empty());
}

#[test]
fn files_that_are_taken_for_onnx_are_named() {
    for (bytes, wanted) in [
        (&b""[..], "it is empty"),
        (b"\x20\0\0\0ORTM....", ".ort format"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"PK\x03\x04zip", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\x08\x08", "it holds no graph"),
        (b"\x7fELF", "not an ONNX model"),
    ] {
        let error = Onnx::parse(Bytes::from_static(bytes)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

fn rich_model() -> Vec<u8> {
    let mut branch = build::node("If", &["c"], &["y"]);
    let mut inner = build::graph(vec![], vec![], vec![build::node("Add", &["x", "w"], &["y"])]);
    inner.initializer = vec![TensorProto { int64_data: vec![1, -1], ..Default::default() }];
    branch.attribute = vec![build::body("then_branch", inner)];
    let axes = [Axis::Named("n"), Axis::Is(2)];
    let mut graph = build::graph(
        vec![build::value("x", Datatype::Fp32, &axes)],
        vec![build::value("y", Datatype::Bytes, &axes)],
        vec![branch],
    );
    let entries = [("location", "a/b"), ("offset", "1"), ("length", "8")];
    graph.initializer =
        vec![build::elsewhere("w", &[2], &entries), build::weights("v", &[1], &[1.0])];
    build::model(graph).encode_to_vec()
}

proptest! {
    #[test]
    fn no_mutated_model_makes_the_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = rich_model();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(onnx) = Onnx::parse(bytes.into()) {
            let _ = onnx.signature();
            let _ = onnx.operators();
            let _ = onnx.external_files();
            let _ = onnx.resolve_external(&|_| Some(Bytes::from_static(&[0; 16])));
        }
    }

    #[test]
    fn no_random_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Onnx::parse(bytes.into());
    }
}
