//! Every refusal, by the words the caller reads and the place they point at; and what is tolerated
//! because clients send it.

use bytes::Bytes;

use super::super::{
    Answer, DecodeErrorKind, DecodeLimits, EncodeErrorKind, JsonPart, ParameterValue,
    RequestedOutput, RequestedOutputs, decode_infer, encode_infer,
};
use super::{decode, signature_of, spec};
use crate::tensor::{Datatype, NamedTensor, Tensor};
use crate::version::Signature;

/// x FP32 [-1,2] and n INT64 [-1] in, y FP32 [-1,2] and t BYTES [-1] out.
fn signature() -> Signature {
    Signature {
        inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("n", Datatype::Int64, &[-1])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1, 2]), spec("t", Datatype::Bytes, &[-1])],
        batch: true,
        task: None,
    }
}

const X: &str = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
const N: &str = r#"{"name":"n","datatype":"INT64","shape":[1],"data":[3]}"#;

/// The message, tensor and place of the refusal of a request with these inputs.
fn refused(inputs: &str) -> (String, String, String) {
    refused_body(&format!("{{\"inputs\":[{inputs}]}}"))
}

fn refused_body(body: &str) -> (String, String, String) {
    let error = decode(body.to_owned(), JsonPart::Whole, &signature()).unwrap_err();
    assert_eq!(error.kind(), DecodeErrorKind::BadRequest, "{error}");
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (error.to_string(), text(error.tensor()), text(error.place()))
}

fn strings(message: &str, tensor: &str, place: &str) -> (String, String, String) {
    (message.to_owned(), tensor.to_owned(), place.to_owned())
}

#[test]
fn inputs_that_are_not_the_models_are_named() {
    let cases = [
        (
            r#"{"name":"z"}"#.to_owned(),
            "input \"z\": the model has no such input; it takes \"x\" FP32 [-1,2], \"n\" INT64 [-1]",
            "z",
            "inputs[0].name",
        ),
        (format!("{X},{X}"), "input \"x\": it is given twice", "x", "inputs[1].name"),
        (
            X.to_owned(),
            "input \"n\": it is missing; the model takes it as INT64 [-1]",
            "n",
            "inputs",
        ),
        (
            X.replace("FP32", "FP64"),
            "input \"x\": the model takes FP32 [-1,2], and the request gives FP64 [1,2]",
            "x",
            "inputs[0].datatype",
        ),
        (
            X.replace("[1,2],", "[1,3],"),
            "input \"x\": the model takes FP32 [-1,2], and the request gives FP32 [1,3]",
            "x",
            "inputs[0].shape",
        ),
        (
            X.replace("[1,2],", "[2],"),
            "input \"x\": the model takes FP32 [-1,2], and the request gives FP32 [2]",
            "x",
            "inputs[0].shape",
        ),
        (
            format!("{N},{}", X.replace("[1,2],", "[2,2],").replace("[1,2]", "[1,2,3,4]")),
            "input \"x\": axis 0 is the batch and has length 2, where input \"n\" has 1: give all \
             inputs as many rows",
            "x",
            "inputs[1].shape",
        ),
    ];
    for (inputs, message, tensor, place) in cases {
        assert_eq!(refused(&inputs), strings(message, tensor, place));
    }
}

#[test]
fn fields_that_are_missing_or_wrong_are_named() {
    let x = |field: &str, value: &str| X.replace(field, value);
    let cases = [
        (r#"{"datatype":"FP32"}"#.to_owned(), "the field \"name\" is missing", "", "name"),
        (
            x("\"datatype\":\"FP32\",", ""),
            "input \"x\": the field \"datatype\" is missing",
            "x",
            "datatype",
        ),
        (
            x("FP32", "fp32"),
            "input \"x\": unknown datatype \"fp32\": use one of BOOL, UINT8, UINT16, UINT32, \
             UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BF16, BYTES",
            "x",
            "datatype",
        ),
        (x("\"shape\":[1,2],", ""), "input \"x\": the field \"shape\" is missing", "x", "shape"),
        (
            x(",\"data\":[1,2]", ""),
            "input \"x\": it has neither \"data\" nor the parameter binary_data_size: give one of \
             them",
            "x",
            "data",
        ),
        (
            x("\"data\"", "\"parameters\":{\"binary_data_size\":8},\"data\""),
            "input \"x\": it has both \"data\" and the parameter binary_data_size: give one of them",
            "x",
            "data",
        ),
        (
            x("\"data\"", "\"parameters\":{\"binary_data_size\":-8},\"data\""),
            "input \"x\": the parameter \"binary_data_size\" must be a number of bytes",
            "x",
            "parameters",
        ),
        (
            x("\"data\"", "\"parameters\":{\"shared_memory_region\":\"r\"},\"data\""),
            "input \"x\": shared memory is not enabled on this server: send the data in the \
             request, and take outputs from the answer",
            "x",
            "parameters",
        ),
        (
            x("[1,2]}", "[1,true]}"),
            "input \"x\": element 1 is true, and FP32 takes numbers up to 3.4028235e38",
            "x",
            "data",
        ),
        (
            x("[1,2]}", "[1,2,3]}"),
            "input \"x\": \"data\" holds 3 elements, and shape [1,2] has 2",
            "x",
            "data",
        ),
    ];
    for (inputs, message, tensor, field) in cases {
        assert_eq!(refused(&inputs), strings(message, tensor, &format!("inputs[0].{field}")));
    }
}

#[test]
fn shapes_are_real_lengths_within_the_limits() {
    let with_shape = |shape: &str| X.replace("[1,2],", &format!("{shape},"));
    let (message, _, place) = refused(&with_shape("[-1,2]"));
    assert_eq!(
        message,
        "input \"x\": shape [-1,2] has a negative axis: a request gives every length"
    );
    assert_eq!(place, "inputs[0].shape");
    for not_a_shape in ["\"2\"", "[1.5,2]", "[\"1\"]", "{}", "[9223372036854775808,2]", "2"] {
        let message = refused(&with_shape(not_a_shape)).0;
        assert_eq!(message, "input \"x\": the field \"shape\" must be an array of whole numbers");
    }
    let message = refused(&with_shape(&format!("[{}1]", "1,".repeat(40)))).0;
    assert_eq!(message, "input \"x\": 41 axes are over the limit of 32 (limits.tensor_rank)");

    for too_large in ["[33554433,2]", "[9223372036854775807,2]", "[0,67108865]"] {
        let body = format!("{{\"inputs\":[{}]}}", with_shape(too_large));
        let error = decode(body, JsonPart::Whole, &signature()).unwrap_err();
        assert_eq!(error.kind(), DecodeErrorKind::TooLarge);
        let expected = format!(
            "input \"x\": shape {too_large} is over the limit of 67108864 elements (limits.tensor_elements)"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn counts_over_their_limits_are_too_large() {
    let many = |count: usize, entry: &str| vec![entry; count].join(",");
    let parameters: Vec<String> = (0..65).map(|index| format!("\"p{index}\":1")).collect();
    let cases = [
        (
            format!("{{\"inputs\":[{}]}}", many(100_000, "{}")),
            "100000 inputs are over the limit of 512 (limits.inputs)",
        ),
        (
            format!("{{\"inputs\":[],\"outputs\":[{}]}}", many(513, "{}")),
            "513 outputs are over the limit of 512 (limits.outputs)",
        ),
        (
            format!("{{\"inputs\":[],\"parameters\":{{{}}}}}", parameters.join(",")),
            "65 parameters are over the limit of 64 (limits.parameters)",
        ),
    ];
    for (body, message) in cases {
        let error = decode(body, JsonPart::Whole, &signature()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (DecodeErrorKind::TooLarge, message)
        );
    }
}

#[test]
fn bodies_that_are_no_request_say_where() {
    let cases = [
        ("", "the body is empty: send a JSON object with \"inputs\"", ""),
        ("{}", "the field \"inputs\" is missing", "inputs"),
        (
            "{\"inputs\":[",
            "the JSON part is not an inference request: EOF while parsing a list at line 1 column 11",
            "line 1 column 11",
        ),
        (
            "{\"inputs\":[]} x",
            "the JSON part is not an inference request: trailing characters at line 1 column 15",
            "line 1 column 15",
        ),
    ];
    for (body, message, place) in cases {
        assert_eq!(refused_body(body), strings(message, "", place));
    }
    let message = refused_body("{\"inputs\":[],\"inputs\":[]}").0;
    assert!(message.contains("duplicate field `inputs`"), "{message}");
    let message = refused_body("{\"id\":5,\"inputs\":[]}").0;
    assert!(message.contains("invalid type: integer `5`, expected a string"), "{message}");
    let message = refused_body(&format!("{}{}", "[".repeat(101), "]".repeat(101))).0;
    assert_eq!(message, "the JSON part nests deeper than the limit of 100 (limits.json_depth)");
    let error = decode(&b"{\"id\":\"\xff\"}"[..], JsonPart::Whole, &signature()).unwrap_err();
    assert_eq!(error.to_string(), "the JSON part is not UTF-8 at byte 7");
}

#[test]
fn binary_data_must_be_exactly_what_the_inputs_take() {
    let x = r#"{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}"#;
    let json = format!("{{\"inputs\":[{x},{N}]}}");
    let refused = |json: &str, binary: usize| {
        let body = [json.as_bytes(), &vec![0; binary]].concat();
        let error = decode(body, JsonPart::Prefix(json.len()), &signature()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refused(&json, 9),
        "unexpected additional input data: 1 bytes follow the last binary input"
    );
    let past_end = "input \"x\": binary_data_size is 8, and 7 bytes of binary data are left in the \
                    body; check it and the header inference-header-content-length";
    assert_eq!(refused(&json, 7), past_end);
    assert_eq!(
        refused(&json.replace(":8}", ":4}"), 4),
        "input \"x\": FP32 of shape [1,2] takes 8 bytes, and 4 were given"
    );
    let huge = json.replace(":8}", ":18446744073709551615}");
    assert!(refused(&huge, 8).contains("binary_data_size is 18446744073709551615, and 8"));
    let error = decode(json.clone(), JsonPart::Whole, &signature()).unwrap_err();
    assert!(error.to_string().contains("and 0 bytes of binary data are left"), "{error}");
    let error = decode(json, JsonPart::Prefix(1 << 20), &signature()).unwrap_err();
    assert!(error.to_string().starts_with("the JSON part is said to be 1048576 bytes"), "{error}");
}

#[test]
fn half_floats_and_booleans_are_checked_in_either_form() {
    let signature = Signature {
        inputs: vec![spec("h", Datatype::Fp16, &[1]), spec("b", Datatype::Bool, &[2])],
        ..Signature::default()
    };
    let json = r#"{"inputs":[{"name":"h","datatype":"FP16","shape":[1],"data":[1]}]}"#;
    let error = decode(json, JsonPart::Whole, &signature).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input \"h\": FP16 data cannot be given as JSON; please use the binary data format"
    );
    let json = concat!(
        r#"{"inputs":[{"name":"b","datatype":"BOOL","shape":[2],"#,
        r#""parameters":{"binary_data_size":2}}]}"#
    );
    let body = [json.as_bytes(), &[1, 2]].concat();
    let error = decode(body, JsonPart::Prefix(json.len()), &signature).unwrap_err();
    assert_eq!(error.to_string(), "input \"b\": BOOL holds only 0 and 1, and element 1 is 2");
}

#[test]
fn outputs_that_are_not_the_models_are_named() {
    let refused = |outputs: &str| {
        let refused = refused_body(&format!("{{\"inputs\":[{X},{N}],\"outputs\":[{outputs}]}}"));
        (refused.0, refused.2)
    };
    let unknown = "output \"z\": the model has no such output; it gives \"y\" FP32 [-1,2], \"t\" \
                   BYTES [-1]";
    assert_eq!(refused(r#"{"name":"z"}"#), (unknown.into(), "outputs[0].name".into()));
    assert_eq!(
        refused(r#"{"name":"y"},{"name":"y"}"#),
        ("output \"y\": it is given twice".into(), "outputs[1].name".into())
    );
    assert_eq!(refused("{}").0, "the field \"name\" is missing");
    let parameter = |text: &str| refused(&format!(r#"{{"name":"y","parameters":{{{text}}}}}"#)).0;
    assert_eq!(
        parameter(r#""binary_data":1"#),
        "output \"y\": the parameter \"binary_data\" must be true or false"
    );
    assert!(parameter(r#""shared_memory_region":"r""#).contains("shared memory is not enabled"));
    for bad in ["0", "-1", "1.5", "\"2\"", "4294967296"] {
        let message = parameter(&format!("\"classification\":{bad}"));
        assert!(message.ends_with("must be a number of classes, at least 1"), "{message}");
    }
}

#[test]
fn reserved_parameters_are_refused_and_others_passed_on() {
    let body =
        |parameters: &str| format!("{{\"parameters\":{{{parameters}}},\"inputs\":[{X},{N}]}}");
    assert_eq!(
        refused_body(&body(r#""triton_enable_empty_final_response":true"#)).0,
        "the parameter \"triton_enable_empty_final_response\" is reserved: names that begin with \
         triton_ are not for callers"
    );
    assert_eq!(
        refused_body(&body(r#""binary_data_output":1"#)).0,
        "the parameter \"binary_data_output\" must be true or false"
    );
    let text = body(r#""binary_data_output":true,"priority":2"#);
    let request = decode(text, JsonPart::Whole, &signature()).unwrap();
    assert_eq!(request.outputs, RequestedOutputs::all_binary());
    assert_eq!(request.parameters.len(), 1);
    assert_eq!(request.parameters["priority"], ParameterValue::Int64(2));
}

#[test]
fn what_clients_send_beyond_the_protocol_is_tolerated() {
    let body = format!(
        r#"{{"model_name":"m","id":null,"parameters":null,"outputs":[],"extra":{{"a":[1]}},
            "inputs":[{},{N}]}}"#,
        X.replace("\"data\"", "\"parameters\":null,\"content_type\":\"np\",\"data\"")
    );
    let request = decode(body.clone(), JsonPart::Prefix(body.len()), &signature()).unwrap();
    assert_eq!((request.id, request.outputs), (None, RequestedOutputs::default()));
    assert_eq!(request.inputs.len(), 2);
}

#[test]
fn configured_limits_replace_the_defaults() {
    let limits = DecodeLimits { tensor_elements: 1, ..DecodeLimits::default() };
    let body = Bytes::from(format!("{{\"inputs\":[{X}]}}"));
    let error = decode_infer(body, JsonPart::Whole, &signature(), &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input \"x\": shape [1,2] is over the limit of 1 elements (limits.tensor_elements)"
    );
}

fn outputs() -> [NamedTensor; 2] {
    let floats: Vec<u8> = [1.0f32, 2.5, 4.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    [
        ("t".into(), Tensor::new(Datatype::Bytes, vec![0], Bytes::new()).unwrap()),
        ("y".into(), Tensor::new(Datatype::Fp32, vec![2, 2], floats.into()).unwrap()),
    ]
}

fn encoded(requested: &RequestedOutputs) -> (Option<usize>, String, usize) {
    let outputs = outputs();
    let answer = Answer { model: "m", version: "1", id: Some("a"), outputs: &outputs };
    let encoded = encode_infer(&answer, requested, &signature()).unwrap();
    let json = String::from_utf8(encoded.parts[0].to_vec()).unwrap();
    (encoded.header_length, json, encoded.parts.len() - 1)
}

#[test]
fn outputs_without_binary_data_have_no_parameters() {
    let (header, json, parts) = encoded(&RequestedOutputs::default());
    assert_eq!((header, parts), (None, 0));
    assert_eq!(
        json,
        concat!(
            r#"{"id":"a","model_name":"m","model_version":"1","outputs":["#,
            r#"{"name":"y","datatype":"FP32","shape":[2,2],"data":[1.0,2.5,4.0,3.0]},"#,
            r#"{"name":"t","datatype":"BYTES","shape":[0],"data":[]}]}"#
        )
    );
}

#[test]
fn empty_binary_outputs_alone_need_no_header() {
    let t = RequestedOutput { name: "t".into(), binary: Some(true), classification: None };
    let requested = RequestedOutputs { listed: Some(vec![t]), binary_by_default: false };
    let (header, json, parts) = encoded(&requested);
    assert_eq!((header, parts), (None, 0));
    assert!(json.ends_with(r#""shape":[0],"parameters":{"binary_data_size":0}}]}"#), "{json}");
}

#[test]
fn classes_replace_the_tensor_in_either_form() {
    let y = RequestedOutput { name: "y".into(), binary: None, classification: Some(1) };
    let requested = RequestedOutputs { listed: Some(vec![y]), binary_by_default: false };
    let (_, json, _) = encoded(&requested);
    let expected = r#"{"name":"y","datatype":"BYTES","shape":[2,1],"data":["2.5:1","4:0"]}]}"#;
    assert!(json.ends_with(expected), "{json}");
    let (header, json, parts) = encoded(&RequestedOutputs { binary_by_default: true, ..requested });
    assert_eq!((header, parts), (Some(json.len()), 1));
    assert!(json.contains(r#""binary_data_size":16"#), "{json}");
}

#[test]
fn an_output_that_cannot_be_sent_says_whose_fault_it_is() {
    let nan =
        Tensor::new(Datatype::Fp32, vec![1], Bytes::from_static(&[0, 0, 0xc0, 0x7f])).unwrap();
    let half = Tensor::new(Datatype::Fp16, vec![1], Bytes::from_static(&[0, 0])).unwrap();
    for (tensor, message) in [
        (nan, "output \"y\" holds NaN or infinity at element 0, which JSON cannot express"),
        (half, "output \"y\" is FP16, which JSON cannot express"),
    ] {
        let outputs = [("y".to_owned(), tensor)];
        let answer = Answer { model: "m", version: "1", id: None, outputs: &outputs };
        let signature = signature_of(&outputs);
        let error = encode_infer(&answer, &RequestedOutputs::default(), &signature).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (EncodeErrorKind::BadRequest, "y"));
        let whole = format!("{message}; ask for it with binary_data=true");
        assert_eq!(error.to_string(), whole);
        assert!(encode_infer(&answer, &RequestedOutputs::all_binary(), &signature).is_ok());
    }
    let answer = Answer { model: "m", version: "1", id: None, outputs: &outputs()[..1] };
    let error = encode_infer(&answer, &RequestedOutputs::default(), &signature()).unwrap_err();
    assert_eq!(error.kind(), EncodeErrorKind::GuestError);
    assert_eq!(error.to_string(), "output \"y\" is missing from the model's answer");
}
