//! Admit: whether there is room for a request, before anything is read of its body.
//!
//! Permits are taken narrow before wide, the tenant's and then the host's, so that a tenant at its own
//! limit never holds what others could use. Nothing waits here: what finds no room is told when to
//! come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::authenticate::Caller;
use crate::config::Limits;
use crate::error::{Error, Kind};

/// When a refused caller may come back: about as long as a burst takes to pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The room there is on this host.
pub struct Admission {
    limits: Limits,
    host: Arc<Semaphore>,
    /// One semaphore a tenant that has called; tenants are known to the host, so these are few.
    tenants: RwLock<HashMap<Arc<str>, Arc<Semaphore>>>,
    bytes: Arc<ByteBudget>,
}

/// Room for one request, until the last byte of its answer is out.
pub struct Permit {
    /// Bytes of its body and of what was made of it.
    bytes: Reservation,
    /// When the answer is due.
    deadline: Instant,
    _host: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Permit {
    /// When the answer is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes room for `more` bytes.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when the host's budget is used up.
    pub fn reserve(&mut self, more: u64) -> Result<(), Error> {
        self.bytes.grow(more)
    }
}

impl Admission {
    /// Empty, with the room that `limits` give.
    pub fn new(limits: Limits) -> Self {
        Self {
            host: Arc::new(Semaphore::new(limits.inflight_requests as usize)),
            tenants: RwLock::default(),
            bytes: Arc::new(ByteBudget { used: AtomicU64::new(0), limit: limits.inflight_bytes }),
            limits,
        }
    }

    /// The limits on a request.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests under way.
    pub fn inflight_requests(&self) -> u64 {
        u64::from(self.limits.inflight_requests)
            .saturating_sub(self.host.available_permits() as u64)
    }

    /// Bytes of requests under way.
    pub fn inflight_bytes(&self) -> u64 {
        self.bytes.used.load(Ordering::Relaxed)
    }

    /// Finds room for a request of `caller`.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when its length is over the limit, [`Kind::QuotaExceeded`] when the tenant
    /// has too many under way, [`Kind::Overloaded`] when the host has.
    pub fn admit(&self, caller: &Caller, head: &Parts) -> Result<Permit, Error> {
        let length = content_length(head)?;
        let limit = self.limits.request_body_bytes;
        if let Some(length) = length.filter(|length| *length > limit) {
            return Err(body_too_large(Some(length), limit));
        }
        let tenant = self.tenant(&caller.tenant).try_acquire_owned().map_err(|_| {
            let limit = self.limits.tenant_requests;
            Error::new(
                Kind::QuotaExceeded,
                format!(
                    "{limit} requests of this tenant are under way already (limits.tenant_requests)"
                ),
            )
            .retry_after(RETRY_AFTER)
        })?;
        let host = Arc::clone(&self.host).try_acquire_owned().map_err(|_| {
            let limit = self.limits.inflight_requests;
            overloaded(format!("{limit} requests are under way already (limits.inflight_requests)"))
        })?;
        let bytes = Reservation { budget: Arc::clone(&self.bytes), bytes: 0 };
        let deadline = Instant::now() + Duration::from_millis(self.limits.request_timeout_ms);
        Ok(Permit { bytes, deadline, _host: host, _tenant: tenant })
    }

    fn tenant(&self, name: &Arc<str>) -> Arc<Semaphore> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            let permits = self.limits.tenant_requests as usize;
            Arc::clone(
                tenants
                    .entry(Arc::clone(name))
                    .or_insert_with(|| Arc::new(Semaphore::new(permits))),
            )
        })
    }
}

/// The length a request says it has; none when it comes in chunks.
///
/// # Errors
/// When it is no number.
pub fn content_length(head: &Parts) -> Result<Option<u64>, Error> {
    let Some(value) = head.headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        Error::new(Kind::BadRequest, "the length is not a number").at("header Content-Length")
    })
}

/// A body over the limit, whether its length was said or seen.
pub fn body_too_large(length: Option<u64>, limit: u64) -> Error {
    let given = length.map_or("more bytes".to_owned(), |length| format!("{length} bytes"));
    Error::new(
        Kind::TooLarge,
        format!("the body has {given}, over the limit of {limit} (limits.request_body_bytes)"),
    )
    .remedy("send fewer rows in one request")
}

fn overloaded(message: String) -> Error {
    Error::new(Kind::Overloaded, message).retry_after(RETRY_AFTER)
}

/// Bytes all requests under way may take together.
struct ByteBudget {
    used: AtomicU64,
    limit: u64,
}

/// A part of the budget, returned when dropped.
struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Reservation {
    fn grow(&mut self, more: u64) -> Result<(), Error> {
        let limit = self.budget.limit;
        let fits = |used: u64| used.checked_add(more).filter(|used| *used <= limit);
        match self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(used) => Err(overloaded(format!(
                "{used} bytes of requests are in flight, and {more} more would pass the limit of {limit} (limits.inflight_bytes)"
            ))),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(length: Option<&str>) -> Parts {
        let mut request = http::Request::builder();
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn caller(tenant: &str) -> Caller {
        Caller { tenant: tenant.into() }
    }

    fn admission(tenant_requests: u32, inflight_requests: u32) -> Admission {
        let (request_body_bytes, inflight_bytes) = (100, 150);
        let limits = Limits::default();
        Admission::new(Limits {
            tenant_requests,
            inflight_requests,
            request_body_bytes,
            inflight_bytes,
            ..limits
        })
    }

    #[tokio::test]
    async fn a_tenant_at_its_limit_is_told_so_and_others_are_let_in() {
        let admission = admission(1, 2);
        let first = admission.admit(&caller("a"), &head(None)).unwrap();
        let refused = admission.admit(&caller("a"), &head(None)).err().unwrap();
        assert_eq!((refused.kind(), refused.wait()), (Kind::QuotaExceeded, Some(RETRY_AFTER)));
        let second = admission.admit(&caller("b"), &head(None)).unwrap();
        let refused = admission.admit(&caller("c"), &head(None)).err().unwrap();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Overloaded, Some(RETRY_AFTER)));
        drop((first, second));
        assert!(admission.admit(&caller("c"), &head(None)).is_ok());
        assert_eq!(admission.inflight_requests(), 0);
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_come_back() {
        let admission = admission(8, 8);
        let mut first = admission.admit(&caller("a"), &head(None)).unwrap();
        let mut second = admission.admit(&caller("a"), &head(None)).unwrap();
        first.reserve(100).unwrap();
        assert_eq!(second.reserve(51).unwrap_err().kind(), Kind::Overloaded);
        second.reserve(50).unwrap();
        drop(first);
        assert_eq!(admission.inflight_bytes(), 50);
        second.reserve(100).unwrap();
        drop(second);
        assert_eq!(admission.inflight_bytes(), 0);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_or_none_at_all_is_refused_before_the_body() {
        let admission = admission(8, 8);
        let kind =
            |length| admission.admit(&caller("a"), &head(Some(length))).err().map(|e| e.kind());
        assert_eq!(kind("100"), None);
        assert_eq!(kind("101"), Some(Kind::TooLarge));
        assert_eq!(kind("1e3"), Some(Kind::BadRequest));
    }
}
