//! The election over both engines: replicas with handles of their own on one database.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use airfleet_sql::lease::{Lease, Standing, Timing};
use airfleet_sql::{Db, Error, Migration, Options, Result, params, write_tx};
use support::Store;

on_both_engines!(
    one_leads_and_the_next_takes_over_when_it_dies,
    a_released_lease_is_taken_at_the_next_look,
    a_stale_leader_cannot_write,
    a_takeover_under_a_running_write_refuses_it,
    many_candidates_elect_one,
    odd_names_are_refused,
);

const TIMING: Timing = Timing {
    ttl: Duration::from_millis(1500),
    margin: Duration::from_millis(500),
    interval: Duration::from_millis(50),
};

const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "written",
    sql: "CREATE TABLE written (term BIGINT NOT NULL)",
}];

async fn replica(store: &Store, name: &str) -> (Db, Lease) {
    let db = store.open(Options::default()).await;
    db.migrate("test", SCHEMA).await.unwrap();
    let address = format!("{name}.example.net:7400");
    let lease = Lease::new(db.clone(), "test", name, &address, TIMING).unwrap();
    lease.migrate().await.unwrap();
    (db, lease)
}

fn term(standing: &Standing) -> Option<i64> {
    match standing {
        Standing::Leader { term, .. } => Some(*term),
        _ => None,
    }
}

/// Ticks until the replica leads, and answers its term.
async fn until_it_leads(lease: &Lease) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ticks = tokio::time::interval(TIMING.interval);
    loop {
        ticks.tick().await;
        if let Some(term) = term(&lease.tick().await.unwrap()) {
            return term;
        }
        assert!(Instant::now() < deadline, "never led");
    }
}

async fn write_as(db: &Db, lease: &Lease, term: i64) -> Result<()> {
    write_tx!(db, |tx| {
        lease.check_term(tx, term).await?;
        tx.execute("INSERT INTO written (term) VALUES ($1)", params![term]).await?;
        Ok(())
    })
}

async fn written(db: &Db) -> Vec<i64> {
    db.read()
        .await
        .unwrap()
        .fetch_all("SELECT term FROM written ORDER BY term", params![], |row| row.get(0))
        .await
        .unwrap()
}

async fn one_leads_and_the_next_takes_over_when_it_dies(store: Store) {
    let (_, a) = replica(&store, "a").await;
    let (_, b) = replica(&store, "b").await;
    assert_eq!(term(&a.tick().await.unwrap()), Some(1));
    let follower = Standing::Follower {
        holder: "a".to_owned(),
        address: "a.example.net:7400".to_owned(),
        term: 1,
    };
    assert_eq!(b.tick().await.unwrap(), follower);
    assert_eq!(term(&a.tick().await.unwrap()), Some(1));
    // a stops looking after its lease.
    let died = Instant::now();
    assert_eq!(until_it_leads(&b).await, 2);
    assert!(died.elapsed() >= TIMING.ttl);
    assert_eq!(a.standing(), Standing::Vacant, "out by its own clock");
    assert!(matches!(a.tick().await.unwrap(), Standing::Follower { term: 2, .. }));
}

async fn a_released_lease_is_taken_at_the_next_look(store: Store) {
    let (_, a) = replica(&store, "a").await;
    let (_, b) = replica(&store, "b").await;
    a.tick().await.unwrap();
    b.tick().await.unwrap();
    a.release().await.unwrap();
    assert_eq!(a.standing(), Standing::Vacant);
    assert_eq!(term(&b.tick().await.unwrap()), Some(2));
    // Not a's any more, so there is nothing to give up.
    a.release().await.unwrap();
    assert_eq!(term(&b.tick().await.unwrap()), Some(2));
}

async fn a_stale_leader_cannot_write(store: Store) {
    let (db, a) = replica(&store, "a").await;
    let (_, b) = replica(&store, "b").await;
    let error = write_as(&db, &a, 1).await.unwrap_err();
    assert!(error.is_stale_term(), "nobody leads yet: {error:?}");
    assert_eq!(until_it_leads(&a).await, 1);
    write_as(&db, &a, 1).await.unwrap();
    assert_eq!(until_it_leads(&b).await, 2);
    let error = write_as(&db, &a, 1).await.unwrap_err();
    assert!(matches!(error, Error::StaleTerm { held: 1, current: 2 }), "{error:?}");
    write_as(&db, &b, 2).await.unwrap();
    assert_eq!(written(&db).await, [1, 2]);
}

/// The write has begun, and read, before the takeover commits; only then it checks its term.
async fn a_takeover_under_a_running_write_refuses_it(store: Store) {
    let (db, a) = replica(&store, "a").await;
    let (_, b) = replica(&store, "b").await;
    assert_eq!(until_it_leads(&a).await, 1);
    b.tick().await.unwrap();
    let first = std::sync::atomic::AtomicBool::new(true);
    let answer = write_tx!(db, |tx| -> Result<()> {
        let _: i64 =
            tx.fetch_one("SELECT COUNT(*) FROM written", params![], |row| row.get(0)).await?;
        if first.swap(false, std::sync::atomic::Ordering::Relaxed)
            && db.engine() == airfleet_sql::Engine::Postgres
        {
            until_it_leads(&b).await;
        }
        a.check_term(tx, 1).await?;
        tx.execute("INSERT INTO written (term) VALUES (1)", params![]).await?;
        Ok(())
    });
    match db.engine() {
        airfleet_sql::Engine::Postgres => {
            assert!(answer.unwrap_err().is_stale_term());
            assert!(written(&db).await.is_empty());
        }
        // No takeover can commit while another process writes.
        airfleet_sql::Engine::Sqlite => answer.unwrap(),
    }
}

async fn many_candidates_elect_one(store: Store) {
    let mut replicas = Vec::new();
    for index in 0..8 {
        let name = format!("replica-{index}");
        replicas.push(replica(&store, &name).await.1);
    }
    let leaders = futures::future::join_all(replicas.iter().map(Lease::tick))
        .await
        .into_iter()
        .filter_map(|standing| term(&standing.unwrap()))
        .collect::<Vec<_>>();
    assert_eq!(leaders, [1]);
}

async fn odd_names_are_refused(store: Store) {
    let db = store.open(Options::default()).await;
    for service in ["", "x; DROP TABLE y", "Router"] {
        let lease = Lease::new(db.clone(), service, "a", "a:1", TIMING);
        assert!(matches!(lease, Err(Error::Config { .. })), "{service}");
    }
    assert!(Lease::new(db, "test", "", "a:1", TIMING).is_err());
}
