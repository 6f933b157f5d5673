//! Who uses what: facts per DAG added up per namespace and for the shard.
//!
//! Responsible for attributing each DAG to its namespace and for the peak of pool slots over a
//! window. Pure but for the clock that is handed in. It must not know where facts come from.
//!
//! How each dimension is found:
//! - `dags`: rows of `dag` that are not stale.
//! - `task_starts_per_hour`: starts in the audit log within the last hour.
//! - `running_slots`: the most pool slots that were running or queued at any report within the
//!   window; an agent that has just started knows only what it has seen itself.
//! - `metadata_bytes`: for the shard all tables of Airflow with indexes; for a namespace its share
//!   of each table by rows, which are taken to be equally long.
//! - `parse_ms_per_minute`: how long a file took to parse the last time, as often as files are
//!   parsed, divided among the DAGs of the file. Airflow 2 does not record it: 0 there.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use airfleet_domain::{ids::NamespaceName, resources::Resources};

use crate::{
    airflow::{Activity, Pulse, Sizes},
    owners::Owners,
    report::NamespaceUsage,
};

/// What a shard and its namespaces use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) shard: Resources,
    /// Every namespace that the router named.
    pub(crate) namespaces: BTreeMap<NamespaceName, NamespaceUsage>,
    /// DAGs of none of them. Count.
    pub(crate) unowned_dags: i64,
    /// Pool slots running or queued now. Count.
    pub(crate) occupied_slots: i64,
}

/// Adds up what is known. `running_slots` are those of now.
pub(crate) fn attribute(
    owners: &Owners,
    pulse: &Pulse,
    activity: Option<&Activity>,
    sizes: Option<&Sizes>,
) -> Usage {
    let mut usage = Usage::default();
    let mut seen = vec![(NamespaceUsage::default(), 0_i64); owners.names().len()];
    let mut all_parse_us = 0_i64;

    for (dag_id, dag) in &pulse.dags {
        let listed = i64::from(dag.listed);
        usage.shard.dags += listed;
        usage.occupied_slots += dag.occupied_slots;
        let Some(owner) = owners.owner_of(dag_id) else {
            usage.unowned_dags += listed;
            continue;
        };
        let (namespace, _) = &mut seen[owner];
        namespace.usage.dags += listed;
        namespace.usage.running_slots += dag.occupied_slots;
        namespace.unpaused_dags += i64::from(dag.listed && !dag.paused);
        namespace.active_runs += dag.active_runs;
        namespace.active_task_instances += dag.active_task_instances;
    }
    usage.shard.running_slots = usage.occupied_slots;

    for (dag_id, dag) in activity.iter().flat_map(|activity| &activity.dags) {
        usage.shard.task_starts_per_hour += dag.task_starts;
        all_parse_us = all_parse_us.saturating_add(dag.parse_us_per_minute);
        if let Some(owner) = owners.owner_of(dag_id) {
            let (namespace, parse_us) = &mut seen[owner];
            namespace.usage.task_starts_per_hour += dag.task_starts;
            *parse_us = parse_us.saturating_add(dag.parse_us_per_minute);
        }
    }
    usage.shard.parse_ms_per_minute = ceil_ms(all_parse_us);

    if let Some(sizes) = sizes {
        usage.shard.metadata_bytes = sizes.total_bytes;
        for (dag_id, bytes) in &sizes.dags {
            if let Some(owner) = owners.owner_of(dag_id) {
                seen[owner].0.usage.metadata_bytes += bytes;
            }
        }
    }

    let seen = seen.into_iter().map(|(mut namespace, parse_us)| {
        namespace.usage.parse_ms_per_minute = ceil_ms(parse_us);
        namespace
    });
    usage.namespaces = owners.names().iter().cloned().zip(seen).collect();
    usage
}

/// Upwards, so that what takes little is not read as taking nothing.
fn ceil_ms(us: i64) -> i64 {
    us / 1_000 + i64::from(us % 1_000 > 0)
}

/// Parts into which the window of a peak is divided: a peak is forgotten up to this part of the
/// window early.
const PARTS: usize = 12;

/// The highest value of each part of the window.
type Ring = [i32; PARTS];

/// Remembers the most pool slots that were seen within a window.
#[derive(Debug)]
pub(crate) struct Peaks {
    part: Duration,
    began: Instant,
    /// Parts since `began`.
    position: u128,
    shard: Ring,
    /// Only those with a value that is not 0.
    namespaces: HashMap<NamespaceName, Ring>,
}

impl Peaks {
    pub(crate) fn new(window: Duration, now: Instant) -> Self {
        let part = (window / PARTS as u32).max(Duration::from_millis(1));
        Self { part, began: now, position: 0, shard: [0; PARTS], namespaces: HashMap::new() }
    }

    /// Takes in the slots of now and puts the peaks in their place.
    pub(crate) fn apply(&mut self, usage: &mut Usage, now: Instant) {
        self.advance(now);
        let slot = (self.position % PARTS as u128) as usize;
        raise(&mut self.shard, slot, usage.occupied_slots);
        for (name, namespace) in &mut usage.namespaces {
            let slots = namespace.usage.running_slots;
            if let Some(ring) = self.namespaces.get_mut(name) {
                raise(ring, slot, slots);
                namespace.usage.running_slots = peak(ring);
            } else if slots > 0 {
                let mut ring = [0; PARTS];
                raise(&mut ring, slot, slots);
                self.namespaces.insert(name.clone(), ring);
            }
        }
        usage.shard.running_slots = peak(&self.shard);
        self.namespaces.retain(|name, ring| {
            usage.namespaces.contains_key(name) && ring.iter().any(|value| *value != 0)
        });
    }

    fn advance(&mut self, now: Instant) {
        let position = now.duration_since(self.began).as_nanos() / self.part.as_nanos();
        let passed = position.saturating_sub(self.position).min(PARTS as u128);
        for step in 1..=passed {
            let slot = ((self.position + step) % PARTS as u128) as usize;
            self.shard[slot] = 0;
            for ring in self.namespaces.values_mut() {
                ring[slot] = 0;
            }
        }
        self.position = self.position.max(position);
    }
}

fn raise(ring: &mut Ring, slot: usize, value: i64) {
    ring[slot] = ring[slot].max(i32::try_from(value).unwrap_or(i32::MAX));
}

fn peak(ring: &Ring) -> i64 {
    ring.iter().copied().max().map_or(0, i64::from)
}
