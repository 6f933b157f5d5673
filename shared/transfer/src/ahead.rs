//! What went ahead of a seal, and what of it is still so.
//!
//! Of each run that went ahead the source remembers one number: the sum of hashes of its rows. Under
//! seal it reads every row again, and takes each from its run's number. Where nothing is left the
//! rows are what they were, and are not sent again; where something is left the run goes once more,
//! whole. What did not go ahead goes now.
//!
//! Nothing rests on it but time. Whatever is sent, the target's rows are read back at the end and
//! compared with all of the source's; where they differ, the next attempt sends everything.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3;

use crate::copy::{Field, Sums, values};

/// Runs that are remembered, at most: 9 MB, and as much again while rows are read under seal. What
/// has more goes under seal as a whole.
const RUNS_MAX: usize = 450_000;

/// Runs that changed since they went ahead, at most. Where more did, everything is sent.
pub(crate) const CHANGED_MAX: usize = 10_000;

/// A run's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunName {
    /// Its DAG.
    pub dag_id: String,
    /// Within its DAG.
    pub run_id: String,
}

/// What went ahead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Of tables that went whole.
    pub(crate) definitions: Sums,
    /// Of each run, by a hash of its name, the sum of hashes of its rows.
    runs: HashMap<u64, u64>,
}

/// Where the name of a run stands in rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameAt {
    dag_id: usize,
    run_id: usize,
}

impl NameAt {
    /// None where rows do not name a run.
    pub(crate) fn of(fields: &[Field]) -> Option<Self> {
        let at = |name: &str| fields.iter().position(|field| field.name == name);
        Some(Self { dag_id: at("dag_id")?, run_id: at("run_id")? })
    }

    /// A hash of the name; none where the row is of no run.
    fn hash(self, row: &[u8]) -> Option<u64> {
        let value = |at| values(row).nth(at).flatten();
        Some(hash(value(self.dag_id)?, value(self.run_id)?))
    }
}

fn hash(dag_id: &[u8], run_id: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(dag_id);
    // Names have no such byte.
    hasher.update(&[0]);
    hasher.update(run_id);
    hasher.digest()
}

impl Ahead {
    /// A row goes ahead, of which this is the hash. False where there are too many runs.
    pub(crate) fn add(&mut self, name: NameAt, row: &[u8], hash: u128) -> bool {
        if let Some(run) = name.hash(row) {
            let sum = self.runs.entry(run).or_default();
            *sum = sum.wrapping_add(hash as u64);
        }
        self.runs.len() <= RUNS_MAX
    }

    /// A row is there, of which this is the hash. Says whether its run went ahead.
    pub(crate) fn take(&mut self, name: NameAt, row: &[u8], hash: u128) -> bool {
        let Some(sum) = name.hash(row).and_then(|run| self.runs.get_mut(&run)) else {
            return false;
        };
        *sum = sum.wrapping_sub(hash as u64);
        true
    }

    /// How many runs are not what they were, once all rows were taken.
    pub(crate) fn changed(&self) -> usize {
        self.runs.values().filter(|left| **left != 0).count()
    }

    /// Whether this is one of them.
    pub(crate) fn has_changed(&self, dag_id: &str, run_id: &str) -> bool {
        let left = self.runs.get(&hash(dag_id.as_bytes(), run_id.as_bytes()));
        left.is_some_and(|left| *left != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: NameAt = NameAt { dag_id: 0, run_id: 1 };

    fn row(dag_id: &str, run_id: Option<&str>) -> Vec<u8> {
        let mut bytes = 2i16.to_be_bytes().to_vec();
        for value in [Some(dag_id), run_id] {
            let length = value.map_or(-1, |value| value.len() as i32);
            bytes.extend(length.to_be_bytes());
            bytes.extend(value.unwrap_or_default().as_bytes());
        }
        bytes
    }

    #[test]
    fn rows_of_no_run_never_went_ahead() {
        let mut ahead = Ahead::default();
        ahead.add(AT, &row("pay.a", None), 1);
        assert!(!ahead.take(AT, &row("pay.a", None), 1));
        assert_eq!(ahead.changed(), 0);
        assert_eq!(NameAt::of(&[Field { name: "ti_id".into(), ty: "uuid".into() }]), None);
    }

    #[test]
    fn a_run_that_is_gone_has_changed() {
        let mut ahead = Ahead::default();
        ahead.add(AT, &row("pay.a", Some("one")), 7);
        assert!(ahead.changed() == 1 && ahead.has_changed("pay.a", "one"));
        assert!(!ahead.has_changed("pay.ao", "ne"));
    }

    proptest! {
        /// Rows in any order; some of them changed, gone or new since.
        #[test]
        fn just_the_runs_of_which_a_row_is_not_what_it_was_are_changed(
            rows in prop::collection::vec((0..3u8, 0..4u8, any::<u128>()), 0..30),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 1..u64::MAX), 0..3),
            turn in any::<prop::sample::Index>(),
        ) {
            let named = |(dag, run, hash): (u8, u8, u128)| (format!("d{dag}"), format!("r{run}"), hash);
            let before: Vec<_> = rows.into_iter().map(named).collect();
            let mut ahead = Ahead::default();
            for (dag_id, run_id, hash) in &before {
                ahead.add(AT, &row(dag_id, Some(run_id)), *hash);
            }
            let mut after = before.clone();
            let mut edited = std::collections::BTreeMap::<(String, String), u64>::new();
            for (at, by) in edits.into_iter().filter(|_| !before.is_empty()) {
                let (dag_id, run_id, hash) = &mut after[at.index(before.len())];
                *hash = hash.wrapping_add(u128::from(by));
                let sum = edited.entry((dag_id.clone(), run_id.clone())).or_default();
                *sum = sum.wrapping_add(by);
            }
            if !after.is_empty() {
                let turn = turn.index(after.len());
                after.rotate_left(turn);
            }
            let mut left = ahead.clone();
            for (dag_id, run_id, hash) in &after {
                prop_assert!(left.take(AT, &row(dag_id, Some(run_id)), *hash));
            }
            prop_assert!(!left.take(AT, &row("d9", Some("r9")), 1));
            edited.retain(|_, by| *by != 0);
            prop_assert_eq!(left.changed(), edited.len());
            let all: std::collections::BTreeSet<_> =
                after.into_iter().map(|(dag_id, run_id, _)| (dag_id, run_id)).collect();
            let changed: Vec<_> =
                all.into_iter().filter(|(dag_id, run_id)| left.has_changed(dag_id, run_id)).collect();
            prop_assert_eq!(changed, edited.into_keys().collect::<Vec<_>>());
        }
    }
}
