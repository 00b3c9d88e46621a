//! libFuzzer's entry to requests without JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::oip_raw(data);
});
