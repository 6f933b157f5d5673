//! Between the wire of the agents and the router's own values.

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    roles::{Desired, Observed},
};
use airfleet_proto::{agent::v1 as wire, common::v1 as common, convert::role};
use airfleet_runtime::status::FieldViolation;
use uuid::Uuid;

use super::{micros, name, set_timestamp};
use crate::{
    agents::{
        Drift, Hello, LIST_MAX, NamespaceUsage, Obstacle, PolicyViolation, Release, Report,
        SeenRole,
    },
    leader::roles::{DesiredRole, Workloads},
    service::Foreign,
    store::{Event, Source},
};

/// Most characters kept of a message for people.
const MESSAGE_MAX: usize = 500;
/// Most characters kept of a name: a dag_id has no more.
const NAME_MAX: usize = 250;
/// Most events of one report.
const EVENTS_MAX: usize = 100;

/// What an agent says of itself, or everything that is wrong with it.
pub(crate) fn hello(hello: wire::Hello) -> Result<Hello, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    let shard = name("hello.shard", &hello.shard, &mut violations);
    let incarnation = Uuid::try_parse(&hello.incarnation);
    if incarnation.is_err() {
        let message = "must be a UUID, of version 7 so that a later one is greater";
        violations.push(FieldViolation::new("hello.incarnation", "MALFORMED", message));
    }
    match (shard, incarnation) {
        (Some(shard), Ok(incarnation)) => Ok(Hello {
            shard,
            incarnation,
            agent_version: short(hello.agent_version),
            airflow_version: short(hello.airflow_version),
            schema_revision: short(hello.schema_revision),
        }),
        _ => Err(violations),
    }
}

/// A report. Namespaces that have no valid name are left out: no router named them.
pub(crate) fn report(report: wire::Report) -> Report {
    let namespaces = report.namespaces.into_iter().filter_map(|one| {
        let usage = NamespaceUsage {
            usage: one.usage.map(Into::into).unwrap_or_default(),
            unpaused_dags: one.unpaused_dags,
            active_runs: one.active_runs,
            active_task_instances: one.active_task_instances,
        };
        Some((one.namespace.parse().ok()?, usage))
    });
    let roles = report.roles.into_iter().filter_map(|one| {
        let name = one.namespace.parse().ok()?;
        Some((name, seen_role(one)))
    });
    let changed = |text: String| Some(short(text)).filter(|text| !text.is_empty());
    Report {
        sequence: report.sequence,
        full: report.full,
        observed_at_us: micros(report.observe_time),
        health: report.health.map(Into::into),
        usage: report.usage.map(Into::into),
        capacity: report.capacity.map(Into::into),
        namespaces: namespaces.collect(),
        removed: names(&report.removed_namespaces),
        unowned_dags: report.unowned_dags,
        airflow_version: changed(report.airflow_version),
        schema_revision: changed(report.schema_revision),
        roles: roles.collect(),
        removed_roles: names(&report.removed_roles),
    }
}

fn names(names: &[String]) -> Vec<NamespaceName> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Versions and codes are short; what is not is cut, since it is kept.
fn short(text: String) -> String {
    cut(text, 100)
}

fn cut(text: String, most: usize) -> String {
    if text.len() <= most { text } else { text.chars().take(most).collect() }
}

fn seen_role(wire: wire::ObservedRole) -> SeenRole {
    let role = |number: i32| role(common::Role::try_from(number).unwrap_or_default());
    let observed =
        role(wire.role).map(|role| Observed { role, generation: Generation(wire.generation) });
    let target = role(wire.target_role)
        .map(|role| Desired { role, generation: Generation(wire.target_generation) });
    let drift_count = wire.drift.len() as i64;
    SeenRole {
        observed,
        target,
        obstacle: wire.obstacle.map(|one| Obstacle {
            code: short(one.code),
            message: cut(one.message, MESSAGE_MAX),
            attempts: one.attempts,
            since_us: micros(one.since_time),
        }),
        release: wire.release.map(|one| Release {
            id: short(one.id),
            switched_at_us: micros(one.switch_time),
            files: one.files,
            bytes: one.bytes,
        }),
        drift: wire.drift.into_iter().take(LIST_MAX).map(drift).collect(),
        violations: wire.violations.into_iter().take(LIST_MAX).map(violation).collect(),
        drift_count,
        violation_count: wire.violation_count.max(0),
        cut: false,
        fenced_dags: wire.fenced_dags.max(0),
        reached_at_us: micros(wire.role_time),
        manifest_revision: Revision(wire.manifest_revision),
    }
}

fn drift(wire: wire::Drift) -> Drift {
    Drift {
        kind: short(wire.kind),
        name: cut(wire.name, NAME_MAX),
        code: short(wire.code),
        message: cut(wire.message, MESSAGE_MAX),
        tolerated: wire.tolerated,
    }
}

fn violation(wire: wire::PolicyViolation) -> PolicyViolation {
    PolicyViolation {
        mode: wire.mode().into(),
        code: short(wire.code),
        dag_id: cut(wire.dag_id, NAME_MAX),
        task_id: cut(wire.task_id, NAME_MAX),
        message: cut(wire.message, MESSAGE_MAX),
        first_us: micros(wire.first_time),
        last_us: micros(wire.last_time),
        count: wire.count,
    }
}

/// What an agent tells of what happened; what has no valid name or id is left out.
pub(crate) fn events(shard: &str, events: Vec<wire::Event>) -> Vec<Event> {
    let events = events.into_iter().take(EVENTS_MAX).filter_map(|one| {
        Some(Event {
            id: one.id.parse().ok()?,
            namespace: one.namespace.parse().ok()?,
            shard: shard.to_owned(),
            source: Source::Agent,
            code: short(one.code),
            message: cut(one.message, MESSAGE_MAX),
            warning: one.warning,
            happened_at_us: micros(one.time),
        })
    });
    events.collect()
}

/// A prefix whose DAGs must not run on a shard.
pub(crate) fn foreign(foreign: &Foreign<'_>) -> wire::ForeignPrefix {
    wire::ForeignPrefix {
        prefix: foreign.prefix.to_owned(),
        namespace: foreign.namespace.to_owned(),
        shard: foreign.shard.unwrap_or_default().to_owned(),
    }
}

/// What a shard is to be for a namespace.
pub(crate) fn desired_role(role: DesiredRole, workloads: &mut Workloads) -> wire::DesiredRole {
    let brings = workloads.remove(&role.namespace).unwrap_or_default();
    let (workload, manifest_revision) = brings;
    let has_workload = role.desired.role.has_workload();
    wire::DesiredRole {
        namespace: role.namespace.to_string(),
        prefixes: role.prefixes,
        role: common::Role::from(role.desired.role).into(),
        generation: role.desired.generation.0,
        workload: has_workload.then(|| workload.into()),
        manifest_revision: manifest_revision.0,
        revision: role.revision.0,
        r#move: role.task.map(super::moves::task),
    }
}

/// What a shard is for a namespace, as its agent said.
pub(super) fn observed_role(namespace: String, seen: SeenRole) -> wire::ObservedRole {
    let role = |role| i32::from(common::Role::from(role));
    wire::ObservedRole {
        namespace,
        role: seen.observed.map_or(0, |observed| role(observed.role)),
        generation: seen.observed.map_or(0, |observed| observed.generation.0),
        target_role: seen.target.map_or(0, |target| role(target.role)),
        target_generation: seen.target.map_or(0, |target| target.generation.0),
        obstacle: seen.obstacle.map(|one| wire::Obstacle {
            code: one.code,
            message: one.message,
            attempts: one.attempts,
            since_time: set_timestamp(one.since_us),
        }),
        release: seen.release.map(|one| wire::Release {
            id: one.id,
            switch_time: set_timestamp(one.switched_at_us),
            files: one.files,
            bytes: one.bytes,
        }),
        drift: seen.drift.into_iter().map(wire::Drift::from).collect(),
        violations: seen.violations.into_iter().map(wire::PolicyViolation::from).collect(),
        violation_count: seen.violation_count,
        fenced_dags: seen.fenced_dags,
        role_time: set_timestamp(seen.reached_at_us),
        manifest_revision: seen.manifest_revision.0,
    }
}

impl From<Drift> for wire::Drift {
    fn from(drift: Drift) -> Self {
        let Drift { kind, name, code, message, tolerated } = drift;
        Self { kind, name, code, message, tolerated }
    }
}

impl From<PolicyViolation> for wire::PolicyViolation {
    fn from(one: PolicyViolation) -> Self {
        Self {
            code: one.code,
            mode: common::Enforcement::from(one.mode).into(),
            dag_id: one.dag_id,
            task_id: one.task_id,
            message: one.message,
            first_time: set_timestamp(one.first_us),
            last_time: set_timestamp(one.last_us),
            count: one.count,
        }
    }
}
