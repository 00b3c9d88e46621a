//! libFuzzer's entry to requests of texts.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::texts(data);
});
