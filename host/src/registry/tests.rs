//! Tests of the registry as a whole: the contract, crashes, damage, reading. What they share.

mod contract;
mod crash;
mod damage;
mod faults;
mod inspect;
mod replay;
mod support;

pub(super) use support::Rng;
