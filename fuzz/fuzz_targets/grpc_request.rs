//! libFuzzer's entry to inference requests over gRPC.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    modelet_fuzz::grpc_request(data);
});
