//! ONNX Runtime against graphs small enough to know the answers of.

use std::sync::mpsc::sync_channel;

use prost::Message as _;

use super::super::tests::{floats, integers, load, looping, onnxruntime, run, tensor};
use super::super::{LoadErrorKind, RunErrorKind};
use super::*;
use crate::nn::onnx::build::{self, Axis};
use crate::tensor::{Datatype, Tensor, push_bytes_element};

fn graph(file: &Bytes) -> Box<dyn LoadedGraph> {
    load(&*onnxruntime(), file).unwrap()
}

/// `first` = `a`, cast to `datatype` and back, so that the engine computes something in between.
fn sum_of_two(datatype: Datatype) -> Bytes {
    let axes = [Axis::Named("n")];
    build::file(build::graph(
        vec![build::value("a", datatype, &axes), build::value("b", datatype, &axes)],
        vec![build::value("ab", datatype, &[Axis::Named("m")])],
        vec![{
            let mut node = build::node("Concat", &["a", "b"], &["ab"]);
            node.attribute = vec![crate::nn::onnx::proto::AttributeProto {
                name: Some("axis".into()),
                i: Some(0),
                r#type: Some(2),
                ..Default::default()
            }];
            node
        }],
    ))
}

#[test]
fn every_datatype_is_computed() {
    for datatype in Datatype::ALL.into_iter().filter(|datatype| *datatype != Datatype::Bytes) {
        let size = datatype.size().unwrap();
        let graph = graph(&sum_of_two(datatype));
        let data: Vec<u8> = (0..3 * size).map(|i| u8::from(i % size == 0)).collect();
        let inputs = [tensor("a", datatype, &[3], &data), tensor("b", datatype, &[0], &[])];
        assert_eq!(run(&*graph, &inputs), [tensor("ab", datatype, &[3], &data)], "{datatype}");
    }
}

#[test]
fn strings_keep_every_byte() {
    let long = vec![b'x'; 100_000];
    let elements: [&[u8]; 5] = [b"", b"one", b"with\0zero", "\u{fc}ber".as_bytes(), &long];
    let mut data = Vec::new();
    for element in elements {
        push_bytes_element(&mut data, element).unwrap();
    }
    let strings = |name: &str, shape: &[usize], data: &[u8]| {
        let data = Bytes::copy_from_slice(data);
        (name.to_owned(), Tensor::new(Datatype::Bytes, shape.to_vec(), data).unwrap())
    };
    let both = graph(&sum_of_two(Datatype::Bytes));
    let inputs = [strings("a", &[5], &data), strings("b", &[5], &data)];
    let twice = [data.clone(), data].concat();
    assert_eq!(run(&*both, &inputs), [strings("ab", &[10], &twice)]);
    let none = [strings("a", &[0], &[]), strings("b", &[0], &[])];
    assert_eq!(run(&*both, &none), [strings("ab", &[0], &[])]);
    let scalar = graph(&build::identity(Datatype::Bytes, &[]));
    let x = strings("x", &[], &[2, 0, 0, 0, b'h', b'i']);
    assert_eq!(run(&*scalar, std::slice::from_ref(&x))[0].1, x.1);
}

#[test]
fn an_output_goes_into_the_next_run_as_it_lies() {
    let both = graph(&sum_of_two(Datatype::Fp32));
    for count in [1, 3, 1000, 100_000] {
        let inputs = [floats("a", &[count], &vec![1.0; count]), floats("b", &[0], &[])];
        let output = run(&*both, &inputs).remove(0).1;
        // What an engine is given is a tensor's bytes where they are, unless they are not aligned.
        assert_eq!(output.aligned().data().as_ptr(), output.data().as_ptr(), "{count}");
    }
}

#[test]
fn an_output_that_is_an_input_is_that_inputs_bytes() {
    let x = build::value("x", Datatype::Fp32, &[Axis::Named("n")]);
    let graph = graph(&build::file(build::graph(vec![x.clone()], vec![x], vec![])));
    let given = floats("x", &[100], &[1.5; 100]);
    let pointer = given.1.data().as_ptr();
    let outputs = run(&*graph, std::slice::from_ref(&given));
    assert_eq!(outputs[0].1, given.1);
    // Whether the engine copies or not, the output outlives the input.
    let shares = outputs[0].1.data().as_ptr() == pointer;
    drop(given);
    assert_eq!(outputs[0], floats("x", &[100], &[1.5; 100]), "shares: {shares}");
}

#[test]
fn an_output_outlives_its_graph() {
    let outputs = {
        let loaded =
            graph(&build::add(build::weights("w", &[2], &[1.0, 2.0])).encode_to_vec().into());
        run(&*loaded, &[floats("x", &[2], &[1.0, 1.0])])
    };
    assert_eq!(outputs, [floats("y", &[2], &[2.0, 3.0])]);
    let constant = {
        let mut graph =
            build::graph(vec![], vec![build::value("w", Datatype::Fp32, &[Axis::Is(2)])], vec![]);
        graph.initializer = vec![build::weights("w", &[2], &[1.0, 2.0])];
        let loaded = self::graph(&build::file(graph));
        run(&*loaded, &[])
    };
    assert_eq!(constant, [floats("w", &[2], &[1.0, 2.0])]);
}

#[test]
fn an_output_is_aligned_for_the_next_run() {
    let graph = graph(&build::add(build::weights("w", &[2], &[1.0, 2.0])).encode_to_vec().into());
    let outputs = run(&*graph, &[floats("x", &[2], &[1.0, 1.0])]);
    let output = &outputs[0].1;
    assert_eq!(output.aligned().data().as_ptr(), output.data().as_ptr());
}

#[test]
fn a_running_loop_is_stopped() {
    let graph = graph(&looping());
    let inputs = [integers("times", &[], &[i64::MAX]), floats("x", &[1], &[0.0])];
    let cancel = Cancel::new();
    let (began, begins) = sync_channel(1);
    let error = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            began.send(()).unwrap();
            graph.run(&inputs, &cancel).unwrap_err()
        });
        begins.recv().unwrap();
        cancel.cancel();
        run.join().unwrap()
    });
    assert_eq!(error.kind(), RunErrorKind::Cancelled);
    // The graph is as good as before.
    let inputs = [integers("times", &[], &[1]), floats("x", &[1], &[1.0])];
    assert_eq!(run(&*graph, &inputs), [floats("total", &[1], &[2.0])]);
}

#[test]
fn the_bytes_do_not_choose_another_format() {
    let mut model = build::model(build::graph(
        vec![build::value("x", Datatype::Fp32, &[Axis::Is(1)])],
        vec![build::value("y", Datatype::Fp32, &[Axis::Is(1)])],
        vec![build::node("Neg", &["x"], &["y"])],
    ));
    model.producer_name = Some("ORTM".to_owned());
    let file = Bytes::from(model.encode_to_vec());
    assert_eq!(&file[4..8], b"ORTM");
    assert_eq!(run(&*graph(&file), &[floats("x", &[1], &[1.0])]), [floats("y", &[1], &[-1.0])]);
}

#[test]
fn what_the_engine_gives_is_the_truth_about_an_output() {
    // Declared `[n]`, but it is as long as what is not zero.
    let mut file = build::graph(
        vec![build::value("x", Datatype::Fp32, &[Axis::Is(4)])],
        vec![build::value("y", Datatype::Int64, &[Axis::Named("a"), Axis::Named("b")])],
        vec![build::node("NonZero", &["x"], &["y"])],
    );
    file.value_info = vec![];
    let outputs = run(&*graph(&build::file(file)), &[floats("x", &[4], &[0.0, 1.0, 1.0, 0.0])]);
    assert_eq!(outputs, [integers("y", &[1, 2], &[1, 2])]);
}

#[test]
fn a_signature_that_is_not_the_graphs_is_refused() {
    let engine = onnxruntime();
    let file = build::identity(Datatype::Fp32, &[Axis::Is(1)]);
    let mut signature = crate::nn::onnx::Onnx::parse(file.clone()).unwrap().signature().unwrap();
    signature.outputs[0].name = "z".to_owned();
    let error = engine.load(file, &signature, &LoadOptions::default()).err().unwrap();
    assert_eq!(error.kind(), LoadErrorKind::UnsupportedTensor);
    assert!(error.to_string().contains("\"z\""), "{error}");
}

#[test]
fn several_threads_in_one_run_give_the_same() {
    let file = build::add(build::weights("w", &[2], &[1.0, 2.0])).encode_to_vec().into();
    let signature = crate::nn::onnx::Onnx::parse(Bytes::clone(&file)).unwrap().signature().unwrap();
    let options = LoadOptions { intra_op_threads: 2.try_into().unwrap() };
    let graph = onnxruntime().load(file, &signature, &options).unwrap();
    assert_eq!(graph.bytes(), 90.max(graph.bytes()));
    let outputs = run(&*graph, &[floats("x", &[2], &[1.0, 1.0])]);
    assert_eq!(outputs, [floats("y", &[2], &[2.0, 3.0])]);
}

#[test]
fn each_of_the_engines_sentences_names_the_operator() {
    for (message, wanted) in [
        (
            "Fatal error: com.example:Op(-1) is not a registered function/op",
            Some("com.example::Op"),
        ),
        (
            "Could not find an implementation for Trilu(14) node with name 'x'",
            Some("ai.onnx::Trilu"),
        ),
        (
            "Failed to find kernel for com.microsoft.Op(1) (node:'' ep:'CPUExecutionProvider').",
            Some("com.microsoft::Op"),
        ),
        (
            "In Node, (\"n\", Op, \"com.example\", -1) : () -> () , Error No Op registered for Op with domain_version of 1",
            Some("com.example::Op"),
        ),
        ("Exception during initialization", None),
    ] {
        assert_eq!(missing_operator(message).map(|o| o.to_string()).as_deref(), wanted);
    }
}
