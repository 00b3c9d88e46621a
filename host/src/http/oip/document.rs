//! An inference request as it is written: its JSON, checked for depth and taken apart, but not yet
//! compared with any model.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{DecodeError, Listed, Problem, excerpt};

/// The most entries of a list that are kept while parsing. Whatever the configured limits, a list of
/// millions of `{}` must not become millions of structs before it is refused.
pub(super) const PARSED_ENTRIES: usize = 1024;

/// The request object. Fields of no meaning to us, such as KServe's `model_name`, are skipped;
/// `null` is the same as absent, because clients with typed models send it for what they leave out.
#[derive(Deserialize)]
pub(super) struct RequestDocument<'a> {
    pub(super) id: Option<String>,
    #[serde(borrow)]
    pub(super) parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) inputs: Option<Capped<InputDocument<'a>>>,
    #[serde(borrow)]
    pub(super) outputs: Option<Capped<OutputDocument<'a>>>,
}

/// One entry of `inputs`. What is read later is kept as text, so that its errors can name the tensor.
#[derive(Deserialize)]
pub(super) struct InputDocument<'a> {
    pub(super) name: Option<String>,
    pub(super) datatype: Option<String>,
    #[serde(borrow)]
    pub(super) shape: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

/// One entry of `outputs`.
#[derive(Deserialize)]
pub(super) struct OutputDocument<'a> {
    pub(super) name: Option<String>,
    #[serde(borrow)]
    pub(super) parameters: Option<&'a RawValue>,
}

/// A list of which only the first [`PARSED_ENTRIES`] are kept, and all are counted.
pub(super) struct Capped<T> {
    pub(super) items: Vec<T>,
    pub(super) total: usize,
}

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self { items: Vec::new(), total: 0 }
    }
}

impl<T> Capped<T> {
    /// The items, when there are no more of them than `limit`.
    pub(super) fn within(self, what: Listed, limit: usize) -> Result<Vec<T>, Problem> {
        let limit = limit.min(PARSED_ENTRIES);
        if self.total > limit {
            return Err(Problem::TooMany { what, given: self.total, limit });
        }
        Ok(self.items)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Capped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Capped<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Capped<T>, A::Error> {
                let mut items = Vec::new();
                while items.len() < PARSED_ENTRIES {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Capped { total: items.len(), items }),
                    }
                }
                let mut total = items.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    total += 1;
                }
                Ok(Capped { items, total })
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// Takes the JSON part of a request apart.
pub(super) fn parse(json: &[u8], max_depth: usize) -> Result<RequestDocument<'_>, DecodeError> {
    if json.is_empty() {
        return Err(Problem::Empty.anywhere());
    }
    let json = std::str::from_utf8(json)
        .map_err(|error| Problem::NotUtf8 { at: error.valid_up_to() }.anywhere())?;
    if is_deeper(json.as_bytes(), max_depth) {
        return Err(Problem::TooDeep { limit: max_depth }.anywhere());
    }
    serde_json::from_str(json).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        syntax_problem(json, &error).at(place)
    })
}

/// Whether arrays and objects stand more than `limit` deep inside each other.
///
/// serde_json limits only what it recurses into; what it skips or keeps as text, it does not.
fn is_deeper(json: &[u8], limit: usize) -> bool {
    // `[` and `{` differ in one bit. Without more of them than the limit there can be no nesting
    // past it, and counting them is many times faster than telling text from structure.
    if json.iter().filter(|byte| **byte | 0x20 == b'{').count() <= limit {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Clients in Python write NaN and Infinity into JSON unasked; they deserve a better answer than
/// "expected value".
fn syntax_problem(json: &str, error: &serde_json::Error) -> Problem {
    let line = json.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default().as_bytes();
    // The column is that of the letter, or of the sign before it.
    let column = error.column().saturating_sub(2);
    let not_finite = (column..column + 4).filter_map(|start| line.get(start..)).any(|rest| {
        rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") || rest.starts_with(b"-Infinity")
    });
    if error.is_syntax() && not_finite {
        return Problem::NotFiniteJson;
    }
    // A message can quote the caller's text, however long it is.
    Problem::Json { message: excerpt_message(error) }
}

fn excerpt_message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let short = excerpt(&message);
    if short.len() == message.len() {
        return message;
    }
    format!("{short}… at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_structure_and_not_text() {
        let brackets_in_text = format!("[\"{}\\\"[\"]", "[{".repeat(200));
        assert!(!is_deeper(brackets_in_text.as_bytes(), 100));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_deeper(nested(100).as_bytes(), 100));
        assert!(is_deeper(nested(101).as_bytes(), 100));
        assert!(!is_deeper("[],".repeat(1000).as_bytes(), 100));
    }

    #[test]
    fn an_unknown_field_may_not_nest_past_the_limit_either() {
        let json = format!("{{\"inputs\":[],\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let error = parse(json.as_bytes(), 100).err().unwrap();
        assert_eq!(
            error.to_string(),
            "the JSON part nests deeper than the limit of 100 (limits.json_depth)"
        );
        assert!(parse(json.as_bytes(), 1000).is_ok());
    }

    #[test]
    fn a_long_list_is_counted_but_not_kept() {
        let json = format!("{{\"inputs\":[{}{{}}]}}", "{},".repeat(5000));
        let inputs = parse(json.as_bytes(), 100).ok().unwrap().inputs.unwrap();
        assert_eq!((inputs.items.len(), inputs.total), (PARSED_ENTRIES, 5001));
    }

    #[test]
    fn nan_is_answered_with_the_way_out() {
        for number in ["NaN", "Infinity", "-Infinity", "1, NaN"] {
            let json = format!("{{\"inputs\":[\n{{\"data\":[{number}]}}]}}");
            let error = parse(json.as_bytes(), 100).err().unwrap().to_string();
            assert!(error.contains("holds NaN or Infinity"), "{number}: {error}");
        }
    }

    #[test]
    fn a_message_never_quotes_all_of_a_long_text() {
        let json = format!("{{\"inputs\":\"{}\"}}", "x".repeat(1 << 20));
        let error = parse(json.as_bytes(), 100).err().unwrap();
        assert!(error.to_string().len() < 300, "{error}");
        assert!(error.place().is_some_and(|place| place.starts_with("line 1 column 10485")));
    }
}
