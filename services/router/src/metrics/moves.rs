//! What is counted of moves.

use airfleet_domain::moves::{Move, Phase};
use airfleet_runtime::metrics::Metrics as Registry;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Metrics;

/// Seconds: a move of a small namespace is dark for a few, a large one for minutes.
const BLACKOUT_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

#[derive(Debug)]
pub(super) struct MoveMetrics {
    ended: IntCounterVec,
    blackout: Histogram,
    rows: IntCounter,
    unproven: IntCounter,
}

impl MoveMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let ended = registry.counters(
            "router_moves_ended_total",
            "Moves that ended, by phase: done or aborted.",
            &["phase"],
        );
        for phase in [Phase::Done, Phase::Aborted] {
            ended.with_label_values(&[phase.name()]);
        }
        Self {
            ended,
            blackout: registry.histogram(
                "router_move_blackout_seconds",
                "From when a source could last make runs to when its target could, of moves whose \
                 agents told both.",
                &BLACKOUT_BUCKETS,
            ),
            rows: registry.counter(
                "router_move_rows_total",
                "Rows that targets had taken in when they became owners.",
            ),
            unproven: registry.counter(
                "router_move_unproven_total",
                "Moves whose target had other runs than were expected.",
            ),
        }
    }
}

impl Metrics {
    /// A change of a move was committed; `rows` is what its target took in.
    pub(crate) fn moved(&self, before: Option<&Move>, after: &Move, rows: u64) {
        let counts = &self.moves;
        let was = before.filter(|before| before.id == after.id).map(|before| before.phase);
        if was == Some(after.phase) {
            return;
        }
        match after.phase {
            Phase::Flipped => counts.rows.inc_by(rows),
            Phase::Retiring => {
                if let Some(dark_us) = after.blackout_us(after.phase_began_at_us) {
                    counts.blackout.observe(dark_us as f64 / 1e6);
                }
                let unproven = after.proof.as_deref().is_some_and(|proof| !proof.holds());
                counts.unproven.inc_by(u64::from(unproven));
            }
            phase @ (Phase::Done | Phase::Aborted) => {
                counts.ended.with_label_values(&[phase.name()]).inc();
            }
            _ => {}
        }
    }
}
