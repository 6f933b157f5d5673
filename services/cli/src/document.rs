//! What `-o json` and `-o yaml` print: the stable shapes for scripts.
//!
//! Namespaces and shards look as they do in the manifest, with a `status` beside the `spec`, so
//! that what was printed can be edited and applied. Lists are `{apiVersion, kind, items, …}`.
//! Fields are only ever added. docs/cli.md describes them.

pub mod roles;

use airfleet_domain::{
    manifest::{API_VERSION, Entry, Namespace, Shard},
    resources::Resources,
};
use airfleet_proto::{
    common::v1::{self as common, Verdict},
    convert::Unreadable,
    registry::v1 as registry,
    router::v1::{self as router, AssignmentState},
};
use jiff::Timestamp;
use serde::Serialize;

use self::roles::{RoleSummary, RoleTotals, ShardRole};
use crate::error::{Error, Result};

/// A namespace or shard with what the fleet knows of it.
#[derive(Clone, Debug, Serialize)]
pub struct Document<S> {
    /// The entry as in the manifest.
    #[serde(flatten)]
    pub entry: Entry,
    /// What is known beyond it.
    pub status: S,
}

/// What the registry keeps beside an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Set by the registry; another one where the name was taken anew.
    pub uid: String,
    /// Changes with every change.
    pub etag: String,
    /// Revision of the manifest at which it last changed.
    pub revision: i64,
    /// When it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_time: Option<Timestamp>,
}

/// `status` of a namespace.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceStatus {
    /// What the registry keeps.
    #[serde(flatten)]
    pub kept: Kept,
    /// Where it is; left out until the router has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Whether a shard owns it although the manifest no longer has it; left out where it does not.
    /// The spec is then what the router remembers of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// What the shards are for it, the owner first; left out in lists and where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<ShardRole>>,
}

/// `status` of a shard.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// What the registry keeps.
    #[serde(flatten)]
    pub kept: Kept,
    /// What the router knows; left out until it has seen the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ShardState>,
}

/// Where a namespace is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The namespace.
    pub namespace: String,
    /// Its uid in the registry.
    pub namespace_uid: String,
    /// `Assigned`, `Unplaced` or `Released`.
    pub state: &'static str,
    /// The shard; left out where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shard: String,
    /// Grows by one at every change of owner.
    pub generation: i64,
    /// The shard it is bound to; left out where it is not pinned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pinned_shard: String,
    /// Why it is where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Revision of the table at which it last changed.
    pub revision: i64,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_time: Option<Timestamp>,
    /// The namespace's prefixes; a namespace's document has them in its spec.
    #[serde(skip)]
    pub prefixes: Vec<String>,
}

impl Assignment {
    /// Whether a shard owns it.
    pub fn is_assigned(&self) -> bool {
        self.state == ASSIGNED || self.state == MOVING
    }
}

impl From<router::Assignment> for Assignment {
    fn from(wire: router::Assignment) -> Self {
        Self {
            state: state_name(wire.state()),
            update_time: wire.update_time.and_then(timestamp),
            namespace: wire.namespace,
            namespace_uid: wire.namespace_uid,
            shard: wire.shard,
            generation: wire.generation,
            pinned_shard: wire.pinned_shard,
            reason: wire.reason,
            revision: wire.revision,
            prefixes: wire.prefixes,
        }
    }
}

/// Name of the state in which a shard owns the namespace.
pub const ASSIGNED: &str = "Assigned";

/// Name of the state in which a shard owns the namespace and it is on the way to another.
pub const MOVING: &str = "Moving";

/// The state as it is shown.
pub fn state_name(state: AssignmentState) -> &'static str {
    match state {
        AssignmentState::Assigned => ASSIGNED,
        AssignmentState::Unplaced => "Unplaced",
        AssignmentState::Released => "Released",
        AssignmentState::Moving => MOVING,
        AssignmentState::Unspecified => "Unknown",
    }
}

/// The verdict as it is shown.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "Healthy",
        Verdict::Degraded => "Degraded",
        Verdict::Unhealthy => "Unhealthy",
        Verdict::Unknown | Verdict::Unspecified => "Unknown",
    }
}

/// What the router knows of a shard.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardState {
    /// The shard.
    pub shard: String,
    /// Whether its agent is connected now.
    pub connected: bool,
    /// Version of the agent.
    pub agent_version: String,
    /// Version of Airflow as the agent found it.
    pub airflow_version: String,
    /// Alembic revision of the metadata database.
    pub schema_revision: String,
    /// When the last report came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_time: Option<Timestamp>,
    /// The verdict on its health.
    pub health: Health,
    /// What it can take.
    pub capacity: Amounts,
    /// What it uses, as measured.
    pub usage: Amounts,
    /// What placement counts for its namespaces.
    pub reserved: Amounts,
    /// Capacity less reserved.
    pub room: Amounts,
    /// Set while it is cordoned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon: Option<Cordon>,
    /// Namespaces assigned to it.
    pub namespaces: i64,
    /// What each of its namespaces uses; only where one shard is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_usage: Vec<NamespaceUsage>,
    /// DAGs there that belong to none of its namespaces.
    pub unowned_dags: i64,
    /// Why it takes no namespaces now; empty where it does.
    pub not_placeable: Vec<String>,
    /// Numbers of its roles.
    pub role_totals: RoleTotals,
    /// What it is for its namespaces, those that need attention first; only where one shard is
    /// shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleSummary>,
}

/// A verdict and what led to it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `Healthy`, `Degraded`, `Unhealthy` or `Unknown`.
    pub verdict: &'static str,
    /// Findings, worst first.
    pub reasons: Vec<HealthReason>,
    /// When the newest observation behind it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observe_time: Option<Timestamp>,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReason {
    /// Stable code.
    pub code: String,
    /// The verdict that it alone leads to.
    pub verdict: &'static str,
    /// What was seen.
    pub message: String,
}

/// Why a shard takes no new namespaces.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cordon {
    /// Who set it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// An amount in each dimension; unlike in the manifest, zeros are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// DAGs that are not stale. Count.
    pub dags: i64,
    /// Task instances started. Count an hour.
    pub task_starts_per_hour: i64,
    /// Pool slots running or queued at the peak. Count.
    pub running_slots: i64,
    /// Rows in the metadata database. Bytes.
    pub metadata_bytes: i64,
    /// Time the DAG processor spends on parsing. Milliseconds a minute.
    pub parse_ms_per_minute: i64,
}

impl From<Option<common::Resources>> for Amounts {
    fn from(wire: Option<common::Resources>) -> Self {
        let wire = wire.unwrap_or_default();
        Self {
            dags: wire.dags,
            task_starts_per_hour: wire.task_starts_per_hour,
            running_slots: wire.running_slots,
            metadata_bytes: wire.metadata_bytes,
            parse_ms_per_minute: wire.parse_ms_per_minute,
        }
    }
}

impl From<Amounts> for Resources {
    fn from(amounts: Amounts) -> Self {
        Self {
            dags: amounts.dags,
            task_starts_per_hour: amounts.task_starts_per_hour,
            running_slots: amounts.running_slots,
            metadata_bytes: amounts.metadata_bytes,
            parse_ms_per_minute: amounts.parse_ms_per_minute,
        }
    }
}

/// What one namespace uses on a shard.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceUsage {
    /// The namespace.
    pub namespace: String,
    /// In the dimensions of placement.
    pub usage: Amounts,
    /// DAGs that are not paused.
    pub unpaused_dags: i64,
    /// Runs queued or running.
    pub active_runs: i64,
    /// Task instances scheduled, queued, running, restarting or deferred.
    pub active_task_instances: i64,
}

impl From<router::NamespaceUsage> for NamespaceUsage {
    fn from(wire: router::NamespaceUsage) -> Self {
        Self {
            namespace: wire.namespace,
            usage: wire.usage.into(),
            unpaused_dags: wire.unpaused_dags,
            active_runs: wire.active_runs,
            active_task_instances: wire.active_task_instances,
        }
    }
}

impl From<common::Health> for Health {
    fn from(wire: common::Health) -> Self {
        Self {
            verdict: verdict_name(wire.verdict()),
            observe_time: wire.observe_time.and_then(timestamp),
            reasons: wire
                .reasons
                .into_iter()
                .map(|reason| HealthReason {
                    verdict: verdict_name(reason.verdict()),
                    code: reason.code,
                    message: reason.message,
                })
                .collect(),
        }
    }
}

impl From<router::ShardStatus> for ShardState {
    fn from(wire: router::ShardStatus) -> Self {
        Self {
            shard: wire.shard,
            connected: wire.connected,
            agent_version: wire.agent_version,
            airflow_version: wire.airflow_version,
            schema_revision: wire.schema_revision,
            report_time: wire.report_time.and_then(timestamp),
            health: wire.health.unwrap_or_default().into(),
            capacity: wire.capacity.into(),
            usage: wire.usage.into(),
            reserved: wire.reserved.into(),
            room: wire.room.into(),
            cordon: wire.cordon.map(|cordon| Cordon {
                actor: cordon.actor,
                reason: cordon.reason,
                time: cordon.time.and_then(timestamp),
            }),
            namespaces: wire.namespaces,
            namespace_usage: wire.namespace_usage.into_iter().map(Into::into).collect(),
            unowned_dags: wire.unowned_dags,
            not_placeable: wire.not_placeable,
            role_totals: wire.role_totals.unwrap_or_default().into(),
            roles: wire.roles.into_iter().map(Into::into).collect(),
        }
    }
}

/// A wire time; `None` where it is not one.
pub fn timestamp(wire: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(wire.seconds, wire.nanos).ok()
}

/// Splits a namespace as the registry answers it into the entry and the rest.
pub fn namespace(wire: registry::Namespace) -> Result<(Namespace, Kept)> {
    let kept = Kept {
        uid: wire.uid.clone(),
        etag: wire.etag.clone(),
        revision: wire.revision,
        create_time: wire.create_time.and_then(timestamp),
        update_time: wire.update_time.and_then(timestamp),
    };
    Ok((wire.try_into().map_err(|error| unreadable(&error))?, kept))
}

/// Splits a shard as the registry answers it into the entry and the rest.
pub fn shard(wire: registry::Shard) -> Result<(Shard, Kept)> {
    let kept = Kept {
        uid: wire.uid.clone(),
        etag: wire.etag.clone(),
        revision: wire.revision,
        create_time: wire.create_time.and_then(timestamp),
        update_time: wire.update_time.and_then(timestamp),
    };
    Ok((wire.try_into().map_err(|error| unreadable(&error))?, kept))
}

/// Splits an entry as the registry answers it into the entry and the rest.
pub fn entry(wire: registry::ManifestEntry) -> Result<(Entry, Kept)> {
    use registry::manifest_entry::Kind;
    match wire.kind {
        Some(Kind::Namespace(wire)) => {
            namespace(wire).map(|(namespace, kept)| (Entry::Namespace(namespace), kept))
        }
        Some(Kind::Shard(wire)) => shard(wire).map(|(shard, kept)| (Entry::Shard(shard), kept)),
        None => Err(unreadable(&Unreadable {
            field: "kind".into(),
            message: "is neither a namespace nor a shard".into(),
        })),
    }
}

fn unreadable(error: &Unreadable) -> Error {
    Error::caused("cannot read the registry's answer", error)
        .hint("the registry may be newer than this command; `airfleet version` says how old it is")
}

/// `status` of an entry of either kind.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AnyStatus {
    /// Of a namespace.
    Namespace(Box<NamespaceStatus>),
    /// Of a shard.
    Shard(Box<ShardStatus>),
}

/// Several of something.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    /// What there is.
    pub items: Vec<T>,
}

impl<T> List<T> {
    /// A list that calls itself `kind`.
    pub fn new(kind: &'static str, items: Vec<T>) -> Self {
        Self { api_version: API_VERSION, kind, items }
    }
}

/// Indented JSON with a line end.
pub fn json(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::caused("cannot write JSON", &error))?;
    text.push('\n');
    Ok(text)
}

/// JSON on one line, without a line end.
pub fn json_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::caused("cannot write JSON", &error))
}

/// YAML.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    let mut text = serde_saphyr::to_string(value)
        .map_err(|error| Error::caused("cannot write YAML", &error))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Documents after each other, as a manifest file has them.
pub fn yaml_documents<T: Serialize>(values: &[T]) -> Result<String> {
    Ok(values.iter().map(yaml).collect::<Result<Vec<_>>>()?.join("---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document<NamespaceStatus> {
        let text = "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {name: payments}\n\
                    spec: {owners: [team], prefixes: [payments.]}\n";
        let located = airfleet_domain::manifest::parse(text).unwrap().remove(0);
        let wire = registry::ManifestEntry::from(located.entry);
        let (entry, kept) = entry(wire).unwrap();
        let assignment = router::Assignment {
            namespace: "payments".into(),
            shard: "shard-a".into(),
            state: AssignmentState::Assigned.into(),
            generation: 1,
            revision: 7,
            ..Default::default()
        };
        let status = NamespaceStatus {
            kept,
            assignment: Some(assignment.into()),
            orphaned: false,
            roles: None,
        };
        Document { entry, status }
    }

    #[test]
    fn json_has_the_manifest_and_a_status() {
        let text = json_line(&document()).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"airfleet.dev/v1","kind":"Namespace","metadata":{"name":"payments"},"spec":{"owners":["team"],"prefixes":["payments."]},"status":{"uid":"","etag":"","revision":0,"assignment":{"namespace":"payments","namespaceUid":"","state":"Assigned","shard":"shard-a","generation":1,"revision":7}}}"#
        );
    }

    #[test]
    fn yaml_that_was_printed_can_be_applied() {
        let text = yaml_documents(&[document(), document()]).unwrap();
        let entries = airfleet_domain::manifest::parse(&text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].entry, document().entry);
    }

    #[test]
    fn a_size_of_a_newer_version_says_so() {
        let wire = registry::Shard { size: "huge".into(), ..Default::default() };
        let error = shard(wire).unwrap_err();
        assert!(error.render(crate::screen::Paint::PLAIN).contains("newer"), "{error}");
    }
}
