//! Inflate: compressed request bodies, bounded by what they become and not by what they were.
//!
//! `deflate` is the zlib format (RFC 1950), as HTTP defines it (RFC 9110, section 8.4.1.2).

use std::io::Read;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::admit::body_too_large;
use crate::error::{Error, Kind};
use crate::tensor::AlignedBuffer;

/// Bytes that are inflated at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// How a request's body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

/// How a request says its body is compressed; none if it is not.
///
/// # Errors
/// [`Kind::Unsupported`] for any other coding, naming those that are understood.
pub fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Error> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
    match value.to_str().map(str::to_ascii_lowercase).as_deref() {
        Ok("identity" | "") => Ok(None),
        Ok("gzip" | "x-gzip") => Ok(Some(Coding::Gzip)),
        Ok("deflate") => Ok(Some(Coding::Deflate)),
        _ => Err(Error::new(Kind::Unsupported, "the body's coding is not understood")
            .at("header Content-Encoding")
            .remedy("use gzip or deflate, or send the body as it is")),
    }
}

/// Inflates `body` into a buffer whose byte at `aligned_offset` is aligned. `reserve` takes room for
/// what is about to be added.
///
/// # Errors
/// When the body is damaged, becomes longer than `limit` bytes, or finds no room.
pub fn inflate(
    body: &[u8],
    coding: Coding,
    aligned_offset: usize,
    limit: u64,
    reserve: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    match coding {
        Coding::Gzip => read(GzDecoder::new(body), aligned_offset, limit, reserve),
        Coding::Deflate => read(ZlibDecoder::new(body), aligned_offset, limit, reserve),
    }
}

fn read(
    mut from: impl Read,
    aligned_offset: usize,
    limit: u64,
    mut reserve: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    let mut buffer = AlignedBuffer::with_aligned_offset(CHUNK_BYTES, aligned_offset);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).map_err(|error| {
            Error::new(Kind::BadRequest, format!("the body cannot be decompressed: {error}"))
                .at("header Content-Encoding")
        })?;
        if read == 0 {
            return Ok(buffer.freeze());
        }
        if (buffer.len() + read) as u64 > limit {
            return Err(body_too_large(None, limit));
        }
        reserve(read as u64)?;
        buffer.extend(chunk.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    #[test]
    fn both_codings_give_the_bytes_back() {
        let bytes = vec![7; 200_000];
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&bytes).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut reserved = 0;
        let mut reserve = |bytes| {
            reserved += bytes;
            Ok(())
        };
        assert_eq!(inflate(&gzip, Coding::Gzip, 5, 200_000, &mut reserve).unwrap(), bytes);
        let zlib = zlib.finish().unwrap();
        assert_eq!(inflate(&zlib, Coding::Deflate, 0, 200_000, &mut reserve).unwrap(), bytes);
        assert_eq!(reserved, 400_000);
    }

    #[test]
    fn a_bomb_a_damaged_body_and_one_without_room_are_refused() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&vec![7; 200_000]).unwrap();
        let gzip = gzip.finish().unwrap();
        let refused = |body: &[u8], limit, reserve: fn(u64) -> Result<(), Error>| {
            inflate(body, Coding::Gzip, 0, limit, reserve).unwrap_err().kind()
        };
        assert_eq!(refused(&gzip, 199_999, |_| Ok(())), Kind::TooLarge);
        assert_eq!(refused(&gzip[..20], 200_000, |_| Ok(())), Kind::BadRequest);
        assert_eq!(refused(b"plain", 100, |_| Ok(())), Kind::BadRequest);
        let full = |_| Err(Error::new(Kind::Overloaded, "full"));
        assert_eq!(refused(&gzip, 200_000, full), Kind::Overloaded);
    }
}
