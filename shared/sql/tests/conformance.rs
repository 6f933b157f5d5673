//! One suite, run on both engines: what a service may rely on, whichever it is configured with.

mod support;

use std::time::{Duration, Instant};

use airfleet_sql::{
    ConstraintKind, Db, Error, Migration, Options, Outage, Result, params, write_tx,
};
use support::{Store, collect};

/// Declares each case as one test per engine.
macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::support::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::support::postgres().await).await; })*
        }
    };
}

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

async fn values_come_back_as_they_were_bound(store: Store) {
    let db = with_schema(&store).await;
    let note = "naïve \u{1F680} 'quoted' \"twice\" \0-free";
    let note = note.replace('\0', "");
    write_tx!(db, |tx| -> Result<()> {
        tx.execute(
            "INSERT INTO things (name, number, note) VALUES ($1, $2, $3)",
            params!["a", -7_i64, &note],
        )
        .await?;
        tx.execute(
            "INSERT INTO things (name, number, note) VALUES ($1, $2, $3)",
            params!["b", true, None::<String>],
        )
        .await?;
        Ok(())
    })
    .unwrap();
    let rows = db
        .read()
        .await
        .unwrap()
        .fetch_all(
            "SELECT name, number, note, number > 0, COUNT(*) OVER ()
                 FROM things ORDER BY name",
            params![],
            |row| {
                Ok((
                    row.text(0)?.to_owned(),
                    row.get::<i64>(1)?,
                    row.get::<Option<String>>(2)?,
                    row.get::<bool>(3)?,
                    row.get::<u64>(4)?,
                ))
            },
        )
        .await
        .unwrap();
    assert_eq!(
        rows,
        [("a".to_owned(), -7, Some(note), false, 2), ("b".to_owned(), 1, None, true, 2),]
    );
}

async fn binds_go_by_number_not_by_appearance(store: Store) {
    let db = with_schema(&store).await;
    let row = db
        .read()
        .await
        .unwrap()
        .fetch_one(
            "SELECT CAST($2 AS BIGINT), CAST($1 AS TEXT), CAST($2 AS BIGINT) + $3",
            params!["first", 2_i64, 40_i64],
            |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?)),
        )
        .await
        .unwrap();
    assert_eq!(row, (2, "first".to_owned(), 42));
}

async fn text_is_ordered_and_ranged_by_bytes(store: Store) {
    let db = with_schema(&store).await;
    for (index, name) in ["b", "B", "a.", "a_", "a-b", "ab", "é", "a", "A"].iter().enumerate() {
        put(&db, name, index as i64).await.unwrap();
    }
    let names = |sql: &'static str, binds: Vec<airfleet_sql::Value>| {
        let db = db.clone();
        async move {
            db.read()
                .await
                .unwrap()
                .fetch_all(sql, binds, |row| row.get::<String>(0))
                .await
                .unwrap()
        }
    };
    let all = names("SELECT name FROM things ORDER BY name", params![]).await;
    assert_eq!(all, ["A", "B", "a", "a-b", "a.", "a_", "ab", "b", "é"]);
    let end = airfleet_sql::prefix_end("a").unwrap();
    let range = names(
        "SELECT name FROM things WHERE name >= $1 AND name < $2 ORDER BY name",
        params!["a", end],
    )
    .await;
    assert_eq!(range, ["a", "a-b", "a.", "a_", "ab"]);
}

async fn concurrent_counters_lose_nothing(store: Store) {
    const TASKS: i64 = 16;
    const EACH: i64 = 200;
    let db = with_schema(&store).await;
    put(&db, "counter", 0).await.unwrap();
    let tasks = (0..TASKS).map(|_| {
        let db = db.clone();
        async move {
            for _ in 0..EACH {
                // On purpose in two statements: read, then write what was computed here.
                write_tx!(db, |tx| -> Result<()> {
                    let number = tx
                        .fetch_one(
                            "SELECT number FROM things WHERE name = $1",
                            params!["counter"],
                            |row| row.get::<i64>(0),
                        )
                        .await?;
                    tx.execute(
                        "UPDATE things SET number = $1 WHERE name = $2",
                        params![number + 1, "counter"],
                    )
                    .await?;
                    Ok(())
                })
                .unwrap();
            }
        }
    });
    collect(tasks).await;
    assert_eq!(number(&db, "counter").await, Some(TASKS * EACH));
    assert_eq!(db.counters().write_give_ups, 0);
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Business,
    Database(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Database(error.to_string())
    }
}

async fn a_refused_write_leaves_nothing(store: Store) {
    let db = with_schema(&store).await;
    let refused = write_tx!(db, |tx| -> Result<(), Refusal> {
        tx.execute("INSERT INTO things (name, number) VALUES ($1, $2)", params!["half", 1_i64])
            .await?;
        Err(Refusal::Business)
    });
    assert_eq!(refused, Err(Refusal::Business));
    assert_eq!(number(&db, "half").await, None);
}

async fn a_failed_statement_can_never_be_committed(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "taken", 1).await.unwrap();
    let answer = write_tx!(db, |tx| -> Result<()> {
        tx.execute("INSERT INTO things (name, number) VALUES ($1, $2)", params!["other", 1_i64])
            .await?;
        // Swallowed, which must not pass for success.
        let _ = tx
            .execute("INSERT INTO things (name, number) VALUES ($1, $2)", params!["taken", 2_i64])
            .await;
        Ok(())
    });
    assert!(matches!(answer, Err(Error::Statement { .. })), "{answer:?}");
    assert_eq!(number(&db, "other").await, None);
}

async fn a_dropped_write_is_rolled_back_and_frees_its_connection(store: Store) {
    let db = with_schema(&store).await;
    let (reached, wait) = tokio::sync::oneshot::channel();
    let reached = std::sync::Mutex::new(Some(reached));
    let task = tokio::spawn({
        let db = db.clone();
        async move {
            write_tx!(db, |tx| -> Result<()> {
                tx.execute(
                    "INSERT INTO things (name, number) VALUES ($1, $2)",
                    params!["abandoned", 1_i64],
                )
                .await?;
                if let Some(reached) = reached.lock().unwrap().take() {
                    reached.send(()).unwrap();
                }
                std::future::pending().await
            })
        }
    });
    wait.await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    put(&db, "next", 1).await.unwrap();
    assert_eq!(number(&db, "abandoned").await, None);
}

async fn a_unique_violation_names_kind_and_table(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "one", 1).await.unwrap();
    let error = put(&db, "one", 2).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error:?}");
    let Error::Constraint { table, .. } = error else { panic!("{error:?}") };
    assert_eq!(table, "things");
    assert_eq!(number(&db, "one").await, Some(1));
}

async fn other_constraints_are_told_apart(store: Store) {
    let db = with_schema(&store).await;
    let cases = [
        ("INSERT INTO things (name, number) VALUES ('x', 9999999)", ConstraintKind::Check),
        ("INSERT INTO things (name, number) VALUES ('x', NULL)", ConstraintKind::NotNull),
        ("INSERT INTO parts (thing) VALUES ('nothing')", ConstraintKind::ForeignKey),
    ];
    for (sql, expected) in cases {
        let error =
            write_tx!(db, |tx| -> Result<_> { tx.execute(sql, params![]).await }).unwrap_err();
        let Error::Constraint { kind, .. } = error else { panic!("{sql}: {error:?}") };
        assert_eq!(kind, expected, "{sql}");
    }
}

async fn a_corrupt_row_is_not_a_failed_query(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "odd", 7).await.unwrap();
    for attempt in 0..3 {
        let error = db
            .read()
            .await
            .unwrap()
            .fetch_one("SELECT note, number FROM things", params![], move |row| match attempt {
                0 => row.text(0).map(|_| ()),
                1 => row.get::<bool>(1).map(|_| ()),
                _ => row.get::<String>(1).map(|_| ()),
            })
            .await
            .unwrap_err();
        let Error::Corrupt { column, .. } = &error else { panic!("{error:?}") };
        assert_eq!(column, if attempt == 0 { "note" } else { "number" });
        assert!(!error.is_unavailable());
    }
}

async fn a_missing_row_says_which_query(store: Store) {
    let db = with_schema(&store).await;
    let error = db
        .read()
        .await
        .unwrap()
        .fetch_one("SELECT number FROM things", params![], |row| row.get::<i64>(0))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::MissingRow { .. }));
    assert!(error.to_string().contains("FROM things"), "{error}");
}

async fn a_broken_statement_is_a_defect_not_an_outage(store: Store) {
    let db = with_schema(&store).await;
    for sql in ["SELEKT 1", "SELECT nothing FROM things", "SELECT $2"] {
        let error = db
            .read()
            .await
            .unwrap()
            .fetch_all(sql, params![], |row| row.get::<i64>(0))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Statement { .. }), "{sql}: {error:?}");
    }
    // The connection is as good as before.
    put(&db, "fine", 1).await.unwrap();
}

async fn reads_see_one_snapshot(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "a", 1).await.unwrap();
    let sql = "SELECT COUNT(*) FROM things";
    let mut tx = db.read().await.unwrap();
    let before: i64 = tx.fetch_one(sql, params![], |row| row.get(0)).await.unwrap();
    put(&db, "b", 2).await.unwrap();
    let after: i64 = tx.fetch_one(sql, params![], |row| row.get(0)).await.unwrap();
    assert_eq!((before, after), (1, 1));
    assert_eq!(number(&db, "b").await, Some(2));
}

async fn reads_cannot_write(store: Store) {
    let db = with_schema(&store).await;
    let answer = db
        .read()
        .await
        .unwrap()
        .execute("INSERT INTO things (name, number) VALUES ('x', 1)", params![])
        .await;
    assert!(answer.is_err());
    assert_eq!(number(&db, "x").await, None);
}

/// Counts for minutes on either engine.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
    WHERE i < 2000000000) SELECT COUNT(*) FROM n";

async fn a_slow_statement_is_stopped(store: Store) {
    let options = Options { statement_timeout: Duration::from_millis(300), ..Options::default() };
    let db = with_options(&store, options).await;
    let started = Instant::now();
    let error = db
        .read()
        .await
        .unwrap()
        .fetch_one(ENDLESS, params![], |row| row.get::<i64>(0))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { reason: Outage::Timeout, .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    // As a write too: the writer comes free although its statement never ended by itself.
    let error = write_tx!(db, |tx| -> Result<_> {
        tx.fetch_one(ENDLESS, params![], |row| row.get::<i64>(0)).await
    })
    .unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    put(&db, "after", 1).await.unwrap();
}

/// Each takes the next number and makes a row of it, which collides before the number does.
async fn a_lost_race_for_a_key_is_run_again(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "next", 0).await.unwrap();
    let tasks = (0..8).map(|_| {
        let db = db.clone();
        async move {
            for _ in 0..20 {
                write_tx!(db, |tx| -> Result<()> {
                    let sql = "SELECT number FROM things WHERE name = 'next'";
                    let next: i64 = tx.fetch_one(sql, params![], |row| row.get(0)).await?;
                    // Another table, so that nothing that was read tells of the collision.
                    let sql = "INSERT INTO numbered (number) VALUES ($1)";
                    tx.execute(sql, params![next]).await?;
                    tx.execute(
                        "UPDATE things SET number = $1 WHERE name = 'next'",
                        params![next + 1],
                    )
                    .await?;
                    Ok(())
                })
                .unwrap();
            }
        }
    });
    collect(tasks).await;
    assert_eq!(number(&db, "next").await, Some(160));
}

async fn a_starved_caller_is_told_busy(store: Store) {
    let options = Options {
        acquire_timeout: Duration::from_millis(200),
        max_connections: 1,
        ..Options::default()
    };
    let db = with_options(&store, options).await;
    let waiting = db.clone();
    let error =
        write_tx!(db, |_tx| -> Result<Error> { Ok(put(&waiting, "never", 1).await.unwrap_err()) })
            .unwrap();
    assert!(matches!(error, Error::Unavailable { reason: Outage::Busy, .. }), "{error:?}");
}

/// A write that always loses: each of its tries reads a row, lets another writer change it, and
/// then writes it. On SQLite two handles stand for two processes.
async fn retries_are_bounded(store: Store) {
    let options = Options {
        write_attempts: 4,
        acquire_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let db = with_options(&store, options).await;
    put(&db, "contended", 0).await.unwrap();
    let rival = store.open(Options::default()).await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    match db.engine() {
        airfleet_sql::Engine::Postgres => {
            let error = write_tx!(db, |tx| -> Result<()> {
                tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let number: i64 = tx
                    .fetch_one(
                        "SELECT number FROM things WHERE name = 'contended'",
                        params![],
                        |row| row.get(0),
                    )
                    .await?;
                write_tx!(rival, |tx| -> Result<u64> {
                    tx.execute(
                        "UPDATE things SET number = number + 1 WHERE name = 'contended'",
                        params![],
                    )
                    .await
                })?;
                tx.execute(
                    "UPDATE things SET number = $1 WHERE name = 'contended'",
                    params![number + 1],
                )
                .await?;
                Ok(())
            })
            .unwrap_err();
            assert!(matches!(error, Error::Contention { attempts: 4, .. }), "{error:?}");
            assert_eq!(tries.load(std::sync::atomic::Ordering::Relaxed), 4);
        }
        // A writer of SQLite locks out all others from its first statement, so the loser is
        // the one that cannot begin.
        airfleet_sql::Engine::Sqlite => {
            let error = write_tx!(rival, |_tx| -> Result<Error> {
                Ok(put(&db, "never", 1).await.unwrap_err())
            })
            .unwrap();
            assert!(matches!(error, Error::Contention { attempts: 4, .. }), "{error:?}");
        }
    }
    assert_eq!(db.counters().write_give_ups, 1);
    assert_eq!(db.counters().write_retries, 3);
}

async fn fill(db: &Db, count: usize) {
    let rows = (0..count)
        .map(|index| params![format!("thing-{index:06}"), index as i64])
        .collect::<Vec<_>>();
    let inserted = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many("INSERT INTO things (name, number)", "", rows.clone()).await
    })
    .unwrap();
    assert_eq!(inserted, count as u64);
}

async fn scan_folds_a_whole_table(store: Store) {
    let db = with_schema(&store).await;
    fill(&db, 50_000).await;
    let (count, sum) = db
        .read()
        .await
        .unwrap()
        .scan(
            "SELECT name, number FROM things WHERE number >= $1",
            params![10_i64],
            (0_u64, 0_i64),
            |(count, sum), row| {
                *count += u64::from(row.text(0)?.starts_with("thing-"));
                *sum += row.get::<i64>(1)?;
                Ok(())
            },
        )
        .await
        .unwrap();
    assert_eq!(count, 49_990);
    assert_eq!(sum, (10..50_000).sum::<i64>());
}

async fn insert_many_takes_more_rows_than_one_statement_can_bind(store: Store) {
    let db = with_schema(&store).await;
    fill(&db, 40_000).await;
    // All or none, also here.
    let rows = vec![params!["new", 1_i64], params!["thing-000001", 1_i64]];
    let error = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many("INSERT INTO things (name, number)", "", rows.clone()).await
    })
    .unwrap_err();
    assert!(error.is_unique_violation(), "{error:?}");
    assert_eq!(number(&db, "new").await, None);
    let changed = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many(
            "INSERT INTO things (name, number)",
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number",
            vec![params!["new", 1_i64], params!["thing-000001", 77_i64]],
        )
        .await
    })
    .unwrap();
    assert_eq!(changed, 2);
    assert_eq!(number(&db, "thing-000001").await, Some(77));
}

async fn migrations_run_once_and_in_order(store: Store) {
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

async fn edited_migrations_are_refused(store: Store) {
    let db = with_schema(&store).await;
    let edited = [Migration { sql: "CREATE TABLE elsewhere (id BIGINT)", ..SCHEMA[0] }];
    let error = db.migrate("test", &edited).await.unwrap_err();
    assert!(error.to_string().contains("never edited"), "{error}");
}

async fn replicas_migrate_at_the_same_time(store: Store) {
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

/// The futures are `Send` although their closures borrow; services run them in handlers.
async fn writes_can_run_from_spawned_tasks(store: Store) {
    let db = with_schema(&store).await;
    let task = tokio::spawn(async move {
        let names = vec!["x".to_owned(), "y".to_owned()];
        let borrowed: &[String] = &names;
        write_tx!(db, |tx| -> Result<()> {
            for (index, name) in borrowed.iter().enumerate() {
                tx.execute(
                    "INSERT INTO things (name, number) VALUES ($1, $2)",
                    params![name, index as i64],
                )
                .await?;
            }
            Ok(())
        })
        .unwrap();
        db.read()
            .await
            .unwrap()
            .fetch_all(
                "SELECT name FROM things WHERE name = $1 OR name = $2 ORDER BY name",
                params![&borrowed[0], &borrowed[1]],
                |row| row.get::<String>(0),
            )
            .await
            .unwrap()
    });
    assert_eq!(task.await.unwrap(), ["x", "y"]);
}
