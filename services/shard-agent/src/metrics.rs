//! What the agent counts of itself.

use std::{sync::Arc, time::Duration};

use airfleet_domain::health::{Probe, Verdict};
use airfleet_runtime::metrics::{LATENCY_BUCKETS, Metrics};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::probe::Observe;

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
