//! What a version ships with and is told: assets, settings, and the host's log.

/// The files that were published with this version.
pub mod assets {
    use crate::error::{Error, Result};
    use crate::host;

    /// The bytes of an asset.
    ///
    /// # Errors
    /// When the version has no asset of that name; the error lists those there are.
    pub fn read(name: &str) -> Result<Vec<u8>> {
        host::asset(name).ok_or_else(|| {
            Error::failed(format!("there is no asset '{name}'; there are {:?}", names()))
        })
    }

    /// An asset as text.
    ///
    /// # Errors
    /// When there is no asset of that name, or it is not UTF-8.
    pub fn text(name: &str) -> Result<String> {
        String::from_utf8(read(name)?)
            .map_err(|error| Error::failed(format!("asset '{name}' is no text: {error}")))
    }

    /// The names of all assets, in order.
    pub fn names() -> Vec<String> {
        host::asset_names()
    }
}

/// Key/values that the operator set for this version.
pub mod config {
    use std::str::FromStr;

    use crate::error::{Error, Result};
    use crate::host;

    /// The value under a key, if one was set.
    pub fn get(key: &str) -> Option<String> {
        host::setting(key)
    }

    /// The value under a key, or `default` where none was set.
    ///
    /// # Errors
    /// When the value is not of that type.
    pub fn or<T: FromStr>(key: &str, default: T) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = get(key) else { return Ok(default) };
        text.parse().map_err(|error| {
            Error::failed(format!("the setting {key} = '{text}' is wrong: {error}"))
        })
    }
}

/// Lines for the host's log, next to the request they belong to.
pub mod log {
    use std::fmt::Display;

    use crate::host;
    pub use crate::host::Level;

    /// Writes a line. The host keeps so many bytes a request, and counts what is beyond them.
    pub fn write(level: Level, message: impl Display) {
        host::log(level, &message.to_string());
    }

    /// A line for whoever debugs the model.
    pub fn debug(message: impl Display) {
        write(Level::Debug, message);
    }

    /// A line worth knowing.
    pub fn info(message: impl Display) {
        write(Level::Info, message);
    }

    /// A line about something that is not as it should be.
    pub fn warn(message: impl Display) {
        write(Level::Warn, message);
    }

    /// A line about something that failed.
    pub fn error(message: impl Display) {
        write(Level::Error, message);
    }
}
