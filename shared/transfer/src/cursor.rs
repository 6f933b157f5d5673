//! Where schedules go on: how far each DAG came, and what came due while nobody could run it.
//!
//! What a schedule goes on from is the newest automated run in `dag_run`; `dag.next_dagrun*` is
//! computed anew by every parse. Each function here is part of a transaction of its caller: marks
//! belong into the one that seals, missing runs into the one that lifts the fence.

mod timetable;

use airfleet_domain::moves::{
    Mark,
    cursor::{Schedule, Tick, missing},
};
use sqlx::PgConnection;

pub use self::timetable::Timetable;
use crate::{
    Catalog, Error,
    database::{self, Tx, quoted},
    scope::Scope,
};

/// Runs that are inserted for one DAG, at most: what is beyond is told.
pub const INSERTED_MAX: usize = 1_000;

/// Up to where each DAG of a namespace came, sorted by dag_id.
pub async fn marks(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<Vec<Mark>, Error> {
    type Row = (String, Option<i64>, i64, i64, bool);
    let of = |column: &str| scope.of(column, catalog.schema.by_bytes);
    let sql = format!(
        "SELECT CAST(d.dag_id AS text), r.newest, coalesce(r.runs, 0), coalesce(r.unfinished, 0), \
           coalesce(n.is_paused, d.is_paused, false) \
         FROM {{schema}}.dag d \
         LEFT JOIN {{schema}}.airfleet_pause n ON n.dag_id = d.dag_id \
         LEFT JOIN (SELECT dag_id, count(*) AS runs, \
             count(*) FILTER (WHERE state IS DISTINCT FROM 'success' \
               AND state IS DISTINCT FROM 'failed') AS unfinished, \
             CAST(extract(epoch FROM max(logical_date) FILTER ( \
               WHERE run_type IN ('scheduled', 'backfill'))) * 1000000 AS bigint) AS newest \
           FROM {{schema}}.dag_run x WHERE {} GROUP BY dag_id) r ON r.dag_id = d.dag_id \
         WHERE {} ORDER BY d.dag_id COLLATE \"C\"",
        of("x.dag_id"),
        of("d.dag_id"),
    );
    let rows: Vec<Row> =
        database::rows(connection, "read how far DAGs came", &catalog.render(&sql)).await?;
    let mark = |(dag_id, newest_logical_date_us, runs, unfinished_runs, paused): Row| Mark {
        dag_id: dag_id.into(),
        newest_logical_date_us,
        runs,
        unfinished_runs,
        paused,
    };
    Ok(rows.into_iter().map(mark).collect())
}

pub(crate) async fn marks_in(
    tx: &mut Tx,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<Vec<Mark>, Error> {
    marks(&mut tx.connection, catalog, scope).await
}

/// A run that was inserted because it came due while nobody could run its DAG.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inserted {
    /// The DAG.
    pub dag_id: String,
    /// Its logical date. Microseconds since 1970-01-01 UTC.
    pub logical_date_us: i64,
}

/// What was made up for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeUp {
    /// Runs that were inserted, by DAG and date.
    pub inserted: Vec<Inserted>,
    /// DAGs whose timetable this agent cannot compute, and that had something due: only what Airflow
    /// itself planned next was inserted for them. Sorted.
    pub uncertain: Vec<String>,
}

/// Inserts the runs that came due between `stopped_at_us`, when a shard was last able to make runs
/// of the namespace, and `now_us`. To be called in the transaction that lifts the fence, after the
/// order was checked; done again it inserts nothing.
pub async fn make_up(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
    stopped_at_us: i64,
    now_us: i64,
) -> Result<MadeUp, Error> {
    let mut made_up = MadeUp::default();
    for dag in plans(connection, catalog, scope).await? {
        let schedule = Schedule {
            paused: dag.paused,
            catchup: dag.catchup,
            newest_logical_date_us: dag.newest.map(|(logical, _)| logical),
        };
        if schedule.paused || schedule.catchup {
            continue;
        }
        let ticks = dag.ticks(stopped_at_us, now_us);
        if !dag.timetable.is_known() && ticks.iter().any(|tick| tick.run_after_us <= now_us) {
            made_up.uncertain.push(dag.dag_id.clone());
        }
        for tick in missing(schedule, &ticks, stopped_at_us, now_us) {
            if insert(connection, catalog, &dag, tick).await? {
                made_up.inserted.push(Inserted {
                    dag_id: dag.dag_id.clone(),
                    logical_date_us: tick.logical_date_us,
                });
            }
        }
    }
    Ok(made_up)
}

/// What is known of a DAG's schedule.
#[derive(Debug)]
struct Plan {
    dag_id: String,
    paused: bool,
    catchup: bool,
    /// Logical date and end of the interval of its newest automated run.
    newest: Option<(i64, i64)>,
    /// What Airflow planned next: logical date, and when it comes due.
    next: Option<Tick>,
    start_us: Option<i64>,
    end_us: Option<i64>,
    timetable: Timetable,
}

impl Plan {
    /// Ticks from before `stopped_at_us` to `now_us`, in order.
    fn ticks(&self, stopped_at_us: i64, now_us: i64) -> Vec<Tick> {
        let Some(ticks) = self.timetable.ticks(self.newest, stopped_at_us, now_us, INSERTED_MAX)
        else {
            return self.next.into_iter().collect();
        };
        let inside = |tick: &Tick| {
            self.start_us.is_none_or(|start| tick.logical_date_us >= start)
                && self.end_us.is_none_or(|end| tick.logical_date_us <= end)
        };
        ticks.into_iter().filter(inside).collect()
    }
}

async fn plans(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<Vec<Plan>, Error> {
    type Row = (
        String,
        bool,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<String>,
        Option<bool>,
        Option<f64>,
        Option<f64>,
        Option<String>,
    );
    let micros = |column: &str| format!("CAST(extract(epoch FROM {column}) * 1000000 AS bigint)");
    let of = scope.of("d.dag_id", catalog.schema.by_bytes);
    let sql = format!(
        "SELECT CAST(d.dag_id AS text), coalesce(n.is_paused, d.is_paused, false), \
           {}, {}, {}, {}, CAST(s.dag -> 'timetable' AS text), CAST(s.dag ->> 'catchup' AS boolean), \
           CAST(s.dag ->> 'start_date' AS double precision), \
           CAST(s.dag ->> 'end_date' AS double precision), d.timetable_type \
         FROM {{schema}}.dag d \
         LEFT JOIN {{schema}}.airfleet_pause n ON n.dag_id = d.dag_id \
         LEFT JOIN LATERAL (SELECT r.logical_date, coalesce(r.data_interval_end, r.run_after) AS ended \
           FROM {{schema}}.dag_run r WHERE r.dag_id = d.dag_id AND r.logical_date IS NOT NULL \
             AND r.run_type IN ('scheduled', 'backfill') ORDER BY r.logical_date DESC LIMIT 1) r ON true \
         LEFT JOIN LATERAL (SELECT x.data -> 'dag' AS dag FROM {{schema}}.serialized_dag x \
           JOIN {{schema}}.dag_version v ON v.id = x.dag_version_id WHERE x.dag_id = d.dag_id \
           ORDER BY v.version_number DESC LIMIT 1) s ON true \
         WHERE {of} AND NOT d.is_stale ORDER BY d.dag_id COLLATE \"C\"",
        micros("r.logical_date"),
        micros("r.ended"),
        micros("d.next_dagrun"),
        micros("d.next_dagrun_create_after"),
    );
    let rows: Vec<Row> =
        database::rows(connection, "read schedules", &catalog.render(&sql)).await?;
    let plan = |row: Row| {
        let (dag_id, paused, logical, ended, next, due, timetable, catchup, start, end, kind) = row;
        let us = |seconds: f64| (seconds * 1e6).round() as i64;
        let timetable = match timetable {
            Some(text) => Timetable::parse(&text),
            None => Timetable::Unknown(kind.unwrap_or_default()),
        };
        Plan {
            dag_id,
            paused,
            // Airflow leaves out of a serialized DAG what is as it is by default.
            catchup: catchup.unwrap_or(false),
            newest: logical.zip(ended),
            next: next
                .zip(due)
                .map(|(logical_date_us, run_after_us)| Tick { logical_date_us, run_after_us }),
            start_us: start.map(us),
            end_us: end.map(us),
            timetable,
        }
    };
    Ok(rows.into_iter().map(plan).collect())
}

/// Inserts a run as the scheduler would have made it: queued, without task instances, which the
/// scheduler makes when it starts the run. False where there is one.
async fn insert(
    connection: &mut PgConnection,
    catalog: &Catalog,
    dag: &Plan,
    tick: Tick,
) -> Result<bool, Error> {
    let at = |us: i64| format!("to_timestamp(0) + {us} * interval '1 microsecond'");
    // Of each timetable that is computed, the interval is what lies between the two.
    let (start, end) = (tick.logical_date_us, tick.run_after_us);
    let has = |column: &str| {
        let table = catalog.schema.tables.get("dag_run");
        table.is_some_and(|table| table.column(column).is_some())
    };
    let mut values = vec![
        ("dag_id", quoted(&dag.dag_id)),
        ("run_id", quoted(&format!("scheduled__{}", iso(tick.run_after_us)))),
        ("run_type", "'scheduled'".to_owned()),
        ("state", "'queued'".to_owned()),
        ("logical_date", at(tick.logical_date_us)),
        ("data_interval_start", at(start)),
        ("data_interval_end", at(end)),
        ("run_after", at(tick.run_after_us)),
        ("queued_at", "now()".to_owned()),
        ("created_at", "now()".to_owned()),
        ("updated_at", "now()".to_owned()),
        ("triggered_by", "'TIMETABLE'".to_owned()),
        ("conf", "'{}'".to_owned()),
        // As Airflow encodes an empty one: any other JSON ends the scheduler that reads it.
        ("context_carrier", r#"'{"__var": {}, "__type": "dict"}'"#.to_owned()),
        ("clear_number", "0".to_owned()),
    ];
    let of = quoted(&dag.dag_id);
    values.push(("log_template_id", "(SELECT max(id) FROM {schema}.log_template)".to_owned()));
    let version = format!(
        "(SELECT id FROM {{schema}}.dag_version WHERE dag_id = {of} \
          ORDER BY version_number DESC LIMIT 1)"
    );
    values.push(("created_dag_version_id", version));
    values.push((
        "bundle_version",
        format!("(SELECT bundle_version FROM {{schema}}.dag WHERE dag_id = {of})"),
    ));
    values.retain(|(column, _)| has(column));
    let (columns, values): (Vec<&str>, Vec<String>) = values.into_iter().unzip();
    let sql = format!(
        "INSERT INTO {{schema}}.dag_run ({}) VALUES ({}) ON CONFLICT DO NOTHING",
        columns.join(", "),
        values.join(", ")
    );
    Ok(database::execute(connection, "insert a missing run", &catalog.render(&sql)).await? == 1)
}

/// A time as Python's isoformat() writes it in UTC.
fn iso(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or_default();
    let text = time.strftime("%Y-%m-%dT%H:%M:%S");
    match us.rem_euclid(1_000_000) {
        0 => format!("{text}+00:00"),
        rest => format!("{text}.{rest:06}+00:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::iso;

    #[test]
    fn times_are_written_as_python_does() {
        assert_eq!(iso(1_700_000_000_000_000), "2023-11-14T22:13:20+00:00");
        assert_eq!(iso(1_700_000_000_000_120), "2023-11-14T22:13:20.000120+00:00");
    }
}
