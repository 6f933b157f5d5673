//! What each end finds before a move.

use airfleet_domain::{
    moves::{History, Part, Side},
    roles::Role,
};
use airfleet_shard_agent::airflow::fence;
use airfleet_transfer::{Airflow, Database, Look, inspect};
use sqlx::postgres::PgConnectOptions;

use crate::ends::{End, Server, copy, order, scope};

#[tokio::test]
async fn each_end_tells_what_it_has() {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "pay__", [3, 10, 4]).await;
    server.fill(&source, "ads__", [1, 10, 4]).await;
    let airflow = Airflow {
        version: "3.3.2".to_owned(),
        dags_folder: "/dags".to_owned(),
        fernet_key: "a-key".to_owned(),
        ..Airflow::default()
    };
    let look = async |end: &crate::ends::End, side| {
        inspect(&end.database, Look { scope: &scope, side, airflow: &airflow }).await.unwrap()
    };
    let found = look(&source, Side::Source).await;
    assert_eq!((found.dags, found.runs, found.task_instances), (3, 30, 120));
    assert_eq!(found.pools.iter().collect::<Vec<_>>(), ["default_pool", "patient"]);
    assert_eq!(
        (found.not_understood.len(), found.obstacles.len()),
        (0, 0),
        "{:?}",
        found.obstacles
    );
    assert_eq!((found.open_backfills.len(), found.asset_crossings.len()), (0, 0));
    assert!(found.fernet_digest.len() == 32 && !found.fernet_digest.contains("a-key"));
    let there = look(&target, Side::Target).await;
    assert_eq!(there.pools.iter().collect::<Vec<_>>(), ["default_pool"]);
    assert_eq!(
        (&there.schema_digest, &there.schema_revision),
        (&found.schema_digest, &found.schema_revision)
    );
    assert_eq!(there.fernet_digest, found.fernet_digest);

    server.query(&source, "UPDATE task_instance SET state = 'deferred' WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__1'; \
        INSERT INTO backfill (dag_id, from_date, to_date, dag_run_conf, reprocess_behavior, max_active_runs, created_at, updated_at) \
          VALUES ('pay__d1', now(), now(), '{}', 'none', 1, now(), now()); \
        INSERT INTO task_outlet_asset_reference (asset_id, dag_id, task_id, created_at, updated_at) SELECT id, 'pay__d1', 't1', now(), now() FROM asset WHERE name = 'pay__asset1'; \
        INSERT INTO dag_schedule_asset_reference (asset_id, dag_id, created_at, updated_at) \
          SELECT id, dag_id, now(), now() FROM asset, (VALUES ('ads__d1'), ('pay__d3')) d (dag_id) WHERE name = 'pay__asset1'; \
        INSERT INTO callback (id, type, fetch_method, data, priority_weight, created_at) \
          VALUES ('00000000-0000-0000-0000-000000000001', 'x', 'x', '{}', 1, now()); \
        INSERT INTO deadline (id, created_at, last_updated_at, dagrun_id, deadline_time, missed, callback_id) \
          SELECT '00000000-0000-0000-0000-000000000002', now(), now(), id, now(), false, '00000000-0000-0000-0000-000000000001' \
          FROM dag_run WHERE dag_id = 'pay__d1' AND state = 'running' LIMIT 1").await;
    let found = look(&source, Side::Source).await;
    assert_eq!(found.deferred, 4);
    assert_eq!(found.open_backfills, ["pay__d1"]);
    assert_eq!(found.asset_crossings, ["s3://pay__/1: pay__d1 -> ads__d1"]);
    assert_eq!(
        found.obstacles,
        ["1 deadlines of runs that have not ended would be lost (deadline)"]
    );

    // Somebody who may not, and a shard without a fence.
    server.query(&target, "DROP TABLE airfleet_pause").await;
    assert!(look(&target, Side::Target).await.obstacles[0].contains("fence"));
}

#[tokio::test]
async fn a_role_of_its_own_needs_just_what_is_granted() {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "pay__", [1, 12, 5]).await;
    server
        .query(
            &target,
            "CREATE ROLE \"the agent\" LOGIN PASSWORD 'x'; \
             INSERT INTO asset (name, uri, \"group\", extra, created_at, updated_at) \
               SELECT 'pay__asset' || n, 's3://pay__/' || n, 'asset', '{}', now(), now() \
               FROM generate_series(1, 3) n",
        )
        .await;
    for (end, role) in [(&source, Role::Sealed), (&target, Role::Staged)] {
        end.be(&scope, role, 1).await;
        fence::install(&end.metadata, Some("the agent")).await.unwrap();
    }
    let options: PgConnectOptions = target.url.parse().unwrap();
    let limited = End {
        name: target.name.clone(),
        url: target.url.clone(),
        database: Database::new(options.username("the agent").password("x")),
        metadata: target.metadata.clone(),
    };
    let airflow = Airflow::default();
    let look = Look { scope: &scope, side: Side::Target, airflow: &airflow };
    let found = inspect(&limited.database, look).await.unwrap().obstacles;
    assert!(found[0].contains("INSERT on xcom") && found[0].contains("CREATE on"), "{found:?}");
    server.query(&target, &target.catalog().await.grants("the agent")).await;
    assert_eq!(inspect(&limited.database, look).await.unwrap().obstacles, [] as [&str; 0]);
    copy(&source, &limited, &scope, order(Part::Rest, 1, 1), History::Full).await.unwrap();
    let there = server.query(&target, "SELECT count(*) FROM task_instance").await;
    assert_eq!(there, "60");
}
