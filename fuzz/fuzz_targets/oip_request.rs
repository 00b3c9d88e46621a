//! libFuzzer's entry to inference requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::oip_request(data);
});
