//! What is understood of a schema.

use crate::ends::Server;

#[tokio::test]
async fn airflow_3_3_2_is_understood_and_the_same_everywhere() {
    let server = Server::start().await;
    let (one, other) = (server.end("one").await, server.end("other").await);
    let catalog = one.catalog().await;
    assert_eq!(catalog.not_understood(), [] as [&str; 0]);
    assert_eq!(catalog.revision(), "d2f4e1b3c5a7");
    assert!(catalog.has_fence());
    assert_eq!(catalog.digest(), other.catalog().await.digest());
    let order: Vec<&str> = catalog.tables().collect();
    let at = |table: &str| order.iter().position(|name| *name == table).expect(table);
    for (before, after) in [
        ("dag_bundle", "dag"),
        ("dag", "dag_version"),
        ("dag_version", "serialized_dag"),
        ("dag_version", "dag_run"),
        ("dag_run", "task_instance"),
        ("task_instance", "xcom"),
        ("task_instance_history", "hitl_detail_history"),
        ("asset_event", "dagrun_asset_event"),
    ] {
        assert!(at(before) < at(after), "{before} {after}: {order:?}");
    }
    for stays in ["job", "trigger", "session", "slot_pool", "connection", "variable", "backfill"] {
        assert!(!order.contains(&stays), "{stays}");
    }
}

#[tokio::test]
async fn what_nobody_knows_is_found() {
    let server = Server::start().await;
    let end = server.end("strange").await;
    let digest = end.catalog().await.digest().to_owned();
    server.query(&end, "ALTER TABLE dag_run ADD COLUMN colour text").await;
    let changed = end.catalog().await;
    assert_eq!(changed.not_understood(), [] as [&str; 0], "a column of a plain type goes along");
    assert_ne!(changed.digest(), digest, "but only to where it is too");
    server
        .query(
            &end,
            "CREATE TYPE mood AS ENUM ('sad'); \
            CREATE TABLE plugin_state (id int PRIMARY KEY, dag_id text); \
            CREATE TABLE plugin_runs (number int REFERENCES dag_run (id)); \
            CREATE TABLE _airflow_deleted__dag_run__1 AS SELECT * FROM dag_run; \
            CREATE TABLE plugin_users (id int PRIMARY KEY, email text); \
            ALTER TABLE task_instance ADD COLUMN mood mood; \
            ALTER TABLE xcom ADD COLUMN blob_id integer; \
            ALTER TABLE xcom ADD COLUMN size bigint GENERATED ALWAYS AS (map_index + 1) STORED; \
            ALTER TABLE dag_run ADD COLUMN who text REFERENCES team (name)",
        )
        .await;
    let strange = end.catalog().await.not_understood().join("\n");
    for found in [
        "plugin_state",
        "plugin_runs",
        "task_instance.mood (",
        "xcom.blob_id (",
        "xcom.size (",
        "dag_run (foreign key",
    ] {
        assert!(strange.contains(found), "{found}: {strange}");
    }
    for fine in ["plugin_users", "_airflow_deleted"] {
        assert!(!strange.contains(fine), "{fine}: {strange}");
    }
}
