//! The exit codes, in one table: what `--help` says and what every command ends with.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It failed, and no other code says more.
    Failed,
    /// The command line was wrong; nothing was tried.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Something else is there already, or it changed since it was read.
    Conflict,
    /// The server refused the request as invalid, too large or not allowed.
    Refused,
    /// No server answered.
    Unreachable,
    /// The server cannot do it now and may be able to later.
    Unavailable,
}

impl Exit {
    /// All of them, in the order of their codes.
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::Refused,
        Self::Unreachable,
        Self::Unavailable,
    ];

    /// The process's exit code, what an error document calls it, and what `--help` says of it.
    const fn row(self) -> (u8, &'static str, &'static str) {
        match self {
            Self::Ok => (0, "ok", "done"),
            Self::Failed => {
                (1, "failed", "failed: the model or the server broke, or a local step did")
            }
            Self::Usage => (2, "usage", "wrong usage of the command line"),
            Self::NotFound => (3, "not_found", "no such model, version, alias or file"),
            Self::Conflict => {
                (4, "conflict", "conflict: something else is there, or it changed meanwhile")
            }
            Self::Refused => (5, "bad_request", "refused as invalid, too large or not allowed"),
            Self::Unreachable => (6, "unreachable", "no server answers at the address"),
            Self::Unavailable => {
                (7, "unavailable", "overloaded, unavailable or too late; may succeed later")
            }
        }
    }

    /// The process's exit code.
    pub const fn code(self) -> u8 {
        self.row().0
    }

    /// The `kind` of an error document that the server did not write.
    pub(crate) const fn kind(self) -> &'static str {
        self.row().1
    }

    /// The code for an error that the server answered with: by its kind where it gave one that is
    /// known, by the HTTP status otherwise.
    pub(crate) fn of_answer(kind: &str, status: u16) -> Self {
        match kind {
            "not_found" => Self::NotFound,
            "conflict" | "precondition_failed" => Self::Conflict,
            "bad_request" | "too_large" | "method_not_allowed" | "unauthenticated"
            | "forbidden" => Self::Refused,
            "overloaded"
            | "quota_exceeded"
            | "deadline"
            | "instantiation_failed"
            | "model_unavailable"
            | "read_only" => Self::Unavailable,
            "trap" | "no_response" | "guest_error" | "internal" => Self::Failed,
            // A newer server, or something that is not a Modelet server at all.
            _ => Self::of_status(status),
        }
    }

    fn of_status(status: u16) -> Self {
        match status {
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            408 | 429 | 502..=504 => Self::Unavailable,
            400..=499 => Self::Refused,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table as `--help` prints it.
pub(crate) fn help() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for (code, _, meaning) in Exit::ALL.map(Exit::row) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {code}  {meaning}");
    }
    text.push_str(
        "\nWith --json a command prints one JSON document to stdout; an error is a document\n\
         {\"error\": ..., \"kind\": ...} with \"where\" and \"remedy\" where they are known.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_their_places_in_the_table() {
        for (place, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), place);
        }
        assert!(help().contains("  6  no server answers"));
    }

    #[test]
    fn every_kind_of_the_api_has_its_code() {
        for (kind, status, code) in [
            ("not_found", 404, 3),
            ("method_not_allowed", 405, 5),
            ("bad_request", 400, 5),
            ("too_large", 413, 5),
            ("unauthenticated", 401, 5),
            ("forbidden", 403, 5),
            ("conflict", 409, 4),
            ("precondition_failed", 412, 4),
            ("quota_exceeded", 429, 7),
            ("overloaded", 503, 7),
            ("deadline", 504, 7),
            ("trap", 500, 1),
            ("no_response", 500, 1),
            ("guest_error", 500, 1),
            ("instantiation_failed", 503, 7),
            ("model_unavailable", 503, 7),
            ("read_only", 503, 7),
            ("internal", 500, 1),
        ] {
            assert_eq!(Exit::of_answer(kind, status).code(), code, "{kind}");
            // The status alone leads to the same code, so that a lost body loses only the reason.
            assert_eq!(Exit::of_answer("", status).code(), code, "{kind} by status {status}");
        }
        assert_eq!(Exit::of_answer("from_the_future", 418), Exit::Refused);
        assert_eq!(Exit::of_answer("", 302), Exit::Failed);
    }
}
