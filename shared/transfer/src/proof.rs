//! What runs a shard has of a namespace, as little data, so that two shards can be compared: every
//! scheduled run exists once over the fleet.
//!
//! Must not know which runs there should be: that is in [`crate::cursor`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Catalog, Database, Error, Scope};

/// Automated runs of a DAG: their logical dates in microseconds since 1970-01-01 UTC, as stretches
/// of equal steps. A minutely DAG of a year is one stretch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// In order of their first dates; they do not overlap.
    pub stretches: Vec<Stretch>,
}

/// Dates at equal steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first date.
    pub from_us: i64,
    /// Between two. 0 where there is but one.
    pub step_us: i64,
    /// How many.
    pub count: i64,
}

/// Runs of each DAG, by dag_id.
pub type Proof = BTreeMap<String, Runs>;

/// How two shards' runs, taken together, differ from what there should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Runs that nobody has.
    pub missing: Vec<(String, i64)>,
    /// Runs that only the source has: made after it had stopped, or not copied.
    pub only_source: Vec<(String, i64)>,
}

impl Runs {
    /// From dates in order.
    pub fn of(dates: impl IntoIterator<Item = i64>) -> Self {
        let mut stretches: Vec<Stretch> = Vec::new();
        for date in dates {
            if let Some(last) = stretches.last_mut() {
                let gap = date - last.last_us();
                if last.count == 1 || gap == last.step_us {
                    last.step_us = gap;
                    last.count += 1;
                    continue;
                }
            }
            stretches.push(Stretch { from_us: date, step_us: 0, count: 1 });
        }
        Self { stretches }
    }

    /// The dates in order.
    pub fn dates(&self) -> impl Iterator<Item = i64> + '_ {
        self.stretches
            .iter()
            .flat_map(|stretch| (0..stretch.count).map(|n| stretch.from_us + n * stretch.step_us))
    }

    /// How many. Count.
    pub fn count(&self) -> i64 {
        self.stretches.iter().map(|stretch| stretch.count).sum()
    }
}

impl Stretch {
    fn last_us(&self) -> i64 {
        self.from_us + (self.count - 1) * self.step_us
    }
}

/// What a shard has.
pub async fn read(database: &Database, catalog: &Catalog, scope: &Scope) -> Result<Proof, Error> {
    let mut tx = database.snapshot().await?;
    let sql = format!(
        "SELECT CAST(r.dag_id AS text), \
           array_agg(CAST(extract(epoch FROM r.logical_date) * 1000000 AS bigint) ORDER BY r.logical_date) \
         FROM {{schema}}.dag_run r WHERE r.logical_date IS NOT NULL \
           AND r.run_type IN ('scheduled', 'backfill') AND {} GROUP BY r.dag_id",
        scope.of("r.dag_id", catalog.schema.by_bytes)
    );
    let rows: Vec<(String, Vec<i64>)> = tx.rows("read runs", &catalog.render(&sql)).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(|(dag_id, dates)| (dag_id, Runs::of(dates))).collect())
}

/// Compares what both ends have with what there should be. `expected` are the dates that schedules
/// have up to now; with the full history, the target must have whatever the source has.
pub fn compare(source: &Proof, target: &Proof, expected: &Proof) -> Verdict {
    let mut verdict = Verdict::default();
    let has = |proof: &Proof, dag_id: &str| -> std::collections::BTreeSet<i64> {
        proof.get(dag_id).map(|runs| runs.dates().collect()).unwrap_or_default()
    };
    for (dag_id, runs) in source {
        let there = has(target, dag_id);
        let lost = runs.dates().filter(|date| !there.contains(date));
        verdict.only_source.extend(lost.map(|date| (dag_id.clone(), date)));
    }
    for (dag_id, runs) in expected {
        let (one, other) = (has(source, dag_id), has(target, dag_id));
        let lost = runs.dates().filter(|date| !one.contains(date) && !other.contains(date));
        verdict.missing.extend(lost.map(|date| (dag_id.clone(), date)));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minutely_dag_of_a_year_is_one_stretch() {
        let runs = Runs::of((0..525_600).map(|n| n * 60_000_000));
        assert_eq!((runs.stretches.len(), runs.count()), (1, 525_600));
    }

    #[test]
    fn what_is_missing_and_what_was_left_is_told() {
        let proof =
            |dates: &[i64]| Proof::from([("pay__a".to_owned(), Runs::of(dates.iter().copied()))]);
        let verdict = compare(&proof(&[1, 2, 4]), &proof(&[1, 2, 5]), &proof(&[1, 2, 3, 4, 5]));
        assert_eq!(verdict.missing, [("pay__a".to_owned(), 3)]);
        assert_eq!(verdict.only_source, [("pay__a".to_owned(), 4)]);
    }

    proptest! {
        #[test]
        fn dates_come_back_as_they_were(dates in prop::collection::btree_set(any::<i32>(), 0..40)) {
            let dates: Vec<i64> = dates.into_iter().map(i64::from).collect();
            let runs = Runs::of(dates.iter().copied());
            prop_assert_eq!(runs.count(), dates.len() as i64);
            prop_assert_eq!(runs.dates().collect::<Vec<_>>(), dates);
        }
    }
}
