//! The features: a real engine behind the test host, arrays, and numbers of 16 bits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use half::{bf16, f16};
use modelet_guest::testing::{Host, input};
use modelet_guest::{Datatype, Element, Graph, Tensor, reply};
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
fn rows_are_a_tensor_wherever_they_are_and_whatever_they_are_of() {
    fn check<T: Element + PartialEq>(elements: Vec<T>) {
        let whole = Tensor::new([3, 2], elements.clone()).unwrap();
        for tensor in [whole.clone(), input("x", &whole).unwrap()] {
            let rows = tensor.rows(1..3).unwrap();
            assert_eq!((rows.shape(), rows.data()), (&[2, 2][..], &elements[2..]));
            assert_eq!(rows.rows(1..2).unwrap().data(), &elements[4..]);
            assert!(tensor.rows(3..3).unwrap().is_empty());
            // Handed on, they are what they are.
            assert_eq!(input("rows", &rows).unwrap(), rows);
        }
        let given = input("x", &whole).unwrap();
        #[allow(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        for wrong in [2..4, 4..4, 2..1, usize::MAX..usize::MAX] {
            assert_eq!(given.rows(wrong).unwrap_err().tensor(), Some("x"));
        }
    }
    check(vec![1.5f32, 2.5, 3.5, 4.5, 5.5, 6.5]);
    check(vec![true, false, true, true, false, true]);
    check(["a", "", "long text", "ü", "b", "c"].map(str::to_owned).to_vec());
    assert!(Tensor::scalar(1.0f32).rows(0..1).is_err());
}

#[test]
fn what_is_emitted_is_kept_in_order_and_refused_where_nobody_waits_for_it() {
    let [one, two] = [1i64, 2].map(|number| Tensor::vector(vec![number]));
    let text = Tensor::vector(vec!["a".to_owned()]);
    let host = Host::new().streamed().install();
    assert!(reply::is_streamed());
    reply::output("n", &one).output("text", &text).emit().unwrap();
    reply::output("n", &two).emit().unwrap();
    let mut emitted = host.emitted();
    assert_eq!(emitted.len(), 2);
    assert_eq!(emitted[0].take::<String>("text").unwrap().data(), ["a"]);
    assert_eq!(emitted[1].take::<i64>("n").unwrap().data(), [2]);
    drop(host);
    let silent = Host::new().install();
    assert!(!reply::is_streamed() && silent.emitted().is_empty());
    assert!(reply::output("n", &one).emit().unwrap_err().to_string().contains("no stream"));
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
