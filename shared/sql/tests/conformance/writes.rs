//! Transactions that compete, fail or are dropped.

use super::*;

pub(super) async fn concurrent_counters_lose_nothing(store: Store) {
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

pub(super) async fn a_refused_write_leaves_nothing(store: Store) {
    let db = with_schema(&store).await;
    let refused = write_tx!(db, |tx| -> Result<(), Refusal> {
        tx.execute("INSERT INTO things (name, number) VALUES ($1, $2)", params!["half", 1_i64])
            .await?;
        Err(Refusal::Business)
    });
    assert_eq!(refused, Err(Refusal::Business));
    assert_eq!(number(&db, "half").await, None);
}

pub(super) async fn a_failed_statement_can_never_be_committed(store: Store) {
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

pub(super) async fn a_dropped_write_is_rolled_back_and_frees_its_connection(store: Store) {
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

/// Each takes the next number and makes a row of it, which collides before the number does.
pub(super) async fn a_lost_race_for_a_key_is_run_again(store: Store) {
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

pub(super) async fn a_starved_caller_is_told_busy(store: Store) {
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
pub(super) async fn retries_are_bounded(store: Store) {
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

/// The futures are `Send` although their closures borrow; services run them in handlers.
pub(super) async fn writes_can_run_from_spawned_tasks(store: Store) {
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
