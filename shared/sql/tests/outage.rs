//! What callers see while the database is away, and after.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use airfleet_local::Postgres;
use airfleet_sql::{Db, Durability, Error, Migration, Options, Outage, Result, params, write_tx};

const SCHEMA: &[Migration] =
    &[Migration { version: 1, name: "things", sql: "CREATE TABLE things (id BIGINT PRIMARY KEY)" }];

async fn put(db: &Db, id: i64) -> Result<u64> {
    write_tx!(db, |tx| tx.execute("INSERT INTO things (id) VALUES ($1)", params![id]).await)
}

async fn count(db: &Db) -> Result<i64> {
    db.read().await?.fetch_one("SELECT COUNT(*) FROM things", params![], |row| row.get(0)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_unavailable_and_comes_back_by_itself() {
    let server = Postgres::start_new().await.unwrap();
    let url = server.create_database("outage").await.unwrap();
    let options = Options { acquire_timeout: Duration::from_secs(1), ..Options::default() };
    let db = Db::open(&url, options).await.unwrap();
    db.migrate("test", SCHEMA).await.unwrap();
    put(&db, 1).await.unwrap();

    // A transaction that is open while the server goes.
    let mut open = db.read().await.unwrap();
    server.kill().await;
    let sql = "SELECT COUNT(*) FROM things";
    let error = open.fetch_one(sql, params![], |row| row.get::<i64>(0)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    drop(open);

    for _ in 0..3 {
        let started = Instant::now();
        let error = put(&db, 2).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(!error.to_string().contains("postgres://"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(count(&db).await.unwrap_err().is_unavailable());
    }

    server.start().await.unwrap();
    db.wait_until_available(Duration::from_secs(20)).await.unwrap();
    put(&db, 2).await.unwrap();
    assert_eq!(count(&db).await.unwrap(), 2);

    // An orderly shutdown ends sessions with a code of its own.
    let mut open = db.read().await.unwrap();
    server.stop().await;
    let error = open.fetch_one(sql, params![], |row| row.get::<i64>(0)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
}

#[tokio::test]
async fn a_service_opens_its_database_while_the_server_is_away() {
    // Nothing listens on port 1.
    let db = Db::open("postgres://u:secret@127.0.0.1:1/x", Options::default()).await.unwrap();
    let error = db.migrate("test", SCHEMA).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"));
    let error = db.wait_until_available(Duration::from_millis(300)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
}

/// A server that accepts and says nothing, as a machine that froze.
#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = Options { acquire_timeout: Duration::from_millis(300), ..Options::default() };
    let db = Db::open(&format!("postgres://u@127.0.0.1:{port}/x"), options).await.unwrap();
    let started = Instant::now();
    let error = db.ping().await.unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { reason: Outage::Busy | Outage::Timeout, .. }),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn wrong_urls_say_what_to_do_and_keep_the_password() {
    let server = Postgres::start_new().await.unwrap();
    let url = server.create_database("there").await.unwrap();
    let elsewhere = url.replace("/there", "/not_there");
    let db = Db::open(&elsewhere, Options::default()).await.unwrap();
    let error = db.ping().await.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");

    for url in ["mysql://root:secret@db/x", "postgres://u:secret@[::1/x", "sqlite:", ""] {
        let error = Db::open(url, Options::default()).await.unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{url}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "these are notes, not pages of a database\n".repeat(100)).unwrap();
    let url = format!("sqlite:{}", path.display());
    let error = Db::open(&url, Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    // A folder that cannot be made.
    let url = format!("sqlite:{}/sub/test.db", path.display());
    let error = Db::open(&url, Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_in_memory_is_one_and_stays() {
    let db = Db::open("sqlite::memory:", Options::default()).await.unwrap();
    db.migrate("test", SCHEMA).await.unwrap();
    put(&db, 1).await.unwrap();
    assert_eq!(count(&db.clone()).await.unwrap(), 1);
    db.close().await;
    assert!(count(&db).await.unwrap_err().is_unavailable());
}

const CHILD: &str = "AIRFLEET_SQL_TEST_CHILD";

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
async fn child_writes_until_killed() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let options = Options { durability: Durability::ProcessCrash, ..Options::default() };
    let db = Db::open(&url, options).await.unwrap();
    db.migrate("test", SCHEMA).await.unwrap();
    for id in count(&db).await.unwrap().. {
        put(&db, id).await.unwrap();
        println!("acknowledged {id}");
    }
}

/// Even at the weaker durability, which a test can tell from none; a power cut cannot be had.
#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/test.db", folder.path().display());
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(CHILD, &url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = -1;
        for line in lines {
            if let Some(id) = line.unwrap().strip_prefix("acknowledged ") {
                last = id.parse::<i64>().unwrap();
            }
            if last >= round * 150 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let db = Db::open(&url, Options::default()).await.unwrap();
        let found = count(&db).await.unwrap();
        assert!(found > last, "{last} was acknowledged, {found} rows are there");
        db.close().await;
    }
}
