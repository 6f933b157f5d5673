//! Observing again and again.

use std::{convert::Infallible, time::Duration};

use airfleet_runtime::{health::Condition, lifecycle::Shutdown};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{link::Outbox, metrics::AgentMetrics, observe::Source};

/// Most that a report waits for the probes.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Observes every interval until shutdown and hands each state to the outbox. The first comes at
/// once, the second after a random part of the interval: agents that started together, or were
/// told their interval together, report spread over it.
pub(crate) async fn keep_reporting(
    mut source: impl Source,
    outbox: Outbox,
    mut interval: watch::Receiver<Duration>,
    metrics: AgentMetrics,
    condition: Option<Condition>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut due = Instant::now() + phase(*interval.borrow_and_update());
    loop {
        let every = *interval.borrow();
        let state = tokio::select! {
            state = source.observe((every / 2).min(PATIENCE_MAX)) => state,
            () = shutdown.triggered() => return Ok(()),
        };
        metrics.judged(state.verdict());
        outbox.put(state);
        if let Some(condition) = &condition {
            condition.met();
        }
        tokio::select! {
            () = sleep_until(due) => {
                let now = Instant::now();
                // Whole intervals that were missed are left out, so that the phase stays.
                let missed = now.duration_since(due).div_duration_f64(every).floor() as u32;
                due += every * (missed + 1);
            }
            // The sender lives as long as the agent.
            Ok(()) = interval.changed() => {
                due = Instant::now() + phase(*interval.borrow_and_update());
                sleep_until(due).await;
                due += *interval.borrow();
            }
            () = shutdown.triggered() => return Ok(()),
        }
    }
}

fn phase(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.0..1.0))
}
