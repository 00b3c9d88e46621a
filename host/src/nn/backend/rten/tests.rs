//! rten against graphs small enough to know the answers of.

use super::super::tests::{floats, integers, load, run, tensor};
use super::super::{LoadErrorKind, RunErrorKind};
use super::*;
use crate::nn::onnx::build::{self, Axis};

#[test]
fn datatypes_it_lacks_are_refused_at_load_with_their_tensor() {
    for datatype in [
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int16,
        Datatype::Fp16,
        Datatype::Fp64,
        Datatype::Bf16,
        Datatype::Bytes,
    ] {
        let error = load(&Rten::new(), &build::identity(datatype, &[])).err().unwrap();
        assert_eq!(error.kind(), LoadErrorKind::UnsupportedTensor);
        let message = format!("rten cannot serve \"x\": it has no {datatype}");
        assert!(error.to_string().starts_with(&message), "{error}");
    }
}

#[test]
fn an_integer_outside_i32_is_refused_with_its_element() {
    let graph = load(&Rten::new(), &build::identity(Datatype::Int64, &[Axis::Named("n")])).unwrap();
    let range = [i64::from(i32::MIN), i64::from(i32::MAX)];
    assert_eq!(run(&*graph, &[integers("x", &[2], &range)]), [integers("y", &[2], &range)]);
    for outside in [range[0] - 1, range[1] + 1, i64::MIN, i64::MAX] {
        let x = integers("x", &[3], &[0, 1, outside]);
        let error = graph.run(&[x], &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), RunErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            format!(
                "input \"x\": wanted INT64 [-1] within the range of INT32, which is all that rten has, given {outside} in element 2"
            )
        );
    }
}

#[test]
fn a_comparison_comes_back_as_bool() {
    let axes = [Axis::Is(3)];
    let file = build::file(build::graph(
        vec![build::value("x", Datatype::Fp32, &axes), build::value("y", Datatype::Fp32, &axes)],
        vec![build::value("less", Datatype::Bool, &axes)],
        vec![build::node("Less", &["x", "y"], &["less"])],
    ));
    let graph = load(&Rten::new(), &file).unwrap();
    let inputs = [floats("x", &[3], &[1.0, 2.0, 3.0]), floats("y", &[3], &[2.0, 2.0, 4.0])];
    assert_eq!(run(&*graph, &inputs), [tensor("less", Datatype::Bool, &[3], &[1, 0, 1])]);
}

#[test]
fn a_run_uses_only_its_own_threads() {
    let engine = Rten::new();
    let graph = load(&engine, &build::identity(Datatype::Fp32, &[Axis::Is(1)])).unwrap();
    for _ in 0..10 {
        run(&*graph, &[floats("x", &[1], &[1.0])]);
    }
    // Runs in turn share one pool of one thread.
    assert_eq!(engine.pools.lock().len(), 1);
}

#[test]
fn the_version_is_the_linked_one() {
    let lock = include_str!("../../../../../Cargo.lock");
    let (_, entry) = lock.split_once("name = \"rten\"\n").unwrap();
    assert!(
        entry.starts_with(&format!("version = \"{VERSION}\"")),
        "the linked one is {entry:.30}"
    );
}
