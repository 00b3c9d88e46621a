//! Where a request's JSON part ends and its binary tensors begin.

use super::error::{DecodeError, Problem};

/// The header, of requests and answers, that gives the length of the JSON part in bytes. Clients
/// spell it in either case.
pub const JSON_LENGTH_HEADER: &str = "inference-header-content-length";

/// Which part of a body is JSON; the rest is tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonPart {
    /// The whole body, because the header is absent.
    Whole,
    /// The first so many bytes, never zero.
    Prefix(usize),
    /// None of it: the body is the one tensor of a one-input model.
    Absent,
}

impl JsonPart {
    /// The offset of the body's first tensor byte, which is the one to align; 0 where the body holds
    /// no tensor or nothing else.
    pub fn tensor_offset(self) -> usize {
        match self {
            Self::Whole | Self::Absent => 0,
            Self::Prefix(bytes) => bytes,
        }
    }
}

/// Reads [`JSON_LENGTH_HEADER`]; `body_len` is the Content-Length, where there is one.
///
/// # Errors
/// When the header is not a number, or is more than the body has.
pub fn json_length(header: Option<&str>, body_len: Option<u64>) -> Result<JsonPart, DecodeError> {
    let Some(given) = header else { return Ok(JsonPart::Whole) };
    let digits = given.trim_matches([' ', '\t']);
    let syntax = || Problem::header(given).at(JSON_LENGTH_HEADER);
    // `parse` alone would also take a leading plus.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax());
    }
    let json: u64 = digits.parse().map_err(|_| syntax())?;
    if let Some(body) = body_len
        && json > body
    {
        return Err(Problem::HeaderPastBody { json, body }.at(JSON_LENGTH_HEADER));
    }
    match usize::try_from(json).map_err(|_| syntax())? {
        0 => Ok(JsonPart::Absent),
        bytes => Ok(JsonPart::Prefix(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_divides_the_body() {
        assert_eq!(json_length(None, Some(10)).unwrap(), JsonPart::Whole);
        assert_eq!(json_length(Some("0"), Some(10)).unwrap(), JsonPart::Absent);
        assert_eq!(json_length(Some(" 10 "), Some(10)).unwrap(), JsonPart::Prefix(10));
        assert_eq!(json_length(Some("7"), None).unwrap().tensor_offset(), 7);
    }

    #[test]
    fn a_header_past_the_body_or_not_a_number_is_refused() {
        let error = json_length(Some("11"), Some(10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the JSON part is said to be 11 bytes long, and the body has 10"
        );
        assert_eq!(error.place(), Some(JSON_LENGTH_HEADER));
        for bad in ["", "-1", "+1", "1.0", "0x10", "ten", "99999999999999999999999"] {
            let error = json_length(Some(bad), Some(10)).unwrap_err();
            assert!(error.to_string().starts_with("the header inference-header-"), "{error}");
        }
    }
}
