//! What still runs of a namespace, and what goes along although it was about to.
//!
//! A paused DAG starts nothing new, but what a worker may start at any moment still runs. Nothing
//! found once proves little: a scheduler may have been about to queue a task. It is looked twice, and
//! every scheduler that lives has to have beaten in between ([`Look::confirms`]).
//!
//! Pausing is not all. Once a minute a scheduler goes through the running runs of paused DAGs and
//! ends those whose tasks have ended, or fails tasks that can no longer run
//! (`_update_dag_run_state_for_paused_dags`): a run that was copied as running would end on both
//! shards, with its callbacks. It passes over runs that it has taken no decision on, so that is what
//! they are made ([`hold`]), and the confirmation begins only then.

use airfleet_domain::{
    moves::{Drain, Seen},
    roles::Role,
};
use sqlx::PgConnection;

use crate::{Catalog, Database, Error, Scope, database, order};

/// A scheduler that has not beaten for so long queues nothing any more: twice what Airflow takes for
/// its end (`scheduler_health_check_threshold`, 30 s), after which others take its tasks. Seconds.
const SCHEDULER_DEAD_AFTER: i64 = 60;

/// What was found at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// What runs; never confirmed by one look alone.
    pub drain: Drain,
    /// Task instances that are to be queued next. They stop where they are once the DAG is paused.
    /// Count.
    pub scheduled: i64,
    /// Task instances that wait to be tried again. They go along. Count.
    pub up_for_retry: i64,
    /// Running runs that a scheduler may still end, although their DAGs are paused. Count.
    pub decided: i64,
    /// The latest heartbeat of the scheduler that has not beaten for longest, of those that live; none
    /// where none lives. Microseconds since 1970-01-01 UTC.
    pub scheduler_beat_us: Option<i64>,
    /// When it was looked, by the database's clock. Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
}

impl Look {
    /// Whether this look and an earlier one prove that nothing runs: both found nothing, and since
    /// the earlier one each scheduler has gone through its loop, or none lives that could.
    pub fn confirms(&self, earlier: &Look) -> bool {
        let beaten = self.scheduler_beat_us.is_none_or(|beat| beat > earlier.at_us);
        self.is_quiet() && earlier.is_quiet() && self.at_us > earlier.at_us && beaten
    }

    /// Whether nothing was found that changes anything.
    pub fn is_quiet(&self) -> bool {
        self.drain.is_idle() && self.decided == 0
    }
}

/// Looks at what runs.
pub async fn look(database: &Database, catalog: &Catalog, scope: &Scope) -> Result<Look, Error> {
    let mut tx = database.snapshot().await?;
    let look = look_in(&mut tx.connection, catalog, scope).await?;
    tx.commit().await?;
    Ok(look)
}

/// The same in a transaction of the caller.
pub async fn look_in(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<Look, Error> {
    type Row = (i64, i64, i64, i64, i64, i64, Option<i64>, i64);
    let of = scope.of("t.dag_id", catalog.schema.by_bytes);
    let of_runs = scope.of("r.dag_id", catalog.schema.by_bytes);
    // By the index on states: few are active, however many there are.
    let sql = format!(
        "SELECT count(*) FILTER (WHERE t.state IN ('running', 'restarting')), \
           count(*) FILTER (WHERE t.state = 'queued'), count(*) FILTER (WHERE t.state = 'deferred'), \
           count(*) FILTER (WHERE t.state = 'scheduled'), \
           count(*) FILTER (WHERE t.state = 'up_for_retry'), \
           (SELECT count(*) FROM {{schema}}.dag_run r WHERE r.state = 'running' \
              AND r.last_scheduling_decision IS NOT NULL AND {of_runs}), \
           (SELECT CAST(extract(epoch FROM min(j.latest_heartbeat)) * 1000000 AS bigint) \
            FROM {{schema}}.job j WHERE j.job_type = 'SchedulerJob' AND j.state = 'running' \
              AND j.latest_heartbeat > now() - interval '{SCHEDULER_DEAD_AFTER} seconds'), \
           CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) \
         FROM {{schema}}.task_instance t WHERE t.state IN ('running', 'restarting', 'queued', \
           'deferred', 'scheduled', 'up_for_retry') AND {of}"
    );
    let rows: Vec<Row> =
        database::rows(connection, "look at what runs", &catalog.render(&sql)).await?;
    let (running, queued, deferred, scheduled, up_for_retry, decided, scheduler_beat_us, at_us) =
        rows.first().copied().unwrap_or_default();
    let drain = Drain { running, queued, deferred, confirmed: false };
    Ok(Look { drain, scheduled, up_for_retry, decided, scheduler_beat_us, at_us })
}

/// Keeps schedulers from ending the namespace's running runs while their DAGs are paused. Returns how
/// many it could have. Whoever lifts the fence finds them as runs that wait for their turn.
///
/// To be called with the fence closed and no task running. A scheduler that looked at a run before
/// may still end it, or take its decision again: what confirms that nothing runs comes after.
pub async fn hold(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
    place: Seen,
) -> Result<i64, Error> {
    order::check(connection, catalog, scope, place, &[Role::Quiesced, Role::Sealed]).await?;
    order::check_fenced(connection, catalog, scope).await?;
    let of = scope.of("r.dag_id", catalog.schema.by_bytes);
    let sql = format!(
        "UPDATE {{schema}}.dag_run r SET last_scheduling_decision = NULL \
         WHERE r.state = 'running' AND r.last_scheduling_decision IS NOT NULL AND {of}"
    );
    database::execute(connection, "hold runs", &catalog.render(&sql)).await
}

/// Sets task instances that were about to start back to where the scheduler finds them, so that the
/// target starts them. Returns how many.
///
/// To be called in the transaction that seals, with the fence closed and nothing running: a worker
/// that takes a task off its queue after that is refused by Airflow, since the task is not queued.
/// The scheduler counted a try when it scheduled the task, and will count it again: it is taken
/// back, so that users keep their retries. A task that had given its slot up to wait goes on
/// waiting, for it is still in the same try.
pub async fn reset(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
    place: Seen,
) -> Result<i64, Error> {
    order::check(connection, catalog, scope, place, &[Role::Sealed, Role::Quiesced]).await?;
    order::check_fenced(connection, catalog, scope).await?;
    let found = look_in(connection, catalog, scope).await?;
    let Drain { running, queued, deferred, .. } = found.drain;
    if running > 0 || deferred > 0 {
        return Err(Error::NotDrained { running, queued, deferred });
    }
    let of = scope.of("t.dag_id", catalog.schema.by_bytes);
    let waits = "EXISTS (SELECT FROM {schema}.task_reschedule r WHERE r.ti_id = t.id)";
    let sql = format!(
        "UPDATE {{schema}}.task_instance t SET \
           state = CASE WHEN {waits} THEN 'up_for_reschedule' END, \
           try_number = CASE WHEN {waits} THEN t.try_number ELSE greatest(t.try_number - 1, 0) END, \
           scheduled_dttm = NULL, queued_dttm = NULL, queued_by_job_id = NULL, \
           external_executor_id = NULL \
         WHERE t.state IN ('scheduled', 'queued') AND {of}"
    );
    database::execute(connection, "set tasks back", &catalog.render(&sql)).await
}
