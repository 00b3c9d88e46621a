//! The features: a real engine behind the test host, arrays, and numbers of 16 bits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use half::{bf16, f16};
use modelet_guest::testing::{Host, input};
use modelet_guest::{Datatype, Element, Graph, Tensor};
use ndarray::{Array2, Axis, array};

/// Four features by the weights 1, -1, 0.5 and 2.
const LINEAR: &[u8] = include_bytes!("../../cli/template/model.onnx");

#[test]
fn a_real_graph_runs_on_the_authors_machine() {
    let _host = Host::new().onnx("model.onnx", LINEAR).unwrap().install();
    let graph = Graph::load("model.onnx").unwrap();
    let features = Tensor::new([2, 4], vec![1.0f32, 2.0, 3.0, 4.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
    let mut outputs = graph.run().input("features", &features).compute().unwrap();
    assert_eq!(outputs.names().collect::<Vec<_>>(), ["score"]);
    let scores: Tensor<f32> = outputs.take("score").unwrap();
    assert_eq!((scores.shape(), scores.data()), (&[2, 1][..], &[8.5f32, -1.0][..]));
    assert!(outputs.take::<f32>("score").unwrap_err().to_string().contains("gave no output"));
    let error = graph.run().input("nope", &features).compute().unwrap_err();
    assert!(error.to_string().contains("nope"), "{error}");
    assert!(Host::new().onnx("model.onnx", b"not a graph").is_err());
}

#[test]
fn tensors_are_arrays_without_a_copy_and_arrays_are_tensors() {
    let tensor = Tensor::new([2, 3], vec![1, 2, 3, 4, 5, 6i64]).unwrap();
    let view = tensor.view().unwrap();
    assert_eq!(view.as_ptr(), tensor.data().as_ptr());
    assert_eq!(view.sum_axis(Axis(0)), array![5, 7, 9].into_dyn());
    let array: Array2<i64> = array![[1, 2, 3], [4, 5, 6]];
    assert_eq!(Tensor::from(array.clone()), tensor);
    // Another order in memory, and a part of an array, are written out row by row.
    let turned = Tensor::from(array.clone().reversed_axes());
    assert_eq!((turned.shape(), turned.data()), (&[3, 2][..], &[1, 4, 2, 5, 3, 6][..]));
    let part = Tensor::from(array.slice_move(ndarray::s![1.., ..2]));
    assert_eq!((part.shape(), part.data()), (&[1, 2][..], &[4, 5][..]));
}

#[test]
fn numbers_of_16_bits_are_elements_like_all_others() {
    let halves = Tensor::vector(vec![f16::from_f32(1.5), f16::NEG_ZERO]);
    assert_eq!(input("x", &halves).unwrap(), halves);
    assert_eq!((f16::DATATYPE, bf16::DATATYPE), (Datatype::Fp16, Datatype::Bf16));
}

#[test]
fn an_input_keeps_its_name_for_errors_and_its_elements_where_they_are() {
    let texts = Tensor::new([2, 1], vec!["a".to_owned(), "b".to_owned()]).unwrap();
    let given = input("text", &texts).unwrap();
    assert_eq!(given.row(1).unwrap(), ["b"]);
    assert_eq!(given.row(2).unwrap_err().tensor(), Some("text"));
    assert_eq!(texts.row(2).unwrap_err().tensor(), None);
    let empty = Tensor::new([0, 4], Vec::<f32>::new()).unwrap();
    assert!(input("x", &empty).unwrap().is_empty() && empty.row(0).is_err());
    assert_eq!(Tensor::scalar(3u8).shape(), [0usize; 0]);
    assert!(Tensor::new([usize::MAX, 2], vec![1u8]).is_err());
}
