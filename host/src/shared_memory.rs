//! Shared memory: tensors that a client leaves in memory it shares with the server. It is off: a client
//! names memory of the host, and on this host tenants do not share theirs.
//!
//! What clients do all the same is answered: there are no regions, and letting go of them all is no
//! error, because load testers begin with that.

use crate::error::{Error, Kind};

/// What is asked of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// Which regions there are, or what one of them is.
    Status(Option<String>),
    /// Take a region.
    Register,
    /// Let go of one, or of all.
    Unregister,
}

impl Shared {
    /// Whether it only asks.
    pub fn is_status(&self) -> bool {
        matches!(self, Self::Status(_))
    }
}

/// Answers what is asked: whether the answer is the list of no regions.
///
/// # Errors
/// [`Kind::NotFound`] for the status of a region, [`Kind::Unsupported`] for taking one.
pub fn answer(shared: &Shared) -> Result<bool, Error> {
    match shared {
        Shared::Status(None) => Ok(true),
        Shared::Unregister => Ok(false),
        Shared::Status(Some(region)) => {
            let region: String = region.chars().take(80).collect();
            let text = format!("there is no shared memory region {region:?}");
            Err(Error::new(Kind::NotFound, text))
        }
        Shared::Register => {
            Err(Error::new(Kind::Unsupported, "shared memory is not enabled on this server")
                .remedy("send the data in the request, and take outputs from the answer"))
        }
    }
}
