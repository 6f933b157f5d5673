//! What the registry counts.

use std::time::Instant;

use airfleet_runtime::metrics::{LATENCY_BUCKETS, Metrics as Registry};
use airfleet_runtime::status::{Failure, Kind};
use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use crate::store::{Action, Head, Outcome, Store};

/// The numbers of one registry. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    namespaces: IntGauge,
    shards: IntGauge,
    revision: IntGauge,
    writes: IntCounterVec,
    store_seconds: HistogramVec,
    /// Time since the store last said which revision it is at.
    pub(crate) store_age: Gauge,
    /// Watches that are open.
    pub(crate) watchers: IntGauge,
    /// Snapshots that were begun for watchers.
    pub(crate) snapshots: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            namespaces: registry.gauge("registry_namespaces", "Namespaces in the manifest."),
            shards: registry.gauge("registry_shards", "Shards in the manifest."),
            revision: registry.gauge("registry_revision", "Revision of the manifest."),
            writes: registry.counters(
                "registry_writes_total",
                "Changes asked for, by what became of them.",
                &["method", "result"],
            ),
            store_seconds: registry.histograms(
                "registry_store_duration_seconds",
                "Time that the store took.",
                &["operation"],
                LATENCY_BUCKETS,
            ),
            store_age: registry.float_gauge(
                "registry_store_age_seconds",
                "Time since the store last said which revision it is at.",
            ),
            watchers: registry.gauge("registry_watchers", "Watches of the manifest that are open."),
            snapshots: registry.counter(
                "registry_watch_snapshots_total",
                "Snapshots of the manifest that were begun for watchers.",
            ),
        }
    }

    /// Adds what the database itself counts.
    pub(crate) fn follow(registry: &Registry, store: &std::sync::Arc<Store>) {
        let retries = registry.gauge(
            "registry_store_write_retries",
            "Transactions since the start that lost against another writer and were run again.",
        );
        let store = std::sync::Arc::downgrade(store);
        registry.before_render(move || {
            if let Some(store) = store.upgrade() {
                retries.set(store.counters().write_retries as i64);
            }
        });
    }

    /// Where the store stands.
    pub(crate) fn head(&self, head: &Head) {
        self.namespaces.set(head.namespaces);
        self.shards.set(head.shards);
        self.revision.set(head.revision.0);
    }

    /// Measures how long the store takes.
    pub(crate) async fn timed<T>(&self, operation: &str, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = work.await;
        let seconds = started.elapsed().as_secs_f64();
        self.store_seconds.with_label_values(&[operation]).observe(seconds);
        answer
    }

    /// A change was asked for.
    pub(crate) fn written(&self, method: &str, dry_run: bool, result: &Result<Outcome, Failure>) {
        let result = match result {
            Ok(_) if dry_run => "validated",
            Ok(outcome) if outcome.replayed => "repeated",
            Ok(outcome) if outcome.items.iter().all(|i| i.action == Action::Unchanged) => {
                "unchanged"
            }
            Ok(_) => "changed",
            Err(failure) => match failure.kind() {
                Kind::Unavailable => "unavailable",
                Kind::Internal => "failed",
                Kind::Conflict => "conflict",
                _ => "refused",
            },
        };
        self.writes.with_label_values(&[method, result]).inc();
    }
}
