//! Amounts in the dimensions in which an Airflow shard fills up.
//!
//! Integers only: the same input gives the same answer on every machine. Sums saturate, so that
//! absurd input gives a large number and never an overflow.

use serde::{Deserialize, Serialize};

/// Names of the dimensions, in the order of [`Resources::values`]; also label values of metrics.
pub const DIMENSIONS: [&str; 5] =
    ["dags", "task_starts_per_hour", "running_slots", "metadata_bytes", "parse_ms_per_minute"];

/// An amount in each dimension: a demand, a usage or a capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// DAGs that are not stale. Count.
    #[serde(skip_serializing_if = "is_zero")]
    pub dags: i64,
    /// Task instances started. Count an hour.
    #[serde(skip_serializing_if = "is_zero")]
    pub task_starts_per_hour: i64,
    /// Pool slots running or queued at the peak. Count.
    #[serde(skip_serializing_if = "is_zero")]
    pub running_slots: i64,
    /// Rows in the metadata database. Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub metadata_bytes: i64,
    /// Time the DAG processor spends on parsing. Milliseconds a minute.
    #[serde(skip_serializing_if = "is_zero")]
    pub parse_ms_per_minute: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Resources {
    /// Nothing in any dimension.
    pub const ZERO: Resources = Resources {
        dags: 0,
        task_starts_per_hour: 0,
        running_slots: 0,
        metadata_bytes: 0,
        parse_ms_per_minute: 0,
    };

    /// The amounts in the order of [`DIMENSIONS`].
    pub fn values(&self) -> [i64; 5] {
        [
            self.dags,
            self.task_starts_per_hour,
            self.running_slots,
            self.metadata_bytes,
            self.parse_ms_per_minute,
        ]
    }

    /// From amounts in the order of [`DIMENSIONS`].
    pub fn from_values(values: [i64; 5]) -> Self {
        let [dags, task_starts_per_hour, running_slots, metadata_bytes, parse_ms_per_minute] =
            values;
        Self { dags, task_starts_per_hour, running_slots, metadata_bytes, parse_ms_per_minute }
    }

    fn zip(self, other: Self, f: impl Fn(i64, i64) -> i64) -> Self {
        let (a, b) = (self.values(), other.values());
        Self::from_values(std::array::from_fn(|i| f(a[i], b[i])))
    }

    /// Sum in each dimension, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_add)
    }

    /// Difference in each dimension, saturating; may be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_sub)
    }

    /// The larger in each dimension.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, i64::max)
    }

    /// Each dimension of `self`, or of `fallback` where it is zero.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        self.zip(fallback, |own, other| if own == 0 { other } else { own })
    }

    /// Whether every dimension is zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate() {
        let most = Resources::from_values([i64::MAX; 5]);
        assert_eq!(most.plus(most), most);
        assert_eq!(Resources::ZERO.minus(most).minus(most).values(), [i64::MIN; 5]);
    }

    #[test]
    fn own_numbers_win_over_the_fallback() {
        let own = Resources { dags: 7, ..Resources::ZERO };
        let class = Resources { dags: 50, running_slots: 5, ..Resources::ZERO };
        assert_eq!(own.or(class), Resources { dags: 7, running_slots: 5, ..Resources::ZERO });
    }
}
