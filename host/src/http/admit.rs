//! Admit: whether there is room for a request: first for its body to come, then for what it asks for.
//!
//! While its body comes a request holds a place among those received and the bytes that are there. A
//! slow caller so takes nothing from the others: the permits, and any instance, are for requests that
//! have come whole. Where no permit is left, a request is refused before its body is read.
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
use crate::limit::Limit;

/// The room there is on this host.
pub struct Admission {
    limits: Limits,
    host: Arc<Semaphore>,
    /// One semaphore a tenant that has called; tenants are known to the host, so these are few.
    tenants: RwLock<HashMap<Arc<str>, Arc<Semaphore>>>,
    /// Places for requests whose body is still coming.
    receiving: Arc<Semaphore>,
    /// Places for management requests.
    management: Arc<Semaphore>,
    bytes: Arc<ByteBudget>,
}

/// Room for one request while its body comes.
pub struct Receiving {
    /// Bytes of its body and of what was made of it.
    bytes: Reservation,
    /// When the answer is due.
    deadline: Instant,
    tenant: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Receiving {
    /// Takes room for `more` bytes.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when the host's budget is used up.
    pub fn reserve(&mut self, more: u64) -> Result<(), Error> {
        self.bytes.grow(more)
    }

    /// The time that is left until the answer is due.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Has the answer due `within` this time, if that is sooner: the caller will not wait for longer.
    pub fn due(&mut self, within: Duration) {
        if let Some(due) = Instant::now().checked_add(within) {
            self.deadline = self.deadline.min(due);
        }
    }

    /// Room that another thread takes from the same budget, until it joins.
    pub fn part(&self) -> Part {
        Part(Reservation { budget: Arc::clone(&self.bytes.budget), bytes: 0 })
    }

    /// Takes over what another thread has taken.
    pub fn join(&mut self, Part(mut part): Part) {
        self.bytes.bytes += std::mem::take(&mut part.bytes);
    }
}

/// Room that is taken on another thread.
pub struct Part(Reservation);

impl Part {
    /// Takes room for `more` bytes.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when the host's budget is used up.
    pub fn reserve(&mut self, more: u64) -> Result<(), Error> {
        self.0.grow(more)
    }
}

/// Room for one request that has come whole, until the last byte of its answer is out.
pub struct Permit {
    /// Bytes of its body and tensors, then of its answer.
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

    /// The time that is left until then.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Takes room for `more` bytes.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when the host's budget is used up.
    pub fn reserve(&mut self, more: u64) -> Result<(), Error> {
        self.bytes.grow(more)
    }

    /// Bytes that room is held for.
    pub fn held(&self) -> u64 {
        self.bytes.bytes
    }

    /// Holds room for exactly `bytes` from here on: what the request brought is gone, and its answer
    /// is there.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when the host's budget is used up.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes.set(bytes)
    }
}

impl Admission {
    /// Empty, with the room that `limits` give.
    pub fn new(limits: Limits) -> Self {
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            host: semaphore(limits.inflight_requests),
            tenants: RwLock::default(),
            receiving: semaphore(limits.receiving_requests),
            management: semaphore(limits.management_requests),
            bytes: Arc::new(ByteBudget { used: AtomicU64::new(0), limit: limits.inflight_bytes }),
            limits,
        }
    }

    /// The limits on a request.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests under way, from the last byte of the body to that of the answer.
    pub fn inflight_requests(&self) -> u64 {
        taken(&self.host, self.limits.inflight_requests)
    }

    /// Requests whose body is still coming.
    pub fn receiving_requests(&self) -> u64 {
        taken(&self.receiving, self.limits.receiving_requests)
    }

    /// Management requests under way.
    pub fn management_requests(&self) -> u64 {
        taken(&self.management, self.limits.management_requests)
    }

    /// Bytes of requests under way.
    pub fn inflight_bytes(&self) -> u64 {
        self.bytes.used.load(Ordering::Relaxed)
    }

    /// Finds room for the body of a request of `caller`, unless it would be read for nothing.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when its length is over the limit, [`Kind::QuotaExceeded`] when the tenant
    /// has too many under way, [`Kind::Overloaded`] when the host has, or has no room for the body.
    pub fn receive(&self, caller: &Caller, head: &Parts) -> Result<Receiving, Error> {
        let length = content_length(head)?;
        let limit = self.limits.request_body_bytes;
        if let Some(length) = length.filter(|length| *length > limit) {
            return Err(body_too_large(Some(length), limit));
        }
        let tenant = self.tenant(&caller.tenant);
        if tenant.available_permits() == 0 {
            return Err(self.tenant_full());
        }
        if self.host.available_permits() == 0 {
            return Err(self.host_full());
        }
        self.bytes.check(length.unwrap_or(0))?;
        let place = Arc::clone(&self.receiving).try_acquire_owned().map_err(|_| {
            let limit = self.limits.receiving_requests;
            let message = format!("the bodies of {limit} requests are coming already");
            Error::over(Kind::Overloaded, Limit::ReceivingRequests, message)
        })?;
        let bytes = Reservation { budget: Arc::clone(&self.bytes), bytes: 0 };
        let deadline = Instant::now() + Duration::from_millis(self.limits.request_timeout_ms);
        Ok(Receiving { bytes, deadline, tenant, _place: place })
    }

    /// Finds room for a request that has come whole.
    ///
    /// # Errors
    /// [`Kind::QuotaExceeded`] when the tenant has too many under way, [`Kind::Overloaded`] when the
    /// host has.
    pub fn admit(&self, received: Receiving) -> Result<Permit, Error> {
        let Receiving { bytes, deadline, tenant, _place } = received;
        let tenant = tenant.try_acquire_owned().map_err(|_| self.tenant_full())?;
        let host = Arc::clone(&self.host).try_acquire_owned().map_err(|_| self.host_full())?;
        Ok(Permit { bytes, deadline, _host: host, _tenant: tenant })
    }

    /// Finds room for a management request, which lasts until the permit is dropped.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when there are too many.
    pub fn manage(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.management).try_acquire_owned().map_err(|_| {
            let limit = self.limits.management_requests;
            let message = format!("{limit} management requests are under way already");
            Error::over(Kind::Overloaded, Limit::ManagementRequests, message)
        })
    }

    fn tenant_full(&self) -> Error {
        let limit = self.limits.tenant_requests;
        let message = format!("{limit} requests of this tenant are under way already");
        Error::over(Kind::QuotaExceeded, Limit::TenantRequests, message)
    }

    fn host_full(&self) -> Error {
        let limit = self.limits.inflight_requests;
        let message = format!("{limit} requests are under way already");
        Error::over(Kind::Overloaded, Limit::InflightRequests, message)
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

fn taken(permits: &Semaphore, of: u32) -> u64 {
    u64::from(of).saturating_sub(permits.available_permits() as u64)
}

/// A deadline that the caller set itself is no limit of this host's.
pub fn blame(error: Error, waits: Option<Duration>, limit_ms: u64) -> Error {
    let own = waits.is_some_and(|waits| waits < Duration::from_millis(limit_ms));
    if own && error.kind() == Kind::Deadline { error.for_limit(None) } else { error }
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
    let message = format!("the body has {given}, over the limit of {limit}");
    Error::over(Kind::TooLarge, Limit::RequestBodyBytes, message)
        .remedy("send fewer rows in one request")
}

/// Bytes all requests under way may take together.
struct ByteBudget {
    used: AtomicU64,
    limit: u64,
}

impl ByteBudget {
    /// Whether `more` would fit now.
    fn check(&self, more: u64) -> Result<(), Error> {
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(more) > self.limit { Err(self.full(used, more)) } else { Ok(()) }
    }

    fn take(&self, more: u64) -> Result<(), Error> {
        let fits = |used: u64| used.checked_add(more).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|used| self.full(used, more))
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn full(&self, used: u64, more: u64) -> Error {
        let limit = self.limit;
        let message = format!(
            "{used} bytes of requests are in flight, and {more} more would pass the limit of {limit}"
        );
        Error::over(Kind::Overloaded, Limit::InflightBytes, message)
    }
}

/// A part of the budget, returned when dropped.
struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Reservation {
    fn grow(&mut self, more: u64) -> Result<(), Error> {
        self.budget.take(more)?;
        self.bytes += more;
        Ok(())
    }

    fn set(&mut self, bytes: u64) -> Result<(), Error> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.budget.give_back(self.bytes - bytes);
                self.bytes = bytes;
                Ok(())
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        Admission::new(Limits {
            tenant_requests,
            inflight_requests,
            receiving_requests: 4,
            management_requests: 1,
            request_body_bytes: 100,
            inflight_bytes: 150,
            ..Limits::default()
        })
    }

    fn receive(admission: &Admission, tenant: &str) -> Result<Receiving, Error> {
        admission.receive(&caller(tenant), &head(None))
    }

    fn admit(admission: &Admission, tenant: &str) -> Result<Permit, Error> {
        admission.admit(receive(admission, tenant)?)
    }

    #[track_caller]
    fn refused<T>(result: Result<T, Error>, kind: Kind, limit: Limit) {
        let error = result.err().unwrap();
        assert_eq!((error.kind(), error.limit()), (kind, Some(limit)));
        assert_eq!(error.wait().is_some(), kind != Kind::TooLarge);
    }

    #[tokio::test]
    async fn a_tenant_at_its_limit_is_told_so_and_others_are_let_in() {
        let admission = admission(1, 2);
        let first = admit(&admission, "a").unwrap();
        refused(admit(&admission, "a"), Kind::QuotaExceeded, Limit::TenantRequests);
        let second = admit(&admission, "b").unwrap();
        refused(admit(&admission, "c"), Kind::Overloaded, Limit::InflightRequests);
        drop((first, second));
        assert!(admit(&admission, "c").is_ok());
        assert_eq!(admission.inflight_requests(), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_coming_takes_no_permit_and_finds_none_when_all_are_taken() {
        let admission = admission(1, 1);
        let slow: Vec<_> = (0..3).map(|_| receive(&admission, "a").unwrap()).collect();
        assert_eq!((admission.inflight_requests(), admission.receiving_requests()), (0, 3));
        let permit = admit(&admission, "a").unwrap();
        refused(receive(&admission, "b"), Kind::Overloaded, Limit::InflightRequests);
        for slow in slow {
            refused(admission.admit(slow), Kind::QuotaExceeded, Limit::TenantRequests);
        }
        drop(permit);
        let _all: Vec<_> = (0..4).map(|_| receive(&admission, "a").unwrap()).collect();
        refused(receive(&admission, "a"), Kind::Overloaded, Limit::ReceivingRequests);
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_come_back() {
        let admission = admission(8, 8);
        let mut first = admit(&admission, "a").unwrap();
        let mut second = admit(&admission, "a").unwrap();
        first.reserve(100).unwrap();
        refused(second.reserve(51), Kind::Overloaded, Limit::InflightBytes);
        second.reserve(50).unwrap();
        // A body that cannot fit is refused before it is read.
        let said = admission.receive(&caller("a"), &head(Some("1")));
        refused(said, Kind::Overloaded, Limit::InflightBytes);
        drop(first);
        assert_eq!(admission.inflight_bytes(), 50);
        second.hold(150).unwrap();
        refused(second.hold(151), Kind::Overloaded, Limit::InflightBytes);
        second.hold(10).unwrap();
        assert_eq!(admission.inflight_bytes(), 10);
        drop(second);
        assert_eq!(admission.inflight_bytes(), 0);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_or_none_at_all_is_refused_before_the_body() {
        let admission = admission(8, 8);
        let length = |length| admission.receive(&caller("a"), &head(Some(length)));
        assert!(length("100").is_ok());
        refused(length("101"), Kind::TooLarge, Limit::RequestBodyBytes);
        assert_eq!(length("1e3").err().unwrap().kind(), Kind::BadRequest);
    }

    #[tokio::test]
    async fn management_requests_have_places_of_their_own() {
        let admission = admission(1, 1);
        let place = admission.manage().unwrap();
        refused(admission.manage(), Kind::Overloaded, Limit::ManagementRequests);
        assert!(admit(&admission, "a").is_ok());
        drop(place);
        assert!(admission.manage().is_ok());
    }

    proptest! {
        /// Whatever requests do, in whatever order they end, no byte is lost and none over the limit
        /// is given out.
        #[test]
        fn bytes_in_flight_return_to_zero(
            steps in prop::collection::vec((0usize..4, 0u8..4, 0u64..120), 0..200),
        ) {
            let admission = admission(8, 8);
            let mut under_way: [Option<Permit>; 4] = Default::default();
            let mut held = [0u64; 4];
            for (slot, step, bytes) in steps {
                match (&mut under_way[slot], step) {
                    (None, _) => under_way[slot] = Some(admit(&admission, "a").unwrap()),
                    (Some(permit), 0) => {
                        held[slot] += permit.reserve(bytes).map_or(0, |()| bytes);
                    }
                    (Some(permit), 1) => {
                        held[slot] = permit.hold(bytes).map_or(held[slot], |()| bytes);
                    }
                    (some, 2) => (*some, held[slot]) = (None, 0),
                    _ => {}
                }
                prop_assert_eq!(admission.inflight_bytes(), held.iter().sum::<u64>());
                prop_assert!(admission.inflight_bytes() <= 150);
            }
            drop(under_way);
            prop_assert_eq!(admission.inflight_bytes(), 0);
        }
    }
}
