//! How long a move may take, and how it is tried again.

use std::time::Duration;

use super::{Move, Phase, RunningTasks};

/// How long each phase may take, and how it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// To be inspected and get its turn.
    pub planned: Duration,
    /// To stage.
    pub staging: Duration,
    /// To put the fence up.
    pub sealing: Duration,
    /// To copy and agree.
    pub copying: Duration,
    /// How old an inspection may be.
    pub inspection_age_max: Duration,
    /// Pause before the second try.
    pub backoff_first: Duration,
    /// Longest pause between tries.
    pub backoff_max: Duration,
    /// How long a phase without a deadline may take before an alarm is raised.
    pub alarm_after: Duration,
    /// How long the source keeps its rows after the move.
    pub retention: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            planned: Duration::from_hours(1),
            staging: Duration::from_mins(15),
            sealing: Duration::from_mins(2),
            copying: Duration::from_mins(30),
            inspection_age_max: Duration::from_secs(30),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
            alarm_after: Duration::from_mins(5),
            retention: Duration::from_hours(7 * 24),
        }
    }
}

impl Policy {
    /// How long a phase may take before the move is aborted; none where it may not be.
    pub(super) fn deadline(&self, phase: Phase, running: RunningTasks) -> Option<Duration> {
        match phase {
            Phase::Planned => Some(self.planned),
            Phase::Staging => Some(self.staging),
            Phase::Quiescing => match running {
                RunningTasks::Wait { at_most } => Some(at_most),
                // Whether something runs is known as soon as the source has paused everything.
                RunningTasks::Abort => Some(self.sealing),
            },
            Phase::Sealing => Some(self.sealing),
            Phase::Copying => Some(self.copying),
            _ => None,
        }
    }

    /// Pause after the `attempt`th try, counted from 1: twice the one before, up to the longest,
    /// less a random part of up to a half, so that what failed together does not return together.
    pub fn backoff(&self, attempt: u32, seed: u64) -> Duration {
        let doubled = 2u32.saturating_pow(attempt.saturating_sub(1).min(16));
        let full = self.backoff_first.saturating_mul(doubled).min(self.backoff_max);
        // 1024 steps are fine enough for what is only to be spread.
        let part = (mix(seed ^ u64::from(attempt)) % 1024) as u32;
        full.saturating_sub(full / 2 / 1024 * part)
    }

    /// Whether somebody should look at a move that may only go on.
    pub fn is_alarming(&self, row: &Move, now_us: i64) -> bool {
        let endless = !row.phase.is_final() && row.deadline_at_us.is_none();
        endless && now_us - row.phase_began_at_us > micros(self.alarm_after)
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): spreads every bit of its input.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
