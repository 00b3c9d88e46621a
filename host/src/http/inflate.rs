//! Inflate: compressed request bodies, bounded by what they become and not by what they were.
//!
//! `deflate` is the zlib format (RFC 1950), as HTTP defines it (RFC 9110, section 8.4.1.2).

use std::fmt::Display;
use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::admit::body_too_large;
use crate::error::{Error, Kind};
use crate::tensor::AlignedBuffer;

/// Bytes that are inflated at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The codings that are understood, as a refusal of any other lists them.
const UNDERSTOOD: &str = "gzip, deflate";

/// How a request's body is compressed, or an answer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Coding {
    /// Its name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
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
            .remedy("use gzip or deflate, or send the body as it is")
            .accept_encoding(UNDERSTOOD)),
    }
}

/// Inflates `body` into a buffer whose byte at `aligned_offset` is aligned. `reserve` takes room for
/// what is about to be added.
///
/// # Errors
/// When the body is damaged, has more after its end, becomes longer than `limit` bytes, or finds no
/// room.
pub fn inflate(
    body: &[u8],
    coding: Coding,
    aligned_offset: usize,
    limit: u64,
    reserve: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    match coding {
        // A gzip body may have several members (RFC 1952, section 2.2), and nothing else after one.
        Coding::Gzip => read(&mut MultiGzDecoder::new(body), aligned_offset, limit, reserve),
        Coding::Deflate => {
            let mut decoder = ZlibDecoder::new(body);
            let inflated = read(&mut decoder, aligned_offset, limit, reserve)?;
            match decoder.into_inner().len() {
                0 => Ok(inflated),
                more => Err(damaged(format!("{more} bytes follow its end"))),
            }
        }
    }
}

fn damaged(problem: impl Display) -> Error {
    Error::new(Kind::BadRequest, format!("the body cannot be decompressed: {problem}"))
        .at("header Content-Encoding")
}

fn read(
    from: &mut impl Read,
    aligned_offset: usize,
    limit: u64,
    mut reserve: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    let mut buffer = AlignedBuffer::with_aligned_offset(CHUNK_BYTES, aligned_offset);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).map_err(damaged)?;
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

    #[test]
    fn what_follows_the_end_is_read_or_refused_and_never_dropped() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(inflate(&members, Coding::Gzip, 0, 100, |_| Ok(())).unwrap(), &b"one two"[..]);
        assert_eq!(
            inflate(&members, Coding::Gzip, 0, 6, |_| Ok(())).unwrap_err().kind(),
            Kind::TooLarge
        );
        let error =
            inflate(&[gzip(b"one"), b"two".to_vec()].concat(), Coding::Gzip, 0, 100, |_| Ok(()));
        assert_eq!(error.unwrap_err().kind(), Kind::BadRequest);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"one").unwrap();
        let more = [zlib.finish().unwrap(), b"two".to_vec()].concat();
        let error = inflate(&more, Coding::Deflate, 0, 100, |_| Ok(())).unwrap_err();
        assert!(error.text().contains("3 bytes follow its end"), "{}", error.text());
    }

    #[test]
    fn an_unknown_coding_is_answered_with_those_there_are() {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, "br".parse().unwrap())]);
        let error = coding(&headers).unwrap_err();
        assert_eq!((error.kind(), error.accepted()), (Kind::Unsupported, Some(UNDERSTOOD)));
    }
}
