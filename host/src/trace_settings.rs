//! Trace settings: which requests leave a line with the times of their stages in the log, as the
//! protocol's clients set it, for all models and for single ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use serde::Serialize;

use crate::error::{Error, Kind};
use crate::names::ModelName;

/// The settings that are in force. Values are text, as the protocol has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceSettings {
    /// `OFF` or `TIMESTAMPS`.
    pub trace_level: Vec<String>,
    /// One request in so many is traced.
    pub trace_rate: String,
    /// How many more are; -1 for all.
    pub trace_count: String,
    /// Requests a file of traces; there are no such files.
    pub log_frequency: String,
    /// Where traces go; empty for the log.
    pub trace_file: String,
    /// Whose form they have.
    pub trace_mode: String,
}

/// What one model, or all of them, was set to; what nobody set is that of all models, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Set {
    on: Option<bool>,
    rate: Option<u64>,
    count: Option<i64>,
    /// Requests that could have been traced since it was set.
    seen: u64,
}

/// What is traced where nobody says otherwise: one request in a thousand, as Triton does.
const RATE: u64 = 1000;

#[derive(Debug, Clone, Default)]
struct State {
    all: Set,
    models: BTreeMap<ModelName, Set>,
}

/// The trace settings of a server.
#[derive(Debug, Default)]
pub struct Tracing {
    state: Mutex<State>,
    /// There when anything may be traced, so that a request of a server that traces nothing looks no
    /// further.
    any: ArcSwapOption<()>,
}

impl Tracing {
    /// The settings of a model, or those of all.
    pub fn settings(&self, model: Option<&ModelName>) -> TraceSettings {
        self.lock().settings(model)
    }

    /// Makes all of `changes` or none, to a model or to all, and gives the settings as they are then.
    /// No values clear a setting.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] for what is no setting or no value of one, [`Kind::Unsupported`] for what
    /// this server does not do.
    pub fn change(
        &self,
        model: Option<&ModelName>,
        changes: &BTreeMap<String, Vec<String>>,
    ) -> Result<TraceSettings, Error> {
        let mut state = self.lock();
        let mut changed = match model {
            None => state.all.clone(),
            Some(model) => state.models.get(model).cloned().unwrap_or_default(),
        };
        for (name, values) in changes {
            changed.set(name, values)?;
        }
        match model {
            None => state.all = changed,
            Some(model) if changed == Set::default() => _ = state.models.remove(model),
            Some(model) => _ = state.models.insert(model.clone(), changed),
        }
        let any = std::iter::once(&state.all)
            .chain(state.models.values())
            .any(|set| set.on == Some(true));
        self.any.store(any.then(Default::default));
        Ok(state.settings(model))
    }

    /// Whether the request of a model that ends now is to be traced.
    pub fn takes(&self, model: &ModelName) -> bool {
        self.any.load().is_some() && self.lock().takes(model)
    }

    /// Forgets models that are gone.
    pub fn retain(&self, exists: impl Fn(&ModelName) -> bool) {
        self.lock().models.retain(|model, _| exists(model));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Settings stay what they are whatever a panicking holder was doing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn effective(&self, model: Option<&ModelName>) -> (bool, u64, i64) {
        let own = model.and_then(|model| self.models.get(model));
        let (own, all) = (own.unwrap_or(&self.all), &self.all);
        let on = own.on.or(all.on).unwrap_or(false);
        (on, own.rate.or(all.rate).unwrap_or(RATE), own.count.or(all.count).unwrap_or(-1))
    }

    fn settings(&self, model: Option<&ModelName>) -> TraceSettings {
        let (on, rate, count) = self.effective(model);
        TraceSettings {
            trace_level: vec![if on { "TIMESTAMPS" } else { "OFF" }.to_owned()],
            trace_rate: rate.to_string(),
            trace_count: count.to_string(),
            log_frequency: "0".to_owned(),
            trace_file: String::new(),
            trace_mode: "modelet".to_owned(),
        }
    }

    fn takes(&mut self, model: &ModelName) -> bool {
        let (on, rate, count) = self.effective(Some(model));
        if !on || count == 0 {
            return false;
        }
        let own = self.models.get_mut(model);
        let counts_here = own.as_ref().is_some_and(|own| own.count.is_some());
        let set = match own {
            Some(own) => own,
            None => &mut self.all,
        };
        set.seen += 1;
        if !set.seen.is_multiple_of(rate.max(1)) {
            return false;
        }
        if count > 0 {
            let counted = if counts_here { self.models.get_mut(model) } else { None };
            counted.unwrap_or(&mut self.all).count = Some(count - 1);
        }
        true
    }
}

impl Set {
    fn set(&mut self, name: &str, values: &[String]) -> Result<(), Error> {
        let wanted = |what: &str| {
            Error::new(Kind::BadRequest, format!("the trace setting {name:?} takes {what}"))
        };
        let one = values.first().map(String::as_str);
        match name {
            "trace_level" => self.on = level(values)?,
            "trace_rate" => {
                let rate = one.map(|rate| rate.parse().ok().filter(|rate| *rate > 0));
                self.rate = rate
                    .map(|rate| rate.ok_or_else(|| wanted("a number from 1 on")))
                    .transpose()?;
                self.seen = 0;
            }
            "trace_count" => {
                let count = one.map(|count| count.parse().ok().filter(|count| *count >= -1));
                self.count = count
                    .map(|count| count.ok_or_else(|| wanted("a number from -1 on")))
                    .transpose()?;
            }
            "log_frequency" if one.is_none_or(|value| value == "0") => {}
            "log_frequency" => {
                return Err(unsupported("traces go to the log, not to files of so many", name));
            }
            "trace_file" => {
                return Err(unsupported("traces go to the log and to no file", name));
            }
            "trace_mode" if one.is_none_or(|value| value == "modelet") => {}
            "trace_mode" => return Err(wanted("modelet")),
            _ => {
                let name: String = name.chars().take(80).collect();
                let text = format!("there is no trace setting {name:?}");
                return Err(Error::new(Kind::BadRequest, text));
            }
        }
        Ok(())
    }
}

/// Whether these levels trace; none where there is no level.
fn level(values: &[String]) -> Result<Option<bool>, Error> {
    let mut on = None;
    for value in values {
        match value.as_str() {
            "OFF" => on = on.or(Some(false)),
            "TIMESTAMPS" | "MIN" | "MAX" => on = Some(true),
            "TENSORS" => {
                let text = "tensors are their owner's and are not written down";
                return Err(unsupported(text, "trace_level"));
            }
            _ => {
                let text = "the trace setting \"trace_level\" takes OFF or TIMESTAMPS";
                return Err(Error::new(Kind::BadRequest, text));
            }
        }
    }
    Ok(on)
}

fn unsupported(text: &'static str, name: &str) -> Error {
    Error::new(Kind::Unsupported, text).at(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    fn change(
        tracing: &Tracing,
        of: Option<&str>,
        name: &str,
        values: &[&str],
    ) -> Result<TraceSettings, String> {
        let values = values.iter().map(ToString::to_string).collect();
        let changes = BTreeMap::from([(name.to_owned(), values)]);
        tracing.change(of.map(model).as_ref(), &changes).map_err(|error| error.text())
    }

    #[test]
    fn one_in_so_many_is_traced_as_often_as_was_said() {
        let tracing = Tracing::default();
        assert!(!tracing.takes(&model("a")));
        change(&tracing, None, "trace_level", &["TIMESTAMPS"]).unwrap();
        change(&tracing, None, "trace_rate", &["3"]).unwrap();
        change(&tracing, None, "trace_count", &["2"]).unwrap();
        let traced: Vec<_> = (1..=12).filter(|_| tracing.takes(&model("a"))).collect();
        assert_eq!(traced, [3, 6]);
        assert_eq!(tracing.settings(None).trace_count, "0");
    }

    #[test]
    fn a_model_has_its_own_settings_until_they_are_cleared() {
        let tracing = Tracing::default();
        change(&tracing, None, "trace_rate", &["7"]).unwrap();
        let own = change(&tracing, Some("a"), "trace_level", &["TIMESTAMPS"]).unwrap();
        assert_eq!((&*own.trace_level, &*own.trace_rate), (&["TIMESTAMPS".to_owned()][..], "7"));
        change(&tracing, Some("a"), "trace_rate", &["1"]).unwrap();
        assert!(tracing.takes(&model("a")) && !tracing.takes(&model("b")));
        change(&tracing, Some("a"), "trace_rate", &[]).unwrap();
        assert_eq!(tracing.settings(Some(&model("a"))).trace_rate, "7");
        change(&tracing, Some("a"), "trace_level", &[]).unwrap();
        assert!(!tracing.takes(&model("a")));
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_reason() {
        let tracing = Tracing::default();
        for (name, values, words) in [
            ("trace_level", &["LOUD"][..], "OFF or TIMESTAMPS"),
            ("trace_level", &["TENSORS"], "not written down"),
            ("trace_rate", &["0"], "from 1 on"),
            ("trace_count", &["x"], "from -1 on"),
            ("trace_file", &["/tmp/x"], "no file"),
            ("log_frequency", &["5"], "not to files"),
            ("trace_mode", &["opentelemetry"], "takes modelet"),
            ("noise", &["1"], "no trace setting"),
        ] {
            let error = change(&tracing, None, name, values).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
