//! Whole moves between two running Airflows, there and back, with all of the history: for how long
//! no shard could make runs of the namespace, once what ran had ended.

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    soak::Soak,
};
use airfleet_proto::moves::v1::MovePhase;
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::progress;

/// Moves that are measured.
const MOVES: usize = 20;
/// DAGs that users let run; one more is paused.
const DAGS: usize = 9;
/// Runs of each DAG.
const RUNS: usize = 200;

/// Five tasks each; nothing is due while it is measured.
const FILE: &str = r#"
import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for number in range(DAGS + 1):
    with DAG(f"pay.d{number}", schedule="@yearly", start_date=pendulum.datetime(2020, 1, 1),
             catchup=False, is_paused_upon_creation=number == 0) as dag:
        for task in range(1, 6):
            EmptyOperator(task_id=f"t{task}")
    globals()[f"d{number}"] = dag
"#;

/// What such runs leave: each task its instance, what it returned, what was rendered and two lines in
/// the log. Of the DAG that its users paused every other run waits, one in twenty of all: what has not
/// ended goes under seal.
const HISTORY: &str = r#"
INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, data_interval_start,
  data_interval_end, queued_at, start_date, end_date, clear_number, created_dag_version_id,
  triggered_by, updated_at, span_status, log_template_id)
SELECT d.dag_id, 'manual__' || n, 'manual',
  CASE WHEN d.is_paused AND n % 2 = 0 THEN 'queued' ELSE 'success' END, at.time, at.time, at.time,
  at.time, at.time, at.time, at.time + interval '1 minute', 0, v.id, 'REST_API', now(), 'ended',
  (SELECT max(id) FROM log_template)
FROM dag d JOIN dag_version v USING (dag_id), generate_series(1, RUNS) n,
  LATERAL (SELECT timestamptz '2026-01-01' + n * interval '1 hour' AS time) at
WHERE starts_with(d.dag_id, 'pay.') AND v.version_number = 1;
INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, try_number, state, start_date,
  end_date, duration, pool, pool_slots, queue, priority_weight, operator, max_tries, hostname,
  unixname, dag_version_id, executor_config, updated_at)
SELECT gen_random_uuid(), 't' || t, dag_id, run_id, -1, 1, nullif(state, 'queued'), start_date,
  end_date, 60, 'default_pool', 1, 'default', 1, 'EmptyOperator', 0, 'worker', 'airflow', created_dag_version_id,
  '\x80047d942e'::bytea, now()
FROM dag_run, generate_series(1, 5) t WHERE starts_with(dag_id, 'pay.') AND run_type = 'manual';
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
SELECT r.id, t.task_id, -1, 'return_value', r.dag_id, r.run_id,
  jsonb_build_object('rows', 1000, 'file', 's3://lake/' || md5(t.id::text)), now()
FROM task_instance t JOIN dag_run r USING (dag_id, run_id) WHERE starts_with(r.dag_id, 'pay.')
  AND r.run_type = 'manual';
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
SELECT dag_id, task_id, run_id, -1, '{"sql": "SELECT count(*) FROM orders"}' FROM task_instance
WHERE starts_with(dag_id, 'pay.') AND starts_with(run_id, 'manual__');
INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event, owner)
SELECT now(), dag_id, task_id, run_id, -1, event, 'airflow'
FROM task_instance, unnest(ARRAY['running', 'success']) event
WHERE starts_with(dag_id, 'pay.') AND starts_with(run_id, 'manual__');
ANALYZE;
"#;

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    let mut soak = Soak::quiet().await?;
    soak.deliver(&FILE.replace("DAGS", &DAGS.to_string()), DAGS).await?;
    let owner = soak.owner().await?;
    soak.sql(owner, &HISTORY.replace("RUNS", &RUNS.to_string())).await?;
    let count = "SELECT (SELECT count(*) FROM dag_run), (SELECT count(*) FROM task_instance)";
    progress(&format!("runs and task instances: {}", soak.sql(owner, count).await?));
    let mut dark_ms = Histogram::<u64>::new(3)?;
    for _ in 0..MOVES {
        let moved = soak.move_over(None).await?;
        ensure!(moved.last.phase() == MovePhase::Done, "{moved:#?}");
        dark_ms.record(moved.beyond_drain().as_millis() as u64)?;
    }
    let found = soak.sql(soak.owner().await?, count).await?;
    progress(&format!("runs and task instances after {MOVES} moves: {found}"));
    let at = |quantile| dark_ms.value_at_quantile(quantile) as f64 / 1e3;
    report.add(Figure::alone("move.blackout_p50", at(0.5), "s", Goal::AtMost(1.0)))?;
    report.add(Figure::alone("move.blackout_p95", at(0.95), "s", Goal::AtMost(2.0)))?;
    soak.stop().await;
    Ok(())
}
