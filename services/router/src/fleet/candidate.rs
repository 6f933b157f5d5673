//! A shard as placement sees it.

use airfleet_domain::{
    health::Verdict,
    placement::{Refusal, Shard as Candidate},
    resources::Resources,
};
use semver::Version;

use super::ledger::Observation;
use crate::store::ShardRecord;

/// What a shard can take: what the manifest states, else what the agent says, else what the class
/// has.
pub(super) fn capacity(record: &ShardRecord, observation: &Observation) -> Resources {
    let spec = &record.manifest.spec;
    spec.capacity.or(observation.capacity).or(spec.size.unwrap_or_default().capacity())
}

/// The shard as placement sees it.
pub(super) fn candidate(
    record: &ShardRecord,
    observation: &Observation,
    namespaces_max: usize,
) -> Candidate {
    let spec = &record.manifest.spec;
    let observed = Version::parse(&observation.airflow_version).ok();
    Candidate {
        labels: record.manifest.metadata.labels.clone(),
        taints: spec.taints.clone(),
        region: spec.region.clone(),
        failure_domain: spec.failure_domain.clone(),
        airflow_version: observed.or_else(|| Version::parse(&spec.airflow_version).ok()),
        closed: closed(record, observation),
        namespaces_max: u32::try_from(namespaces_max).unwrap_or(u32::MAX),
        ..Candidate::new(record.name.clone(), capacity(record, observation).values().to_vec())
    }
}

fn closed(record: &ShardRecord, observation: &Observation) -> Vec<Refusal> {
    let mut closed = Vec::new();
    if !record.registered {
        closed.push(Refusal::new("NOT_REGISTERED", "the manifest no longer has this shard"));
    }
    if record.is_barred() {
        closed.push(Refusal::new(
            "BEING_REMOVED",
            "it was released so that it can be deleted; change it in the manifest to take it back",
        ));
    }
    if let Some(cordon) = &record.cordon {
        let message = format!("cordoned by {}: {}", cordon.actor, cordon.reason);
        closed.push(Refusal::new("CORDONED", message));
    }
    let code = match observation.verdict {
        None | Some(Verdict::Healthy) => return closed,
        Some(Verdict::Degraded) => "SHARD_DEGRADED",
        Some(Verdict::Unhealthy) => "SHARD_UNHEALTHY",
        Some(Verdict::Unknown) => "SHARD_HEALTH_UNKNOWN",
    };
    closed.push(Refusal::new(code, format!("its health says {}", observation.code)));
    closed
}

/// Whether a shard may take something that it did not take before.
pub(super) fn takes_more(before: &Candidate, after: &Candidate) -> bool {
    let opened = !before.closed.is_empty() && after.closed.len() < before.closed.len();
    let roomier = after
        .capacity
        .iter()
        .zip(&before.capacity)
        .any(|(after, before)| *after > *before || (*after == 0 && *before != 0));
    opened
        || roomier
        || before.labels != after.labels
        || before.taints != after.taints
        || before.region != after.region
        || before.failure_domain != after.failure_domain
        || before.airflow_version != after.airflow_version
        || before.namespaces_max != after.namespaces_max
}
