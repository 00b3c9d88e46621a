//! The deadline that a client gives its call.

use std::time::Duration;

use http::request::Parts;

use crate::error::{Error, Kind};

/// How long a client waits, in at most eight digits and a unit.
const TIMEOUT: &str = "grpc-timeout";

/// The most digits there are.
const MAX_DIGITS: usize = 8;

/// How long the client of a request will wait, if it says so.
///
/// # Errors
/// [`Kind::BadRequest`] for what is no such time.
pub(super) fn of(head: &Parts) -> Result<Option<Duration>, Error> {
    let Some(value) = head.headers.get(TIMEOUT) else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(read);
    timeout.map(Some).ok_or_else(|| {
        Error::new(Kind::BadRequest, "the time to wait is not one to eight digits and a unit")
            .at("metadata grpc-timeout")
            .remedy("use one of the units H, M, S, m, u and n, as in 500m")
    })
}

fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, seconds) in
            [("2H", 7200.0), ("3M", 180.0), ("4S", 4.0), ("5m", 5e-3), ("6u", 6e-6), ("7n", 7e-9)]
        {
            assert_eq!(read(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(read("99999999H").map(|time| time.as_secs()), Some(359_999_996_400));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "S", "1", "123456789S", "-1S", "+1S", "1s", "1.5S", "1\u{fc}", " 1S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
