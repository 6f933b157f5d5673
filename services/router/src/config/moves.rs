//! Settings of moves.

use std::time::Duration;

use airfleet_domain::moves::Policy;
use airfleet_runtime::config::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How namespaces are moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MovesConfig {
    /// How long a move may wait for its turn and for both ends to be inspected.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub planned: Duration,
    /// How long the target may take to stage. A large history that is sent ahead needs more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub staging: Duration,
    /// How long the source may take to put its fence up. How long it may drain, each move says.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub sealing: Duration,
    /// How long rows may travel while nobody runs the namespace.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub copying: Duration,
    /// How old what an agent found on its shard may be when a move begins.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub inspection_age_max: Duration,
    /// Pause before the second try of a phase. It doubles with each.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub backoff_first: Duration,
    /// Longest pause between tries.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub backoff_max: Duration,
    /// How long a phase without a deadline may take before an alarm is raised.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub alarm_after: Duration,
    /// Moves that have ended and are kept. Count; the oldest are forgotten first.
    pub ended_kept: u32,
    /// Age from which on a move that has ended is forgotten.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub ended_keep: Duration,
    /// Transfers of rows at once, counted in streams: each has two. Beyond it agents come again.
    pub transfer_streams_max: usize,
    /// Messages of a transfer that wait in the router, each way. Each may have 17 MiB.
    pub transfer_waiting: usize,
    /// How long one end of a transfer waits for the other.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub transfer_patience: Duration,
}

impl Default for MovesConfig {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            planned: policy.planned,
            staging: policy.staging,
            sealing: policy.sealing,
            copying: policy.copying,
            inspection_age_max: policy.inspection_age_max,
            backoff_first: policy.backoff_first,
            backoff_max: policy.backoff_max,
            alarm_after: policy.alarm_after,
            ended_kept: 10_000,
            ended_keep: Duration::from_hours(365 * 24),
            transfer_streams_max: 64,
            transfer_waiting: 2,
            transfer_patience: Duration::from_secs(30),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("moves.{setting} {rule}")]
pub struct Invalid {
    /// Its name.
    pub setting: &'static str,
    /// What it has to be.
    pub rule: &'static str,
}

impl MovesConfig {
    /// The first setting with which moves would not work.
    ///
    /// # Errors
    /// Where there is one.
    pub fn check(&self) -> Result<(), Invalid> {
        let second = Duration::from_secs(1);
        let rules = [
            ("planned", self.planned >= second, "must be at least 1s"),
            ("staging", self.staging >= second, "must be at least 1s"),
            ("sealing", self.sealing >= second, "must be at least 1s"),
            ("copying", self.copying >= second, "must be at least 1s"),
            ("inspection_age_max", self.inspection_age_max >= second, "must be at least 1s"),
            (
                "backoff_first",
                self.backoff_first >= Duration::from_millis(10),
                "must be at least 10ms, lest a failing try burdens both shards without a pause",
            ),
            (
                "backoff_max",
                self.backoff_max >= self.backoff_first,
                "must not be below moves.backoff_first",
            ),
            ("ended_kept", self.ended_kept > 0, "must be at least 1: plans look their moves up"),
            (
                "ended_keep",
                self.ended_keep >= Duration::from_hours(1),
                "must be at least 1h: plans look their moves up",
            ),
            (
                "transfer_streams_max",
                self.transfer_streams_max >= 2,
                "must be at least 2: a transfer has two ends",
            ),
            (
                "transfer_waiting",
                (1..=64).contains(&self.transfer_waiting),
                "must be from 1 to 64: each message that waits may have 17 MiB",
            ),
            ("transfer_patience", self.transfer_patience >= second, "must be at least 1s"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((setting, _, rule)) => Err(Invalid { setting, rule }),
            None => Ok(()),
        }
    }

    /// How moves are made, where a source keeps its rows for `retention`.
    pub(crate) fn policy(&self, retention: Duration) -> Policy {
        Policy {
            planned: self.planned,
            staging: self.staging,
            sealing: self.sealing,
            copying: self.copying,
            inspection_age_max: self.inspection_age_max,
            backoff_first: self.backoff_first,
            backoff_max: self.backoff_max,
            alarm_after: self.alarm_after,
            retention,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_work_is_refused_by_name() {
        let usual = MovesConfig::default();
        assert_eq!(usual.check(), Ok(()));
        assert_eq!(usual.policy(Policy::default().retention), Policy::default());
        let refused = [
            ("backoff_max", MovesConfig { backoff_max: Duration::from_millis(1), ..usual.clone() }),
            ("copying", MovesConfig { copying: Duration::ZERO, ..usual.clone() }),
            ("transfer_waiting", MovesConfig { transfer_waiting: 0, ..usual.clone() }),
            ("ended_kept", MovesConfig { ended_kept: 0, ..usual }),
        ];
        for (setting, config) in refused {
            assert_eq!(config.check().unwrap_err().setting, setting);
        }
    }
}
