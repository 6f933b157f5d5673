//! Runs that came due while nobody could run their DAG.

use airfleet_domain::roles::Role;
use airfleet_transfer::{cursor, proof};

use crate::ends::{Server, scope};

const HOUR: i64 = 3_600_000_000;

/// When the last run of the rows was due.
const LAST: i64 = (1_700_000_000 + 30 * 3_600) * 1_000_000;

#[tokio::test]
async fn ticks_of_the_time_between_two_shards_become_runs_once() {
    let server = Server::start().await;
    let end = server.end("target").await;
    let scope = scope(&["pay__"]);
    server.fill(&end, "pay__", [4, 30, 3]).await;
    // The runs of the rows lie 13:20 past the hour; the schedule is hourly.
    server.query(&end, "UPDATE serialized_dag SET data = jsonb_set(data, '{dag,timetable,__var,expression}', '\"13 * * * *\"'); \
        UPDATE dag_run SET logical_date = logical_date - interval '20 seconds', \
          data_interval_end = data_interval_end - interval '20 seconds'; \
        UPDATE serialized_dag SET data = jsonb_set(data, '{dag,catchup}', 'true') WHERE dag_id = 'pay__d1'; \
        UPDATE serialized_dag SET data = jsonb_set(data, '{dag,timetable,__type}', '\"acme.Moon\"') WHERE dag_id = 'pay__d4'; \
        UPDATE dag SET next_dagrun = to_timestamp(1700000000 + 31 * 3600), next_dagrun_create_after = to_timestamp(1700000000 + 31 * 3600)")
        .await;
    end.be(&scope, Role::Staged, 4).await;
    let catalog = end.catalog().await;
    let stopped = LAST + HOUR / 2;
    let now = LAST + 3 * HOUR + HOUR / 2;
    let mut connection = end.connection().await;
    let made = cursor::make_up(&mut connection, &catalog, &scope, stopped, now).await.unwrap();
    let second = 1_000_000;
    let due = |hours: i64| LAST - 20 * second + hours * HOUR;
    let found: Vec<_> =
        made.inserted.iter().map(|run| (run.dag_id.as_str(), run.logical_date_us)).collect();
    // d1 catches up by itself, d3 is paused; of the moon's DAG only what Airflow had planned is known.
    let mine = "pay__ü☃2";
    assert_eq!(found, [("pay__d4", LAST + HOUR), (mine, due(1)), (mine, due(2)), (mine, due(3))]);
    assert_eq!(made.uncertain, ["pay__d4"]);
    let again = cursor::make_up(&mut connection, &catalog, &scope, stopped, now).await.unwrap();
    assert_eq!(again.inserted, []);

    let rows = "SELECT run_id, state, run_type, triggered_by, data_interval_end = run_after, \
          (SELECT version_number FROM dag_version v WHERE v.id = created_dag_version_id), log_template_id = \
          (SELECT max(id) FROM log_template), (SELECT count(*) FROM task_instance t WHERE t.run_id = r.run_id) \
        FROM dag_run r WHERE state = 'queued' AND dag_id LIKE '%2' ORDER BY run_id LIMIT 1";
    assert_eq!(
        server.query(&end, rows).await,
        "scheduled__2023-11-16T05:13:00+00:00\tqueued\tscheduled\tTIMETABLE\tt\t2\tt\t0"
    );
    // The proof has them.
    let proof = proof::read(&end.database, &catalog, &scope).await.unwrap();
    assert!(proof["pay__ü☃2"].dates().any(|date| date == due(3)));
    assert_eq!(proof.keys().count(), 4);
}
