//! A shard as the placer sees it.

use std::collections::BTreeMap;

use airfleet_domain::{
    health::Verdict,
    ids::ShardName,
    placement::{Candidate, Refusal},
    resources::Resources,
};
use semver::Version;

use super::ledger::{Observation, Shard};
use crate::store::ShardRecord;

/// A shard of which nothing is known yet.
pub(super) fn new(name: ShardName) -> Candidate {
    Candidate {
        name,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        region: String::new(),
        failure_domain: String::new(),
        airflow_version: None,
        capacity: Resources::ZERO,
        reserved: Resources::ZERO,
        closed: Vec::new(),
        group_members: 0,
    }
}

/// What fails together with a shard: its failure domain, or itself where it stands alone.
pub(super) fn domain(candidate: &Candidate) -> &str {
    if candidate.failure_domain.is_empty() {
        candidate.name.as_str()
    } else {
        &candidate.failure_domain
    }
}

/// Brings what the placer sees up to date.
pub(super) fn refresh(shard: &Shard, candidate: &mut Candidate, namespaces_max: usize) {
    let Shard { record, observation, .. } = shard;
    let spec = &record.manifest.spec;
    candidate.labels.clone_from(&record.manifest.metadata.labels);
    candidate.taints.clone_from(&spec.taints);
    candidate.region.clone_from(&spec.region);
    candidate.failure_domain.clone_from(&spec.failure_domain);
    let observed = Version::parse(&observation.airflow_version).ok();
    candidate.airflow_version = observed.or_else(|| Version::parse(&spec.airflow_version).ok());
    // What the manifest states, else what the agent says, else what the class has.
    candidate.capacity =
        spec.capacity.or(observation.capacity).or(spec.size.unwrap_or_default().capacity());
    candidate.reserved = shard.reserved.plus(shard.in_flight);
    candidate.closed = closed(record, observation);
    limit_namespaces(shard, candidate, namespaces_max);
}

/// Code of the refusal that [`limit_namespaces`] adds and takes away.
const NAMESPACE_LIMIT: &str = "NAMESPACE_LIMIT";

pub(super) fn limit_namespaces(shard: &Shard, candidate: &mut Candidate, max: usize) {
    let full = shard.namespaces.len() >= max;
    let closed = &mut candidate.closed;
    let told = closed.iter().position(|refusal| refusal.code == NAMESPACE_LIMIT);
    match (full, told) {
        (true, None) => closed.push(Refusal::new(
            NAMESPACE_LIMIT,
            format!("it owns {max} namespaces already; raise placement.max_namespaces_per_shard"),
        )),
        (false, Some(at)) => drop(closed.remove(at)),
        _ => {}
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
        .values()
        .iter()
        .zip(before.capacity.values())
        .any(|(after, before)| *after > before || (*after == 0 && before != 0));
    opened
        || roomier
        || before.labels != after.labels
        || before.taints != after.taints
        || before.region != after.region
        || before.failure_domain != after.failure_domain
        || before.airflow_version != after.airflow_version
}
