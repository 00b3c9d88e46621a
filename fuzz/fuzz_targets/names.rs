//! libFuzzer's entry to names and routes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::names(data);
});
