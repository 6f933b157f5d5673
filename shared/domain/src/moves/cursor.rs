//! Which runs a shard has to make up for when it starts to run a namespace after a pause.
//!
//! What a schedule goes on from is the newest automated run, not the planned next one, which every
//! parse computes anew. From there Airflow finds its own way where the DAG catches up. Where it
//! does not, it makes a run for the latest interval only: everything that came due while the
//! namespace was between shards would be lost without a trace, and has to be inserted.
//!
//! The rule must not invent runs either: what came due before the pause and was not created then,
//! but for the latest, Airflow had skipped for reasons of its own.

/// A time at which a schedule makes a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick {
    /// Logical date of the run. Microseconds since 1970-01-01 UTC.
    pub logical_date_us: i64,
    /// When it comes due: the end of its interval. Microseconds since 1970-01-01 UTC.
    pub run_after_us: i64,
}

/// What is to be known of a DAG's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Whether its users paused it.
    pub paused: bool,
    /// Whether it makes up for missed runs by itself.
    pub catchup: bool,
    /// Logical date of its newest automated run; none where it has none.
    pub newest_logical_date_us: Option<i64>,
}

/// The ticks for which runs have to be inserted before the DAG is started again, in order.
///
/// `ticks` are those of its schedule after its newest run, in order; `stopped_at_us` is when it was
/// last able to make runs, `now_us` when it is able to again.
pub fn missing(schedule: Schedule, ticks: &[Tick], stopped_at_us: i64, now_us: i64) -> Vec<Tick> {
    if schedule.paused || schedule.catchup {
        return Vec::new();
    }
    let after = |tick: &&Tick| {
        schedule.newest_logical_date_us.is_none_or(|newest| tick.logical_date_us > newest)
    };
    let due: Vec<Tick> =
        ticks.iter().filter(after).filter(|tick| tick.run_after_us <= now_us).copied().collect();
    let during = due.partition_point(|tick| tick.run_after_us <= stopped_at_us);
    // The one that was due when it stopped was about to be made.
    let from = during.saturating_sub(1);
    due[from..].to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticks(from: i64, to: i64) -> Vec<Tick> {
        (from..to).map(|n| Tick { logical_date_us: n * 60, run_after_us: (n + 1) * 60 }).collect()
    }

    fn dates(found: &[Tick]) -> Vec<i64> {
        found.iter().map(|tick| tick.logical_date_us / 60).collect()
    }

    const PLAIN: Schedule =
        Schedule { paused: false, catchup: false, newest_logical_date_us: Some(4 * 60) };

    #[test]
    fn what_came_due_in_between_is_made_up_for() {
        // Stopped at 5:30, so that the run of 4 is there; back at 8:10, when 5, 6 and 7 are due.
        assert_eq!(dates(&missing(PLAIN, &ticks(0, 20), 330, 490)), [5, 6, 7]);
        assert_eq!(dates(&missing(PLAIN, &ticks(0, 20), 330, 359)), [] as [i64; 0]);
    }

    #[test]
    fn what_was_due_as_it_stopped_is_made_up_for_but_not_what_was_skipped_before() {
        // The shard was late: stopped at 8:30 and still without 5, 6 and 7.
        assert_eq!(dates(&missing(PLAIN, &ticks(0, 20), 510, 610)), [7, 8, 9]);
    }

    #[test]
    fn a_paused_dag_and_one_that_catches_up_need_nothing() {
        let paused = Schedule { paused: true, ..PLAIN };
        let catchup = Schedule { catchup: true, ..PLAIN };
        assert!(missing(paused, &ticks(0, 20), 330, 490).is_empty());
        assert!(missing(catchup, &ticks(0, 20), 330, 490).is_empty());
    }

    #[test]
    fn a_dag_that_never_ran_starts_with_what_was_due_as_it_stopped() {
        let new = Schedule { newest_logical_date_us: None, ..PLAIN };
        assert_eq!(dates(&missing(new, &ticks(0, 20), 330, 490)), [4, 5, 6, 7]);
    }

    proptest! {
        /// Inserted or there already: doing it twice inserts nothing twice, and nothing between the
        /// first that is inserted and now is left out.
        #[test]
        fn it_is_complete_and_idempotent(newest in 0i64..50, stopped in 0i64..4000, away in 0i64..4000) {
            let schedule = Schedule { newest_logical_date_us: Some(newest * 60), ..PLAIN };
            let all = ticks(0, 200);
            let now = stopped + away;
            let found = missing(schedule, &all, stopped, now);
            let due = all.iter().filter(|tick| tick.run_after_us <= now);
            for tick in due.filter(|tick| tick.run_after_us > stopped && tick.logical_date_us > newest * 60) {
                prop_assert!(found.contains(tick));
            }
            prop_assert!(found.iter().all(|tick| tick.logical_date_us > newest * 60 && tick.run_after_us <= now));
            prop_assert!(found.is_sorted());
            if let Some(last) = found.last() {
                let again = Schedule { newest_logical_date_us: Some(last.logical_date_us), ..PLAIN };
                prop_assert!(missing(again, &all, stopped, now).is_empty());
            }
        }
    }
}
