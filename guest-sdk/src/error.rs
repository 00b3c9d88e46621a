//! Why a model has no answer, and whose it is to mend.

use std::fmt;

/// What `load` and `infer` give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model has no answer.
///
/// `?` makes one of every error: what a library says is then told to the caller as the model's failure.
/// [`BadInput::bad_input`] says instead that the caller sent something wrong, and in which tensor.
///
/// ```
/// use modelet_guest::{BadInput as _, Result};
///
/// fn year(text: &str) -> Result<u32> {
///     let year = text.parse::<u32>().bad_input("year")?;
///     Ok(year)
/// }
/// let error = year("soon").unwrap_err();
/// assert!(error.is_bad_input());
/// assert_eq!(error.tensor(), Some("year"));
/// assert_eq!(error.to_string(), "input 'year': invalid digit found in string");
/// ```
// Not a `std::error::Error` itself: otherwise it could not be made from every one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    tensor: Option<String>,
}

/// Whose an error is to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The caller's: an HTTP status of 400.
    BadInput,
    /// Nobody's, only later: 503.
    Unavailable,
    /// The model's: 500.
    Failed,
}

impl Error {
    /// The caller sent something in `tensor` that the model does not take.
    pub fn bad_input(tensor: impl Into<String>, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { kind: Kind::BadInput, message, tensor: Some(tensor.into()) }
    }

    /// The model cannot answer now, but may later.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Unavailable, message: message.to_string(), tensor: None }
    }

    /// The model tried and failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Failed, message: message.to_string(), tensor: None }
    }

    /// This error, said to be about `tensor`.
    #[must_use]
    pub fn about(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }

    /// Whether it is the caller's to mend.
    pub fn is_bad_input(&self) -> bool {
        self.kind == Kind::BadInput
    }

    /// The tensor it is about, if it is about one.
    pub fn tensor(&self) -> Option<&str> {
        self.tensor.as_deref()
    }

    /// What went wrong, without the tensor.
    pub fn message(&self) -> &str {
        &self.message
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_parts(self) -> (Kind, String, Option<String>) {
        (self.kind, self.message, self.tensor)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tensor, self.kind) {
            (Some(tensor), Kind::BadInput) => write!(f, "input '{tensor}': {}", self.message),
            (Some(tensor), _) => write!(f, "tensor '{tensor}': {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message = format!("{message}: {error}");
            source = error.source();
        }
        Self::failed(message)
    }
}

/// Blames the caller for an error, or for nothing being there.
pub trait BadInput<T> {
    /// Says that `tensor`, which the caller sent, is the reason.
    ///
    /// # Errors
    /// An [`Error`] about `tensor`, in the words of the error that was there.
    fn bad_input(self, tensor: &str) -> Result<T>;
}

impl<T, E: Into<Error>> BadInput<T> for std::result::Result<T, E> {
    fn bad_input(self, tensor: &str) -> Result<T> {
        self.map_err(|error| Error::bad_input(tensor, error.into().message))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that is wrong may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_error_is_the_models_failure_until_the_input_is_blamed() {
        let library = || String::from_utf8(vec![0xff]).map_err(Error::from);
        let failed = library().unwrap_err();
        assert!(!failed.is_bad_input() && failed.tensor().is_none());
        let blamed = library().bad_input("text").unwrap_err();
        assert!(blamed.is_bad_input());
        assert!(blamed.to_string().starts_with("input 'text': invalid utf-8"), "{blamed}");
    }

    #[test]
    fn causes_are_told_with_the_error() {
        #[derive(Debug)]
        struct Outer(std::fmt::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Outer(fmt::Error)).about("y");
        assert!(error.to_string().starts_with("tensor 'y': outer: "), "{error}");
    }
}
