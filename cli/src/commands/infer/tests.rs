//! What is sent for what was typed.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::exit::Exit;

fn specs() -> Vec<TensorSpec> {
    serde_json::from_value(json!([
        { "name": "x", "datatype": "FP32", "shape": [-1, 2] },
        { "name": "x=y", "datatype": "INT64", "shape": [] },
        { "name": "text", "datatype": "BYTES", "shape": [-1] }
    ]))
    .unwrap()
}

fn send(inputs: &[String], files: &[String]) -> Result<(Value, Vec<u8>), Failure> {
    let args = InferArgs {
        target: "m".parse().unwrap(),
        inputs: inputs.to_vec(),
        input_files: files.to_vec(),
    };
    let (head_length, mut body) = request(read_inputs(&args, &specs())?)?;
    let announced = body.length();
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).unwrap();
    assert_eq!(announced, bytes.len() as u64);
    let tensors = bytes.split_off(head_length);
    Ok((serde_json::from_slice(&bytes).unwrap(), tensors))
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn json_goes_as_it_was_typed() {
    let typed = ["x=[[1, 2.50], [3, 4]]", "x=y=7", "text=[\"a\"]"].map(str::to_owned);
    let (head, tensors) = send(&typed, &[]).unwrap();
    assert_eq!(
        head,
        json!({
            "inputs": [
                { "name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2.5], [3, 4]] },
                { "name": "x=y", "datatype": "INT64", "shape": [], "data": [7] },
                { "name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"] }
            ],
            "parameters": { "binary_data_output": true }
        })
    );
    assert!(tensors.is_empty());
}

#[test]
fn files_go_as_bytes_behind_the_json() {
    let folder = tempfile::tempdir().unwrap();
    let raw = file(folder.path(), "x.f32", &[7; 24]);
    let text = file(folder.path(), "t", b"\x01\0\0\0a");
    let (head, tensors) = send(&[], &[format!("text={text}"), format!("x={raw}:3x2")]).unwrap();
    assert_eq!(head["inputs"][0]["parameters"], json!({ "binary_data_size": 5 }));
    assert_eq!(head["inputs"][1]["shape"], json!([3, 2]));
    assert_eq!(tensors, [b"\x01\0\0\0a".as_slice(), &[7; 24]].concat());
    let (head, _) = send(&[], &[format!("x={raw}")]).unwrap();
    assert_eq!(head["inputs"][0]["shape"], json!([3, 2]), "the one dynamic axis takes the rest");
}

#[test]
fn json_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "x.json", b"\n[1, 2]\n");
    let (head, _) = send(&[format!("x=@{path}")], &[]).unwrap();
    assert_eq!(head["inputs"][0]["data"], json!([1, 2]));
    assert_eq!(head["inputs"][0]["shape"], json!([1, 2]));
    let failure = send(&[format!("x=@{path}.none")], &[]).unwrap_err();
    assert_eq!(failure.exit(), Exit::NotFound);
}

#[test]
fn mistakes_name_the_input_and_what_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let odd = file(folder.path(), "odd", &[0; 6]);
    let pair = file(folder.path(), "pair", &[0; 8]);
    let json = |text: &str| send(&[text.to_owned()], &[]).unwrap_err().to_string();
    let raw = |text: String| send(&[], &[text]).unwrap_err().to_string();
    assert!(json("z=1").contains("no input 'z'") && json("z=1").contains("x (FP32 [-1,2])"));
    assert!(json("x").contains("no input 'x'"));
    assert!(json("x=[1,").contains("JSON of input 'x'"));
    assert!(json("x=[1, 2, 3]").contains("3 elements do not fill the shape [-1,2]"));
    assert!(json("x=[[1, 2], [3]]").contains("ragged"));
    assert!(raw(format!("x={odd}")).contains("6 bytes are no whole number of 4-byte elements"));
    assert!(raw(format!("x={pair}:3x2")).contains("2 elements do not fill the shape [3,2]"));
    let twice = send(&["x=[1, 2]".to_owned()], &[format!("x={pair}")]).unwrap_err();
    assert!(twice.to_string().contains("given twice"));
}
