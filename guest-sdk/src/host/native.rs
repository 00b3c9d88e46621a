//! A stand-in for the host on the author's machine: what `testing::Host` set up for this thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use crate::element::{Datatype, Element as _};
use crate::error::{Error, Result};

use super::Level;

/// A tensor in the host.
#[derive(Debug, Clone)]
pub struct Handle {
    datatype: Datatype,
    shape: Vec<usize>,
    data: Rc<[u8]>,
    /// Whether an engine that has only 32 bits made it, so that it may stand for INT64 or BOOL.
    widens: bool,
}

impl Handle {
    pub(crate) fn make(datatype: Datatype, shape: &[usize], data: &[u8]) -> Result<Self> {
        Ok(Self { datatype, shape: shape.to_vec(), data: data.into(), widens: false })
    }

    /// This one, of INT32, standing for whatever integers are asked for.
    #[cfg(feature = "rten")]
    pub(crate) fn widening(self) -> Self {
        Self { widens: true, ..self }
    }

    /// It as a tensor of this type, where it may stand for one.
    pub(crate) fn wanted_as(self, datatype: Datatype) -> Self {
        let elements = || i32::decode(&self.data).unwrap_or_default().into_iter();
        let data: Rc<[u8]> = match datatype {
            Datatype::Int64 if self.widens => {
                elements().flat_map(|element| i64::from(element).to_le_bytes()).collect()
            }
            Datatype::Bool if self.widens => elements().map(|e| u8::from(e != 0)).collect(),
            _ => return self,
        };
        Self { datatype, data, widens: false, ..self }
    }

    pub(crate) fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    pub(crate) fn data(&self) -> Vec<u8> {
        self.data.to_vec()
    }

    pub(crate) fn share(&self) -> Self {
        self.clone()
    }

    pub(crate) fn rows(&self, start: usize, count: usize) -> Result<Self> {
        let rows = self.shape.first().copied().unwrap_or(0);
        let row = self.data.len().checked_div(rows).unwrap_or(0);
        let data = self.data.get(start * row..(start + count) * row);
        let data = data.ok_or_else(|| {
            Error::failed(format!(
                "rows {start} to {start} + {count} reach past the {rows} there are"
            ))
        })?;
        let shape = std::iter::once(count).chain(self.shape.iter().skip(1).copied()).collect();
        Ok(Self { shape, data: data.into(), ..self.clone() })
    }
}

/// What runs in place of an engine.
pub(crate) trait Engine {
    fn compute(&self, inputs: Vec<(String, Handle)>) -> Result<Vec<(String, Handle)>>;
}

/// A graph made ready to compute.
#[derive(Clone)]
pub(crate) struct Context(Rc<dyn Engine>);

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")
    }
}

impl Context {
    pub(crate) fn load(asset: &str) -> Result<Self> {
        let graph = with(|host| host.graphs.get(asset).cloned());
        graph.map(Self).ok_or_else(|| {
            Error::failed(format!("the test host has no graph '{asset}'; give it one by `graph`"))
        })
    }

    pub(crate) fn compute(&self, inputs: Vec<(String, Handle)>) -> Result<Vec<(String, Handle)>> {
        self.0.compute(inputs)
    }
}

/// What the thread's stand-in has.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) assets: BTreeMap<String, Vec<u8>>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) graphs: BTreeMap<String, Rc<dyn Engine>>,
    pub(crate) lines: RefCell<Vec<(Level, String)>>,
    /// Whether the caller asked for a stream.
    pub(crate) streamed: bool,
    /// The partial answers so far.
    pub(crate) emitted: RefCell<Vec<Vec<(String, Handle)>>>,
}

thread_local! {
    static HOST: RefCell<Rc<Surroundings>> = RefCell::default();
}

/// Makes `host` this thread's and gives the one it replaces.
pub(crate) fn replace(host: Rc<Surroundings>) -> Rc<Surroundings> {
    HOST.with(|current| current.replace(host))
}

fn with<T>(look: impl FnOnce(&Surroundings) -> T) -> T {
    HOST.with(|host| look(&host.borrow()))
}

pub(crate) fn asset(name: &str) -> Option<Vec<u8>> {
    with(|host| host.assets.get(name).cloned())
}

pub(crate) fn asset_names() -> Vec<String> {
    with(|host| host.assets.keys().cloned().collect())
}

pub(crate) fn setting(key: &str) -> Option<String> {
    with(|host| host.settings.get(key).cloned())
}

pub(crate) fn log(level: Level, message: &str) {
    with(|host| host.lines.borrow_mut().push((level, message.to_owned())));
}

pub(crate) fn is_streamed() -> bool {
    with(|host| host.streamed)
}

pub(crate) fn emit(outputs: Vec<(String, Handle)>) -> Result<()> {
    if !is_streamed() {
        return Err(Error::failed("the caller asked for no stream"));
    }
    with(|host| host.emitted.borrow_mut().push(outputs));
    Ok(())
}
