//! libFuzzer's entry to the manifest of an upload.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::manifest(data);
});
