//! Schemas that are brought up to date.

use super::*;

pub(super) async fn migrations_run_once_and_in_order(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "kept", 1).await.unwrap();
    let more = [
        SCHEMA[0],
        Migration { version: 2, name: "colour", sql: "ALTER TABLE things ADD COLUMN colour TEXT" },
    ];
    db.migrate("test", &more).await.unwrap();
    db.migrate("test", &more).await.unwrap();
    // A replica one version behind goes on.
    db.migrate("test", SCHEMA).await.unwrap();
    assert_eq!(number(&db, "kept").await, Some(1));
    // Another service numbers its own.
    let other = [Migration {
        version: 1,
        name: "other",
        sql: "CREATE TABLE other (id BIGINT PRIMARY KEY)",
    }];
    db.migrate("other", &other).await.unwrap();
    // A broken one leaves nothing of itself.
    let broken = [Migration {
        version: 2,
        name: "broken",
        sql: "CREATE TABLE half (id BIGINT); CREATE TABLE other (id BIGINT)",
    }];
    let error = db.migrate("other", &broken).await.unwrap_err();
    assert!(matches!(error, Error::Migration { version: 2, .. }), "{error:?}");
    let half = db
        .read()
        .await
        .unwrap()
        .fetch_all("SELECT id FROM half", params![], |row| row.get::<i64>(0))
        .await;
    assert!(matches!(half, Err(Error::Statement { .. })));
}

pub(super) async fn edited_migrations_are_refused(store: Store) {
    let db = with_schema(&store).await;
    let edited = [Migration { sql: "CREATE TABLE elsewhere (id BIGINT)", ..SCHEMA[0] }];
    let error = db.migrate("test", &edited).await.unwrap_err();
    assert!(error.to_string().contains("never edited"), "{error}");
}

pub(super) async fn replicas_migrate_at_the_same_time(store: Store) {
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(store.open(Options::default()).await);
    }
    collect(
        replicas.into_iter().map(|db| async move { db.migrate("test", SCHEMA).await.unwrap() }),
    )
    .await;
    let db = with_schema(&store).await;
    put(&db, "works", 1).await.unwrap();
}
