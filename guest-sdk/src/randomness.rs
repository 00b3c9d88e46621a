//! Randomness, of which a model has none: the answer to crates that ask for it through `getrandom`.
#![allow(unsafe_code, reason = "the symbol that getrandom's custom backend calls")]

// SAFETY: the name and the type are those that getrandom 0.3 documents for its custom backend; the
// memory is not touched.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    _: *mut u8,
    _: usize,
) -> Result<(), getrandom::Error> {
    Err(getrandom::Error::UNSUPPORTED)
}
