//! libFuzzer's entry to ONNX graphs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::onnx(data);
});
