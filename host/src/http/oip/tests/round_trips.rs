//! Every datatype, in JSON and binary, comes back as it was sent; and whatever is sent, nothing
//! panics.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Answer, JsonPart, RequestedOutput, RequestedOutputs, encode_infer};
use super::{decode, signature_of, spec};
use crate::tensor::{
    ALIGNMENT, AlignedBuffer, Datatype, NamedTensor, Tensor, element_count, push_bytes_element,
};
use crate::version::Signature;

/// How an input is put into a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Binary,
    Flat,
    Nested,
}

/// The elements of `tensor` as JSON values; the plain model that the codec is compared with.
fn values(tensor: &Tensor) -> Vec<Value> {
    fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> Value) -> Vec<Value> {
        data.chunks(N).map(|chunk| value(chunk.try_into().unwrap())).collect()
    }
    let data = tensor.data();
    match tensor.datatype() {
        Datatype::Bool => each(data, |[b]| json!(b == 1)),
        Datatype::Uint8 => each(data, |b| json!(u8::from_le_bytes(b))),
        Datatype::Uint16 => each(data, |b| json!(u16::from_le_bytes(b))),
        Datatype::Uint32 => each(data, |b| json!(u32::from_le_bytes(b))),
        Datatype::Uint64 => each(data, |b| json!(u64::from_le_bytes(b))),
        Datatype::Int8 => each(data, |b| json!(i8::from_le_bytes(b))),
        Datatype::Int16 => each(data, |b| json!(i16::from_le_bytes(b))),
        Datatype::Int32 => each(data, |b| json!(i32::from_le_bytes(b))),
        Datatype::Int64 => each(data, |b| json!(i64::from_le_bytes(b))),
        Datatype::Fp32 => each(data, |b| json!(f32::from_le_bytes(b))),
        Datatype::Fp64 => each(data, |b| json!(f64::from_le_bytes(b))),
        Datatype::Bytes => {
            tensor.bytes_elements().map(|e| json!(str::from_utf8(e).unwrap())).collect()
        }
        Datatype::Fp16 | Datatype::Bf16 => panic!("these have no JSON form"),
    }
}

/// Nests flat values to a shape, as numpy's `tolist` does.
fn nest(values: Vec<Value>, shape: &[usize]) -> Value {
    let Some((first, rest)) = shape.split_first() else {
        return values.into_iter().next().unwrap();
    };
    let each = values.len().checked_div(*first).unwrap_or(0);
    let mut values = values.into_iter();
    let mut row = || nest(values.by_ref().take(each).collect(), rest);
    if rest.is_empty() {
        return Value::Array(values.collect());
    }
    Value::Array((0..*first).map(|_| row()).collect())
}

/// A request's body and its JSON length.
fn request(inputs: &[(NamedTensor, Form)]) -> (Vec<u8>, usize) {
    let mut binary = Vec::new();
    let mut documents = Vec::new();
    for ((name, tensor), form) in inputs {
        let (datatype, shape) = (tensor.datatype(), tensor.shape());
        let mut document = json!({"name": name, "datatype": datatype, "shape": shape});
        match form {
            Form::Binary => {
                document["parameters"] = json!({"binary_data_size": tensor.data().len()});
                binary.extend_from_slice(tensor.data());
            }
            Form::Flat => document["data"] = Value::Array(values(tensor)),
            Form::Nested => document["data"] = nest(values(tensor), shape),
        }
        documents.push(document);
    }
    let mut body =
        json!({"id": "7", "model_name": "m", "inputs": documents}).to_string().into_bytes();
    let json_bytes = body.len();
    body.extend(binary);
    (body, json_bytes)
}

/// The bytes of `count` elements, made from whatever `noise` there is.
fn elements(datatype: Datatype, count: usize, noise: &[u8], for_json: bool) -> Bytes {
    let mut noise = noise.iter().copied().cycle();
    let mut next = || noise.next().unwrap_or(0);
    let mut data = Vec::new();
    for _ in 0..count {
        match datatype {
            Datatype::Bool => data.push(next() & 1),
            Datatype::Bytes => {
                let length = usize::from(next() % 9);
                let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
                let text = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
                let element = if for_json { text } else { bytes };
                push_bytes_element(&mut data, &element).unwrap();
            }
            _ => {
                let mut element: Vec<u8> = (0..datatype.size().unwrap()).map(|_| next()).collect();
                // An exponent of ones is what infinity and NaN have, and JSON does not.
                if for_json && matches!(datatype, Datatype::Fp32 | Datatype::Fp64) {
                    *element.last_mut().unwrap() &= 0xbf;
                }
                data.extend(element);
            }
        }
    }
    data.into()
}

fn any_input() -> impl Strategy<Value = (Tensor, Form)> {
    let form = prop_oneof![Just(Form::Binary), Just(Form::Flat), Just(Form::Nested)];
    let datatype = proptest::sample::select(&Datatype::ALL[..]);
    (datatype, vec(0usize..4, 0..4), vec(any::<u8>(), 0..300), form).prop_map(
        |(datatype, shape, noise, form)| {
            let only_binary = matches!(datatype, Datatype::Fp16 | Datatype::Bf16);
            let form = if only_binary { Form::Binary } else { form };
            let count = element_count(&shape).unwrap();
            let data = elements(datatype, count, &noise, form != Form::Binary);
            (Tensor::new(datatype, shape, data).unwrap(), form)
        },
    )
}

/// Tensors of every datatype, and how each is put into a request.
pub(super) fn any_inputs() -> impl Strategy<Value = Vec<(NamedTensor, Form)>> {
    vec(any_input(), 0..5).prop_map(|inputs| {
        let named = |(index, (tensor, form))| ((format!("in \"{index}\"é"), tensor), form);
        inputs.into_iter().enumerate().map(named).collect()
    })
}

/// What a caller could send: a valid request with some bytes changed, lost or added.
pub(super) fn any_damage() -> impl Strategy<Value = Vec<(u8, usize, u8)>> {
    vec((0u8..4, any::<usize>(), any::<u8>()), 1..6)
}

pub(super) fn damage(body: &mut Vec<u8>, damages: &[(u8, usize, u8)]) {
    const STRUCTURE: &[u8] = b"[]{}\",:0-9.eEtfn\\\0\xff";
    for (kind, at, byte) in damages {
        let at = at % (body.len() + 1);
        let structure = STRUCTURE[usize::from(*byte) % STRUCTURE.len()];
        match kind {
            0 if at < body.len() => body[at] = *byte,
            1 if at < body.len() => body[at] = structure,
            2 => body.insert(at, structure),
            _ => body.truncate(at),
        }
    }
}

proptest! {
    #[test]
    fn a_request_decodes_to_the_tensors_it_was_made_of(inputs in any_inputs()) {
        let tensors: Vec<NamedTensor> = inputs.iter().map(|(named, _)| named.clone()).collect();
        let (body, json_bytes) = request(&inputs);
        let decoded = decode(body, JsonPart::Prefix(json_bytes), &signature_of(&tensors)).unwrap();
        prop_assert_eq!(decoded.inputs, tensors);
        prop_assert_eq!(decoded.id.as_deref(), Some("7"));
    }

    #[test]
    fn an_answer_carries_the_tensors_it_was_made_of(inputs in any_inputs()) {
        let tensors: Vec<NamedTensor> = inputs.iter().map(|(named, _)| named.clone()).collect();
        let signature = signature_of(&tensors);
        let listed = inputs.iter().map(|((name, _), form)| RequestedOutput {
            name: name.clone(),
            binary: Some(*form == Form::Binary),
            classification: None,
        });
        let requested =
            RequestedOutputs { listed: Some(listed.collect()), binary_by_default: false };
        let answer = Answer { model: "m", version: "1", id: Some("7"), outputs: &tensors };
        let encoded = encode_infer(&answer, &requested, &signature).unwrap();
        prop_assert_eq!(encoded.body_length(), encoded.parts.concat().len());

        // An answer's outputs are written as a request's inputs are: reading them back as such is a
        // round trip through both codecs.
        let json = str::from_utf8(&encoded.parts[0]).unwrap();
        let json = json.replacen("\"outputs\":", "\"inputs\":", 1);
        let json_bytes = json.len();
        prop_assert_eq!(encoded.header_length, (encoded.parts.len() > 1).then_some(json_bytes + 1));
        let body = [json.into_bytes(), encoded.parts[1..].concat()].concat();
        let decoded = decode(body, JsonPart::Prefix(json_bytes), &signature).unwrap();
        prop_assert_eq!(decoded.inputs, tensors);
        prop_assert_eq!(decoded.id.as_deref(), Some("7"));
    }

    #[test]
    fn a_damaged_request_is_an_answer_or_an_error(
        inputs in any_inputs(),
        damages in any_damage(),
        split in any::<usize>(),
    ) {
        let tensors: Vec<NamedTensor> = inputs.iter().map(|(named, _)| named.clone()).collect();
        let (mut body, json_bytes) = request(&inputs);
        damage(&mut body, &damages);
        let signature = signature_of(&tensors);
        let split = split % (body.len() + 2);
        for json in [
            JsonPart::Prefix(json_bytes),
            JsonPart::Prefix(split.max(1)),
            JsonPart::Whole,
            JsonPart::Absent,
        ] {
            if let Err(error) = decode(body.clone(), json, &signature) {
                prop_assert!(error.to_string().len() < 2000, "{}", error);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_answer_or_an_error(body in vec(any::<u8>(), 0..200), open in any::<bool>()) {
        let shape = if open { [-1, 2] } else { [3, 2] };
        let signature =
            Signature { inputs: vec![spec("x", Datatype::Bool, &shape)], ..Signature::default() };
        for json in [JsonPart::Whole, JsonPart::Absent, JsonPart::Prefix(7)] {
            let _ = decode(body.clone(), json, &signature);
        }
    }
}

#[test]
fn binary_inputs_are_not_copied_and_the_first_is_aligned() {
    let data = |byte| Tensor::new(Datatype::Fp32, vec![8], vec![byte; 32].into()).unwrap();
    let inputs = [(("x".to_owned(), data(1)), Form::Binary), (("y".into(), data(2)), Form::Binary)];
    let (plain, json_bytes) = request(&inputs);
    let json = JsonPart::Prefix(json_bytes);
    let mut body = AlignedBuffer::with_aligned_offset(plain.len(), json.tensor_offset());
    body.extend(&plain);
    let body = body.freeze();
    let tensors = inputs.map(|(named, _)| named);
    let decoded = decode(body.clone(), json, &signature_of(&tensors)).unwrap();
    let first = decoded.inputs[0].1.data().as_ptr();
    assert_eq!(first, body[json_bytes..].as_ptr());
    assert_eq!(first.addr() % ALIGNMENT, 0);
    assert_eq!(decoded.inputs[1].1.data().as_ptr(), body[json_bytes + 32..].as_ptr());
}

#[test]
fn binary_outputs_are_not_copied() {
    let tensor = Tensor::new(Datatype::Fp16, vec![2, 2], vec![7; 8].into()).unwrap();
    let outputs = [("y".to_owned(), tensor.clone())];
    let answer = Answer { model: "m", version: "1.0", id: None, outputs: &outputs };
    let requested = RequestedOutputs::all_binary();
    let encoded = encode_infer(&answer, &requested, &signature_of(&outputs)).unwrap();
    assert_eq!(encoded.parts[1].as_ptr(), tensor.data().as_ptr());
    assert_eq!(encoded.content_type(), "application/octet-stream");
    assert_eq!(encoded.header_length, Some(encoded.parts[0].len()));
    assert_eq!(
        str::from_utf8(&encoded.parts[0]).unwrap(),
        concat!(
            r#"{"model_name":"m","model_version":"1.0","outputs":[{"name":"y","datatype":"FP16","#,
            r#""shape":[2,2],"parameters":{"binary_data_size":8}}]}"#
        )
    );
}

#[test]
fn a_large_image_decodes_to_exactly_its_own_size() {
    let numbers = vec!["0.0123456"; 3 * 224 * 224].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,3,224,224],"data":[{numbers}]}}]}}"#
    );
    let inputs = vec![spec("x", Datatype::Fp32, &[-1, 3, 224, 224])];
    let signature = Signature { inputs, batch: true, ..Signature::default() };
    let decoded = decode(body, JsonPart::Whole, &signature).unwrap();
    let tensor = &decoded.inputs[0].1;
    assert_eq!(tensor.data().len(), 602_112);
    // A buffer that had grown on the way would have moved, and lost its alignment.
    assert_eq!(tensor.data().as_ptr().addr() % ALIGNMENT, 0);
    assert!(tensor.data().chunks(4).all(|element| element == 0.0123456f32.to_le_bytes()));
}
