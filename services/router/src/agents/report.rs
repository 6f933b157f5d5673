//! Reports, and adding one to those before it.

use std::collections::HashMap;

use airfleet_domain::{
    health::{Health, Reason, Verdict},
    ids::NamespaceName,
    resources::Resources,
};

use super::roles::{RoleChange, Roles, SeenRole};

/// What one namespace uses on a shard.
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

impl NamespaceUsage {
    /// Whether nothing runs or will start to.
    pub(crate) fn is_drained(&self) -> bool {
        self.unpaused_dags == 0 && self.active_runs == 0 && self.active_task_instances == 0
    }
}

/// One report as it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    /// Grows by one with each report of an incarnation, from 1.
    pub(crate) sequence: i64,
    /// Whether it stands on its own.
    pub(crate) full: bool,
    /// When it was observed, by the agent's clock. Microseconds since 1970-01-01 UTC.
    pub(crate) observed_at_us: i64,
    /// The verdict on the shard; none where unchanged.
    pub(crate) health: Option<Health>,
    /// The shard's usage; none where unchanged.
    pub(crate) usage: Option<Resources>,
    /// Its capacity as the agent knows it; none where unchanged.
    pub(crate) capacity: Option<Resources>,
    /// Namespaces whose usage changed; all in a full report.
    pub(crate) namespaces: Vec<(NamespaceName, NamespaceUsage)>,
    /// Namespaces that are no longer found.
    pub(crate) removed: Vec<NamespaceName>,
    /// DAGs that belong to no namespace that the router named. Count.
    pub(crate) unowned_dags: i64,
    /// Version of Airflow, where it changed.
    pub(crate) airflow_version: Option<String>,
    /// Alembic revision, where it changed.
    pub(crate) schema_revision: Option<String>,
    /// Roles that changed; all in a full report.
    pub(crate) roles: Vec<(NamespaceName, SeenRole)>,
    /// Namespaces of which the shard no longer has a role.
    pub(crate) removed_roles: Vec<NamespaceName>,
}

/// What a shard's reports add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Merged {
    /// Sequence of the last report that was added.
    pub(crate) sequence: i64,
    /// When it was observed, by the agent's clock. Microseconds since 1970-01-01 UTC.
    pub(crate) observed_at_us: i64,
    /// The verdict on the shard.
    pub(crate) health: Health,
    /// The shard's usage.
    pub(crate) usage: Resources,
    /// Its capacity as the agent knows it.
    pub(crate) capacity: Resources,
    /// Usage by namespace.
    pub(crate) namespaces: HashMap<NamespaceName, NamespaceUsage>,
    /// DAGs that belong to no namespace. Count.
    pub(crate) unowned_dags: i64,
    /// Namespaces that were reported beyond the limit and dropped. Count, since the last full one.
    pub(crate) dropped: usize,
    /// What the shard is for its namespaces.
    pub(crate) roles: Roles,
}

/// A namespace whose usage changed; none where it is no longer found.
pub(crate) type UsageChange = (NamespaceName, Option<NamespaceUsage>);

/// What a report changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Namespaces whose usage changed.
    pub(crate) usage: Vec<UsageChange>,
    /// Namespaces whose role changed.
    pub(crate) roles: Vec<RoleChange>,
}

/// Whether a report could be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It was, and changed this.
    Added(Taken),
    /// There is nothing that it could be added to: a full one is needed.
    NeedFull,
}

/// Adds a report to what is known, keeping at most `namespaces_max` namespaces.
pub(crate) fn merge(known: &mut Option<Merged>, report: Report, namespaces_max: usize) -> Merge {
    let next = known.as_ref().map(|known| known.sequence + 1);
    if !report.full && next != Some(report.sequence) {
        return Merge::NeedFull;
    }
    let mut changes = Vec::new();
    let merged = known.get_or_insert_default();
    merged.sequence = report.sequence;
    merged.observed_at_us = report.observed_at_us;
    let roles =
        merged.roles.merge(report.roles, &report.removed_roles, report.full, namespaces_max);
    if report.full {
        // What a full report leaves out is unknown or gone, never as it was.
        merged.health = report.health.unwrap_or_else(|| {
            let message = "the agent's full report says nothing of health; is the agent too old?";
            let reason = Reason::plain("REPORT_WITHOUT_HEALTH", Verdict::Unknown, message);
            Health::from_reasons(vec![reason])
        });
        merged.usage = report.usage.unwrap_or_default();
        merged.capacity = report.capacity.unwrap_or_default();
        merged.dropped = 0;
        let mut gone = std::mem::take(&mut merged.namespaces);
        for (name, usage) in report.namespaces {
            let before = gone.remove(&name);
            keep(merged, name, usage, before, namespaces_max, &mut changes);
        }
        changes.extend(gone.into_keys().map(|name| (name, None)));
    } else {
        if let Some(health) = report.health {
            merged.health = health;
        }
        merged.usage = report.usage.unwrap_or(merged.usage);
        merged.capacity = report.capacity.unwrap_or(merged.capacity);
        for name in report.removed {
            if merged.namespaces.remove(&name).is_some() {
                changes.push((name, None));
            }
        }
        for (name, usage) in report.namespaces {
            let before = merged.namespaces.get(&name).copied();
            keep(merged, name, usage, before, namespaces_max, &mut changes);
        }
    }
    merged.unowned_dags = report.unowned_dags;
    Merge::Added(Taken { usage: changes, roles })
}

fn keep(
    merged: &mut Merged,
    name: NamespaceName,
    usage: NamespaceUsage,
    before: Option<NamespaceUsage>,
    max: usize,
    changes: &mut Vec<UsageChange>,
) {
    if merged.namespaces.len() >= max && !merged.namespaces.contains_key(&name) {
        merged.dropped += 1;
        if before.is_some() {
            changes.push((name, None));
        }
        return;
    }
    if before != Some(usage) {
        changes.push((name.clone(), Some(usage)));
    }
    merged.namespaces.insert(name, usage);
}
