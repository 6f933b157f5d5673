//! What shards are for namespaces, and what happened, as `-o json` prints them.

use airfleet_proto::{agent::v1 as agent, common::v1 as common, router::v1 as router};
use jiff::Timestamp;
use serde::Serialize;

use super::timestamp;

/// The role as it is shown; empty where it is not known.
pub fn role_name(role: common::Role) -> &'static str {
    match role {
        common::Role::Unspecified => "",
        common::Role::Absent => "Absent",
        common::Role::Staged => "Staged",
        common::Role::Active => "Active",
        common::Role::Quiesced => "Quiesced",
        common::Role::Sealed => "Sealed",
        common::Role::Retired => "Retired",
    }
}

/// What a shard is for a namespace, in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleSummary {
    /// The namespace.
    pub namespace: String,
    /// The shard.
    pub shard: String,
    /// What it is to be.
    pub desired_role: &'static str,
    /// Generation of that.
    pub desired_generation: i64,
    /// What it is; empty where its agent said nothing.
    pub role: &'static str,
    /// Generation of that.
    pub generation: i64,
    /// Whether it is what it is to be.
    pub reached: bool,
    /// Commit or hash of the DAG files that it runs.
    pub release: String,
    /// When it switched to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_time: Option<Timestamp>,
    /// What is not as declared. Count.
    pub drift: i64,
    /// Rules that are broken. Count.
    pub violations: i64,
    /// Code of what keeps it from being what it is to be.
    pub obstacle: String,
    /// Whether its agent is connected.
    pub connected: bool,
}

impl From<router::RoleSummary> for RoleSummary {
    fn from(wire: router::RoleSummary) -> Self {
        Self {
            desired_role: role_name(wire.desired_role()),
            role: role_name(wire.role()),
            release_time: wire.release_time.and_then(timestamp),
            namespace: wire.namespace,
            shard: wire.shard,
            desired_generation: wire.desired_generation,
            generation: wire.generation,
            reached: wire.reached,
            release: wire.release,
            drift: wire.drift,
            violations: wire.violations,
            obstacle: wire.obstacle,
            connected: wire.connected,
        }
    }
}

/// Numbers of a shard's roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleTotals {
    /// Namespaces that it is to be something for.
    pub desired: i64,
    /// For which it is not what it is to be.
    pub unreached: i64,
    /// That something keeps from it.
    pub obstacles: i64,
    /// What is not as declared.
    pub drift: i64,
    /// Rules that are broken.
    pub violations: i64,
    /// DAGs whose pause state is forced by the fence.
    pub fenced_dags: i64,
    /// Namespaces that it has to give up, or gave up and keeps rows of.
    pub giving_up: i64,
}

impl From<router::RoleTotals> for RoleTotals {
    fn from(wire: router::RoleTotals) -> Self {
        Self {
            desired: wire.desired,
            unreached: wire.unreached,
            obstacles: wire.obstacles,
            drift: wire.drift,
            violations: wire.violations,
            fenced_dags: wire.fenced_dags,
            giving_up: wire.giving_up,
        }
    }
}

/// What one shard is for a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardRole {
    /// The shard.
    pub shard: String,
    /// What it is to be.
    pub desired_role: &'static str,
    /// Generation of that.
    pub desired_generation: i64,
    /// Why.
    pub reason: String,
    /// Whether it is what it is to be.
    pub reached: bool,
    /// What it is; empty where its agent said nothing.
    pub role: &'static str,
    /// Generation of that.
    pub generation: i64,
    /// When it became that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_time: Option<Timestamp>,
    /// What keeps it from being what it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
    /// What it waits for beside its own agent; empty where nothing.
    pub waits_for: String,
    /// The DAG files that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// What is not as declared. Count; `drift` may have fewer.
    pub drift_count: i64,
    /// What is not as declared.
    pub drift: Vec<Drift>,
    /// Rules that are broken. Count; `violations` may have fewer.
    pub violation_count: i64,
    /// Rules that are broken, the latest first.
    pub violations: Vec<Violation>,
    /// DAGs whose pause state is forced by the fence.
    pub fenced_dags: i64,
    /// Revision of the manifest that the shard was brought to.
    pub manifest_revision: i64,
    /// Whether its agent is connected.
    pub connected: bool,
    /// When the last report came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_time: Option<Timestamp>,
    /// Where it gave the namespace up: until when its rows are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_time: Option<Timestamp>,
}

/// What keeps a shard from being what it is to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// Stable code.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Tries so far.
    pub attempts: i64,
    /// When it was first met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_time: Option<Timestamp>,
}

/// DAG files that a shard runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Commit or hash.
    pub id: String,
    /// When the shard switched to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_time: Option<Timestamp>,
    /// Files.
    pub files: i64,
    /// Size of all. Bytes.
    pub bytes: i64,
}

/// Something that is not as declared.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// `pool`, `variable`, `connection`, `file` or `fence`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Stable code.
    pub code: String,
    /// What is declared, what was found.
    pub message: String,
    /// Whether it is left as it is.
    pub tolerated: bool,
}

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Code of the rule.
    pub code: String,
    /// `enforce` where it was refused, `warn` where it was only told.
    pub mode: &'static str,
    /// The DAG.
    pub dag_id: String,
    /// The task; left out where it is about the DAG.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_id: String,
    /// What is wrong and what to change.
    pub message: String,
    /// When it was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Timestamp>,
    /// How often.
    pub count: i64,
}

impl From<router::ShardRole> for ShardRole {
    fn from(wire: router::ShardRole) -> Self {
        let desired_role = role_name(wire.desired_role());
        let observed = wire.observed.unwrap_or_default();
        Self {
            shard: wire.shard,
            desired_role,
            desired_generation: wire.desired_generation,
            reason: wire.reason,
            reached: wire.reached,
            role: role_name(observed.role()),
            generation: observed.generation,
            role_time: observed.role_time.and_then(timestamp),
            obstacle: observed.obstacle.map(Into::into),
            waits_for: wire.waits_for,
            release: observed.release.map(Into::into),
            drift_count: wire.drift_count,
            drift: observed.drift.into_iter().map(Into::into).collect(),
            violation_count: observed.violation_count,
            violations: observed.violations.into_iter().map(Into::into).collect(),
            fenced_dags: observed.fenced_dags,
            manifest_revision: observed.manifest_revision,
            connected: wire.connected,
            report_time: wire.report_time.and_then(timestamp),
            purge_time: wire.purge_time.and_then(timestamp),
        }
    }
}

impl From<agent::Obstacle> for Obstacle {
    fn from(wire: agent::Obstacle) -> Self {
        let since_time = wire.since_time.and_then(timestamp);
        Self { code: wire.code, message: wire.message, attempts: wire.attempts, since_time }
    }
}

impl From<agent::Release> for Release {
    fn from(wire: agent::Release) -> Self {
        let switch_time = wire.switch_time.and_then(timestamp);
        Self { id: wire.id, switch_time, files: wire.files, bytes: wire.bytes }
    }
}

impl From<agent::Drift> for Drift {
    fn from(wire: agent::Drift) -> Self {
        let agent::Drift { kind, name, code, message, tolerated } = wire;
        Self { kind, name, code, message, tolerated }
    }
}

impl From<agent::PolicyViolation> for Violation {
    fn from(wire: agent::PolicyViolation) -> Self {
        Self {
            mode: match wire.mode() {
                common::Enforcement::Warn => "warn",
                common::Enforcement::Enforce | common::Enforcement::Unspecified => "enforce",
            },
            last_time: wire.last_time.and_then(timestamp),
            code: wire.code,
            dag_id: wire.dag_id,
            task_id: wire.task_id,
            message: wire.message,
            count: wire.count,
        }
    }
}

/// Something that happened to a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The namespace.
    pub namespace: String,
    /// Who tells it: `registry`, `router` or `agent`.
    pub source: String,
    /// Stable code; of the registry `MANIFEST_CREATED`, `MANIFEST_UPDATED`, `MANIFEST_DELETED`.
    pub code: String,
    /// The shard that it is about; left out where it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shard: String,
    /// What happened and why.
    pub message: String,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// Who did it; only where somebody changed the manifest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The router's number of it; left out of what the registry tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// The registry's revision that it made; left out of what the router tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

impl From<router::NamespaceEvent> for Event {
    fn from(wire: router::NamespaceEvent) -> Self {
        Self {
            time: wire.time.and_then(timestamp),
            namespace: wire.namespace,
            source: wire.source,
            code: wire.code,
            shard: wire.shard,
            message: wire.message,
            warning: wire.warning,
            actor: String::new(),
            sequence: Some(wire.sequence),
            revision: None,
        }
    }
}
