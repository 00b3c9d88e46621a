//! The little languages inside single arguments: `KEY=VALUE`, `NAME@VERSION`, `VERSION=WEIGHT`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use modelet_host::names::{AssetName, ModelName, Target, VersionName};

/// `KEY=VALUE`; the value may hold further `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Pair {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        match given.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("write it as KEY=VALUE".to_owned()),
        }
    }
}

/// `NAME=FILE`: a file and the asset name it is sent under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssetFile {
    pub(crate) name: AssetName,
    pub(crate) path: PathBuf,
}

impl FromStr for AssetFile {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let (name, path) = given.split_once('=').ok_or("write it as NAME=FILE")?;
        if path.is_empty() {
            return Err("write it as NAME=FILE, with a file".to_owned());
        }
        let name = name.parse::<AssetName>().map_err(|error| error.to_string())?;
        Ok(Self { name, path: path.into() })
    }
}

/// `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelTarget {
    pub(crate) model: ModelName,
    /// A version or an alias, which are spelled alike: every alias would do as a version's name.
    pub(crate) version: Option<VersionName>,
}

impl FromStr for ModelTarget {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let (model, target) = Target::split(given).map_err(|error| error.to_string())?;
        let version = match target {
            Target::Live => None,
            Target::Named(name) => Some(name.parse().map_err(|error| format!("{error}"))?),
        };
        Ok(Self { model, version })
    }
}

impl fmt::Display for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            None => write!(f, "{}", self.model),
            Some(version) => write!(f, "{}@{version}", self.model),
        }
    }
}

/// `NAME@VERSION`, both needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionRef {
    pub(crate) model: ModelName,
    pub(crate) version: VersionName,
}

impl FromStr for VersionRef {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let ModelTarget { model, version } = given.parse()?;
        let version = version.ok_or("write it as NAME@VERSION, such as mnist@1.0.0")?;
        Ok(Self { model, version })
    }
}

/// `VERSION` or `VERSION=WEIGHT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightedVersion {
    pub(crate) version: VersionName,
    pub(crate) weight: Option<u32>,
}

impl FromStr for WeightedVersion {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let (version, weight) = match given.split_once('=') {
            None => (given, None),
            Some((version, weight)) => {
                let weight = weight.parse().ok().filter(|weight| *weight > 0);
                (version, Some(weight.ok_or("a weight is a whole number above 0")?))
            }
        };
        let version = version.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { version, weight })
    }
}

/// A number that JSON can carry.
pub(super) fn finite(given: &str) -> Result<f64, String> {
    match given.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("give a finite number, such as 0.9974".to_owned()),
    }
}

/// An ETag with or without its quotes; given back without.
pub(super) fn etag(given: &str) -> Result<String, String> {
    let bare = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(given);
    // RFC 9110 allows more; the server's are numbers, and a header must not be broken by a quote.
    if !bare.is_empty() && bare.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        Ok(bare.to_owned())
    } else {
        Err("an ETag is letters and digits, with or without quotes around them".to_owned())
    }
}
