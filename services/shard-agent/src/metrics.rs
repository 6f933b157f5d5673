//! What the agent counts of itself.

use std::{sync::Arc, time::Duration};

use airfleet_domain::health::{Probe, Verdict};
use airfleet_runtime::metrics::{LATENCY_BUCKETS, Metrics};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::probe::Observe;

/// Buckets for the time that it takes to reach a role. Seconds.
const ROLE_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The agent's own metrics. Clones share them; all simulated agents of a process share one.
#[derive(Clone, Debug)]
pub(crate) struct AgentMetrics {
    probe_seconds: HistogramVec,
    probe_failures: IntCounterVec,
    reports: IntCounterVec,
    /// Streams to a router that welcomed the agent.
    pub(crate) connected: IntGauge,
    /// Times that a stream was asked for.
    pub(crate) connects: IntCounter,
    verdict: IntGaugeVec,
    /// Events that no router kept in time.
    pub(crate) events_dropped: IntCounter,
    /// Namespaces by what became of the last look at them.
    pub(crate) namespaces: IntGaugeVec,
    /// Passes over a namespace, by their end.
    pub(crate) passes: IntCounterVec,
    /// Time from an order to the role being reached.
    pub(crate) role_seconds: HistogramVec,
}

impl AgentMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            probe_seconds: metrics.histograms(
                "agent_probe_seconds",
                "Time that a look at a part of the shard took, successful or not.",
                &["probe"],
                LATENCY_BUCKETS,
            ),
            probe_failures: metrics.counters(
                "agent_probe_failures_total",
                "Looks at a part of the shard that saw nothing.",
                &["probe"],
            ),
            reports: metrics.counters(
                "agent_reports_total",
                "Reports handed to the stream: all of it (full) or what changed.",
                &["kind"],
            ),
            connected: metrics
                .gauge("agent_connected", "Streams to a router that took the agent in."),
            connects: metrics
                .counter("agent_connects_total", "Attempts to open a stream to a router."),
            verdict: metrics.gauges(
                "agent_verdict",
                "1 for the last verdict on the shard, 0 for the others.",
                &["verdict"],
            ),
            events_dropped: metrics.counter(
                "agent_events_dropped_total",
                "Events that were dropped because no router kept them in time.",
            ),
            namespaces: metrics.gauges(
                "agent_namespaces",
                "Namespaces of the shard: settled, on their way, or blocked by an obstacle.",
                &["state"],
            ),
            passes: metrics.counters(
                "agent_passes_total",
                "Passes over a namespace: settled, waiting, or the code of what was in the way.",
                &["result"],
            ),
            role_seconds: metrics.histograms(
                "agent_role_seconds",
                "Time from an order to a role being reached.",
                &["role"],
                ROLE_BUCKETS,
            ),
        }
    }

    /// Counts the looks of one probe.
    pub(crate) fn probe(&self, name: &'static str) -> Observe {
        let seconds = self.probe_seconds.with_label_values(&[name]);
        let failures = self.probe_failures.with_label_values(&[name]);
        Arc::new(move |probe: &Probe, took: Duration| {
            seconds.observe(took.as_secs_f64());
            if !matches!(probe, Probe::Ok(_)) {
                failures.inc();
            }
        })
    }

    pub(crate) fn reported(&self, full: bool) {
        self.reports.with_label_values(&[if full { "full" } else { "changes" }]).inc();
    }

    pub(crate) fn judged(&self, verdict: Verdict) {
        for candidate in Verdict::ALL {
            let value = i64::from(candidate == verdict);
            self.verdict.with_label_values(&[candidate.name()]).set(value);
        }
    }
}
