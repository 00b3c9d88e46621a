//! Trace context: the trace that a request is part of, as W3C's Trace Context has callers say it.
//!
//! A request that says so is continued: its trace is named in every line of the log about it, and the
//! answer names the trace and the span that this server was in it. `tracestate` belongs to the systems
//! on the way to another server, and there is none behind this one.

use std::fmt;

use http::HeaderMap;
use http::header::HeaderName;

/// The header, and gRPC's metadata, in both directions.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Characters of version 00: two, 32, 16 and two digits, and what is between them.
const LENGTH: usize = 55;

/// The trace that a request is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    /// The span that called.
    parent: u64,
    /// The span that this server is in it.
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// The trace that the headers name; none where they name none that is valid. `number` tells this
    /// request from others, for the span of this server.
    pub fn of(headers: &HeaderMap, number: u64) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        let (trace, parent, flags) = read(value.to_str().ok()?)?;
        Some(Self { trace, parent, span: span(trace, parent, number), flags })
    }

    /// Whether the caller records the trace, and so wants to have our part of it.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The id of the span that this server is.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// The id of the span that called.
    pub fn parent_id(&self) -> String {
        format!("{:016x}", self.parent)
    }

    /// The trace's id, as logs and tracing systems spell it.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Reads `00-<trace>-<parent>-<flags>`.
fn read(text: &str) -> Option<(u128, u64, u8)> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let mut digits = |count: usize| parts.next().filter(|part| is_hex(part, count));
    let (version, trace, parent, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
    // A version of the future may say more, behind another dash.
    let rest_is_known =
        if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == "ff" || !rest_is_known {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
    // Of the flags, those that are known: sampled, and random.
    Some((trace, parent, u8::from_str_radix(flags, 16).ok()? & 0b11))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id that no other span of the trace is likely to have: the ids mixed, as SplitMix64 does.
fn span(trace: u128, parent: u64, number: u64) -> u64 {
    let mut mixed =
        (trace as u64) ^ parent.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(factor);
    }
    // All zeros would be no id.
    mixed.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        TraceContext::of(&headers, 7)
    }

    #[test]
    fn a_trace_is_continued_with_a_span_of_our_own() {
        let context = of(&[GIVEN]).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let answered = context.to_string();
        assert!(answered.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{answered}");
        assert!(answered.ends_with("-01") && !answered.contains("00f067aa0ba902b7"), "{answered}");
        // What was answered is a trace context itself.
        assert!(of(&[&answered]).is_some());
    }

    #[test]
    fn a_later_version_may_say_more_and_what_is_invalid_is_ignored() {
        let later = GIVEN.replacen("00", "01", 1);
        assert!(of(&[&later]).is_some());
        assert!(of(&[&format!("{later}-more")]).is_some());
        for invalid in [
            "",
            "00",
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!("{GIVEN}-more"),
            &format!("{later}more"),
            &GIVEN.replace('-', "_"),
        ] {
            assert_eq!(of(&[invalid]), None, "{invalid}");
        }
        assert_eq!(of(&[GIVEN, GIVEN]), None);
    }
}
