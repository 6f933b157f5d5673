//! What a shard is for its namespaces, as its agent says, and how much of that is kept.
//!
//! Invariant: what is kept of one shard is bounded whatever its agent sends: texts are cut, lists
//! are cut, and beyond [`DETAIL_BYTES_MAX`] a role is kept without its lists, which is told. Counts
//! are kept in any case.

use std::collections::HashMap;

use airfleet_domain::{
    ids::{NamespaceName, Revision},
    manifest::Enforcement,
    roles::{Desired, Observed},
};

/// Most drifts and most violations kept of one role.
pub(crate) const LIST_MAX: usize = 100;

/// Most bytes of drifts and violations kept of one shard.
const DETAIL_BYTES_MAX: usize = 1 << 20;

/// What an item costs beside its texts.
const ITEM_BYTES: usize = 64;

/// What keeps a shard from being what it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Stable code.
    pub(crate) code: String,
    /// One line for people.
    pub(crate) message: String,
    /// Tries so far. Count.
    pub(crate) attempts: i64,
    /// When it was first met. Microseconds since 1970-01-01 UTC.
    pub(crate) since_us: i64,
}

/// DAG files that a shard runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// Commit or hash.
    pub(crate) id: String,
    /// When the shard switched to it. Microseconds since 1970-01-01 UTC.
    pub(crate) switched_at_us: i64,
    /// Files. Count.
    pub(crate) files: i64,
    /// Size of all. Bytes.
    pub(crate) bytes: i64,
}

/// Something on a shard that is not as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Drift {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Whether it is left as it is.
    pub(crate) tolerated: bool,
}

/// A DAG or task that breaks a rule of its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicyViolation {
    pub(crate) code: String,
    pub(crate) mode: Enforcement,
    pub(crate) dag_id: String,
    pub(crate) task_id: String,
    pub(crate) message: String,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    pub(crate) count: i64,
}

/// What a shard is for one namespace, and how far it is on the way to what it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenRole {
    /// The last role that was reached completely; none before the first.
    pub(crate) observed: Option<Observed>,
    /// What it is on the way to.
    pub(crate) target: Option<Desired>,
    /// What keeps it.
    pub(crate) obstacle: Option<Obstacle>,
    /// DAG files that it runs.
    pub(crate) release: Option<Release>,
    /// What is not as declared.
    pub(crate) drift: Vec<Drift>,
    /// Rules that are broken, the latest first.
    pub(crate) violations: Vec<PolicyViolation>,
    /// Drifts altogether. Count.
    pub(crate) drift_count: i64,
    /// Violations altogether. Count.
    pub(crate) violation_count: i64,
    /// Lists were left out for lack of room.
    pub(crate) cut: bool,
    /// DAGs whose pause state the fence forces. Count.
    pub(crate) fenced_dags: i64,
    /// When the role was reached. Microseconds since 1970-01-01 UTC.
    pub(crate) reached_at_us: i64,
    /// Revision of the manifest that the shard was brought to.
    pub(crate) manifest_revision: Revision,
}

impl SeenRole {
    /// Whether it is on the way to nothing else.
    pub(crate) fn has_arrived(&self) -> bool {
        match (self.observed, self.target) {
            (Some(observed), Some(target)) => observed.is(target),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn detail_bytes(&self) -> usize {
        let drift = self.drift.iter().map(|one| {
            ITEM_BYTES + one.kind.len() + one.name.len() + one.code.len() + one.message.len()
        });
        let violations = self.violations.iter().map(|one| {
            ITEM_BYTES + one.code.len() + one.dag_id.len() + one.task_id.len() + one.message.len()
        });
        drift.sum::<usize>() + violations.sum::<usize>()
    }
}

/// Numbers of a shard's roles, kept as they change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoleCounts {
    /// Roles. Count.
    pub(crate) roles: i64,
    /// Not yet what they are to be, by the agent's word. Count.
    pub(crate) unreached: i64,
    /// With an obstacle. Count.
    pub(crate) obstacles: i64,
    /// Drifts that are left as they are, of all roles. Count.
    pub(crate) drift: i64,
    /// Violations of all roles. Count.
    pub(crate) violations: i64,
    /// DAGs whose pause state the fence forces. Count.
    pub(crate) fenced_dags: i64,
}

impl RoleCounts {
    fn add(&mut self, role: &SeenRole, sign: i64) {
        self.roles += sign;
        self.unreached += sign * i64::from(!role.has_arrived());
        self.obstacles += sign * i64::from(role.obstacle.is_some());
        self.drift += sign * role.drift_count;
        self.violations += sign * role.violation_count;
        self.fenced_dags += sign * role.fenced_dags;
    }
}

/// All roles of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Roles {
    by_namespace: HashMap<NamespaceName, SeenRole>,
    detail_bytes: usize,
    counts: RoleCounts,
}

impl Roles {
    pub(crate) fn get(&self, namespace: &str) -> Option<&SeenRole> {
        self.by_namespace.get(namespace)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &NamespaceName> {
        self.by_namespace.keys()
    }

    pub(crate) fn counts(&self) -> RoleCounts {
        self.counts
    }

    /// Takes in what changed, or everything; keeps at most `max` namespaces. Answers what is news
    /// of each: the role as it was and as it is.
    pub(super) fn merge(
        &mut self,
        roles: Vec<(NamespaceName, SeenRole)>,
        removed: &[NamespaceName],
        full: bool,
        max: usize,
    ) -> Vec<RoleChange> {
        let mut changes = Vec::new();
        let mut gone: Vec<NamespaceName> = removed.to_vec();
        if full {
            let named: std::collections::HashSet<_> = roles.iter().map(|(name, _)| name).collect();
            gone = self.by_namespace.keys().filter(|name| !named.contains(name)).cloned().collect();
        }
        for namespace in gone {
            if let Some(before) = self.take(&namespace) {
                changes.push(RoleChange { namespace, before: Some(before), after: None });
            }
        }
        for (namespace, role) in roles {
            let before = self.take(&namespace);
            if self.by_namespace.len() >= max {
                continue;
            }
            let after = self.put(&namespace, role);
            if before.as_ref() != Some(&after) {
                changes.push(RoleChange { namespace, before, after: Some(after) });
            }
        }
        changes
    }

    fn take(&mut self, namespace: &NamespaceName) -> Option<SeenRole> {
        let role = self.by_namespace.remove(namespace)?;
        self.counts.add(&role, -1);
        self.detail_bytes -= role.detail_bytes();
        Some(role)
    }

    fn put(&mut self, namespace: &NamespaceName, mut role: SeenRole) -> SeenRole {
        role.drift_count = role.drift_count.max(role.drift.len() as i64);
        role.violation_count = role.violation_count.max(role.violations.len() as i64);
        role.drift.truncate(LIST_MAX);
        role.violations.truncate(LIST_MAX);
        if self.detail_bytes + role.detail_bytes() > DETAIL_BYTES_MAX {
            role.drift = Vec::new();
            role.violations = Vec::new();
            role.cut = true;
        }
        self.detail_bytes += role.detail_bytes();
        self.counts.add(&role, 1);
        self.by_namespace.insert(namespace.clone(), role.clone());
        role
    }
}

/// How a role changed by a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleChange {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// As it was; none where it is new.
    pub(crate) before: Option<SeenRole>,
    /// As it is; none where it is gone.
    pub(crate) after: Option<SeenRole>,
}
