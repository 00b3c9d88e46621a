//! Parameters: the protocol's objects of name to string, number or boolean.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::document::PARSED_ENTRIES;
use super::error::{Listed, Problem, excerpt};

/// A request's parameters by name.
pub type Parameters = BTreeMap<String, ParameterValue>;

/// What a parameter can be. The number types are those of the protocol's gRPC form.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterValue {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int64(i64),
    /// A whole number past what [`ParameterValue::Int64`] holds.
    Uint64(u64),
    /// Any other number.
    Double(f64),
    /// Text.
    String(String),
}

impl ParameterValue {
    /// The value as a count, when it is a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int64(value) => u64::try_from(*value).ok(),
            Self::Uint64(value) => Some(*value),
            Self::Bool(_) | Self::Double(_) | Self::String(_) => None,
        }
    }

    /// The value as a boolean, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    fn read(text: &str) -> Option<Self> {
        match text.bytes().next()? {
            b'"' => serde_json::from_str(text).ok().map(Self::String),
            b't' => Some(Self::Bool(true)),
            b'f' => Some(Self::Bool(false)),
            b'-' | b'0'..=b'9' => (text.parse().map(Self::Int64))
                .or_else(|_| text.parse().map(Self::Uint64))
                .ok()
                .or_else(|| text.parse().ok().filter(|v: &f64| v.is_finite()).map(Self::Double)),
            _ => None,
        }
    }
}

/// Reads a `parameters` object; absent is empty.
pub(super) fn read(text: Option<&RawValue>, limit: usize) -> Result<Parameters, Problem> {
    let Some(text) = text else { return Ok(Parameters::new()) };
    let entries: Entries<'_> = serde_json::from_str(text.get())
        .map_err(|_| Problem::Field { field: "parameters", wanted: "an object" })?;
    let limit = limit.min(PARSED_ENTRIES);
    if entries.total > limit {
        return Err(Problem::TooMany { what: Listed::Parameters, given: entries.total, limit });
    }
    let read_entry = |(name, value): (String, &RawValue)| {
        let Some(value) = ParameterValue::read(value.get()) else {
            let wanted = "a string, a number or a boolean";
            return Err(Problem::Parameter { name: excerpt(&name), wanted });
        };
        Ok((name, value))
    };
    entries.kept.into_iter().map(read_entry).collect()
}

/// How long a caller will wait, in microseconds.
const TIMEOUT: &str = "timeout";

/// Takes out how long the caller will wait for its answer; zero, as clients send it, is for as long as it
/// takes.
pub(super) fn take_timeout(parameters: &mut Parameters) -> Result<Option<Duration>, Problem> {
    let Some(value) = parameters.remove(TIMEOUT) else { return Ok(None) };
    let wanted = "a whole number of microseconds";
    let micros =
        value.as_u64().ok_or_else(|| Problem::Parameter { name: TIMEOUT.to_owned(), wanted })?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// An object of which only the first entries are kept, and all are counted.
struct Entries<'a> {
    kept: Vec<(String, &'a RawValue)>,
    total: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < PARSED_ENTRIES {
                    match map.next_entry()? {
                        Some(entry) => kept.push(entry),
                        None => return Ok(Entries { total: kept.len(), kept }),
                    }
                }
                let mut total = kept.len();
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    total += 1;
                }
                Ok(Entries { kept, total })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Parameters, String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        read(Some(raw), 64).map_err(|problem| problem.to_string())
    }

    #[test]
    fn strings_numbers_and_booleans_are_parameters() {
        let text = r#"{"a":"x\n","b":-3,"c":18446744073709551615,"d":1.5,"e":true,"f":false}"#;
        let parameters = read_text(text).unwrap();
        assert_eq!(parameters["a"], ParameterValue::String("x\n".into()));
        assert_eq!(parameters["b"], ParameterValue::Int64(-3));
        assert_eq!(parameters["c"].as_u64(), Some(u64::MAX));
        assert_eq!(parameters["d"], ParameterValue::Double(1.5));
        assert_eq!(parameters["e"].as_bool(), Some(true));
        assert_eq!(parameters["f"].as_bool(), Some(false));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for value in ["null", "[]", "{}", "1e999", r#""\ud800""#] {
            assert_eq!(
                read_text(&format!("{{\"p\":{value}}}")).unwrap_err(),
                "the parameter \"p\" must be a string, a number or a boolean"
            );
        }
        assert_eq!(read_text("[1]").unwrap_err(), "the field \"parameters\" must be an object");
    }

    #[test]
    fn a_timeout_is_taken_out_and_is_a_time() {
        let taken = |value: &str| {
            let mut parameters = read_text(&format!("{{\"timeout\":{value}}}")).unwrap();
            let timeout = take_timeout(&mut parameters);
            assert!(parameters.is_empty());
            timeout.map_err(|problem| problem.to_string())
        };
        assert_eq!(taken("1500"), Ok(Some(Duration::from_micros(1500))));
        assert_eq!(taken("18446744073709551615"), Ok(Some(Duration::from_micros(u64::MAX))));
        assert_eq!(taken("0"), Ok(None));
        for value in ["-1", "1.5", "true", "\"1\""] {
            let error = taken(value).unwrap_err();
            assert!(error.contains("must be a whole number of microseconds"), "{error}");
        }
    }

    #[test]
    fn too_many_are_counted_but_not_kept() {
        let text = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(5000));
        assert_eq!(
            read_text(&text).unwrap_err(),
            "5001 parameters are over the limit of 64 (limits.parameters)"
        );
    }
}
