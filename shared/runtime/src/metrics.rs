//! The numbers that a node tells on `/metrics`.
//!
//! One registry a node, handed to whoever counts something: two nodes in one process do not mix.
//! Metrics are Prometheus' own and pulled; nothing is pushed over OTLP, which carries traces only.
//! Every collector of metrics can scrape this format, and a counter is one atomic addition.
//!
//! Invariant: names begin with `airfleet_`, and no label has a value that a caller chose.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// Buckets for the time that answering takes, from 50 µs to 10 s. Seconds.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// What every name begins with.
const PREFIX: &str = "airfleet";

/// The metrics of one node. Clones share them.
///
/// The constructors take a name without `airfleet_` and panic if it is taken or malformed: metrics
/// are registered once, when a node starts.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    registry: Registry,
    hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").field(&self.registry).finish()
    }
}

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Has `hook` run before the metrics are rendered, to set gauges from what is known elsewhere.
    /// It must not block.
    pub fn before_render(&self, hook: impl Fn() + Send + 'static) {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// Adds a collector, such as one that computes its values when it is scraped.
    pub fn register<C: Collector + 'static>(&self, collector: C) {
        let names: Vec<_> =
            collector.desc().iter().map(|description| description.fq_name.clone()).collect();
        if let Err(error) = self.0.registry.register(Box::new(collector)) {
            panic!("the metrics {names:?} cannot be registered: {error}");
        }
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)), name)
    }

    /// A counter for each combination of labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(name, help), labels), name)
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(opts(name, help)), name)
    }

    /// A whole number for each combination of labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(opts(name, help), labels), name)
    }

    /// A number, such as seconds, that goes up and down.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.keep(Gauge::with_opts(opts(name, help)), name)
    }

    /// A number for each combination of labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(opts(name, help), labels), name)
    }

    /// A distribution over `buckets`.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(opts), name)
    }

    /// A distribution over `buckets` for each combination of labels.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels), name)
    }

    /// All of it as Prometheus reads it.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        for hook in &*self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner) {
            hook();
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn keep<C: Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
        name: &str,
    ) -> C {
        match made {
            Ok(collector) => {
                self.register(collector.clone());
                collector
            }
            Err(error) => panic!("the metric {name:?} cannot be made: {error}"),
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_nodes_do_not_mix() {
        let (one, two) = (Metrics::new(), Metrics::new());
        let counter = one.counter("moves_total", "Moves.");
        two.counter("moves_total", "Moves.");
        one.gauges("load", "Load.", &["shard"]).with_label_values(&["a"]).set(3);
        counter.inc();
        let text = one.render().unwrap();
        assert!(text.contains("airfleet_moves_total 1\n"), "{text}");
        assert!(text.contains("airfleet_load{shard=\"a\"} 3\n"), "{text}");
        assert!(two.render().unwrap().contains("airfleet_moves_total 0\n"));
    }

    #[test]
    #[should_panic(expected = "airfleet_x_total")]
    fn a_name_is_used_once() {
        let metrics = Metrics::new();
        metrics.counter("x_total", "X.");
        metrics.counter("x_total", "X.");
    }
}
