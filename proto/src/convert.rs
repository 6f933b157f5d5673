//! Between the wire and the domain, in one place for the services and clients that need both.
//!
//! Inwards, `TryFrom` names the field that cannot be read; whether the values make sense is the
//! domain's own validation to say. Outwards, `From` never fails. What only the registry knows of
//! an entry (uid, etag, revision, times) is left unset here.

pub mod dags;
mod workload;

use airfleet_domain::{
    health,
    labels::{Operator, Requirement, Taint, Toleration},
    manifest::{Entry, Metadata, Namespace, NamespaceSpec, Placement, Shard, ShardSpec, Size},
    resources::Resources,
};
use prost_types::Timestamp;

pub use self::workload::role;
use self::workload::{all, sparse};

use crate::{common::v1 as common, registry::v1 as registry};

/// A field whose value the domain has no word for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Path in the message, such as `placement.selector[0].operator`.
    pub field: String,
    /// What is wrong and what is right.
    pub message: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Unreadable {}

/// A moment in microseconds since 1970-01-01 UTC, as the wire has it.
pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: micros.rem_euclid(1_000_000) as i32 * 1000,
    }
}

/// A moment of the wire in microseconds since 1970-01-01 UTC; what is less than one is cut off.
pub fn micros(at: &Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1000)
}

impl From<common::Resources> for Resources {
    fn from(wire: common::Resources) -> Self {
        Self {
            dags: wire.dags,
            task_starts_per_hour: wire.task_starts_per_hour,
            running_slots: wire.running_slots,
            metadata_bytes: wire.metadata_bytes,
            parse_ms_per_minute: wire.parse_ms_per_minute,
        }
    }
}

impl From<Resources> for common::Resources {
    fn from(amounts: Resources) -> Self {
        Self {
            dags: amounts.dags,
            task_starts_per_hour: amounts.task_starts_per_hour,
            running_slots: amounts.running_slots,
            metadata_bytes: amounts.metadata_bytes,
            parse_ms_per_minute: amounts.parse_ms_per_minute,
        }
    }
}

/// Reads a list of requirements; `field` is the path of the list, for errors.
pub fn requirements(
    field: &str,
    wire: Vec<common::SelectorRequirement>,
) -> Result<Vec<Requirement>, Unreadable> {
    let one = |(index, wire): (usize, common::SelectorRequirement)| {
        use common::SelectorOperator as Wire;
        let operator = match wire.operator() {
            Wire::In => Operator::In,
            Wire::NotIn => Operator::NotIn,
            Wire::Exists => Operator::Exists,
            Wire::DoesNotExist => Operator::DoesNotExist,
            Wire::Unspecified => {
                return Err(Unreadable {
                    field: format!("{field}[{index}].operator"),
                    message: "must be IN, NOT_IN, EXISTS or DOES_NOT_EXIST".into(),
                });
            }
        };
        Ok(Requirement { key: wire.key, operator, values: wire.values })
    };
    wire.into_iter().enumerate().map(one).collect()
}

impl From<Requirement> for common::SelectorRequirement {
    fn from(requirement: Requirement) -> Self {
        use common::SelectorOperator as Wire;
        let operator = match requirement.operator {
            Operator::In => Wire::In,
            Operator::NotIn => Wire::NotIn,
            Operator::Exists => Wire::Exists,
            Operator::DoesNotExist => Wire::DoesNotExist,
        };
        Self { key: requirement.key, operator: operator.into(), values: requirement.values }
    }
}

impl TryFrom<registry::Namespace> for Namespace {
    type Error = Unreadable;

    fn try_from(wire: registry::Namespace) -> Result<Self, Unreadable> {
        let drift = wire.drift().into();
        let placement = wire.placement.unwrap_or_default();
        let tolerations = placement.tolerations.into_iter();
        Ok(Self {
            metadata: Metadata {
                name: wire.name,
                labels: wire.labels.into_iter().collect(),
                description: wire.description,
            },
            spec: NamespaceSpec {
                owners: wire.owners,
                prefixes: wire.prefixes,
                demand: wire.demand.map(Into::into).unwrap_or_default(),
                placement: Placement {
                    selector: requirements("placement.selector", placement.selector)?,
                    tolerations: tolerations
                        .map(|t| Toleration { key: t.key, value: t.value })
                        .collect(),
                    airflow_version: placement.airflow_version,
                    region: placement.region,
                    spread_group: placement.spread_group,
                },
                guardrails: wire.guardrails.map(Into::into).unwrap_or_default(),
                source: wire.source.map(Into::into),
                pools: all(wire.pools),
                variables: all(wire.variables),
                connections: all(wire.connections),
                retention: wire.retention.map(Into::into),
                drift,
            },
        })
    }
}

impl From<Namespace> for registry::Namespace {
    fn from(Namespace { metadata, spec }: Namespace) -> Self {
        let placement = (!spec.placement.is_empty()).then(|| registry::PlacementRules {
            selector: spec.placement.selector.into_iter().map(Into::into).collect(),
            tolerations: spec
                .placement
                .tolerations
                .into_iter()
                .map(|t| common::Toleration { key: t.key, value: t.value })
                .collect(),
            airflow_version: spec.placement.airflow_version,
            region: spec.placement.region,
            spread_group: spec.placement.spread_group,
        });
        Self {
            name: metadata.name,
            labels: metadata.labels.into_iter().collect(),
            description: metadata.description,
            owners: spec.owners,
            prefixes: spec.prefixes,
            demand: (!spec.demand.is_zero()).then(|| spec.demand.into()),
            placement,
            guardrails: (!spec.guardrails.is_empty()).then(|| spec.guardrails.into()),
            source: spec.source.map(Into::into),
            pools: all(spec.pools),
            variables: all(spec.variables),
            connections: all(spec.connections),
            retention: spec.retention.map(Into::into),
            drift: sparse(spec.drift),
            ..Self::default()
        }
    }
}

impl TryFrom<registry::Shard> for Shard {
    type Error = Unreadable;

    fn try_from(wire: registry::Shard) -> Result<Self, Unreadable> {
        let size = match wire.size.as_str() {
            "" => None,
            name => Some(Size::from_name(name).ok_or_else(|| Unreadable {
                field: "size".into(),
                message: format!("must be one of {}", Size::ALL.map(|(_, name)| name).join(", ")),
            })?),
        };
        Ok(Self {
            metadata: Metadata {
                name: wire.name,
                labels: wire.labels.into_iter().collect(),
                description: wire.description,
            },
            spec: ShardSpec {
                region: wire.region,
                failure_domain: wire.failure_domain,
                taints: wire
                    .taints
                    .into_iter()
                    .map(|t| Taint { key: t.key, value: t.value })
                    .collect(),
                airflow_version: wire.airflow_version,
                size,
                capacity: wire.capacity.map(Into::into).unwrap_or_default(),
                url: wire.url,
            },
        })
    }
}

impl From<Shard> for registry::Shard {
    fn from(Shard { metadata, spec }: Shard) -> Self {
        Self {
            name: metadata.name,
            labels: metadata.labels.into_iter().collect(),
            description: metadata.description,
            region: spec.region,
            failure_domain: spec.failure_domain,
            taints: spec
                .taints
                .into_iter()
                .map(|t| common::Taint { key: t.key, value: t.value })
                .collect(),
            airflow_version: spec.airflow_version,
            size: spec.size.map(|s| s.name().to_owned()).unwrap_or_default(),
            capacity: (!spec.capacity.is_zero()).then(|| spec.capacity.into()),
            url: spec.url,
            ..Self::default()
        }
    }
}

impl TryFrom<registry::ManifestEntry> for Entry {
    type Error = Unreadable;

    fn try_from(wire: registry::ManifestEntry) -> Result<Self, Unreadable> {
        use registry::manifest_entry::Kind;
        match wire.kind {
            Some(Kind::Namespace(namespace)) => Ok(Entry::Namespace(namespace.try_into()?)),
            Some(Kind::Shard(shard)) => Ok(Entry::Shard(shard.try_into()?)),
            None => Err(Unreadable {
                field: "kind".into(),
                message: "must be a namespace or a shard".into(),
            }),
        }
    }
}

impl From<Entry> for registry::ManifestEntry {
    fn from(entry: Entry) -> Self {
        use registry::manifest_entry::Kind;
        Self {
            kind: Some(match entry {
                Entry::Namespace(namespace) => Kind::Namespace(namespace.into()),
                Entry::Shard(shard) => Kind::Shard(shard.into()),
            }),
        }
    }
}

impl From<health::Verdict> for common::Verdict {
    fn from(verdict: health::Verdict) -> Self {
        match verdict {
            health::Verdict::Healthy => Self::Healthy,
            health::Verdict::Degraded => Self::Degraded,
            health::Verdict::Unknown => Self::Unknown,
            health::Verdict::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<common::Verdict> for health::Verdict {
    /// A verdict that this version does not know is unknown.
    fn from(verdict: common::Verdict) -> Self {
        match verdict {
            common::Verdict::Healthy => Self::Healthy,
            common::Verdict::Degraded => Self::Degraded,
            common::Verdict::Unhealthy => Self::Unhealthy,
            common::Verdict::Unknown | common::Verdict::Unspecified => Self::Unknown,
        }
    }
}

/// Most reasons that are sent with a verdict.
const REASONS_MAX: usize = 32;

impl From<health::Health> for common::Health {
    /// Leaves `observe_time` unset: the sender knows it.
    fn from(health: health::Health) -> Self {
        let reasons = health.reasons.into_iter().take(REASONS_MAX).map(|r| common::HealthReason {
            code: r.code,
            verdict: common::Verdict::from(r.verdict).into(),
            message: r.message,
            observed: r.observed,
            threshold: r.threshold,
            unit: r.unit,
        });
        Self {
            verdict: common::Verdict::from(health.verdict).into(),
            reasons: reasons.collect(),
            observe_time: None,
        }
    }
}

impl From<common::Health> for health::Health {
    fn from(wire: common::Health) -> Self {
        let verdict = wire.verdict().into();
        let reasons = wire.reasons.into_iter().take(REASONS_MAX).map(|r| health::Reason {
            verdict: r.verdict().into(),
            code: r.code,
            message: r.message,
            observed: r.observed,
            threshold: r.threshold,
            unit: r.unit,
        });
        Self { verdict, reasons: reasons.collect() }
    }
}

#[cfg(test)]
mod tests {
    use airfleet_domain::manifest;

    use super::*;

    const EVERYTHING: &str = r"
apiVersion: airfleet.dev/v1
kind: Namespace
metadata: {name: payments, labels: {tier: gold}, description: pays}
spec:
  owners: [team]
  prefixes: [payments__]
  demand: {dags: 1, taskStartsPerHour: 2, runningSlots: 3, metadataBytes: 4, parseMsPerMinute: 5}
  placement:
    selector: [{key: a, operator: NotIn, values: [b]}, {key: c, operator: Exists}]
    tolerations: [{key: gpu, value: only}]
    airflowVersion: '>=3'
    region: eu
    spreadGroup: core
  guardrails:
    mode: warn
    modes: {AF107: enforce}
    queues: [q]
    pools: [p]
    kubernetesNamespaces: [k]
    kubernetesClusters: [c]
    operators: {allow: [PythonOperator], deny: [BashOperator]}
    executionTimeout: {defaultSeconds: 60, maxSeconds: 3600}
    retries: {default: 0, max: 3}
    maxActiveRuns: {max: 4}
    requiredTags: [t]
    allowedOwners: [o]
  source: {uri: 'git+https://git.example.net/x', ref: main, path: dags}
  pools: [{name: payments_pool, slots: 8, description: d, includeDeferred: true}]
  variables: [{key: region, secret: region}, {key: elsewhere}]
  connections: [{id: warehouse, secret: warehouse}]
  retention: {keepDays: 90, schedule: 0 3 * * *}
  drift: warn
---
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-a, labels: {tier: gold}, description: big}
spec:
  region: eu
  failureDomain: eu-1
  taints: [{key: gpu, value: only}]
  airflowVersion: 3.3.2
  size: 2xlarge
  capacity: {dags: 9}
  url: https://airflow.example.net
";

    #[test]
    fn entries_come_back_from_the_wire_as_they_went() {
        let entries = manifest::parse(EVERYTHING).unwrap();
        assert_eq!(entries.len(), 2);
        for located in entries {
            let wire = registry::ManifestEntry::from(located.entry.clone());
            assert_eq!(Entry::try_from(wire).unwrap(), located.entry);
            if let Entry::Namespace(namespace) = &located.entry {
                let workload = namespace.spec.workload();
                let wire = crate::agent::v1::Workload::from(workload.clone());
                assert_eq!(manifest::Workload::from(wire), workload);
            }
        }
    }

    #[test]
    fn what_the_domain_has_no_word_for_is_named() {
        let shard = registry::Shard { size: "huge".into(), ..Default::default() };
        assert_eq!(Shard::try_from(shard).unwrap_err().field, "size");
        let unspecified = vec![common::SelectorRequirement::default()];
        let error = requirements("selector", unspecified).unwrap_err();
        assert_eq!(error.field, "selector[0].operator");
    }
}
