//! libFuzzer's entry to uploads.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::multipart(data);
});
