//! Compressed bodies: never more than the limit, nothing lost, and aligned where asked.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use modelet_host::error::{Error, Kind};
use modelet_host::http::inflate::{self, Coding};
use modelet_host::tensor::ALIGNMENT;

use crate::{Outcome, hash};

/// What a body may become here: enough for every branch, and quick.
const LIMIT_BYTES: u64 = 256 << 10;

/// The first byte says the coding; the rest is the body.
///
/// # Panics
/// When a property of the decoder does not hold.
pub fn inflate(data: &[u8]) -> Outcome {
    let Some((choice, body)) = data.split_first() else { return Outcome::Refused };
    let coding = if choice % 2 == 0 { Coding::Gzip } else { Coding::Deflate };
    let offset = (hash(body) % 200) as usize;
    check_round_trip(body, coding, offset);
    match inflated(body, coding, offset, LIMIT_BYTES) {
        Ok(plain) => {
            check_plain(&plain, body, coding, offset);
            Outcome::Accepted
        }
        Err(error) => {
            assert!(matches!(error.kind(), Kind::BadRequest | Kind::TooLarge), "{error}");
            Outcome::Refused
        }
    }
}

/// Inflates where room is never short.
fn inflated(body: &[u8], coding: Coding, offset: usize, limit: u64) -> Result<Bytes, Error> {
    inflate::inflate(body, coding, offset, limit, |_| Ok(()))
}

/// What any bytes were compressed to becomes those bytes again.
fn check_round_trip(plain: &[u8], coding: Coding, offset: usize) {
    let packed = compressed(plain, coding);
    let again = inflated(&packed, coding, offset, plain.len() as u64);
    assert_eq!(again.as_deref().map_err(ToString::to_string), Ok(plain));
    let more = [&*packed, b"more"].concat();
    assert!(inflated(&more, coding, offset, LIMIT_BYTES).is_err(), "bytes after the end are lost");
}

fn check_plain(plain: &Bytes, body: &[u8], coding: Coding, offset: usize) {
    let length = plain.len() as u64;
    assert!(length <= LIMIT_BYTES, "{length} bytes are over the limit");
    assert_eq!(inflated(body, coding, offset, length).ok().as_ref(), Some(plain));
    if let Some(under) = length.checked_sub(1) {
        let error = inflated(body, coding, offset, under).err();
        assert_eq!(error.map(|error| error.kind()), Some(Kind::TooLarge));
    }
    // A buffer that had to grow may have moved; the first chunk's worth has not.
    if plain.len() <= 64 << 10 && offset < plain.len() {
        let address = plain.as_ptr().addr() + offset;
        assert_eq!(address % ALIGNMENT, 0, "offset {offset} of {length}");
    }
}

fn compressed(plain: &[u8], coding: Coding) -> Vec<u8> {
    let level = Compression::fast();
    let packed = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
    };
    packed.expect("a vector takes every byte")
}
