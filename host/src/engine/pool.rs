//! The pool of one version: idle instances waiting for calls, and calls waiting for instances.
//!
//! Most recently used first, so that the ones nobody needs grow old and are dropped. A lease is taken
//! after a request has come whole and ends before its answer goes out, so a slow client holds none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::instance::{Instance, StartError, Starter};
use crate::cost::Cost;
use crate::ledger::{Bucket, ObjectAccount, ObjectLease};
use crate::version::PoolPolicy;

/// Why a call got no instance.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum AcquireError {
    #[error("{0} calls wait for this model already (limits.queue_length)")]
    QueueFull(u32),
    #[error("the deadline passed before an instance was free")]
    Deadline,
    #[error(transparent)]
    Start(#[from] StartError),
}

/// How many of `idle` instances, idle for the given times and oldest first, have been idle too long;
/// `min_instances` are kept whatever their age.
pub fn overdue(
    policy: &PoolPolicy,
    leased: usize,
    idle: impl ExactSizeIterator<Item = Duration>,
) -> usize {
    let limit = Duration::from_secs(policy.idle_instance_timeout_s);
    let spare = (idle.len() + leased).saturating_sub(policy.min_instances as usize);
    idle.take_while(|age| *age >= limit).count().min(spare)
}

struct Idle {
    instance: Box<Instance>,
    since: Instant,
}

/// The instances of one version.
pub struct Pool {
    policy: PoolPolicy,
    starter: Starter,
    /// The version's compiled code, among the objects of the ledger.
    code: ObjectAccount,
    /// One permit for each instance a call may hold.
    permits: Arc<Semaphore>,
    /// Idle instances, the longest idle first.
    idle: Mutex<VecDeque<Idle>>,
    /// Set when the version is unloaded: leases run on, and no instance is kept after them.
    retired: AtomicBool,
    /// Calls waiting for a permit.
    waiting: AtomicU32,
    /// Most calls that may wait; `limits.queue_length`.
    queue_length: u32,
    /// What a call's guest code is learned to cost.
    guest_cost: Cost,
}

impl Pool {
    /// An empty pool, known to the host's budget.
    pub fn new(
        policy: PoolPolicy,
        starter: Starter,
        code: ObjectAccount,
        queue_length: u32,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            permits: Arc::new(Semaphore::new(policy.max_instances as usize)),
            policy,
            starter,
            code,
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            queue_length,
            guest_cost: Cost::default(),
        });
        pool.starter.budget.add_pool(&pool);
        pool
    }

    /// What instances are started from.
    pub fn starter(&self) -> &Starter {
        &self.starter
    }

    /// Borrows an instance, starting one if none is idle, waiting if all are taken.
    ///
    /// # Errors
    /// [`AcquireError`]; the call has not reached any guest.
    pub async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Lease, AcquireError> {
        let began = Instant::now();
        let permit = self.permit(deadline).await?;
        let queued = began.elapsed();
        let mut instance = match self.pop() {
            Some(instance) => instance,
            None => Box::new(self.start(deadline).await?),
        };
        instance.lease();
        let graphs = self.starter.context.graphs.values().map(|graph| graph.account().lease());
        let objects = graphs.chain([self.code.lease()]).collect();
        let pool = Arc::clone(self);
        Ok(Lease { instance: Some(instance), pool, queued, _objects: objects, _permit: permit })
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue_length)
            .ok_or(AcquireError::QueueFull(self.queue_length))?;
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| AcquireError::Deadline)?;
        Ok(permit.expect("nothing in this file closes the semaphore"))
    }

    /// What the guest code of a call is learned to cost.
    pub fn guest_cost(&self) -> &Cost {
        &self.guest_cost
    }

    async fn start(&self, deadline: Instant) -> Result<Instance, AcquireError> {
        tokio::time::timeout_at(deadline, self.starter.start())
            .await
            .map_err(|_| AcquireError::Deadline)?
            .map_err(AcquireError::Start)
    }

    /// Starts instances until there are `min_instances`.
    ///
    /// # Errors
    /// The first that does not start.
    pub async fn fill(self: &Arc<Self>) -> Result<(), StartError> {
        while self.live() < self.policy.min_instances as usize {
            let mut instance = self.starter.start().await?;
            instance.account.enter(Bucket::Idle);
            self.put(Box::new(instance));
        }
        Ok(())
    }

    /// Since when each of its idle instances has been idle that the host may take, oldest first.
    pub(super) fn spare_since(&self) -> Vec<Instant> {
        let idle = self.lock();
        let promised = (self.policy.min_instances as usize).saturating_sub(self.leased());
        let spare = idle.len().saturating_sub(promised);
        idle.iter().take(spare).map(|idle| idle.since).collect()
    }

    /// Drops the instance that has been idle longest; `false` if there is none to spare.
    pub(super) fn evict_oldest(&self) -> bool {
        let mut idle = self.lock();
        let spare = idle.len() + self.leased() > self.policy.min_instances as usize;
        let oldest = if spare { idle.pop_front() } else { None };
        drop(idle);
        // Dropped after the lock: taking down a store takes microseconds.
        oldest.is_some_and(|mut idle| {
            idle.instance.drain();
            true
        })
    }

    /// How its instances are pooled.
    pub fn policy(&self) -> &PoolPolicy {
        &self.policy
    }

    /// Whether no call has an instance or waits for one.
    pub fn is_idle(&self) -> bool {
        self.leased() == 0 && self.waiting() == 0
    }

    /// Drops instances that have been idle too long; returns how many.
    pub fn reap(&self) -> usize {
        let now = Instant::now();
        let dropped: Vec<_> = {
            let mut idle = self.lock();
            let ages = idle.iter().map(|idle| now.duration_since(idle.since));
            let overdue = overdue(&self.policy, self.leased(), ages);
            idle.drain(..overdue).collect()
        };
        // Dropped after the lock: taking down a store takes microseconds.
        dropped.len()
    }

    /// Drops every idle instance and keeps none from here on. Calls that began on this version end on
    /// it, those that still wait included.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        let mut idle = std::mem::take(&mut *self.lock());
        idle.iter_mut().for_each(|idle| idle.instance.drain());
    }

    /// Instances there are, idle and leased.
    pub fn live(&self) -> usize {
        self.lock().len() + self.leased()
    }

    /// Calls that wait for an instance now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn leased(&self) -> usize {
        (self.policy.max_instances as usize).saturating_sub(self.permits.available_permits())
    }

    fn pop(&self) -> Option<Box<Instance>> {
        self.lock().pop_back().map(|idle| idle.instance)
    }

    fn put(&self, mut instance: Box<Instance>) {
        let mut idle = self.lock();
        // Read under the lock: retire() sets it before it empties the list.
        if self.retired.load(Ordering::Acquire) {
            drop(idle);
            instance.drain();
            return;
        }
        idle.push_back(Idle { instance, since: Instant::now() });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        // A list of instances stays one whatever a panicking holder was doing.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, limit: u32) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A borrowed instance. Dropped without [`Lease::give_back`], it takes the instance with it: whatever
/// went wrong, nobody will call into that store again.
pub struct Lease {
    /// Always there until the lease ends.
    instance: Option<Box<Instance>>,
    pool: Arc<Pool>,
    /// How long it was waited for while all instances were taken.
    queued: Duration,
    /// The version's graphs and code, in use as long as the lease lasts.
    _objects: Vec<ObjectLease>,
    /// Given up after the instance is back, so that whoever waits for it finds the instance.
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The instance.
    pub fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("it is taken out only by give_back, which consumes the lease")
    }

    /// The pool it is from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How long it was waited for while all instances were taken.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// Returns the instance to its pool, unless it has served long enough.
    pub fn give_back(mut self) {
        let Some(mut instance) = self.instance.take() else { return };
        instance.release();
        match instance.may_be_kept() {
            true => self.pool.put(instance),
            false => instance.drain(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(instance) = &mut self.instance {
            instance.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(min_instances: u32) -> PoolPolicy {
        PoolPolicy { min_instances, idle_instance_timeout_s: 10, ..PoolPolicy::default() }
    }

    #[test]
    fn only_instances_idle_too_long_and_beyond_the_minimum_are_overdue() {
        let ages = || [30, 20, 10, 9].map(Duration::from_secs).into_iter();
        assert_eq!(overdue(&policy(0), 0, ages()), 3);
        assert_eq!(overdue(&policy(2), 0, ages()), 2);
        assert_eq!(overdue(&policy(2), 1, ages()), 3);
        assert_eq!(overdue(&policy(9), 0, ages()), 0);
    }

    #[test]
    fn the_queue_has_as_many_places_as_it_says() {
        let waiting = AtomicU32::new(0);
        let first = Place::take(&waiting, 1);
        assert!(first.is_some() && Place::take(&waiting, 1).is_none());
        drop(first);
        assert!(Place::take(&waiting, 1).is_some());
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
