//! What came of a move: for each DAG what was expected on the target, and what was found there.
//!
//! Expected is what the source had as it was sealed, and what was inserted because it came due while
//! nobody could make runs. Found is what the target had in the transaction that let it run. Both
//! ends count by themselves; nobody compares what it wrote with what it wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Evidence, History, Mark, Move};

/// DAGs that a proof names, at most. Those that differ come first.
const LINES_MAX: usize = 1_000;

/// What came of a move.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proof {
    /// DAGs. Count.
    pub dags: i64,
    /// DAGs of which something else was found than expected. Count; 0 where the proof holds.
    pub differing: i64,
    /// Runs that the source had as it was sealed. Count.
    pub runs_expected: i64,
    /// Runs that the target had as it was let run, those inserted included. Count.
    pub runs_found: i64,
    /// Runs that came due meanwhile and were inserted. Count.
    pub runs_inserted: i64,
    /// Each DAG; at most 1,000, those that differ first.
    pub lines: Vec<Line>,
}

/// What came of one DAG.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Line {
    /// The DAG.
    pub dag_id: Box<str>,
    /// Runs on the source. Count.
    pub runs_expected: i64,
    /// Runs on the target. Count.
    pub runs_found: i64,
    /// Runs that came due meanwhile and were inserted. Count.
    pub runs_inserted: i64,
    /// Logical date of the newest automated run on the source. Microseconds since 1970-01-01 UTC.
    pub newest_expected_us: Option<i64>,
    /// The same on the target.
    pub newest_found_us: Option<i64>,
    /// Whether something else was found than expected.
    pub differs: bool,
}

impl Proof {
    /// Whether everything was found that was expected, and nothing else.
    pub fn holds(&self) -> bool {
        self.differing == 0
    }

    /// What the target says of a move whose source said where it came to; none where either has not.
    pub(super) fn of(row: &Move, target: &Evidence) -> Option<Self> {
        let expected = row.sealed.as_deref()?;
        let found = target.start_marks.as_deref()?;
        let mut inserted: BTreeMap<&str, i64> = BTreeMap::new();
        for (dag, count) in target.inserted.iter() {
            *inserted.entry(dag).or_default() += count;
        }
        Some(Self::compare(expected, found, &inserted, row.options.history))
    }

    fn compare(
        expected: &[Mark],
        found: &[Mark],
        inserted: &BTreeMap<&str, i64>,
        history: History,
    ) -> Self {
        let mut both: BTreeMap<&str, (Option<&Mark>, Option<&Mark>)> = BTreeMap::new();
        for mark in expected {
            both.entry(&mark.dag_id).or_default().0 = Some(mark);
        }
        for mark in found {
            both.entry(&mark.dag_id).or_default().1 = Some(mark);
        }
        let mut proof = Self { dags: both.len() as i64, ..Self::default() };
        for (dag_id, (from, to)) in both {
            let runs = |mark: Option<&Mark>| mark.map_or(0, |mark| mark.runs);
            let newest = |mark: Option<&Mark>| mark.and_then(|mark| mark.newest_logical_date_us);
            let made = inserted.get(dag_id).copied().unwrap_or(0);
            let line = Line {
                dag_id: dag_id.into(),
                runs_expected: runs(from),
                runs_found: runs(to),
                runs_inserted: made,
                newest_expected_us: newest(from),
                newest_found_us: newest(to),
                differs: match (from, to) {
                    (Some(from), Some(to)) => differs(from, to, made, history),
                    _ => true,
                },
            };
            proof.runs_expected += line.runs_expected;
            proof.runs_found += line.runs_found;
            proof.runs_inserted += line.runs_inserted;
            proof.differing += i64::from(line.differs);
            proof.lines.push(line);
        }
        proof.lines.sort_by_key(|line| !line.differs);
        proof.lines.truncate(LINES_MAX);
        proof
    }
}

fn differs(from: &Mark, to: &Mark, inserted: i64, history: History) -> bool {
    let newest_is_kept = if inserted == 0 {
        from.newest_logical_date_us == to.newest_logical_date_us
    } else {
        to.newest_logical_date_us > from.newest_logical_date_us
    };
    // Where not all runs go along, their number says nothing.
    let all_are_there = history == History::Minimal || to.runs == from.runs + inserted;
    !(newest_is_kept
        && all_are_there
        && from.paused == to.paused
        && to.unfinished_runs == from.unfinished_runs + inserted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(dag: &str, runs: i64, newest: i64) -> Mark {
        Mark {
            dag_id: dag.into(),
            newest_logical_date_us: Some(newest),
            runs,
            unfinished_runs: 0,
            paused: false,
        }
    }

    fn compare(expected: &[Mark], found: &[Mark], inserted: &[(&'static str, i64)]) -> Proof {
        let inserted = inserted.iter().copied().collect();
        Proof::compare(expected, found, &inserted, History::Full)
    }

    #[test]
    fn it_holds_where_all_is_there_and_what_came_due_was_inserted() {
        let source = [mark("a", 3, 30), mark("b", 5, 50)];
        assert!(compare(&source, &source, &[]).holds());
        let later = Mark { unfinished_runs: 2, ..mark("a", 5, 50) };
        let proof = compare(&source, &[later, mark("b", 5, 50)], &[("a", 2)]);
        assert!(proof.holds(), "{proof:?}");
        assert_eq!((proof.runs_expected, proof.runs_found, proof.runs_inserted), (8, 10, 2));
    }

    #[test]
    fn whatever_is_missing_or_too_much_is_named_first() {
        let source = [mark("a", 3, 30), mark("b", 5, 50)];
        let wrong = [
            vec![mark("a", 3, 30), mark("b", 4, 50)],
            vec![mark("a", 3, 30), mark("b", 6, 50)],
            vec![mark("a", 3, 30), mark("b", 5, 49)],
            vec![mark("a", 3, 30), Mark { paused: true, ..mark("b", 5, 50) }],
            vec![mark("a", 3, 30)],
            vec![mark("a", 3, 30), mark("b", 5, 50), mark("c", 1, 1)],
        ];
        for found in wrong {
            let proof = compare(&source, &found, &[]);
            assert_eq!((proof.differing, proof.holds()), (1, false), "{found:?}");
            assert_ne!(&*proof.lines[0].dag_id, "a");
        }
        // Said to be inserted, and not there.
        assert!(!compare(&source, &source, &[("a", 1)]).holds());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_differs() {
        let source: Vec<_> = (0..3_000).map(|n| mark(&format!("d{n:04}"), 1, 1)).collect();
        let mut found = source.clone();
        found[2_999].runs = 0;
        let proof = compare(&source, &found, &[]);
        assert_eq!((proof.dags, proof.differing, proof.lines.len()), (3_000, 1, LINES_MAX));
        assert_eq!(&*proof.lines[0].dag_id, "d2999");
    }
}
