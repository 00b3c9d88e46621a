//! Log settings: what the protocol's clients may read and change of the server's log while it runs.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Kind};

/// How the log's lines give their time, and the only way there is.
const FORMAT: &str = "ISO8601";

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// Where to; empty for the standard error output.
    pub log_file: &'static str,
    /// Whether the server's life is logged.
    pub log_info: bool,
    /// Whether failures of models are.
    pub log_warning: bool,
    /// Whether failures of the server are.
    pub log_error: bool,
    /// From 1 on every refusal is logged, from 2 on everything there is.
    pub log_verbose_level: u32,
    /// How lines give their time.
    pub log_format: &'static str,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            log_file: "",
            log_info: true,
            log_warning: true,
            log_error: true,
            log_verbose_level: 0,
            log_format: FORMAT,
        }
    }
}

impl LogSettings {
    /// The least severe level that is logged, as a filter spells it.
    pub fn level(&self) -> &'static str {
        match self {
            Self { log_verbose_level: 2.., .. } => "trace",
            Self { log_verbose_level: 1, .. } => "debug",
            Self { log_info: true, .. } => "info",
            Self { log_warning: true, .. } => "warn",
            Self { log_error: true, .. } => "error",
            _ => "off",
        }
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), Error> {
        let wanted = |what: &str| {
            Error::new(Kind::BadRequest, format!("the log setting {name:?} takes {what}"))
        };
        let flag = || value.as_bool().ok_or_else(|| wanted("true or false"));
        match name {
            "log_info" => self.log_info = flag()?,
            "log_warning" => self.log_warning = flag()?,
            "log_error" => self.log_error = flag()?,
            "log_verbose_level" => {
                // JSON has one kind of number: 1.0 is a whole one.
                let level = value.as_f64().filter(|level| level.fract() == 0.0);
                let level = level.filter(|level| (0.0..=f64::from(u32::MAX)).contains(level));
                self.log_verbose_level = level.ok_or_else(|| wanted("a whole number"))? as u32;
            }
            "log_format" if value.as_str() == Some(FORMAT) => {}
            "log_format" => return Err(wanted("ISO8601, the only format of this server's log")),
            "log_file" => {
                let text = "the log's place cannot be changed while the server runs";
                return Err(Error::new(Kind::Unsupported, text).at("log_file"));
            }
            _ => {
                let name: String = name.chars().take(80).collect();
                return Err(Error::new(
                    Kind::BadRequest,
                    format!("there is no log setting {name:?}"),
                ));
            }
        }
        Ok(())
    }
}

/// What makes the log act on a level from now on.
pub type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// The log's settings, and the way to the log.
pub struct Logging {
    settings: Mutex<LogSettings>,
    /// None where the log is not this program's to change.
    set_level: Option<SetLevel>,
}

impl Logging {
    /// The log as it was started.
    pub fn new(set_level: Option<SetLevel>) -> Self {
        Self { settings: Mutex::default(), set_level }
    }

    /// The settings as they are.
    pub fn settings(&self) -> LogSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes all of `changes` or none, and gives the settings as they are then.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] for what is no setting or no value of one, [`Kind::Unsupported`] for what
    /// cannot be changed.
    pub fn change(&self, changes: &Map<String, Value>) -> Result<LogSettings, Error> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = settings.clone();
        for (name, value) in changes {
            changed.set(name, value)?;
        }
        if changed != *settings {
            let set_level = self.set_level.as_ref().ok_or_else(|| {
                Error::new(Kind::Unsupported, "the log of this process cannot be changed")
            })?;
            set_level(changed.level());
        }
        settings.clone_from(&changed);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn changes(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_level_follows_the_settings() {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&levels);
        let set: SetLevel = Box::new(move |level| seen.lock().unwrap().push(level.to_owned()));
        let logging = Logging::new(Some(set));
        for change in [
            json!({ "log_verbose_level": 1 }),
            json!({ "log_verbose_level": 0, "log_info": false }),
            json!({ "log_warning": false }),
            json!({ "log_error": false }),
            json!({ "log_format": "ISO8601" }),
        ] {
            logging.change(&changes(change)).unwrap();
        }
        assert_eq!(*levels.lock().unwrap(), ["debug", "warn", "error", "off"]);
    }

    #[test]
    fn a_change_is_made_whole_or_not_at_all() {
        let logging = Logging::new(Some(Box::new(|_| {})));
        for (wrong, words) in [
            (json!({ "log_info": 1 }), "takes true or false"),
            (json!({ "log_verbose_level": -1 }), "a whole number"),
            (json!({ "log_format": "default" }), "ISO8601"),
            (json!({ "log_file": "/etc/passwd" }), "cannot be changed"),
            (json!({ "log_noise": true }), "no log setting"),
        ] {
            let mut both = changes(json!({ "log_error": false }));
            both.extend(changes(wrong));
            let error = logging.change(&both).unwrap_err().text();
            assert!(error.contains(words), "{error}");
            assert_eq!(logging.settings(), LogSettings::default());
        }
    }
}
