//! An Airflow, as far as a move is concerned: its database, its scheduler and its workers.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use airfleet_domain::{
    ids::{Generation, MoveId},
    moves::{
        Mark, Part, Seen, TableSum,
        cursor::{self, Schedule, Tick},
    },
    roles::Role,
};

pub(crate) const SECOND: i64 = 1_000_000;

/// How often each DAG runs.
pub(crate) const INTERVAL: i64 = 10 * SECOND;

/// What the namespace has: name, whether it catches up, whether its users paused it.
pub(crate) const DAGS: [(&str, bool, bool); 3] = [
    ("pay.catches-up", true, false),
    ("pay.latest-only", false, false),
    ("pay.paused", true, true),
];

/// What is durable on a shard: all of it in its metadata database, but for the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    /// The agent's record, in the row that the fence reads.
    pub(crate) record: Record,
    pub(crate) dags: BTreeMap<&'static str, Dag>,
    pub(crate) runs: BTreeMap<(&'static str, i64), Run>,
    /// Files are on the shard: without them nothing parses.
    pub(crate) files: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) seen: Seen,
    pub(crate) move_id: Option<MoveId>,
    /// Denied by default: a shard that was never told anything schedules nothing.
    pub(crate) unfenced: bool,
    pub(crate) reached: Option<(Role, Generation)>,
    /// When it was last able to make runs.
    pub(crate) stopped_at_us: Option<i64>,
    /// That nothing runs was seen twice, a heartbeat between.
    pub(crate) drained: bool,
    pub(crate) marks: Option<Vec<Mark>>,
    /// What was imported, in the transaction that imported it.
    pub(crate) receipt: Option<Receipt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) move_id: MoveId,
    pub(crate) part: Part,
    pub(crate) attempt: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Dag {
    pub(crate) catchup: bool,
    /// As its users left it.
    pub(crate) paused: bool,
    pub(crate) stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Not started.
    Queued,
    /// The scheduler is about to start it: nobody can see that.
    Picked,
    Running,
    Ended,
}

/// Everything that travels.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) dags: BTreeMap<&'static str, Dag>,
    pub(crate) runs: BTreeMap<(&'static str, i64), Run>,
    pub(crate) stopped_at_us: Option<i64>,
}

impl Database {
    /// Whether the scheduler may start something of a DAG.
    fn may_schedule(&self, dag: &Dag) -> bool {
        self.files && self.record.unfenced && !dag.paused && !dag.stale
    }

    /// Whether the namespace is scheduled here.
    pub(crate) fn is_active(&self) -> bool {
        self.dags.values().any(|dag| self.may_schedule(dag))
    }

    fn newest(&self, name: &'static str) -> Option<i64> {
        let all = self.runs.range((name, i64::MIN)..=(name, i64::MAX));
        all.last().map(|((_, date), _)| *date)
    }

    /// The scheduler's loop: makes runs that are due.
    pub(crate) fn make_runs(&mut self, now_us: i64) {
        let due: Vec<_> = self
            .dags
            .iter()
            .filter(|(_, dag)| self.may_schedule(dag))
            .flat_map(|(name, dag)| {
                let newest = self.newest(name);
                let all = ticks(now_us)
                    .into_iter()
                    .filter(move |tick| newest.is_none_or(|newest| tick.logical_date_us > newest));
                let all: Vec<Tick> = all.collect();
                // One that does not catch up makes a run for the latest interval only.
                let from = if dag.catchup { 0 } else { all.len().saturating_sub(1) };
                all[from..].iter().map(|tick| (*name, tick.logical_date_us)).collect::<Vec<_>>()
            })
            .collect();
        self.runs.extend(due.into_iter().map(|run| (run, Run::Queued)));
    }

    /// The scheduler decides to start a task. Nothing locks the DAG meanwhile.
    pub(crate) fn pick(&mut self, chosen: usize) {
        let queued: Vec<_> = self
            .runs
            .iter()
            .filter(|((dag, _), run)| {
                **run == Run::Queued && self.dags.get(dag).is_some_and(|dag| self.may_schedule(dag))
            })
            .map(|(key, _)| *key)
            .collect();
        if !queued.is_empty() {
            self.runs.insert(queued[chosen % queued.len()], Run::Picked);
        }
    }

    /// The scheduler beats: what it had picked is started. Answers what.
    pub(crate) fn beat(&mut self) -> Vec<(&'static str, i64)> {
        let picked = self.runs.iter_mut().filter(|(_, run)| **run == Run::Picked);
        picked
            .map(|(key, run)| {
                *run = Run::Running;
                *key
            })
            .collect()
    }

    /// Workers finish something.
    pub(crate) fn finish(&mut self, chosen: usize) {
        let mut running: Vec<_> =
            self.runs.values_mut().filter(|run| **run == Run::Running).collect();
        let count = running.len();
        if count > 0 {
            *running[chosen % count] = Run::Ended;
        }
    }

    pub(crate) fn running(&self) -> i64 {
        self.runs.values().filter(|run| **run == Run::Running).count() as i64
    }

    pub(crate) fn marks(&self) -> Vec<Mark> {
        let mark = |(name, dag): (&&'static str, &Dag)| {
            let runs = self.runs.range((*name, i64::MIN)..=(*name, i64::MAX));
            Mark {
                dag_id: (*name).into(),
                newest_logical_date_us: self.newest(name),
                runs: runs.clone().count() as i64,
                unfinished_runs: runs.filter(|(_, run)| **run != Run::Ended).count() as i64,
                paused: dag.paused,
            }
        };
        self.dags.iter().map(mark).collect()
    }

    pub(crate) fn tables(&self) -> Vec<TableSum> {
        let mut hasher = std::hash::DefaultHasher::new();
        for (key, run) in &self.runs {
            // What was picked looks queued.
            (key, *run == Run::Ended).hash(&mut hasher);
        }
        let checksum = format!("{:x}", hasher.finish()).into();
        vec![TableSum { table: "dag_run".into(), rows: self.runs.len() as i64, checksum }]
    }

    pub(crate) fn rows(&self) -> Rows {
        let unseen = |run: &Run| if *run == Run::Picked { Run::Queued } else { *run };
        Rows {
            dags: self.dags.clone(),
            runs: self.runs.iter().map(|(key, run)| (*key, unseen(run))).collect(),
            stopped_at_us: self.record.stopped_at_us,
        }
    }

    /// Inserts the runs that came due while the namespace could not make them. Answers how many.
    pub(crate) fn make_up(&mut self, now_us: i64) -> u64 {
        let Some(stopped_at_us) = self.record.stopped_at_us else { return 0 };
        let missing: Vec<_> = self
            .dags
            .iter()
            .flat_map(|(name, dag)| {
                let schedule = Schedule {
                    paused: dag.paused,
                    catchup: dag.catchup,
                    newest_logical_date_us: self.newest(name),
                };
                let missing = cursor::missing(schedule, &ticks(now_us), stopped_at_us, now_us);
                missing.into_iter().map(|tick| (*name, tick.logical_date_us)).collect::<Vec<_>>()
            })
            .collect();
        let count = missing.len() as u64;
        self.runs.extend(missing.into_iter().map(|run| (run, Run::Queued)));
        count
    }
}

/// What has come due until now.
pub(crate) fn ticks(now_us: i64) -> Vec<Tick> {
    let tick = |n| Tick { logical_date_us: n * INTERVAL, run_after_us: (n + 1) * INTERVAL };
    (0..now_us / INTERVAL).map(tick).collect()
}
