//! What the parts of one node share.

use crate::{
    clock::{SharedClock, SystemClock},
    health::Readiness,
    lifecycle::{Shutdown, Tasks},
    metrics::Metrics,
};

/// One service in a process: its name, time, metrics, readiness and tasks. Clones share them.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the service, such as `router`.
    pub service: &'static str,
    /// What time it is.
    pub clock: SharedClock,
    /// What it counts.
    pub metrics: Metrics,
    /// Whether it can serve.
    pub readiness: Readiness,
    /// What it does, and what stops it.
    pub tasks: Tasks,
}

impl Node {
    /// A node with the machine's clock.
    pub fn new(service: &'static str, shutdown: Shutdown) -> Self {
        Self::with_clock(service, shutdown, SystemClock::shared())
    }

    /// A node with a clock of its own.
    pub fn with_clock(service: &'static str, shutdown: Shutdown, clock: SharedClock) -> Self {
        let metrics = Metrics::new();
        let labels = ["service", "version"];
        metrics
            .gauges("build_info", "What runs here; always 1.", &labels)
            .with_label_values(&[service, env!("CARGO_PKG_VERSION")])
            .set(1);
        Self { service, clock, metrics, readiness: Readiness::new(), tasks: Tasks::new(shutdown) }
    }

    /// What stops it.
    pub fn shutdown(&self) -> &Shutdown {
        self.tasks.shutdown()
    }
}
