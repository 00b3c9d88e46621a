//! Compress: answers of inferences, for callers that ask for it. Answers of any other kind are never
//! compressed: clients advertise codings there that they do not undo.
//!
//! The header `inference-header-content-length` counts bytes as they were before.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Response};

use super::body::Body;
use super::inflate::Coding;
use crate::error::Error;
use crate::publish::blocking;

/// An answer of fewer bytes goes as it is: it fits one packet, and compressing would save nothing.
const MIN_BYTES: usize = 1024;

/// An answer of more bytes is compressed where that may take its time: this much takes about a
/// millisecond, and the reactor has other connections to see to.
const MAX_REACTOR_BYTES: usize = 32 << 10;

/// Compresses an answer if its caller prefers that.
///
/// # Errors
/// When compressing panicked.
pub async fn compress(
    request: &HeaderMap,
    mut response: Response<Body>,
) -> Result<Response<Body>, Error> {
    let Some(coding) = preferred(request) else { return Ok(response) };
    let Some(parts) = response.body_mut().take_parts() else { return Ok(response) };
    let (parts, packed) = pack_parts(parts, Some(coding)).await?;
    if packed {
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    response.body_mut().put_parts(parts);
    Ok(response)
}

/// Compresses parts if they are worth it; says whether they were.
///
/// # Errors
/// When compressing panicked.
pub async fn pack_parts(
    parts: VecDeque<Bytes>,
    coding: Option<Coding>,
) -> Result<(VecDeque<Bytes>, bool), Error> {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let Some(coding) = coding.filter(|_| bytes >= MIN_BYTES) else { return Ok((parts, false)) };
    let packed = match bytes {
        ..=MAX_REACTOR_BYTES => pack(parts, coding),
        _ => blocking(move || Ok(pack(parts, coding))).await?,
    };
    Ok((VecDeque::from([packed]), true))
}

/// The coding a caller asks for by name and prefers to none, gzip where it likes both the same.
fn preferred(request: &HeaderMap) -> Option<Coding> {
    // In thousandths, as the header gives them. What is not named is not asked for.
    let (mut gzip, mut deflate, mut identity) = (0, 0, 0);
    for value in request.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().ok()?.split(',') {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let weight = weight_of(weight);
            match name.trim() {
                name if name.eq_ignore_ascii_case("gzip") => gzip = weight,
                name if name.eq_ignore_ascii_case("x-gzip") => gzip = weight,
                name if name.eq_ignore_ascii_case("deflate") => deflate = weight,
                name if name.eq_ignore_ascii_case("identity") => identity = weight,
                _ => {}
            }
        }
    }
    let (coding, weight) =
        if deflate > gzip { (Coding::Deflate, deflate) } else { (Coding::Gzip, gzip) };
    (weight > 0 && weight >= identity).then_some(coding)
}

/// The weight of `q=0.5` in thousandths: 1000 where there is none, 0 where it is not understood.
fn weight_of(parameter: &str) -> u32 {
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return 1000;
    }
    let number = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    let weight = number.and_then(|number| number.trim().parse::<f32>().ok());
    // A number that is none of 0 to 1 saturates, and is then at either end.
    weight.map_or(0, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

fn pack(parts: VecDeque<Bytes>, coding: Coding) -> Bytes {
    // Tensors hardly get smaller with more effort, only later.
    let level = Compression::fast();
    let packed = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            write_all(&mut encoder, parts);
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            write_all(&mut encoder, parts);
            encoder.finish()
        }
    };
    packed.expect("a vector takes everything").into()
}

/// Writes parts, each let go once it is written.
fn write_all(to: &mut impl Write, parts: VecDeque<Bytes>) {
    for part in parts {
        to.write_all(&part).expect("a vector takes everything");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::inflate::inflate;
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, accept.parse().unwrap())])
    }

    #[test]
    fn a_coding_is_used_only_where_it_is_asked_for_and_preferred() {
        for (accept, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("deflate, GZIP", Some(Coding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.8", Some(Coding::Deflate)),
            ("gzip; q=1.0, identity; q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0.5, identity;q=1", None),
            ("gzip;q=0", None),
            ("gzip;q=0.000, deflate;q=0.001", Some(Coding::Deflate)),
            ("gzip;q=x", None),
            ("gzip;level=9", None),
            ("identity", None),
            ("br, zstd", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(preferred(&headers(accept)), coding, "{accept:?}");
        }
        assert_eq!(preferred(&HeaderMap::new()), None);
        let not_text = HeaderMap::from_iter([(
            ACCEPT_ENCODING,
            HeaderValue::from_bytes(b"gzip\xff").unwrap(),
        )]);
        assert_eq!(preferred(&not_text), None);
    }

    #[tokio::test]
    async fn answers_are_compressed_from_a_size_on_and_whole() {
        for bytes in [0, MIN_BYTES - 1, MIN_BYTES, MAX_REACTOR_BYTES, MAX_REACTOR_BYTES + 1] {
            for (name, coding) in [("gzip", Coding::Gzip), ("deflate", Coding::Deflate)] {
                let content: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
                let (a, b) = content.split_at(bytes / 3);
                let parts = [a, b].map(Bytes::copy_from_slice);
                let response = Response::new(Body::parts(parts));
                let response = compress(&headers(name), response).await.unwrap();
                let (head, body) = response.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let encoding = head.headers.get(CONTENT_ENCODING);
                let plain = match encoding {
                    None => body,
                    Some(encoding) => {
                        assert!(encoding == name && body.len() < bytes, "{name} {bytes}");
                        inflate(&body, coding, 0, bytes as u64, |_| Ok(())).unwrap()
                    }
                };
                assert_eq!(encoding.is_some(), bytes >= MIN_BYTES, "{name} {bytes}");
                assert_eq!(plain, content);
            }
        }
    }
}
