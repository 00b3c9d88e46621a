//! The names people give: models, versions, aliases, assets, and the target of a call.
//!
//! Each is a newtype that can only be built from a valid spelling, so that nothing past the edge of
//! the host has to check a name again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The alias that a call without a version or alias goes to.
pub const LIVE: &str = "live";

/// A name that breaks its rule; the message says which rule and shows the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {given:?} is not allowed: {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        // A name that is megabytes long would be echoed whole; its beginning is enough to know it.
        let given = given.chars().take(80).collect();
        Self { what, given, rule }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:expr, $valid:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The rule of this kind of name, as a sentence for people.
            pub const RULE: &'static str = $rule;

            /// The name as it is spelled.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(given: &str) -> Result<Self, NameError> {
                if $valid(given) {
                    Ok(Self(given.to_owned()))
                } else {
                    Err(NameError::new($what, given, Self::RULE))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(given: String) -> Result<Self, NameError> {
                given.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A model's name: `[a-z0-9][a-z0-9._-]{0,62}`, but not `stats`.
    ///
    /// `stats` is taken by the Open Inference Protocol's `/v2/models/stats` (Triton's statistics
    /// extension), which would hide a model of that name.
    ModelName,
    "model",
    "use 1 to 63 characters of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, and not 'stats'",
    is_model_name
);

name_type!(
    /// A version's name: a semantic version or any of `[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}`.
    VersionName,
    "version",
    "use 1 to 64 characters of letters, digits, '.', '+', '_' and '-', beginning with a letter or digit",
    is_version_name
);

name_type!(
    /// An alias's name: a letter, then up to 63 of `[0-9A-Za-z._-]`.
    AliasName,
    "alias",
    "use 1 to 64 characters of letters, digits, '.', '_' and '-', beginning with a letter",
    is_alias_name
);

name_type!(
    /// An asset's name inside its version: a relative path of plain segments.
    ///
    /// External data of an ONNX graph names its files by relative path, so `/` separates segments;
    /// a segment is never empty, `.` or `..`, and nothing here ever becomes a path on the host.
    AssetName,
    "asset",
    "use a relative path of 1 to 255 bytes without control characters, backslashes or empty, '.' or '..' segments",
    is_asset_name
);

impl AliasName {
    /// The alias that a call without a version or alias goes to.
    pub fn live() -> Self {
        Self(LIVE.to_owned())
    }
}

fn rest_is(given: &str, max: usize, allowed: fn(u8) -> bool) -> bool {
    given.len() <= max && given.bytes().all(allowed)
}

fn is_model_name(given: &str) -> bool {
    let first = given.bytes().next();
    first.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && rest_is(given, 63, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-')
        })
        && given != "stats"
}

fn is_version_name(given: &str) -> bool {
    let first = given.bytes().next();
    first.is_some_and(|c| c.is_ascii_alphanumeric())
        && rest_is(given, 64, |c| {
            c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'_' | b'-')
        })
}

fn is_alias_name(given: &str) -> bool {
    let first = given.bytes().next();
    first.is_some_and(|c| c.is_ascii_alphabetic())
        && rest_is(given, 64, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn is_asset_name(given: &str) -> bool {
    !given.is_empty()
        && given.len() <= 255
        && !given.chars().any(|c| c.is_control() || c == '\\')
        && given.split('/').all(|s| !s.is_empty() && s != "." && s != "..")
}

/// What a call names behind the model: `MODEL`, `MODEL@VERSION` or `MODEL@ALIAS`.
///
/// An alias never equals a version of its model (the registry refuses it), so one spelling has one
/// meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Neither was named: the alias `live`.
    Live,
    /// A version or an alias, told apart when it is looked up.
    Named(String),
}

impl Target {
    /// Splits `MODEL[@VERSION|@ALIAS]`.
    ///
    /// # Errors
    /// When the part before `@` is not a model name.
    pub fn split(given: &str) -> Result<(ModelName, Self), NameError> {
        match given.split_once('@') {
            None => Ok((given.parse()?, Self::Live)),
            Some((model, target)) => Ok((model.parse()?, Self::Named(target.to_owned()))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str(LIVE),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        for good in ["m", "0", "mnist", "all-minilm-l6.v2", &"a".repeat(63)] {
            assert!(good.parse::<ModelName>().is_ok(), "{good}");
        }
        for bad in ["", "M", "-a", "a/b", "a b", "stats", "é", &"a".repeat(64)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
        for good in ["1", "1.0.0", "1.0.0-rc.1+build", "v10"] {
            assert!(good.parse::<VersionName>().is_ok(), "{good}");
        }
        for bad in ["", "+1", "1 0", "1/0", &"1".repeat(65)] {
            assert!(bad.parse::<VersionName>().is_err(), "{bad}");
        }
        assert!("live".parse::<AliasName>().is_ok());
        assert!("1live".parse::<AliasName>().is_err());
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a\\b", "a\nb"] {
            assert!(bad.parse::<AssetName>().is_err(), "{bad:?}");
        }
        assert!("weights/part 1.bin".parse::<AssetName>().is_ok());
    }

    #[test]
    fn a_long_bad_name_is_not_echoed_whole() {
        let error = "A".repeat(1 << 20).parse::<ModelName>().unwrap_err();
        assert!(error.to_string().len() < 400);
    }

    #[test]
    fn a_target_is_split_at_the_at_sign() {
        let (model, target) = Target::split("mnist@canary").unwrap();
        assert_eq!((model.as_str(), target), ("mnist", Target::Named("canary".into())));
        assert_eq!(Target::split("mnist").unwrap().1, Target::Live);
        assert!(Target::split("@1").is_err());
    }
}
