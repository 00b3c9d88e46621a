//! libFuzzer's entry to the registry's journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::journal(data);
});
