//! Randomness, of which a model has none: what `getrandom` gives is the same in every instance.
//!
//! That is enough for the seeds of hash tables, for which libraries ask most, and it keeps a model's
//! answers a matter of its inputs. It is nothing for secrets, of which a model makes none.
#![allow(unsafe_code, reason = "the symbol that getrandom's custom backend calls")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Where the sequence is.
static STATE: AtomicU64 = AtomicU64::new(0);

/// The next 64 bits of the sequence SplitMix64 (Steele, Lea and Flood, 2014).
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

// SAFETY: the name and the type are those that getrandom 0.3 documents for its custom backend.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    start: *mut u8,
    length: usize,
) -> Result<(), getrandom::Error> {
    for place in 0..length {
        // SAFETY: getrandom gives `length` writable bytes from `start` on, initialised or not.
        unsafe { start.add(place).write(next() as u8) };
    }
    Ok(())
}
