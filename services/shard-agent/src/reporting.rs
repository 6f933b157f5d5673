//! Observing again and again.

use std::{convert::Infallible, time::Duration};

use airfleet_runtime::{health::Condition, lifecycle::Shutdown};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{link::Outbox, metrics::AgentMetrics, observe::Source, reconcile::Foreign};

/// Bounds of what an agent may be told.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_mins(5);

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
    foreign: Option<Foreign>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut due = Instant::now() + phase(bounded(*interval.borrow_and_update()));
    loop {
        let every = bounded(*interval.borrow());
        let state = tokio::select! {
            state = source.observe((every / 2).min(PATIENCE_MAX)) => state,
            () = shutdown.triggered() => return Ok(()),
        };
        metrics.judged(state.verdict());
        if let Some(foreign) = &foreign {
            foreign.counted(state.unowned_dags);
        }
        outbox.put(state);
        if let Some(condition) = &condition {
            condition.met();
        }
        loop {
            tokio::select! {
                () = sleep_until(due) => break,
                // The sender lives as long as the agent.
                Ok(()) = interval.changed() => {
                    due = Instant::now() + phase(bounded(*interval.borrow_and_update()));
                }
                () = shutdown.triggered() => return Ok(()),
            }
        }
        let every = bounded(*interval.borrow());
        // Whole intervals that were missed are left out, so that the phase stays.
        let missed = due.elapsed().div_duration_f64(every).floor() as u32;
        due += every * missed.saturating_add(1);
    }
}

/// An interval within its bounds.
pub(crate) fn bounded(interval: Duration) -> Duration {
    interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

fn phase(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.0..1.0))
}
