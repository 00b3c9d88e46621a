//! libFuzzer's entry to binary tensors.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::tensor(data);
});
