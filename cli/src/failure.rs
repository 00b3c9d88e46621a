//! Why a command failed, as it is told to people and to programs.

use std::fmt;

use serde_json::{Value, json};

use crate::exit::Exit;

/// A command's failure: the exit code, what was wrong, where, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// The error's kind, as the management API names it.
    kind: String,
    message: String,
    place: Option<String>,
    remedy: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`; the message is lowercase and without a full stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind: exit.kind().to_owned(),
            message: message.into(),
            place: None,
            remedy: None,
        }
    }

    /// A command line that parses but makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same failure with the place it happened at.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same failure under the kind that the server gave it.
    #[must_use]
    pub(crate) fn kind(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.kind);
        self
    }

    /// The code that the process ends with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether what was named does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.exit == Exit::NotFound
    }

    /// Whether a remedy is known already.
    pub(crate) fn has_remedy(&self) -> bool {
        self.remedy.is_some()
    }

    /// The failure as the JSON document that `--json` prints.
    pub(crate) fn document(&self) -> Value {
        let mut document = json!({ "error": self.message, "kind": self.kind });
        if let Some(fields) = document.as_object_mut() {
            for (key, value) in [("where", &self.place), ("remedy", &self.remedy)] {
                if let Some(value) = value {
                    fields.insert(key.to_owned(), value.as_str().into());
                }
            }
        }
        document
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  where: {place}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_where_and_what_to_do() {
        let failure = Failure::new(Exit::NotFound, "there is no model 'm'")
            .at("/api/v1/models/m")
            .remedy("list the models with 'modelet models'");
        assert_eq!(
            failure.to_string(),
            "error: there is no model 'm'\n  where: /api/v1/models/m\n  \
             remedy: list the models with 'modelet models'"
        );
        assert_eq!(failure.document()["kind"], "not_found");
        assert_eq!(failure.document()["where"], "/api/v1/models/m");
    }

    #[test]
    fn parts_that_are_not_known_are_left_out() {
        let failure = Failure::from(anyhow::anyhow!("inner").context("outer"));
        assert_eq!(failure.to_string(), "error: outer: inner");
        assert_eq!(failure.document(), json!({ "error": "outer: inner", "kind": "failed" }));
    }
}
