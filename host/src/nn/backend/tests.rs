//! What holds for every engine.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::nn::onnx::Onnx;
use crate::nn::onnx::build::{self, Axis};
use crate::nn::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::tensor::{AlignedBuffer, Datatype, Tensor};

/// ONNX Runtime, which these tests do not do without.
pub(super) fn onnxruntime() -> Arc<dyn Backend> {
    let backends = Backends::discover(&Search::of_process(None));
    match backends.get(BackendKind::Onnxruntime) {
        Ok(backend) => Arc::clone(backend),
        Err(error) => panic!("{error}; these tests need it: set ORT_DYLIB_PATH to its library"),
    }
}

pub(super) fn engines() -> [Arc<dyn Backend>; 2] {
    [onnxruntime(), Arc::new(Rten::new())]
}

/// Loads the file of a model as the host does: read first, signature from the graph.
pub(super) fn load(backend: &dyn Backend, file: &Bytes) -> Result<Box<dyn LoadedGraph>, LoadError> {
    let onnx = Onnx::parse(file.clone()).unwrap();
    let signature = onnx.signature().unwrap();
    let model = onnx.resolve_external(&|_| None).unwrap();
    backend.load(model, &signature, &LoadOptions::default())
}

pub(super) fn run(graph: &dyn LoadedGraph, inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    graph.run(inputs, &Cancel::new()).unwrap()
}

pub(super) fn tensor(name: &str, datatype: Datatype, shape: &[usize], data: &[u8]) -> NamedTensor {
    let mut buffer = AlignedBuffer::with_capacity(data.len());
    buffer.extend(data);
    (name.to_owned(), Tensor::new(datatype, shape.to_vec(), buffer.freeze()).unwrap())
}

pub(super) fn floats(name: &str, shape: &[usize], data: &[f32]) -> NamedTensor {
    let data: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensor(name, Datatype::Fp32, shape, &data)
}

pub(super) fn integers(name: &str, shape: &[usize], data: &[i64]) -> NamedTensor {
    let data: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensor(name, Datatype::Int64, shape, &data)
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(2),
        ..AttributeProto::default()
    }
}

/// `total` = `x` added to itself `times` times, by a loop.
pub(super) fn looping() -> Bytes {
    let body = build::graph(
        vec![
            build::value("i", Datatype::Int64, &[]),
            build::value("go", Datatype::Bool, &[]),
            build::value("sum", Datatype::Fp32, &[Axis::Named("n")]),
        ],
        vec![
            build::value("go-on", Datatype::Bool, &[]),
            build::value("sum-out", Datatype::Fp32, &[Axis::Named("n")]),
        ],
        vec![
            build::node("Identity", &["go"], &["go-on"]),
            build::node("Add", &["sum", "x"], &["sum-out"]),
        ],
    );
    let mut node = build::node("Loop", &["times", "", "x"], &["total"]);
    node.attribute = vec![build::body("body", body)];
    build::file(build::graph(
        vec![
            build::value("times", Datatype::Int64, &[]),
            build::value("x", Datatype::Fp32, &[Axis::Named("n")]),
        ],
        vec![build::value("total", Datatype::Fp32, &[Axis::Named("n")])],
        vec![node],
    ))
}

/// `y` = `x` · `w` for a square `w`, then its largest column; two outputs of different types.
fn two_outputs(side: usize) -> GraphProto {
    let n = Axis::Named("n");
    let mut largest = build::node("ArgMax", &["y"], &["largest"]);
    largest.attribute = vec![int("axis", 1), int("keepdims", 0)];
    let mut graph = build::graph(
        vec![build::value("x", Datatype::Fp32, &[n, Axis::Is(side as i64)])],
        vec![
            build::value("largest", Datatype::Int64, &[n]),
            build::value("y", Datatype::Fp32, &[n, Axis::Is(side as i64)]),
        ],
        vec![build::node("MatMul", &["x", "w"], &["y"]), largest],
    );
    let weights: Vec<f32> = (0..side * side).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    graph.initializer = vec![build::weights("w", &[side as i64, side as i64], &weights)];
    graph
}

#[test]
fn common_datatypes_pass_through_every_engine() {
    for engine in engines() {
        for datatype in [
            Datatype::Fp32,
            Datatype::Int32,
            Datatype::Int64,
            Datatype::Bool,
            Datatype::Int8,
            Datatype::Uint8,
        ] {
            let size = datatype.size().unwrap();
            let graph =
                load(&*engine, &build::identity(datatype, &[Axis::Named("n"), Axis::Is(2)]))
                    .unwrap();
            for rows in [0, 1, 3] {
                let data: Vec<u8> = (0..rows * 2)
                    .flat_map(|i| {
                        let mut element = vec![0; size];
                        element[0] = u8::from(i % 2 == 1);
                        element
                    })
                    .collect();
                let x = tensor("x", datatype, &[rows, 2], &data);
                let y = run(&*graph, std::slice::from_ref(&x));
                assert_eq!(y, [("y".to_owned(), x.1)], "{datatype} on {}", engine.kind());
            }
        }
    }
}

#[test]
fn scalars_have_rank_0_on_every_engine() {
    for engine in engines() {
        let graph = load(&*engine, &build::identity(Datatype::Fp32, &[])).unwrap();
        let x = floats("x", &[], &[2.5]);
        assert_eq!(run(&*graph, std::slice::from_ref(&x))[0].1, x.1);
    }
}

#[test]
fn outputs_come_in_the_order_of_the_signature_with_declared_datatypes() {
    for engine in engines() {
        let graph = load(&*engine, &build::file(two_outputs(2))).unwrap();
        let outputs = run(&*graph, &[floats("x", &[2, 2], &[1.0, 0.0, 0.0, 1.0])]);
        let y = floats("y", &[2, 2], &[-50.0, -13.0, 24.0, -40.0]);
        assert_eq!(outputs, [integers("largest", &[2], &[1, 0]), y], "{}", engine.kind());
    }
}

#[test]
fn an_unaligned_input_is_computed_the_same() {
    for engine in engines() {
        let graph = load(&*engine, &build::identity(Datatype::Fp32, &[Axis::Is(3)])).unwrap();
        let (name, aligned) = floats("x", &[3], &[1.0, 2.0, 3.0]);
        let mut odd = AlignedBuffer::with_aligned_offset(13, 3);
        odd.extend(&[0]);
        odd.extend(aligned.data());
        let odd = Tensor::new(Datatype::Fp32, vec![3], odd.freeze().slice(1..)).unwrap();
        assert_eq!(run(&*graph, &[(name, odd)])[0].1, aligned);
    }
}

#[test]
fn a_loop_runs_as_often_as_it_is_told() {
    for engine in engines() {
        let graph = load(&*engine, &looping()).unwrap();
        let inputs = [integers("times", &[], &[3]), floats("x", &[2], &[1.0, -2.0])];
        assert_eq!(run(&*graph, &inputs), [floats("total", &[2], &[4.0, -8.0])]);
    }
}

#[test]
fn wrong_inputs_are_refused_before_the_engine_sees_them() {
    for engine in engines() {
        let graph = load(&*engine, &build::identity(Datatype::Fp32, &[Axis::Is(3)])).unwrap();
        for inputs in [
            vec![],
            vec![floats("z", &[3], &[0.0; 3])],
            vec![floats("x", &[2], &[0.0; 2])],
            vec![integers("x", &[3], &[0; 3])],
        ] {
            let error = graph.run(&inputs, &Cancel::new()).unwrap_err();
            assert_eq!(error.kind(), RunErrorKind::InvalidInput, "{error}");
            assert!(error.tensor().is_some());
        }
    }
}

#[test]
fn a_missing_operator_is_named_with_its_domain() {
    let graph = |domain: &str, op_type: &str| {
        let node =
            NodeProto { domain: Some(domain.to_owned()), ..build::node(op_type, &["x"], &["y"]) };
        build::file(build::graph(
            vec![build::value("x", Datatype::Fp32, &[Axis::Is(3)])],
            vec![build::value("y", Datatype::Fp32, &[Axis::Is(3)])],
            vec![node],
        ))
    };
    for engine in engines() {
        for (domain, wanted) in [
            ("", "ai.onnx::NoSuchThing"),
            ("com.microsoft", "com.microsoft::NoSuchThing"),
            ("com.example", "com.example::NoSuchThing"),
        ] {
            let error = load(&*engine, &graph(domain, "NoSuchThing")).err().unwrap();
            assert_eq!(error.kind(), LoadErrorKind::UnsupportedOperator, "{error}");
            assert_eq!(error.operator().unwrap().to_string(), wanted, "{error}");
        }
    }
    // A real operator that only one of them has.
    let fused = graph("com.microsoft", "BiasSoftmax");
    let error = load(&Rten::new(), &fused).err().unwrap();
    assert!(error.to_string().contains("com.microsoft::BiasSoftmax"), "{error}");
    assert!(error.to_string().contains("modelet setup"), "{error}");
}

#[test]
fn an_operator_missing_in_a_branch_is_named_too() {
    let output = || vec![build::value("b", Datatype::Fp32, &[Axis::Is(3)])];
    let branch =
        |op_type| build::graph(vec![], output(), vec![build::node(op_type, &["x"], &["b"])]);
    let mut node = build::node("If", &["c"], &["y"]);
    node.attribute = vec![
        build::body("then_branch", branch("NoSuchThing")),
        build::body("else_branch", branch("Neg")),
    ];
    let file = build::file(build::graph(
        vec![
            build::value("c", Datatype::Bool, &[]),
            build::value("x", Datatype::Fp32, &[Axis::Is(3)]),
        ],
        vec![build::value("y", Datatype::Fp32, &[Axis::Is(3)])],
        vec![node],
    ));
    for engine in engines() {
        let error = load(&*engine, &file).err().unwrap();
        assert_eq!(
            error.operator().map(ToString::to_string).as_deref(),
            Some("ai.onnx::NoSuchThing")
        );
    }
}

#[test]
fn a_broken_graph_is_refused_with_the_engines_reason() {
    let broken =
        build::add(TensorProto { dims: vec![3], ..build::weights("w", &[2], &[1.0, 2.0]) });
    let broken = Bytes::from(prost::Message::encode_to_vec(&broken));
    for engine in engines() {
        let error = load(&*engine, &broken).err().unwrap();
        assert_eq!(error.kind(), LoadErrorKind::Failed, "{error}");
    }
}

#[test]
fn a_cancelled_run_does_not_begin() {
    for engine in engines() {
        let graph = load(&*engine, &build::identity(Datatype::Fp32, &[Axis::Is(1)])).unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let error = graph.run(&[floats("x", &[1], &[0.0])], &cancel).unwrap_err();
        assert_eq!(error.kind(), RunErrorKind::Cancelled);
    }
}

#[test]
fn a_first_run_on_made_up_inputs_finds_whether_a_graph_runs() {
    let mut gather = build::graph(
        vec![
            build::value("x", Datatype::Fp32, &[Axis::Named("n")]),
            build::value("i", Datatype::Int64, &[Axis::Named("m")]),
        ],
        vec![build::value("y", Datatype::Fp32, &[Axis::Named("m")])],
        vec![build::node("Gather", &["x", "i"], &["y"])],
    );
    let runs = build::file(gather.clone());
    gather.node.insert(0, build::node("Reshape", &["x", "shape"], &["unused"]));
    gather.initializer = vec![TensorProto {
        data_type: Some(crate::nn::onnx::elements::INT64),
        raw_data: Some(7i64.to_le_bytes().to_vec().into()),
        ..build::weights("shape", &[1], &[])
    }];
    gather.output.push(build::value("unused", Datatype::Fp32, &[Axis::Is(7)]));
    let fails = build::file(gather);
    for engine in engines() {
        let signature = Onnx::parse(runs.clone()).unwrap().signature().unwrap();
        let graph = load(&*engine, &runs).unwrap();
        // An index of 1 is out of range here, so this takes the second try.
        let outputs = probe(&*graph, &signature, &Cancel::new()).unwrap();
        assert_eq!(outputs, [floats("y", &[1], &[0.0])]);
        let graph = load(&*engine, &fails).unwrap();
        let error = probe(&*graph, &signature, &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), RunErrorKind::Failed, "{error}");
    }
}

#[test]
fn runs_at_once_give_the_outputs_of_runs_in_turn() {
    const THREADS: usize = 8;
    const RUNS: usize = 50;
    const SIDE: usize = 64;
    let inputs: Vec<_> = (0..THREADS)
        .map(|seed| {
            // As many rows as the thread's number, so that shapes change under one session.
            let elements = (seed + 1) * SIDE;
            let data: Vec<f32> = (0..elements).map(|i| ((i * 31 + seed) % 17) as f32).collect();
            [floats("x", &[seed + 1, SIDE], &data)]
        })
        .collect();
    for engine in engines() {
        let graph = load(&*engine, &build::file(two_outputs(SIDE))).unwrap();
        let alone: Vec<_> = inputs.iter().map(|input| run(&*graph, input)).collect();
        let barrier = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for (input, alone) in inputs.iter().zip(&alone) {
                let (graph, barrier) = (&*graph, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..RUNS {
                        assert_eq!(&run(graph, input), alone);
                    }
                });
            }
        });
    }
}

#[test]
fn engines_say_who_they_are() {
    for engine in engines() {
        assert!(engine.version().split('.').count() >= 3, "{}", engine.version());
    }
    let backends = Backends::discover(&Search::of_process(None));
    assert!(backends.engine(BackendKind::Onnxruntime).unwrap().starts_with("onnxruntime 1."));
    assert_eq!(Backends::embedded().engine(BackendKind::Onnxruntime), None);
}
