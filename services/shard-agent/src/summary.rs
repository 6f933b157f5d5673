//! One look at a shard, for people and scripts.

use std::fmt::{self, Write as _};

use airfleet_domain::{
    dags::Failure,
    health::{Health, Probe, Signals, Verdict},
    resources::{DIMENSIONS, Resources},
};
use serde::Serialize;

use crate::{
    observe::{Sighting, probe_text},
    report::NamespaceUsage,
};

/// Most namespaces in the table for people, largest first. Scripts get all.
const NAMESPACES_SHOWN: usize = 20;

/// What one look at a shard saw.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The shard's name; may be empty.
    pub shard: String,
    /// The verdict and everything that led to it.
    #[serde(flatten)]
    pub health: Health,
    /// Version of Airflow; empty where it is not known.
    pub airflow_version: String,
    /// Alembic revision of the metadata database; empty where it is not known.
    pub schema_revision: String,
    /// How each probe went, in words.
    pub probes: Vec<ProbeSummary>,
    /// Numbers behind the verdict; none where a probe gave none.
    pub signals: Vec<SignalSummary>,
    /// What the shard uses; none where it could not be read.
    pub usage: Option<Resources>,
    /// What it can take, as far as the agent was told.
    pub capacity: Option<Resources>,
    /// What namespaces use that the router named before.
    pub namespaces: Vec<NamespaceSummary>,
    /// DAGs of no namespace that is known here. Count.
    pub unowned_dags: i64,
}

/// How a probe went.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeSummary {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it answered.
    pub ok: bool,
    /// In words.
    pub outcome: String,
}

/// One number.
#[derive(Debug, Clone, Serialize)]
pub struct SignalSummary {
    /// Which number, with its unit.
    pub name: &'static str,
    /// Its value; none where it is not known.
    pub value: Option<i64>,
}

/// What one namespace uses.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSummary {
    /// The namespace.
    pub namespace: String,
    /// In the dimensions of placement.
    pub usage: Resources,
    /// DAGs that are not paused. Count.
    pub unpaused_dags: i64,
    /// Runs that are queued or running. Count.
    pub active_runs: i64,
    /// Task instances that are not at rest. Count.
    pub active_task_instances: i64,
}

impl Summary {
    pub(crate) fn new(shard: String, sighting: Sighting) -> Self {
        let Sighting { state, signals } = sighting;
        let namespaces = state.namespaces.iter();
        Self {
            shard,
            health: state.health,
            airflow_version: state.airflow_version,
            schema_revision: state.schema_revision,
            probes: [
                ("metadata", &signals.metadata),
                ("broker", &signals.broker),
                ("api", &signals.api),
            ]
            .map(|(name, probe)| ProbeSummary {
                name,
                ok: matches!(probe, Probe::Ok(_)),
                outcome: probe_text(probe),
            })
            .into(),
            signals: signal_list(&signals),
            usage: state.usage,
            capacity: state.capacity,
            namespaces: namespaces.map(|(name, seen)| namespace(name.to_string(), *seen)).collect(),
            unowned_dags: state.unowned_dags,
        }
    }

    /// Adds whether the agent's login at the web server works, by which users change DAGs.
    pub(crate) fn add_login(&mut self, tried: Result<&'static str, Failure>) {
        let (ok, outcome) = match tried {
            Ok(outcome) => (true, outcome.to_owned()),
            Err(failure) => (false, failure.message),
        };
        self.probes.push(ProbeSummary { name: "login", ok, outcome });
    }

    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.health.verdict == Verdict::Healthy
    }
}

fn namespace(namespace: String, seen: NamespaceUsage) -> NamespaceSummary {
    NamespaceSummary {
        namespace,
        usage: seen.usage,
        unpaused_dags: seen.unpaused_dags,
        active_runs: seen.active_runs,
        active_task_instances: seen.active_task_instances,
    }
}

fn signal_list(signals: &Signals) -> Vec<SignalSummary> {
    [
        ("scheduler_heartbeat_age_ms", signals.scheduler_heartbeat_age_ms),
        ("dag_processor_heartbeat_age_ms", signals.dag_processor_heartbeat_age_ms),
        ("triggerer_heartbeat_age_ms", signals.triggerer_heartbeat_age_ms),
        ("live_workers", signals.live_workers),
        ("queued_messages", signals.queued_messages),
        ("unacked_messages", signals.unacked_messages),
        ("scheduling_delay_p95_ms", signals.scheduling_delay_p95_ms),
        ("late_dags", signals.late_dags),
        ("lateness_max_ms", signals.lateness_max_ms),
        ("import_errors", signals.import_errors),
        ("oldest_waiting_ms", signals.oldest_waiting_ms),
        ("failures_last_hour", signals.failures_last_hour),
        ("occupied_slots", signals.occupied_slots),
        ("pool_slots", signals.pool_slots),
    ]
    .map(|(name, value)| SignalSummary { name, value })
    .into()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = if self.shard.is_empty() { "the shard" } else { &self.shard };
        writeln!(f, "{shard} is {}", self.health.verdict.name().to_uppercase())?;
        for reason in &self.health.reasons {
            writeln!(f, "  {:<9} {}: {}", reason.verdict.name(), reason.code, reason.message)?;
        }

        writeln!(f, "\nPROBE     OUTCOME")?;
        for probe in &self.probes {
            writeln!(f, "{:<9} {}", probe.name, probe.outcome)?;
        }
        let known =
            |text: &str| if text.is_empty() { "not known".to_owned() } else { text.to_owned() };
        writeln!(
            f,
            "\nAirflow {}, schema {}",
            known(&self.airflow_version),
            known(&self.schema_revision)
        )?;

        writeln!(f, "\n{:<32} {:>14}", "SIGNAL", "VALUE")?;
        for signal in &self.signals {
            let value = signal.value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            writeln!(f, "{:<32} {value:>14}", signal.name)?;
        }

        if let Some(usage) = self.usage {
            let capacity = self.capacity.unwrap_or_default();
            writeln!(f, "\n{:<32} {:>14} {:>14}", "USAGE", "USED", "CAPACITY")?;
            let amounts = DIMENSIONS.iter().zip(usage.values()).zip(capacity.values());
            for ((name, used), capacity) in amounts {
                let capacity = if capacity == 0 { "-".to_owned() } else { capacity.to_string() };
                writeln!(f, "{name:<32} {used:>14} {capacity:>14}")?;
            }
            self.write_namespaces(f)?;
        }
        Ok(())
    }
}

impl Summary {
    fn write_namespaces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespaces.is_empty() {
            return writeln!(
                f,
                "\n{} DAGs; which namespaces they belong to is known once the router said so",
                self.unowned_dags
            );
        }
        let mut largest: Vec<_> = self.namespaces.iter().collect();
        largest.sort_by_key(|seen| {
            (std::cmp::Reverse(seen.usage.task_starts_per_hour), seen.namespace.as_str())
        });
        let mut table = String::new();
        writeln!(
            table,
            "\n{:<32} {:>6} {:>9} {:>9} {:>7} {:>12} {:>9}",
            "NAMESPACE", "DAGS", "UNPAUSED", "STARTS/H", "SLOTS", "BYTES", "PARSE-MS"
        )?;
        for seen in largest.iter().take(NAMESPACES_SHOWN) {
            let usage = &seen.usage;
            writeln!(
                table,
                "{:<32} {:>6} {:>9} {:>9} {:>7} {:>12} {:>9}",
                seen.namespace,
                usage.dags,
                seen.unpaused_dags,
                usage.task_starts_per_hour,
                usage.running_slots,
                usage.metadata_bytes,
                usage.parse_ms_per_minute
            )?;
        }
        f.write_str(&table)?;
        let more = self.namespaces.len().saturating_sub(NAMESPACES_SHOWN);
        if more > 0 {
            writeln!(f, "and {more} more; -o json shows all")?;
        }
        writeln!(f, "{} DAGs belong to no namespace that is known here", self.unowned_dags)
    }
}
