//! What the codecs allocate is taken from a budget first.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::http::oip::{
    Answer, Budget, DecodeErrorKind, EncodeErrorKind, RequestedOutputs, decode_infer_within,
    encode_infer_within,
};
use crate::limit::Limit;
use crate::tensor::Tensor;

/// A budget of so many bytes, and what was taken of it.
struct Room {
    bytes: usize,
    taken: usize,
}

impl Room {
    fn of(bytes: usize) -> Self {
        Self { bytes, taken: 0 }
    }
}

impl Budget for Room {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.taken + bytes <= self.bytes;
        self.taken += if fits { bytes } else { 0 };
        fits
    }
}

/// Decodes a request with one JSON input within `room`; gives what was taken and the outcome.
fn decode_json(
    datatype: Datatype,
    data: &serde_json::Value,
    count: usize,
    room: usize,
) -> (usize, Result<InferRequest, DecodeError>) {
    let input = json!({ "name": "x", "datatype": datatype, "shape": [count], "data": data });
    let body = json!({ "inputs": [input] }).to_string();
    let signature = Signature { inputs: vec![spec("x", datatype, &[-1])], ..Signature::default() };
    let (mut room, limits) = (Room::of(room), DecodeLimits::default());
    let whole = JsonPart::Whole;
    let decoded = decode_infer_within(body.into(), whole, &signature, &limits, &mut room);
    (room.taken, decoded)
}

proptest! {
    /// Two characters of text become eight bytes: what they become is what counts.
    #[test]
    fn numbers_take_what_they_become(numbers in prop::collection::vec(0i64..10, 1..500)) {
        let (data, count) = (json!(numbers), numbers.len());
        let (taken, decoded) = decode_json(Datatype::Int64, &data, count, usize::MAX);
        prop_assert_eq!(decoded.unwrap().inputs[0].1.data().len(), taken);
        prop_assert_eq!(taken, count * 8);
        let (taken, decoded) = decode_json(Datatype::Int64, &data, count, count * 8 - 1);
        let error = decoded.unwrap_err();
        prop_assert_eq!((error.kind(), taken), (DecodeErrorKind::NoRoom, 0));
        prop_assert_eq!(error.limit(), Some(Limit::InflightBytes));
    }

    #[test]
    fn strings_take_no_less_than_they_become(
        strings in prop::collection::vec("[a-z\"\\\\]{0,20}", 1..50),
    ) {
        let (data, count) = (json!(strings), strings.len());
        let (taken, decoded) = decode_json(Datatype::Bytes, &data, count, usize::MAX);
        prop_assert!(decoded.unwrap().inputs[0].1.data().len() <= taken);
        let (taken, decoded) = decode_json(Datatype::Bytes, &data, count, taken - 1);
        prop_assert_eq!((decoded.unwrap_err().kind(), taken), (DecodeErrorKind::NoRoom, 0));
    }
}

#[test]
fn a_shape_that_the_text_cannot_fill_takes_what_the_text_can() {
    let (taken, decoded) = decode_json(Datatype::Fp64, &json!([1, 2, 3]), 50_000_000, usize::MAX);
    assert_eq!(decoded.unwrap_err().kind(), DecodeErrorKind::BadRequest);
    assert!(taken < 100, "{taken}");
}

#[test]
fn an_answer_in_json_takes_about_what_it_becomes_and_is_refused_without_room() {
    let data = (0..1000).flat_map(|n: i32| (n as f32 / 7.0).to_le_bytes()).collect::<Vec<_>>();
    let tensor = Tensor::new(Datatype::Fp32, vec![1000], data.into()).unwrap();
    let outputs = [("y".to_owned(), tensor)];
    let signature = signature_of(&outputs);
    let answer = Answer { model: "m", version: "1", id: None, outputs: &outputs };
    let requested = RequestedOutputs::default();
    let mut room = Room::of(usize::MAX);
    let encoded = encode_infer_within(&answer, &requested, &signature, &mut room).unwrap();
    assert!(encoded.body_length() <= room.taken, "{} of {}", encoded.body_length(), room.taken);
    let mut less = Room::of(room.taken - 1);
    let error = encode_infer_within(&answer, &requested, &signature, &mut less).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (EncodeErrorKind::NoRoom, "y"));
    // What goes out as it is was there before.
    let binary = RequestedOutputs::all_binary();
    encode_infer_within(&answer, &binary, &signature, &mut Room::of(1000)).unwrap();
}
