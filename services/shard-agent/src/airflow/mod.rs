//! What an Airflow says of itself: its metadata database and its web server.
//!
//! Responsible for reading facts per DAG and for the shard as a whole. [`Reader`] gives them in
//! three portions by what they cost: [`Pulse`] for every report, [`Activity`] of the last hour
//! every minute, [`Sizes`] every few minutes.
//!
//! Invariant: nothing is written, no statement runs longer than its timeout, and a schema that is
//! not known is refused, never guessed. It must not know namespaces: rows are grouped by dag_id,
//! and whose DAG it is is decided elsewhere.
//!
//! The tables that are read, for a database role that may read no others: `alembic_version`, `dag`,
//! `dag_code`, `dag_run`, `import_error`, `job`, `log`, `rendered_task_instance_fields`,
//! `serialized_dag`, `slot_pool`, `task_instance`, `task_instance_history` and `xcom`. Of the last
//! few only rows are counted; tables that hold secrets are never touched.

pub mod api;
mod dialect;
pub mod fence;
pub mod metadata;
pub(crate) mod objects;
pub(crate) mod rest;
mod session;

use std::{collections::HashMap, time::Duration};

use airfleet_runtime::config::ConnectionUrl;

use self::{
    dialect::{DAGS_MAX, Line, Queries, REVISION, Schema},
    session::{Row, Session, Snapshot},
};

/// Why a metadata database gave no answer. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the URL of a database that can be read.
    #[error("{0} is no metadata database that can be read; write postgres://… or sqlite://…")]
    Url(String),
    /// The schema is one that nobody has looked at.
    #[error("the metadata database has the alembic revision {0:?}, which this agent does not know")]
    UnknownRevision(String),
    /// There is a database, but no Airflow in it.
    #[error("the database has no table alembic_version; is it Airflow's, and migrated?")]
    NotAirflow,
    /// More DAGs than one Airflow can have.
    #[error("the metadata database has more than {DAGS_MAX} DAGs")]
    TooManyDags,
    /// The database refused or failed.
    #[error("cannot {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
}

impl Error {
    fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// Whether it is about a schema that this version does not know, and not about a failure.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownRevision(_) | Self::NotAirflow)
    }
}

/// What one DAG does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DagPulse {
    /// Whether the DAG processor still finds it. What is not listed has only rows left.
    pub listed: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Runs that are queued or running. Count.
    pub active_runs: i64,
    /// Task instances that are scheduled, queued, running, restarting or deferred. Count.
    pub active_task_instances: i64,
    /// Pool slots that they occupy. Count.
    pub occupied_slots: i64,
}

/// What is read for every report. Ages in milliseconds, never negative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Alembic revision.
    pub revision: &'static str,
    /// Age of the youngest heartbeat of a scheduler that runs.
    pub scheduler_heartbeat_age_ms: Option<i64>,
    /// Age of the youngest heartbeat of what parses DAGs: in Airflow 2 the scheduler, unless a
    /// DAG processor runs beside it.
    pub dag_processor_heartbeat_age_ms: Option<i64>,
    /// Age of the youngest heartbeat of a triggerer that runs.
    pub triggerer_heartbeat_age_ms: Option<i64>,
    /// DAGs that are listed or active.
    pub dags: HashMap<Box<str>, DagPulse>,
    /// DAGs that are due but have no run yet. Count.
    pub late_dags: i64,
    /// How late the latest of them is.
    pub lateness_max_ms: i64,
    /// Age of the oldest task instance that is queued or scheduled; 0 where none is.
    pub oldest_waiting_ms: i64,
    /// DAG files that do not import. Count.
    pub import_errors: i64,
    /// Slots of all pools; `None` where one has no limit. Count.
    pub pool_slots: Option<i64>,
}

/// What one DAG did in the last hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DagActivity {
    /// Task instances started. Count.
    pub task_starts: i64,
    /// Time to parse it as often as its file is parsed. Microseconds a minute.
    pub parse_us_per_minute: i64,
}

/// What is read every minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// DAGs with something to tell.
    pub dags: HashMap<Box<str>, DagActivity>,
    /// Tries of task instances that failed in the last hour. Count.
    pub failures: i64,
    /// 95th percentile of the time from scheduled to started (Airflow 2: from queued to started);
    /// `None` where nothing started. Milliseconds.
    pub scheduling_delay_p95_ms: Option<i64>,
}

/// What is read every few minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All of Airflow's tables with their indexes. Bytes.
    pub total_bytes: i64,
    /// The part of it that belongs to a DAG. Bytes.
    pub dags: HashMap<Box<str>, i64>,
}

/// Reads a metadata database over one connection.
#[derive(Debug)]
pub struct Reader {
    session: Session,
}

impl Reader {
    /// A reader that connects when it is first used. No statement runs longer than `timeout`.
    pub fn new(url: &ConnectionUrl, timeout: Duration) -> Result<Self, Error> {
        Ok(Self { session: Session::new(url, timeout)? })
    }

    /// What each report tells. May be dropped at any time.
    pub async fn pulse(&mut self) -> Result<Pulse, Error> {
        let (mut snapshot, queries, revision) = open(&mut self.session).await?;
        let pulse = pulse(&mut snapshot, queries, revision).await?;
        snapshot.finish().await?;
        Ok(pulse)
    }

    /// What happened in the last hour. `file_interval` is how often Airflow parses a DAG file.
    pub async fn activity(&mut self, file_interval: Duration) -> Result<Activity, Error> {
        let (mut snapshot, queries, _) = open(&mut self.session).await?;
        let activity = activity(&mut snapshot, queries, file_interval).await?;
        snapshot.finish().await?;
        Ok(activity)
    }

    /// What fills the database.
    pub async fn sizes(&mut self) -> Result<Sizes, Error> {
        let (mut snapshot, queries, _) = open(&mut self.session).await?;
        let sizes = sizes(&mut snapshot, queries).await?;
        snapshot.finish().await?;
        Ok(sizes)
    }
}

/// Begins a snapshot of a database whose schema is known. It is looked up each time: a schema may
/// be migrated while the agent runs.
async fn open(session: &mut Session) -> Result<(Snapshot<'_>, Queries, &'static str), Error> {
    let engine = session.engine();
    let mut snapshot = session.snapshot().await?;
    let found: Vec<(String,)> = match snapshot.rows(REVISION).await {
        Ok(rows) => rows,
        Err(error) if is_missing_table(&error) => {
            snapshot.close().await;
            return Err(Error::NotAirflow);
        }
        Err(source) => return Err(Error::Database { doing: "read the alembic revision", source }),
    };
    let Some((revision,)) = found.first() else {
        snapshot.close().await;
        return Err(Error::NotAirflow);
    };
    // Two rows are a migration with two heads, which Airflow has never had.
    match (Schema::of(revision), found.len()) {
        (Some(schema), 1) => Ok((snapshot, Queries { engine, line: schema.line }, schema.revision)),
        _ => {
            let all: Vec<_> = found.iter().map(|(revision,)| revision.as_str()).collect();
            let error = Error::UnknownRevision(all.join(", "));
            snapshot.close().await;
            Err(error)
        }
    }
}

fn is_missing_table(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    // PostgreSQL's undefined_table; SQLite has one code for everything.
    error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
}

async fn read<T: Row>(
    snapshot: &mut Snapshot<'_>,
    doing: &'static str,
    sql: &str,
) -> Result<Vec<T>, Error> {
    let rows = snapshot.rows(sql).await.map_err(Error::database(doing))?;
    if rows.len() > DAGS_MAX { Err(Error::TooManyDags) } else { Ok(rows) }
}

async fn pulse(
    snapshot: &mut Snapshot<'_>,
    queries: Queries,
    revision: &'static str,
) -> Result<Pulse, Error> {
    let mut pulse = Pulse { revision, ..Pulse::default() };

    let beats: Vec<(String, Option<i64>)> =
        read(snapshot, "read heartbeats", &queries.heartbeats()).await?;
    for (job, age) in beats {
        let age = age.map(|age| age.max(0));
        match job.as_str() {
            "SchedulerJob" => pulse.scheduler_heartbeat_age_ms = age,
            "DagProcessorJob" => pulse.dag_processor_heartbeat_age_ms = age,
            _ => pulse.triggerer_heartbeat_age_ms = age,
        }
    }
    if queries.line == Line::Two && pulse.dag_processor_heartbeat_age_ms.is_none() {
        pulse.dag_processor_heartbeat_age_ms = pulse.scheduler_heartbeat_age_ms;
    }

    let dags: Vec<(String, i64, Option<i64>)> =
        read(snapshot, "read DAGs", &queries.dags()).await?;
    pulse.dags.reserve(dags.len());
    for (dag_id, paused, late_ms) in dags {
        if let Some(late_ms) = late_ms {
            pulse.late_dags += 1;
            pulse.lateness_max_ms = pulse.lateness_max_ms.max(late_ms);
        }
        let dag = DagPulse { listed: true, paused: paused != 0, ..DagPulse::default() };
        pulse.dags.insert(dag_id.into(), dag);
    }

    let active: Vec<(String, i64, i64, Option<i64>)> =
        read(snapshot, "read active task instances", &queries.active_task_instances()).await?;
    for (dag_id, count, slots, waiting_ms) in active {
        let dag = pulse.dags.entry(dag_id.into()).or_default();
        dag.active_task_instances = count;
        dag.occupied_slots = slots;
        pulse.oldest_waiting_ms = pulse.oldest_waiting_ms.max(waiting_ms.unwrap_or(0));
    }

    let runs: Vec<(String, i64)> =
        read(snapshot, "read active runs", &Queries::active_runs()).await?;
    for (dag_id, count) in runs {
        pulse.dags.entry(dag_id.into()).or_default().active_runs = count;
    }

    let totals: Vec<(i64, Option<i64>)> =
        read(snapshot, "read import errors and pools", Queries::totals()).await?;
    for (import_errors, slots) in totals {
        pulse.import_errors = import_errors;
        pulse.pool_slots = slots.filter(|slots| *slots >= 0);
    }
    Ok(pulse)
}

async fn activity(
    snapshot: &mut Snapshot<'_>,
    queries: Queries,
    file_interval: Duration,
) -> Result<Activity, Error> {
    let mut activity = Activity::default();
    let mut all_starts = 0;
    let starts: Vec<(String, i64, i64)> =
        read(snapshot, "read task starts", &queries.starts()).await?;
    for (dag_id, starts, failures) in starts {
        all_starts += starts;
        activity.failures += failures;
        if starts > 0 {
            activity.dags.entry(dag_id.into()).or_default().task_starts = starts;
        }
    }
    if all_starts > 0 {
        let delays: Vec<(i64,)> =
            read(snapshot, "read scheduling delays", &queries.delays(all_starts)).await?;
        let delays = delays.into_iter().map(|(delay,)| delay).collect();
        activity.scheduling_delay_p95_ms = percentile(delays, 95);
    }
    if let Some(sql) = queries.parse_durations() {
        let durations: Vec<(String, i64, i64)> =
            read(snapshot, "read parse durations", &sql).await?;
        for (dag_id, file_us, share_us) in durations {
            let dag = activity.dags.entry(dag_id.into()).or_default();
            dag.parse_us_per_minute = per_minute(share_us, file_us, file_interval);
        }
    }
    Ok(activity)
}

/// Time spent a minute on something that takes `share_us` of each parse of a file, which takes
/// `file_us` and begins every `interval`, or as soon as it ended where it takes longer.
fn per_minute(share_us: i64, file_us: i64, interval: Duration) -> i64 {
    let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    let period = i128::from(interval_us.max(file_us).max(1));
    i64::try_from(i128::from(share_us.max(0)) * 60_000_000 / period).unwrap_or(i64::MAX)
}

/// The value that `percent` of all are not above.
fn percentile(mut values: Vec<i64>, percent: usize) -> Option<i64> {
    let last = values.len().checked_sub(1)?;
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1).min(last);
    Some(*values.select_nth_unstable(index).1)
}

async fn sizes(snapshot: &mut Snapshot<'_>, queries: Queries) -> Result<Sizes, Error> {
    let tables: Vec<(String, i64, i64)> =
        read(snapshot, "read table sizes", queries.table_sizes()).await?;
    let mut sizes = Sizes {
        total_bytes: tables.iter().map(|(_, total, _)| *total).fold(0, i64::saturating_add),
        dags: HashMap::new(),
    };
    for weighed in queries.weighed_tables() {
        let Some((_, total, rows)) = tables.iter().find(|(name, ..)| name == weighed) else {
            continue;
        };
        let counts: Vec<(Option<String>, i64)> =
            read(snapshot, "weigh tables", &queries.rows_by_dag(weighed, *rows)).await?;
        let all: i128 = counts.iter().map(|(_, count)| i128::from(*count)).sum();
        for (dag_id, count) in counts {
            let share = i128::from(*total) * i128::from(count) / all.max(1);
            if let Some(dag_id) = dag_id {
                let bytes = sizes.dags.entry(dag_id.into()).or_default();
                *bytes = bytes.saturating_add(i64::try_from(share).unwrap_or(i64::MAX));
            }
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        assert_eq!(percentile(vec![], 95), None);
        assert_eq!(percentile(vec![7], 95), Some(7));
        assert_eq!(percentile((1..=100).rev().collect(), 95), Some(95));
        assert_eq!(percentile((1..=10).collect(), 95), Some(10));
    }

    #[test]
    fn a_file_is_parsed_again_only_when_it_was_parsed() {
        let interval = Duration::from_secs(30);
        assert_eq!(per_minute(1_500_000, 1_500_000, interval), 3_000_000);
        // Half of a file that takes two minutes: half of every minute.
        assert_eq!(per_minute(60_000_000, 120_000_000, interval), 30_000_000);
        assert_eq!(per_minute(i64::MAX, 1, Duration::ZERO), i64::MAX);
    }
}
