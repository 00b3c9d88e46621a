//! libFuzzer's entry to compressed bodies.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::inflate(data);
});
