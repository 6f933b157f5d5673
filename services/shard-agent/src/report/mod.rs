//! What is reported to the router: all of it, or what changed.
//!
//! Responsible for [`State`], everything that a report can tell, and for [`Tracker`], which turns
//! each new state into the report to send after the ones that were sent. Pure: no IO, no clock but
//! the one handed in.
//!
//! Invariant: what the reports of one stream add up to at the router is the state of the last one,
//! or lacks only namespaces that did not fit and follow in the next ones. A report is bounded by
//! [`NAMESPACES_MAX`], and so far below the message limit of the router.
//!
//! It must not know how a state comes about nor how reports travel.

mod track;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use airfleet_domain::{
    health::{Health, Verdict},
    ids::NamespaceName,
    resources::Resources,
};
use airfleet_proto::agent::v1 as wire;
use jiff::Timestamp;
use prost::Message as _;

pub(crate) use self::track::Tracker;

/// Most namespaces in one report. One takes at most 150 bytes.
pub(crate) const NAMESPACES_MAX: usize = 10_000;

/// Size of all roles in one report. A router takes in messages of 4 MiB.
const ROLES_BYTES_MAX: usize = 1 << 20;

/// What is told of the role of each namespace.
pub(crate) type ObservedRoles = BTreeMap<NamespaceName, Arc<wire::ObservedRole>>;

/// What one namespace uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NamespaceUsage {
    /// In the dimensions of placement.
    pub(crate) usage: Resources,
    /// DAGs that are not paused. Count.
    pub(crate) unpaused_dags: i64,
    /// Runs that are queued or running. Count.
    pub(crate) active_runs: i64,
    /// Task instances that are scheduled, queued, running, restarting or deferred. Count.
    pub(crate) active_task_instances: i64,
}

/// Everything that a report can tell, as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    /// When it was observed. Not a change by itself.
    pub(crate) observed_at: Timestamp,
    /// The verdict on the shard.
    pub(crate) health: Health,
    /// The shard's usage, once it was seen.
    pub(crate) usage: Option<Resources>,
    /// The shard's capacity, where the agent was told one.
    pub(crate) capacity: Option<Resources>,
    /// Every namespace that the router named, once usage was seen.
    pub(crate) namespaces: Arc<BTreeMap<NamespaceName, NamespaceUsage>>,
    /// Numbers behind the verdict.
    pub(crate) signals: wire::Signals,
    /// DAGs of no namespace that the router named. Count.
    pub(crate) unowned_dags: i64,
    /// Version of Airflow; empty where it is not known.
    pub(crate) airflow_version: String,
    /// Alembic revision of the metadata database; empty where it is not known.
    pub(crate) schema_revision: String,
    /// What the shard is for each namespace that it has a role for.
    pub(crate) roles: Arc<ObservedRoles>,
}

impl State {
    /// The shard's verdict, for metrics.
    pub(crate) fn verdict(&self) -> Verdict {
        self.health.verdict
    }

    fn wire_health(&self) -> airfleet_proto::common::v1::Health {
        let mut health = airfleet_proto::common::v1::Health::from(self.health.clone());
        health.observe_time = Some(timestamp(self.observed_at));
        health
    }
}

pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos_of_second = at.as_nanosecond().rem_euclid(1_000_000_000);
    let seconds = at.as_nanosecond().div_euclid(1_000_000_000);
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos_of_second).unwrap_or(0),
    }
}

fn wire_namespace(name: &NamespaceName, seen: &NamespaceUsage) -> wire::NamespaceReport {
    wire::NamespaceReport {
        namespace: name.to_string(),
        usage: Some(seen.usage.into()),
        unpaused_dags: seen.unpaused_dags,
        active_runs: seen.active_runs,
        active_task_instances: seen.active_task_instances,
    }
}

/// A report that stands on its own. Gives also what the router knows after it: `state`, without
/// the namespaces that did not fit.
fn full(state: &State) -> (wire::Report, State) {
    let mut known = state.clone();
    if state.namespaces.len() > NAMESPACES_MAX {
        let fit = state.namespaces.iter().take(NAMESPACES_MAX);
        known.namespaces = Arc::new(fit.map(|(name, seen)| (name.clone(), *seen)).collect());
    }
    let roles = RoleChanges::between(&ObservedRoles::new(), &state.roles);
    known.roles = roles.after(&Arc::default(), &state.roles);
    let report = wire::Report {
        full: true,
        observe_time: Some(timestamp(state.observed_at)),
        health: Some(state.wire_health()),
        usage: state.usage.map(Into::into),
        capacity: state.capacity.map(Into::into),
        namespaces: known
            .namespaces
            .iter()
            .map(|(name, seen)| wire_namespace(name, seen))
            .collect(),
        signals: Some(state.signals),
        unowned_dags: state.unowned_dags,
        airflow_version: state.airflow_version.clone(),
        schema_revision: state.schema_revision.clone(),
        roles: roles.wire(),
        ..wire::Report::default()
    };
    (report, known)
}

/// A report of what changed from `known` to `state`, and what the router knows after it. `None`
/// where that cannot be said as a change, because something that was known no longer is.
fn changes(known: &State, state: &State) -> Option<(wire::Report, State)> {
    let forgotten = (known.usage.is_some() && state.usage.is_none())
        || (known.capacity.is_some() && state.capacity.is_none())
        || (!known.airflow_version.is_empty() && state.airflow_version.is_empty())
        || (!known.schema_revision.is_empty() && state.schema_revision.is_empty());
    if forgotten {
        return None;
    }

    let same = Arc::ptr_eq(&known.namespaces, &state.namespaces);
    let mut removed = Vec::new();
    let mut changed = Vec::new();
    let mut more = false;
    if !same {
        let gone = known.namespaces.keys().filter(|name| !state.namespaces.contains_key(*name));
        for name in gone {
            if removed.len() == NAMESPACES_MAX {
                more = true;
                break;
            }
            removed.push(name);
        }
        let different = state
            .namespaces
            .iter()
            .filter(|(name, seen)| known.namespaces.get(*name) != Some(*seen));
        for entry in different {
            if changed.len() == NAMESPACES_MAX {
                more = true;
                break;
            }
            changed.push(entry);
        }
    }

    let mut after = state.clone();
    if more {
        let removed: HashSet<_> = removed.iter().copied().collect();
        let kept = known.namespaces.iter().filter(|(name, _)| !removed.contains(*name));
        let mut namespaces: BTreeMap<_, _> =
            kept.map(|(name, seen)| (name.clone(), *seen)).collect();
        namespaces.extend(changed.iter().map(|(name, seen)| ((*name).clone(), **seen)));
        after.namespaces = Arc::new(namespaces);
    }
    let roles = RoleChanges::between(&known.roles, &state.roles);
    after.roles = roles.after(&known.roles, &state.roles);

    let report = wire::Report {
        full: false,
        observe_time: Some(timestamp(state.observed_at)),
        health: (known.health != state.health).then(|| state.wire_health()),
        usage: state.usage.filter(|_| known.usage != state.usage).map(Into::into),
        capacity: state.capacity.filter(|_| known.capacity != state.capacity).map(Into::into),
        namespaces: changed.iter().map(|(name, seen)| wire_namespace(name, seen)).collect(),
        removed_namespaces: removed.iter().map(ToString::to_string).collect(),
        signals: (known.signals != state.signals).then_some(state.signals),
        unowned_dags: state.unowned_dags,
        airflow_version: changed_text(&known.airflow_version, &state.airflow_version),
        schema_revision: changed_text(&known.schema_revision, &state.schema_revision),
        roles: roles.wire(),
        removed_roles: roles.removed.iter().map(ToString::to_string).collect(),
        ..wire::Report::default()
    };
    Some((report, after))
}

/// How roles differ, as far as it fits into a report.
struct RoleChanges {
    removed: Vec<NamespaceName>,
    changed: Vec<Arc<wire::ObservedRole>>,
    /// Whether everything did fit.
    whole: bool,
}

impl RoleChanges {
    fn between(known: &ObservedRoles, now: &ObservedRoles) -> Self {
        let mut changes = Self { removed: Vec::new(), changed: Vec::new(), whole: true };
        let mut room = ROLES_BYTES_MAX;
        for name in known.keys().filter(|name| !now.contains_key(*name)) {
            room = room.saturating_sub(name.as_str().len() + 4);
            changes.removed.push(name.clone());
        }
        for (name, role) in now {
            let is_known =
                known.get(name).is_some_and(|before| Arc::ptr_eq(before, role) || before == role);
            if is_known {
                continue;
            }
            let size = role.encoded_len() + 8;
            // One of any size goes by itself.
            if size > room && !changes.changed.is_empty() {
                changes.whole = false;
                break;
            }
            room = room.saturating_sub(size);
            changes.changed.push(role.clone());
        }
        changes
    }

    /// What is known once these were told.
    fn after(&self, known: &Arc<ObservedRoles>, now: &Arc<ObservedRoles>) -> Arc<ObservedRoles> {
        if self.whole {
            return now.clone();
        }
        let mut after = (**known).clone();
        for name in &self.removed {
            after.remove(name);
        }
        let told =
            self.changed.iter().filter_map(|role| Some((role.namespace.parse().ok()?, role)));
        after.extend(told.map(|(name, role)| (name, role.clone())));
        Arc::new(after)
    }

    fn wire(&self) -> Vec<wire::ObservedRole> {
        self.changed.iter().map(|role| (**role).clone()).collect()
    }
}

fn changed_text(known: &str, now: &str) -> String {
    if known == now { String::new() } else { now.to_owned() }
}
