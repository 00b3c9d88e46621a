//! Texts that are tensors, and texts that are not.

use super::super::limits::Unlimited;
use super::*;

fn read_text(text: &str, datatype: Datatype, shape: &[usize]) -> Result<Tensor, String> {
    let raw: &RawValue = serde_json::from_str(text).unwrap();
    read(raw, datatype, shape.to_vec(), &mut Unlimited).map_err(|problem| problem.to_string())
}

fn int32(text: &str, shape: &[usize]) -> Result<Vec<i32>, String> {
    let tensor = read_text(text, Datatype::Int32, shape)?;
    Ok(tensor.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
}

#[test]
fn nested_and_flat_data_are_the_same_tensor() {
    let expected = Ok(vec![1, -2, 3, 4, 5, 6]);
    for text in ["[[1,-2,3],[4,5,6]]", "[1,-2,3,4,5,6]", " [ [1 ,-2\n,3], [4,5,6\t] ] "] {
        assert_eq!(int32(text, &[2, 3]), expected, "{text}");
    }
    assert_eq!(int32("[[[1]],[[2]]]", &[2, 1, 1]), Ok(vec![1, 2]));
    assert_eq!(int32("7", &[]), Ok(vec![7]));
    assert_eq!(int32("[7]", &[]), Ok(vec![7]));
}

#[test]
fn a_tensor_of_no_elements_is_an_empty_array_or_its_nesting() {
    for (text, shape) in
        [("[]", [0, 3]), ("[[],[]]", [2, 0]), ("[]", [2, 0]), ("[]", [0, 0]), (" [ ] ", [0, 1])]
    {
        assert_eq!(int32(text, &shape), Ok(vec![]), "{text} {shape:?}");
    }
    assert_eq!(int32("[[]]", &[1, 0, 3]), Ok(vec![]));
    assert_eq!(
        int32("[[],[],[]]", &[2, 0]).unwrap_err(),
        "\"data\" has 3 entries on axis 0, and shape [2,0] has 2: nest it to the shape, or \
         make it flat"
    );
}

#[test]
fn a_wrong_count_says_both_counts() {
    for (text, given) in [("[1,2,3]", 3), ("[1,2,3,4,5]", 5), ("[]", 0)] {
        let expected = format!("\"data\" holds {given} elements, and shape [2,2] has 4");
        assert_eq!(int32(text, &[2, 2]).unwrap_err(), expected);
    }
    assert_eq!(int32("[]", &[]).unwrap_err(), "\"data\" holds 0 elements, and shape [] has 1");
}

#[test]
fn nesting_that_is_not_the_shape_is_refused() {
    assert_eq!(
        int32("[[1,2],[3,4],[5,6]]", &[2, 3]).unwrap_err(),
        "\"data\" has 2 entries on axis 1, and shape [2,3] has 3: nest it to the shape, or \
         make it flat"
    );
    for text in ["[[1],2]", "[1,[2]]", "[[[1]],[[2]]]", "[[1,[2]]]"] {
        let error = int32(text, &[2, 1]).unwrap_err();
        assert!(error.starts_with("\"data\""), "{text}: {error}");
    }
    let error = int32("[[1,2]]", &[1, 2, 1]).unwrap_err();
    assert_eq!(error, "\"data\" is neither nested to shape [1,2,1] nor flat");
    for text in ["1", "true", "\"x\"", "{}"] {
        let error = int32(text, &[1]).unwrap_err();
        assert_eq!(error, "\"data\" must be an array: nested to shape [1], or flat");
    }
}

#[test]
fn whole_numbers_keep_to_the_range_of_their_datatype() {
    let cases = [
        (Datatype::Uint8, "255", "256"),
        (Datatype::Uint16, "65535", "-1"),
        (Datatype::Uint32, "4294967295", "4294967296"),
        (Datatype::Uint64, "18446744073709551615", "18446744073709551616"),
        (Datatype::Int8, "-128", "-129"),
        (Datatype::Int16, "32767", "32768"),
        (Datatype::Int32, "-2147483648", "2147483648"),
        (Datatype::Int64, "-9223372036854775808", "9223372036854775808"),
        (Datatype::Int64, "9007199254740993", "1.0"),
        (Datatype::Int32, "0", "1e3"),
    ];
    for (datatype, good, bad) in cases {
        assert!(read_text(&format!("[{good}]"), datatype, &[1]).is_ok(), "{datatype} {good}");
        let error = read_text(&format!("[0,{bad}]"), datatype, &[2]).unwrap_err();
        let expected = format!("element 1 is {bad}, and {datatype} takes whole numbers from ");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn floats_round_once_and_overflow_is_an_error() {
    // Halfway between two 32-bit floats: by way of a 64-bit float it would round down.
    let tensor = read_text("[1.00000005960464477540, 3]", Datatype::Fp32, &[2]).unwrap();
    assert_eq!(&tensor.data()[..4], (1.0f32 + f32::EPSILON).to_le_bytes());
    let error = read_text("[1, 3.5e38]", Datatype::Fp32, &[2]).unwrap_err();
    assert_eq!(error, "element 1 is 3.5e38, and FP32 takes numbers up to 3.4028235e38");
    assert!(read_text("[3.5e38]", Datatype::Fp64, &[1]).is_ok());
    assert!(read_text("[1e309]", Datatype::Fp64, &[1]).unwrap_err().contains("FP64"));
}

#[test]
fn booleans_are_booleans_or_bits() {
    let tensor = read_text("[true,false,1,0]", Datatype::Bool, &[4]).unwrap();
    assert_eq!(&tensor.data()[..], [1, 0, 1, 0]);
    for bad in ["2", "1.0", "\"true\"", "null"] {
        let error = read_text(&format!("[{bad}]"), Datatype::Bool, &[1]).unwrap_err();
        assert!(error.ends_with("and BOOL takes true and false"), "{error}");
    }
}

#[test]
fn strings_become_length_prefixed_elements() {
    let text = r#"["a]b,\"c\\", "", "\u00e9\ud83d\ude00é"]"#;
    let tensor = read_text(text, Datatype::Bytes, &[3]).unwrap();
    let elements: Vec<_> = tensor.bytes_elements().collect();
    assert_eq!(elements, ["a]b,\"c\\".as_bytes(), b"", "é😀é".as_bytes()]);
    let error = read_text(r#"["\ud800"]"#, Datatype::Bytes, &[1]).unwrap_err();
    assert_eq!(error, "element 0 is a string with broken escapes, and BYTES takes strings");
}

#[test]
fn the_wrong_kind_of_element_is_named() {
    let kinds = [("true", "true"), ("null", "null"), ("\"5\"", "a string"), ("{}", "an object")];
    for (text, name) in kinds {
        let error = read_text(&format!("[1,{text}]"), Datatype::Fp32, &[2]).unwrap_err();
        assert!(error.starts_with(&format!("element 1 is {name}, and FP32")), "{error}");
    }
    let error = read_text("[1]", Datatype::Bytes, &[1]).unwrap_err();
    assert_eq!(error, "element 0 is 1, and BYTES takes strings");
    let error = read_text("[1]", Datatype::Bf16, &[1]).unwrap_err();
    assert_eq!(error, "BF16 data cannot be given as JSON; please use the binary data format");
}

#[test]
fn a_large_shape_over_a_short_text_takes_no_memory() {
    // 2^60 elements could not be allocated, so an answer means that nothing was tried.
    let error = read_text("[1]", Datatype::Fp64, &[1 << 60]).unwrap_err();
    assert!(error.starts_with("\"data\" holds 1 elements"), "{error}");
}

#[test]
fn the_buffer_is_aligned_because_it_never_grew() {
    let text = format!("[{}1]", "1,".repeat(9999));
    for datatype in Datatype::ALL {
        if let Ok(tensor) = read_text(&text, datatype, &[100, 100]) {
            assert_eq!(tensor.data().as_ptr().addr() % crate::tensor::ALIGNMENT, 0);
        }
    }
    let text = format!("[{}\"\"]", "\"some text\",".repeat(9999));
    let tensor = read_text(&text, Datatype::Bytes, &[10_000]).unwrap();
    assert_eq!(tensor.data().as_ptr().addr() % crate::tensor::ALIGNMENT, 0);
}
