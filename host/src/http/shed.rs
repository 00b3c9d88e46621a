//! Shed: refuse at once what would be answered too late.
//!
//! A call that waits until its deadline is refused in the end all the same, after it has stood in the
//! way of others; and one that gets its instance with the last of its time is cut while it runs, so
//! that the work is lost. So a call is let into the queue only if it can be expected to end in time.

use std::time::Duration;

use super::route::Called;
use crate::config::Limits;
use crate::engine::deployment::Deployment;
use crate::error::{Error, Kind};
use crate::limit::Limit;

/// The part of its time that a call may be expected to take, in percent. A queue that is short keeps
/// the instances as busy as a long one, and the other half is there for what was not expected: calls
/// that take twice as long, or a machine that has other work.
const EXPECTED_PERCENT: u32 = 50;

/// Lets a call pass that can be expected to be answered within `left`.
///
/// # Errors
/// [`Kind::Overloaded`], with the time by which half of the queue will be gone.
pub fn pass(
    called: &Called,
    deployment: &Deployment,
    limits: &Limits,
    left: Duration,
) -> Result<(), Error> {
    let instances = called.version.record.pool.max_instances;
    let (waiting, pace) = (deployment.pool().waiting(), deployment.pace());
    let wait = pace.wait(waiting, instances);
    let limit = if waiting >= limits.queue_length {
        Limit::QueueLength
    } else if waiting > 0 && wait + pace.call() > left * EXPECTED_PERCENT / 100 {
        Limit::RequestTime
    } else {
        return Ok(());
    };
    let message = format!(
        "{waiting} calls wait for this model, and the next would wait for about {} ms",
        wait.as_millis()
    );
    Err(Error::over(Kind::Overloaded, limit, message)
        .retry_after((wait / 2).max(Duration::from_secs(1))))
}
