//! libFuzzer's entry to the gate for components.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::component(data);
});
