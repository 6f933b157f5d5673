//! The metadata databases that are known, and the queries for each.
//!
//! Responsible for recognising a schema by its Alembic revision and for the text of every query.
//! A revision that is not listed is refused: columns change their meaning between releases
//! without changing their names, so nothing is tried on a schema that nobody has looked at.
//!
//! Costs: queries of [`Queries`] that run for every report use an index on the active states or
//! read a small table. Those that look back an hour go through the index on `log.dttm`. Those that
//! weigh tables read a bounded sample of blocks.
//!
//! It must not know what is done with the answers.

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    Sqlite,
}

/// Airflow releases that share a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// 3.3.
    Three,
    /// 2.10.3 to 2.11.
    Two,
}

impl Line {
    /// Whether a row of `dag` is one that the DAG processor still finds.
    pub(crate) fn listed(self) -> &'static str {
        match self {
            Self::Three => "NOT is_stale",
            Self::Two => "COALESCE(is_active, FALSE)",
        }
    }
}

/// A schema that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) revision: &'static str,
    pub(super) line: Line,
}

/// Airflow's own table of revisions (`_REVISION_HEADS_MAP`) gives the first release of each.
const SCHEMAS: [Schema; 2] = [
    Schema { revision: "d2f4e1b3c5a7", line: Line::Three },
    Schema { revision: "5f2621c13b39", line: Line::Two },
];

impl Schema {
    pub(super) fn of(revision: &str) -> Option<Self> {
        SCHEMAS.into_iter().find(|schema| schema.revision == revision)
    }
}

pub(super) const REVISION: &str = "SELECT CAST(version_num AS TEXT) FROM alembic_version";

/// Most DAGs that are read; a metadata database with more is refused.
pub(super) const DAGS_MAX: usize = 100_000;

/// Start times to take a percentile of.
const DELAYS_MAX: i64 = 1_000;

/// How much of a table is read to learn whose rows fill it. Bytes.
const SAMPLE_BYTES: i64 = 4 << 20;

const ACTIVE: &str = "'scheduled', 'queued', 'running', 'restarting', 'deferred'";

/// Writes the queries for one engine and schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queries {
    pub(super) engine: Engine,
    pub(super) line: Line,
}

impl Queries {
    /// Milliseconds since `time`, by the database's clock.
    fn age_ms(self, time: &str) -> String {
        self.span_ms(self.now(), time)
    }

    /// Milliseconds from `start` to `end`.
    fn span_ms(self, end: &str, start: &str) -> String {
        match self.engine {
            Engine::Postgres => {
                format!("CAST(EXTRACT(EPOCH FROM ({end}) - ({start})) * 1000 AS BIGINT)")
            }
            Engine::Sqlite => {
                format!("CAST((julianday({end}) - julianday({start})) * 86400000 AS BIGINT)")
            }
        }
    }

    fn now(self) -> &'static str {
        match self.engine {
            Engine::Postgres => "now()",
            // As Airflow writes times into SQLite, so that they compare as text.
            Engine::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        }
    }

    fn an_hour_ago(self) -> &'static str {
        match self.engine {
            Engine::Postgres => "now() - INTERVAL '1 hour'",
            Engine::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour')",
        }
    }

    /// (job type, age of the youngest heartbeat of one that runs). A job that ended in good order
    /// is no longer `running`; one that died still is, and its age tells.
    pub(super) fn heartbeats(self) -> String {
        let age = self.age_ms("beat");
        format!(
            "SELECT job_type, {age} FROM (\
               SELECT kind.job_type AS job_type, (\
                 SELECT MAX(job.latest_heartbeat) FROM job \
                 WHERE job.job_type = kind.job_type AND job.state = 'running') AS beat \
               FROM (SELECT 'SchedulerJob' AS job_type UNION ALL SELECT 'DagProcessorJob' \
                     UNION ALL SELECT 'TriggererJob') AS kind) AS beats"
        )
    }

    /// (dag_id, 1 where paused, milliseconds by which its next run is late). A DAG without import
    /// errors that may start another run, and whose time has come, is late until the scheduler
    /// creates the run and moves `next_dagrun_create_after` on.
    pub(super) fn dags(self) -> String {
        let (age, now, listed) =
            (self.age_ms("next_dagrun_create_after"), self.now(), self.line.listed());
        // Airflow 2 empties next_dagrun_create_after of a DAG that has all its runs.
        let may_start = match self.line {
            Line::Three => "AND NOT COALESCE(exceeds_max_non_backfill, FALSE)",
            Line::Two => "",
        };
        format!(
            "SELECT CAST(dag_id AS TEXT), \
               CAST(CASE WHEN COALESCE(is_paused, FALSE) THEN 1 ELSE 0 END AS BIGINT), \
               CASE WHEN NOT COALESCE(is_paused, FALSE) AND NOT COALESCE(has_import_errors, FALSE) \
                      {may_start} AND next_dagrun_create_after < {now} THEN {age} END \
             FROM dag WHERE {listed} LIMIT {}",
            DAGS_MAX + 1
        )
    }

    /// (dag_id, active task instances, pool slots that they occupy, age of the one that waits
    /// longest). Airflow counts running and queued task instances against a pool, deferred ones
    /// where the pool says so.
    pub(super) fn active_task_instances(self) -> String {
        let waiting_since = match self.line {
            Line::Three => {
                "CASE state WHEN 'queued' THEN queued_dttm WHEN 'scheduled' THEN scheduled_dttm END"
            }
            // It does not note when a task instance was scheduled.
            Line::Two => "CASE state WHEN 'queued' THEN queued_dttm END",
        };
        let age = self.age_ms(&format!("MIN({waiting_since})"));
        format!(
            "SELECT CAST(dag_id AS TEXT), CAST(COUNT(*) AS BIGINT), \
               CAST(SUM(CASE WHEN state IN ('running', 'queued') OR state = 'deferred' AND pool IN \
                 (SELECT pool FROM slot_pool WHERE include_deferred) \
                 THEN pool_slots ELSE 0 END) AS BIGINT), {age} \
             FROM task_instance WHERE state IN ({ACTIVE}) GROUP BY dag_id LIMIT {}",
            DAGS_MAX + 1
        )
    }

    /// (dag_id, runs that are queued or running). Two branches, because each state has a partial
    /// index of its own.
    pub(super) fn active_runs() -> String {
        format!(
            "SELECT CAST(dag_id AS TEXT), CAST(COUNT(*) AS BIGINT) FROM (\
               SELECT dag_id FROM dag_run WHERE state = 'running' UNION ALL \
               SELECT dag_id FROM dag_run WHERE state = 'queued') AS active \
             GROUP BY dag_id LIMIT {}",
            DAGS_MAX + 1
        )
    }

    /// (DAG files that do not import, slots of all pools; -1 where a pool has no limit).
    pub(super) fn totals() -> &'static str {
        "SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM import_error), \
           (SELECT CAST(CASE WHEN MIN(slots) < 0 THEN -1 ELSE SUM(slots) END AS BIGINT) \
            FROM slot_pool)"
    }

    /// (dag_id, task instances started, tries failed) of the last hour, from the audit log: each
    /// start and each failed try leaves a line there, and it alone has an index on time.
    pub(super) fn starts(self) -> String {
        let since = self.an_hour_ago();
        format!(
            "SELECT CAST(dag_id AS TEXT), \
               CAST(SUM(CASE event WHEN 'running' THEN 1 ELSE 0 END) AS BIGINT), \
               CAST(SUM(CASE event WHEN 'failed' THEN 1 ELSE 0 END) AS BIGINT) \
             FROM log WHERE dttm > {since} AND event IN ('running', 'failed') \
               AND dag_id IS NOT NULL AND task_id IS NOT NULL \
             GROUP BY dag_id LIMIT {}",
            DAGS_MAX + 1
        )
    }

    /// (milliseconds from scheduled to started) of task instances started in the last hour, at
    /// most [`DELAYS_MAX`] of the `starts` that there were, spread evenly. Airflow 2 does not note
    /// when a task instance was scheduled, so there it is from queued to started.
    pub(super) fn delays(self, starts: i64) -> String {
        let ready = match self.line {
            Line::Three => "ti.scheduled_dttm",
            Line::Two => "ti.queued_dttm",
        };
        let (since, delay) = (self.an_hour_ago(), self.span_ms("ti.start_date", ready));
        let one_in = (starts / DELAYS_MAX + 1).max(1);
        // A task instance that came back from deferral keeps its first start: no delay to learn.
        format!(
            "SELECT {delay} FROM log JOIN task_instance ti ON ti.dag_id = log.dag_id \
               AND ti.task_id = log.task_id AND ti.run_id = log.run_id \
               AND ti.map_index = COALESCE(log.map_index, -1) \
             WHERE log.dttm > {since} AND log.event = 'running' AND log.id % {one_in} = 0 \
               AND ti.start_date >= {ready} LIMIT {}",
            2 * DELAYS_MAX
        )
    }

    /// (dag_id, microseconds that its file took to parse, this DAG's share of them), where the
    /// schema tells. All DAGs of a file carry the duration of the whole file.
    pub(super) fn parse_durations(self) -> Option<String> {
        match self.line {
            Line::Two => None,
            Line::Three => Some(format!(
                "SELECT CAST(dag_id AS TEXT), CAST(last_parse_duration * 1000000 AS BIGINT), \
                   CAST(last_parse_duration * 1000000 / COUNT(*) OVER (\
                     PARTITION BY bundle_name, COALESCE(relative_fileloc, fileloc)) AS BIGINT) \
                 FROM dag WHERE {} AND last_parse_duration IS NOT NULL LIMIT {}",
                self.line.listed(),
                DAGS_MAX + 1
            )),
        }
    }

    /// (table, bytes with indexes and TOAST, bytes of the rows alone) of every table of Airflow.
    pub(super) fn table_sizes(self) -> &'static str {
        match self.engine {
            Engine::Postgres => {
                "SELECT CAST(relname AS TEXT), pg_total_relation_size(oid), pg_relation_size(oid) \
                 FROM pg_class WHERE relkind = 'r' AND relnamespace = \
                   (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('alembic_version'))"
            }
            // SQLite does not say what a table takes without reading all of it: the whole file is
            // shared out as the task instances are.
            Engine::Sqlite => {
                "SELECT 'task_instance', page_count * page_size, page_count * page_size \
                 FROM pragma_page_count(), pragma_page_size()"
            }
        }
    }

    /// Tables whose rows belong to a DAG and make up nearly all of a metadata database.
    pub(super) fn weighed_tables(self) -> &'static [&'static str] {
        const TWO: &[&str] = &[
            "task_instance",
            "task_instance_history",
            "dag_run",
            "xcom",
            "log",
            "rendered_task_instance_fields",
            "serialized_dag",
        ];
        const THREE: &[&str] = &[
            "task_instance",
            "task_instance_history",
            "dag_run",
            "xcom",
            "log",
            "rendered_task_instance_fields",
            "serialized_dag",
            "dag_code",
        ];
        match (self.engine, self.line) {
            (Engine::Sqlite, _) => &["task_instance"],
            (Engine::Postgres, Line::Two) => TWO,
            (Engine::Postgres, Line::Three) => THREE,
        }
    }

    /// (dag_id or nothing, rows) in a table of which the rows alone take `bytes`: of all rows
    /// where that is little, of blocks picked at random otherwise.
    pub(super) fn rows_by_dag(self, table: &'static str, bytes: i64) -> String {
        let sample = if self.engine == Engine::Postgres && bytes > SAMPLE_BYTES {
            let percent = SAMPLE_BYTES as f64 * 100.0 / bytes as f64;
            format!(" TABLESAMPLE SYSTEM ({percent:.6})")
        } else {
            String::new()
        };
        format!(
            "SELECT CAST(dag_id AS TEXT), CAST(COUNT(*) AS BIGINT) FROM {table}{sample} \
             GROUP BY dag_id LIMIT {}",
            DAGS_MAX + 1
        )
    }
}
