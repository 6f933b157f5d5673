//! One suite, run on both engines: what a service may rely on, whichever it is configured with.

mod errors;
mod migrations;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod values;
mod writes;

use std::time::{Duration, Instant};

use self::{
    errors::*,
    migrations::*,
    support::{Store, collect},
    values::*,
    writes::*,
};
use airfleet_sql::{
    ConstraintKind, Db, Error, Migration, Options, Outage, Result, params, write_tx,
};

on_both_engines!(
    values_come_back_as_they_were_bound,
    binds_go_by_number_not_by_appearance,
    text_is_ordered_and_ranged_by_bytes,
    concurrent_counters_lose_nothing,
    a_refused_write_leaves_nothing,
    a_failed_statement_can_never_be_committed,
    a_dropped_write_is_rolled_back_and_frees_its_connection,
    a_unique_violation_names_kind_and_table,
    other_constraints_are_told_apart,
    a_corrupt_row_is_not_a_failed_query,
    a_missing_row_says_which_query,
    a_broken_statement_is_a_defect_not_an_outage,
    reads_see_one_snapshot,
    reads_cannot_write,
    a_slow_statement_is_stopped,
    a_lost_race_for_a_key_is_run_again,
    a_starved_caller_is_told_busy,
    retries_are_bounded,
    scan_folds_a_whole_table,
    insert_many_takes_more_rows_than_one_statement_can_bind,
    migrations_run_once_and_in_order,
    edited_migrations_are_refused,
    replicas_migrate_at_the_same_time,
    writes_can_run_from_spawned_tasks,
);

const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "things",
    sql: r#"
        CREATE TABLE things (
            name TEXT COLLATE "C" PRIMARY KEY,
            number BIGINT NOT NULL CHECK (number < 1000000),
            note TEXT
        );
        CREATE TABLE parts (
            thing TEXT NOT NULL REFERENCES things (name),
            data TEXT
        );
        CREATE TABLE numbered (number BIGINT PRIMARY KEY);
    "#,
}];

async fn with_schema(store: &Store) -> Db {
    with_options(store, Options::default()).await
}

async fn with_options(store: &Store, options: Options) -> Db {
    let db = store.open(options).await;
    db.migrate("test", SCHEMA).await.unwrap();
    db
}

async fn put(db: &Db, name: &str, number: i64) -> Result<u64> {
    write_tx!(db, |tx| -> Result<_> {
        tx.execute("INSERT INTO things (name, number) VALUES ($1, $2)", params![name, number]).await
    })
}

async fn number(db: &Db, name: &str) -> Option<i64> {
    db.read()
        .await
        .unwrap()
        .fetch_optional("SELECT number FROM things WHERE name = $1", params![name], |row| {
            row.get::<i64>(0)
        })
        .await
        .unwrap()
}
