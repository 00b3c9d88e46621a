//! The host's budget of instances: one engine holds them all, and what each takes of it is known from
//! its component.
//!
//! The engine would refuse an instance beyond its limits by itself. Counting here says which limit it
//! is, lets idle instances of other versions make room, and lets publishing refuse what could never
//! be met.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wasmparser::{ComponentInstance, Instance, Parser, Payload};
use wasmtime::component::Component;

use super::pool::Pool;
use crate::config::EngineSettings;

/// Core instances for each live component: a small Rust component has 3, a Python one 14.
const CORE_INSTANCES_PER_COMPONENT: u32 = 8;

/// Idle instances that make room at a time: finding the oldest looks at every pool, so the next starts
/// should not have to look again.
const EVICTED_AT_A_TIME: usize = 16;

/// What one instance takes of the engine, or what the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    /// Stores, each with a stack.
    pub instances: u32,
    /// Instances of core modules.
    pub core_instances: u32,
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
}

impl Slots {
    /// What an engine with these settings has.
    pub fn of_engine(settings: &EngineSettings) -> Self {
        let instances = settings.instances;
        Self {
            instances,
            core_instances: instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT),
            memories: instances + instances / 4,
            tables: instances * 2 + instances / 2,
        }
    }

    /// What an instance of `component` takes; `bytes` are the component's own.
    ///
    /// # Errors
    /// When the component imports modules, so that nothing is known of what it takes.
    pub fn of_component(component: &Component, bytes: &[u8]) -> Result<Self, &'static str> {
        let required = component.resources_required();
        let required = required.ok_or("it imports core modules, whose size nobody knows")?;
        let core_instances = core_instances(bytes);
        let (memories, tables) = (required.num_memories, required.num_tables);
        Ok(Self { instances: 1, core_instances, memories, tables })
    }

    /// As much as `count` of these.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        self.map(|n| n.saturating_mul(count))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u32::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.zip(other, u32::saturating_sub)
    }

    fn map(self, change: impl Fn(u32) -> u32) -> Self {
        self.zip(self, |n, _| change(n))
    }

    fn zip(self, other: Self, join: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            instances: join(self.instances, other.instances),
            core_instances: join(self.core_instances, other.core_instances),
            memories: join(self.memories, other.memories),
            tables: join(self.tables, other.tables),
        }
    }

    /// The first line in which this is more than `capacity`, as people read it.
    pub fn excess_over(self, capacity: Self) -> Option<String> {
        let lines = [
            ("instances", self.instances, capacity.instances),
            ("core instances", self.core_instances, capacity.core_instances),
            ("memories", self.memories, capacity.memories),
            ("tables", self.tables, capacity.tables),
        ];
        let (what, wanted, have) = lines.into_iter().find(|(_, wanted, have)| wanted > have)?;
        Some(format!("{wanted} {what}, and the host has {have} (engine.instances)"))
    }
}

/// Core instances that starting a component makes, as its sections say. Components that it gets from
/// elsewhere count as one; the engine's own limit is the last word.
fn core_instances(bytes: &[u8]) -> u32 {
    let mut open: Vec<Counted> = Vec::new();
    let mut current = Counted::default();
    let mut in_module = false;
    for payload in Parser::new(0).parse_all(bytes) {
        // Only components that passed the gate get here, so there is nothing to report.
        let Ok(payload) = payload else { break };
        match payload {
            Payload::ModuleSection { .. } => in_module = true,
            Payload::ComponentSection { .. } => open.push(std::mem::take(&mut current)),
            Payload::InstanceSection(section) => {
                let made = section.into_iter().flatten();
                let made = made.filter(|instance| matches!(instance, Instance::Instantiate { .. }));
                current.add(u32::try_from(made.count()).unwrap_or(u32::MAX));
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.into_iter().flatten() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance {
                        current.add(current.component(component_index));
                    }
                }
            }
            Payload::End(_) if in_module => in_module = false,
            Payload::End(_) => {
                let Some(mut outer) = open.pop() else { break };
                outer.components.push(current.core_instances);
                current = outer;
            }
            _ => {}
        }
    }
    current.core_instances
}

/// What is counted of one component while it is read.
#[derive(Default)]
struct Counted {
    core_instances: u32,
    /// Core instances of the components defined inside it, in order.
    components: Vec<u32>,
}

impl Counted {
    fn add(&mut self, more: u32) {
        self.core_instances = self.core_instances.saturating_add(more);
    }

    fn component(&self, index: u32) -> u32 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.components.get(index).copied().unwrap_or(1)
    }
}

/// Why there is no room for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom(String);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all instances of the host may take together.
pub struct Budget {
    capacity: Slots,
    used: Mutex<Slots>,
    /// Bytes of linear memory of all instances.
    memory_bytes: AtomicU64,
    /// Most bytes of linear memory; `engine.memory_bytes`.
    memory_limit: u64,
    /// Every pool there is, for those who need room.
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Budget {
    /// Nothing used yet.
    pub fn new(capacity: Slots, memory_limit: u64) -> Self {
        Self {
            capacity,
            used: Mutex::default(),
            memory_bytes: AtomicU64::new(0),
            memory_limit,
            pools: Mutex::default(),
        }
    }

    /// What there is in all.
    pub fn capacity(&self) -> Slots {
        self.capacity
    }

    /// What is taken now.
    pub fn used(&self) -> Slots {
        *held(&self.used)
    }

    /// Bytes of linear memory that instances have now.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for one instance.
    ///
    /// # Errors
    /// [`NoRoom`], which says of what there is too little.
    pub fn take(self: &Arc<Self>, slots: Slots) -> Result<Charge, NoRoom> {
        let mut used = held(&self.used);
        let wanted = used.plus(slots);
        if let Some(excess) = wanted.excess_over(self.capacity) {
            return Err(NoRoom(format!("it would take {excess}")));
        }
        *used = wanted;
        Ok(Charge { budget: Arc::clone(self), slots })
    }

    /// Takes `more` bytes of linear memory; `false` if that is past the host's limit.
    pub(super) fn take_memory(&self, more: u64) -> bool {
        let limit = self.memory_limit;
        let fits = |used: u64| used.checked_add(more).filter(|used| *used <= limit);
        self.memory_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives bytes of linear memory back.
    pub(super) fn give_memory(&self, bytes: u64) {
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Most bytes of linear memory of all instances.
    pub fn memory_limit(&self) -> u64 {
        self.memory_limit
    }

    /// Counts a pool among those that may be asked to make room.
    pub(super) fn add_pool(&self, pool: &Arc<Pool>) {
        let mut pools = held(&self.pools);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Drops the instances of the host that have been idle longest, sparing those that a version is
    /// promised; says how many went.
    pub(super) fn evict_idle(&self) -> usize {
        let pools: Vec<_> = held(&self.pools).iter().filter_map(Weak::upgrade).collect();
        let mut idle: Vec<_> = pools
            .iter()
            .flat_map(|pool| pool.spare_since().into_iter().map(move |since| (since, pool)))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.into_iter().take(EVICTED_AT_A_TIME).filter(|(_, pool)| pool.evict_oldest()).count()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts and lists are whole whatever a panicking holder was doing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room of one instance, given back when dropped.
pub struct Charge {
    budget: Arc<Budget>,
    slots: Slots,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = held(&self.budget.used);
        *used = used.minus(self.slots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(instances: u32, core_instances: u32) -> Slots {
        Slots { instances, core_instances, memories: instances, tables: instances }
    }

    #[test]
    fn room_is_taken_until_the_scarcest_slot_is_gone_and_comes_back() {
        let budget = Arc::new(Budget::new(slots(4, 10), 0));
        let first = budget.take(slots(1, 6)).unwrap();
        let refused = budget.take(slots(1, 6)).err().unwrap().to_string();
        assert!(refused.contains("12 core instances, and the host has 10"), "{refused}");
        drop(first);
        let both = (budget.take(slots(1, 6)).unwrap(), budget.take(slots(1, 4)).unwrap());
        assert_eq!(budget.used(), slots(2, 10));
        drop(both);
        assert_eq!(budget.used(), Slots::default());
    }

    #[test]
    fn linear_memory_of_all_instances_has_one_limit() {
        let budget = Budget::new(Slots::default(), 100);
        assert!(budget.take_memory(60) && !budget.take_memory(41) && budget.take_memory(40));
        budget.give_memory(60);
        assert_eq!(budget.memory_bytes(), 40);
    }

    #[test]
    fn core_instances_of_nested_components_count_as_often_as_they_are_made() {
        let text = r#"(component
          (core module $m)
          (core instance (instantiate $m))
          (component $c
            (core module $n)
            (core instance (instantiate $n))
            (core instance (instantiate $n)))
          (instance (instantiate $c))
          (instance (instantiate $c)))"#;
        assert_eq!(core_instances(&wat::parse_str(text).unwrap()), 5);
        assert!(core_instances(crate::engine::PASSTHROUGH) >= 1);
        assert_eq!(core_instances(b"no component"), 0);
    }
}
