//! Between the wire and the router's own values. Proto types go no further in than this.

pub(crate) mod agent;
pub(crate) mod moves;
pub(crate) mod placement;

use airfleet_domain::{
    ids::NamespaceName,
    routing::{Entry, State},
};
use airfleet_proto::{
    common::v1 as common,
    convert::{self, timestamp},
    router::v1 as wire,
};
use airfleet_runtime::status::FieldViolation;
use prost_types::Timestamp;

use crate::{
    agents::{Hello, NamespaceUsage},
    service::{NamespaceStatus, RoleSummary, RoleTotals, RouterStatus, ShardRole, ShardStatus},
    store::{Cordon, Recorded},
    table::View,
};

/// When to ask again for a namespace that is between shards: it is so for about a second, once
/// nothing of it runs any more.
const RETRY_MOVING_AFTER_MS: i64 = 1000;

/// When to ask again before something is sent that changes the namespace.
pub(crate) fn retry_after_ms(state: State) -> i64 {
    if state == State::Moving { RETRY_MOVING_AFTER_MS } else { 0 }
}

/// A moment of the wire in microseconds; 0 where it is unset.
pub(crate) fn micros(timestamp: Option<Timestamp>) -> i64 {
    timestamp.as_ref().map_or(0, convert::micros)
}

/// A name, or the violation that says why it is none.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
    violations: &mut Vec<FieldViolation>,
) -> Option<T> {
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            violations.push(FieldViolation::new(field, "MALFORMED", format!("{error}")));
            None
        }
    }
}

pub(crate) fn state(state: State) -> wire::AssignmentState {
    match state {
        State::Assigned => wire::AssignmentState::Assigned,
        State::Unplaced => wire::AssignmentState::Unplaced,
        State::Released => wire::AssignmentState::Released,
        State::Moving => wire::AssignmentState::Moving,
    }
}

/// The state to filter by; `None` for all.
pub(crate) fn state_filter(number: i32, violations: &mut Vec<FieldViolation>) -> Option<State> {
    match wire::AssignmentState::try_from(number) {
        Ok(wire::AssignmentState::Unspecified) => None,
        Ok(wire::AssignmentState::Assigned) => Some(State::Assigned),
        Ok(wire::AssignmentState::Unplaced) => Some(State::Unplaced),
        Ok(wire::AssignmentState::Released) => Some(State::Released),
        Ok(wire::AssignmentState::Moving) => Some(State::Moving),
        Err(_) => {
            let message = "must be ASSIGNED, UNPLACED, RELEASED, MOVING or unspecified for all";
            violations.push(FieldViolation::new("state", "UNKNOWN_VALUE", message));
            None
        }
    }
}

pub(crate) fn assignment(entry: &Entry) -> wire::Assignment {
    wire::Assignment {
        namespace: entry.namespace().to_owned(),
        namespace_uid: entry.namespace_uid().to_owned(),
        shard: entry.shard().unwrap_or_default().to_owned(),
        generation: entry.generation().0,
        state: state(entry.state()).into(),
        pinned_shard: entry.pinned_shard().unwrap_or_default().to_owned(),
        reason: entry.reason().to_owned(),
        prefixes: entry.prefixes().map(str::to_owned).collect(),
        revision: entry.revision().0,
        update_time: Some(timestamp(entry.update_time_us())),
    }
}

/// Where a shard is reached.
pub(crate) fn endpoints(view: &View, shard: &str) -> wire::Endpoints {
    let url = view.shards.get(shard).map(|url| url.as_ref().to_owned());
    wire::Endpoints { url: url.unwrap_or_default() }
}

#[inline]
pub(crate) fn resolved(view: &View, entry: &Entry, age_ms: i64) -> wire::ResolveResponse {
    let shard = entry.shard();
    wire::ResolveResponse {
        namespace: entry.namespace().to_owned(),
        shard: shard.unwrap_or_default().to_owned(),
        endpoints: shard.map(|shard| endpoints(view, shard)),
        generation: entry.generation().0,
        state: state(entry.state()).into(),
        revision: view.table.revision().0,
        age_ms,
        retry_after_ms: retry_after_ms(entry.state()),
    }
}

fn cordon(cordon: Cordon) -> wire::Cordon {
    wire::Cordon {
        actor: cordon.actor,
        reason: cordon.reason,
        time: Some(timestamp(cordon.time_us)),
    }
}

pub(crate) fn shard_status(status: ShardStatus) -> wire::ShardStatus {
    let ShardStatus { seen, .. } = status;
    let hello = seen.hello;
    let mut health = common::Health::from(seen.health);
    health.observe_time = seen.observed_at_us.map(timestamp);
    let text = |field: fn(&Hello) -> &String| hello.as_ref().map(field).cloned();
    wire::ShardStatus {
        shard: status.name,
        connected: seen.connected,
        incarnation: hello.as_ref().map(|hello| hello.incarnation.to_string()).unwrap_or_default(),
        agent_version: text(|hello| &hello.agent_version).unwrap_or_default(),
        airflow_version: text(|hello| &hello.airflow_version).unwrap_or_default(),
        schema_revision: text(|hello| &hello.schema_revision).unwrap_or_default(),
        report_time: seen.reported_at_us.map(timestamp),
        health: Some(health),
        capacity: Some(status.capacity.into()),
        usage: Some(seen.usage.into()),
        reserved: Some(status.reserved.into()),
        room: Some(status.capacity.minus(status.reserved).into()),
        cordon: status.cordon.map(cordon),
        namespaces: status.namespaces as i64,
        namespace_usage: status.usage.into_iter().map(namespace_usage).collect(),
        unowned_dags: seen.unowned_dags,
        not_placeable: status.not_placeable,
        role_totals: Some(role_totals(status.totals)),
        roles: status.roles.into_iter().map(role_summary).collect(),
    }
}

fn role_totals(totals: RoleTotals) -> wire::RoleTotals {
    wire::RoleTotals {
        desired: totals.desired,
        unreached: totals.unreached,
        obstacles: totals.obstacles,
        drift: totals.drift,
        violations: totals.violations,
        fenced_dags: totals.fenced_dags,
        giving_up: totals.giving_up,
    }
}

/// A moment, where it is set.
pub(crate) fn set_timestamp(micros: i64) -> Option<Timestamp> {
    (micros != 0).then(|| timestamp(micros))
}

pub(crate) fn role_summary(role: RoleSummary) -> wire::RoleSummary {
    wire::RoleSummary {
        namespace: role.namespace.to_string(),
        shard: role.shard,
        desired_role: role.desired.map_or(0, |desired| common::Role::from(desired.role).into()),
        desired_generation: role.desired.map_or(0, |desired| desired.generation.0),
        role: role.observed.map_or(0, |(role, _)| common::Role::from(role).into()),
        generation: role.observed.map_or(0, |(_, generation)| generation.0),
        reached: role.reached,
        release: role.release,
        release_time: set_timestamp(role.released_at_us),
        drift: role.drift,
        violations: role.violations,
        obstacle: role.obstacle,
        connected: role.connected,
    }
}

pub(crate) fn namespace_status(status: NamespaceStatus) -> wire::NamespaceStatus {
    wire::NamespaceStatus {
        assignment: status.entry.as_ref().map(assignment),
        roles: status.roles.into_iter().map(shard_role).collect(),
        manifest_revision: status.manifest_revision.0,
    }
}

fn shard_role(role: ShardRole) -> wire::ShardRole {
    let namespace = role.desired.namespace.to_string();
    wire::ShardRole {
        shard: role.shard,
        desired_role: common::Role::from(role.desired.desired.role).into(),
        desired_generation: role.desired.desired.generation.0,
        reason: role.desired.reason,
        reached: role.reached,
        details_cut: role.seen.as_ref().is_some_and(|seen| seen.cut),
        drift_count: role.seen.as_ref().map_or(0, |seen| seen.drift_count),
        observed: role.seen.map(|seen| agent::observed_role(namespace, seen)),
        waits_for: role.waits_for,
        connected: role.connected,
        report_time: role.reported_at_us.map(timestamp),
        purge_time: role.purge_at_us.map(timestamp),
    }
}

pub(crate) fn event(recorded: Recorded) -> wire::NamespaceEvent {
    let Recorded { sequence, event, at_us: _ } = recorded;
    wire::NamespaceEvent {
        namespace: event.namespace.to_string(),
        sequence,
        time: Some(timestamp(event.happened_at_us)),
        shard: event.shard,
        source: event.source.name().to_owned(),
        code: event.code,
        message: event.message,
        warning: event.warning,
        id: event.id.to_string(),
    }
}

fn namespace_usage((name, usage): (NamespaceName, NamespaceUsage)) -> wire::NamespaceUsage {
    wire::NamespaceUsage {
        namespace: name.to_string(),
        usage: Some(usage.usage.into()),
        unpaused_dags: usage.unpaused_dags,
        active_runs: usage.active_runs,
        active_task_instances: usage.active_task_instances,
    }
}

pub(crate) fn router_status(status: RouterStatus) -> wire::RouterStatus {
    wire::RouterStatus {
        replica: status.replica,
        leader: status.leader,
        leader_address: status.leader_address,
        term: status.term.0,
        revision: status.revision.0,
        age_ms: status.age_ms,
        namespaces: status.namespaces as i64,
        agents: status.agents as i64,
        source: status.source.to_owned(),
        manifest_revision: status.manifest_revision.0,
    }
}
