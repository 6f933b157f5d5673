//! The store goes away and comes back.

use std::time::Duration;

use airfleet_local::Postgres;
use airfleet_proto::registry::v1::*;
use airfleet_runtime::config::ConnectionUrl;
use tonic::Code;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_calls_fail_watches_wait_and_all_recovers() {
    let server = Postgres::start_new().await.unwrap();
    let mut config = sqlite().config();
    config.store.url =
        ConnectionUrl::new(server.create_database("registry").await.unwrap()).unwrap();
    config.store.acquire_timeout = Duration::from_secs(1);
    let registry = Registry::start(&config).await;
    let mut client = registry.client();
    let first = client.create_namespace(create(namespace("one"))).await.unwrap().into_inner();
    let mut watch = Watch::open(&mut registry.client(), 0).await;
    watch.until(first.revision).await;

    server.kill().await;
    for _ in 0..2 {
        let problem = refused(
            client.create_namespace(create(namespace("two"))).await,
            Code::Unavailable,
            "UNAVAILABLE",
        );
        assert!(problem.retry_after.is_some(), "{problem:?}");
        assert!(!problem.message.contains("postgres://"), "{problem:?}");
        let problem =
            refused(client.get_namespace(get("one")).await, Code::Unavailable, "UNAVAILABLE");
        assert!(problem.retry_after.is_some());
    }
    // One that wants what is not in memory cannot be begun; the one that is open stays so.
    let answer = client.watch_manifest(WatchManifestRequest { resume_revision: 0 }).await;
    refused(answer, Code::Unavailable, "UNAVAILABLE");

    server.start().await.unwrap();
    eventually(async || registry.client().create_namespace(create(namespace("two"))).await.is_ok())
        .await;
    watch.until(first.revision + 1).await;
    assert_eq!(watch.names(), ["one", "two"]);
    assert_eq!(watch.snapshots, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_starts_without_its_store_and_is_ready_when_it_is_there() {
    let server = Postgres::start_new().await.unwrap();
    let mut config = sqlite().config();
    config.store.url =
        ConnectionUrl::new(server.create_database("registry").await.unwrap()).unwrap();
    config.store.acquire_timeout = Duration::from_secs(1);
    server.stop().await;
    let registry = Registry::start_unready(&config).await;
    assert!(!registry.node.readiness.is_ready());
    let answer = registry.client().create_namespace(create(namespace("one"))).await;
    let problem = refused(answer, Code::Unavailable, "UNAVAILABLE");
    assert!(problem.retry_after.is_some());
    server.start().await.unwrap();
    tokio::time::timeout(PATIENCE, registry.node.readiness.wait()).await.unwrap();
    registry.client().create_namespace(create(namespace("one"))).await.unwrap();
}

/// A store that was lost and begun anew: nobody goes on as if it were the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_begun_anew_is_noticed() {
    let database = sqlite();
    let registry = database.start().await;
    let mut client = registry.client();
    let mut last = 0;
    for n in 0..3 {
        let created = client.create_namespace(create(namespace(&format!("old-{n}")))).await;
        last = created.unwrap().into_inner().revision;
    }
    registry.stop().await;
    // Revisions begin with the second in which a store is made.
    let started = std::time::Instant::now();
    eventually(async || started.elapsed() > Duration::from_secs(5)).await;
    let fresh = sqlite();
    let registry = fresh.start().await;
    let created = registry.client().create_namespace(create(namespace("new"))).await;
    let revision = created.unwrap().into_inner().revision;
    assert!(revision > last);
    let mut watch = Watch::open(&mut registry.client(), last).await;
    watch.next().await;
    assert_eq!((watch.snapshots, watch.names()), (1, vec!["new"]));
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_told_at_the_start() {
    let database = sqlite();
    let path = database.folder.path().join("registry.db");
    std::fs::write(&path, "no database at all, but a text\n".repeat(200)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = airfleet_runtime::lifecycle::Shutdown::new();
    let error = airfleet_registry::run(database.config(), listener, shutdown).await.unwrap_err();
    assert!(error.to_string().contains("registry.db"), "{error}");
}
