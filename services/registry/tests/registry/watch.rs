//! Watching the manifest.

use airfleet_proto::registry::v1::watch_manifest_response::Event;
use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    a_watch_starts_with_everything_and_goes_on_with_changes,
    a_watch_resumes_where_it_was,
    who_is_too_far_back_gets_everything_anew,
    a_revision_of_another_store_gets_everything_anew,
    a_slow_watcher_is_told_the_latest_only,
    an_apply_is_seen_as_one,
    idle_watches_are_told_that_nothing_changed,
    a_change_by_another_replica_is_seen,
    watches_end_with_the_node,
    many_watchers_see_every_change,
);

async fn described(client: &mut Client, name: &str, description: &str) -> i64 {
    let wanted = Namespace { description: description.to_owned(), ..namespace(name) };
    let entries = vec![entry(wanted)];
    client.apply_manifest(apply(entries)).await.unwrap().into_inner().revision
}

fn force(name: &str) -> DeleteNamespaceRequest {
    DeleteNamespaceRequest {
        name: name.to_owned(),
        force: true,
        reason: "test".to_owned(),
        ..Default::default()
    }
}

async fn a_watch_starts_with_everything_and_goes_on_with_changes(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let mut watch = Watch::open(&mut client, 0).await;
    let Event::Snapshot(piece) = watch.next().await else { panic!("a snapshot first") };
    assert!(piece.first && piece.last && piece.entries.is_empty());
    let revision = described(&mut client, "one", "").await;
    client.create_shard(create_shard(shard("shard-a"))).await.unwrap();
    watch.until(revision + 1).await;
    assert_eq!(watch.names(), ["one", "shard-a"]);
    described(&mut client, "one", "changed").await;
    client.delete_namespace(force("one")).await.unwrap();
    watch.until(revision + 3).await;
    assert_eq!(watch.names(), ["shard-a"]);
    assert_eq!(watch.snapshots, 1);
    assert!((registry.metric("airfleet_registry_watchers") - 1.0).abs() < 0.1);
    drop(watch);
    eventually(async || registry.metric("airfleet_registry_watchers") < 0.5).await;
}

async fn a_watch_resumes_where_it_was(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = described(&mut client, "one", "").await;
    described(&mut client, "two", "").await;
    client.delete_namespace(force("one")).await.unwrap();
    let mut watch = Watch::open(&mut client, first).await;
    watch.known.insert("one".to_owned(), first);
    watch.until(first + 2).await;
    assert_eq!((watch.names(), watch.snapshots), (vec!["two"], 0));

    // Also when the registry does not remember by itself.
    registry.stop().await;
    let registry = database.start().await;
    let mut watch = Watch::open(&mut registry.client(), first).await;
    watch.known.insert("one".to_owned(), first);
    watch.until(first + 2).await;
    assert_eq!((watch.names(), watch.snapshots), (vec!["two"], 0));
    // And from the present revision nothing comes but what happens next.
    let mut watch = Watch::open(&mut registry.client(), first + 2).await;
    described(&mut registry.client(), "three", "").await;
    watch.until(first + 3).await;
    assert_eq!((watch.names(), watch.snapshots), (vec!["three"], 0));
}

async fn who_is_too_far_back_gets_everything_anew(database: Database) {
    let mut config = database.config();
    config.watch.history = 5;
    let registry = Registry::start(&config).await;
    let mut client = registry.client();
    let first = described(&mut client, "one", "").await;
    for n in 0..20 {
        described(&mut client, "two", &format!("{n}")).await;
    }
    registry.stop().await;
    let registry = Registry::start(&config).await;
    let mut watch = Watch::open(&mut registry.client(), first).await;
    watch.until(first + 20).await;
    assert_eq!((watch.names(), watch.snapshots), (vec!["one", "two"], 1));
    let mut watch = Watch::open(&mut registry.client(), first + 18).await;
    watch.until(first + 20).await;
    assert_eq!(watch.snapshots, 0, "near enough");
}

async fn a_revision_of_another_store_gets_everything_anew(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let revision = described(&mut client, "one", "").await;
    for foreign in [1, revision - 100, revision + 1, revision + 1_000_000, i64::MAX] {
        let mut watch = Watch::open(&mut client, foreign).await;
        watch.next().await;
        assert_eq!((watch.revision, watch.snapshots), (revision, 1), "from {foreign}");
        assert_eq!(watch.names(), ["one"]);
    }
    let answer = client.watch_manifest(WatchManifestRequest { resume_revision: -1 }).await;
    refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
}

async fn a_slow_watcher_is_told_the_latest_only(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = described(&mut client, "one", "").await;
    let mut watch = Watch::open(&mut registry.client(), first).await;
    let long = "x".repeat(1000);
    let mut last = first;
    // More than the connection's windows hold, so that the stream has to wait.
    for n in 0..1500 {
        let wanted: Vec<_> = (0..4)
            .map(|m| {
                let description = long[..990].to_owned() + &format!("{n}");
                entry(Namespace { description, ..namespace(&format!("busy-{m}")) })
            })
            .collect();
        last = client.apply_manifest(apply(wanted)).await.unwrap().into_inner().revision;
    }
    watch.until(last).await;
    assert_eq!(watch.names(), ["busy-0", "busy-1", "busy-2", "busy-3"]);
    assert!(watch.known.values().all(|revision| *revision == last));
    assert_eq!(watch.snapshots, 0);
    assert!(watch.changes < 1200, "{} messages for 1500 changes", watch.changes);
}

async fn an_apply_is_seen_as_one(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let mut watch = Watch::open(&mut client, 0).await;
    watch.next().await;
    for round in 0..20 {
        let description = format!("{round}");
        let wanted: Vec<_> = (0..40)
            .map(|n| {
                let description = description.clone();
                entry(Namespace { description, ..namespace(&format!("team-{n:02}")) })
            })
            .collect();
        client.apply_manifest(apply(wanted)).await.unwrap();
    }
    for _ in 0..20 {
        if let Event::Change(change) = watch.next().await {
            assert_eq!(change.upserts.len(), 40, "all of an apply or nothing");
            let same = watch.known.values().all(|revision| *revision == watch.revision);
            assert!(same, "each as it was at the revision of the message");
        }
        if watch.known.len() == 40 && watch.known.values().all(|r| *r == watch.revision) {
            break;
        }
    }
}

async fn idle_watches_are_told_that_nothing_changed(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let revision = described(&mut client, "one", "").await;
    let mut watch = Watch::open(&mut client, revision).await;
    for _ in 0..2 {
        assert!(matches!(watch.next().await, Event::Progress(_)));
    }
    let mut fresh = Watch::open(&mut client, 0).await;
    fresh.until(revision).await;
    assert!(matches!(fresh.next().await, Event::Progress(_)));
}

async fn a_change_by_another_replica_is_seen(database: Database) {
    if !database.is_postgres {
        // SQLite has one replica; a second handle on its file stands for a tool.
        return;
    }
    let (one, two) = (database.start().await, database.start().await);
    let mut watch = Watch::open(&mut two.client(), 0).await;
    watch.next().await;
    let mut last = 0;
    for n in 0..10 {
        last = described(&mut one.client(), &format!("team-{n}"), "").await;
        described(&mut two.client(), &format!("mate-{n}"), "").await;
    }
    watch.until(last + 1).await;
    assert_eq!(watch.known.len(), 20);
}

async fn watches_end_with_the_node(database: Database) {
    let registry = database.start().await;
    let mut watch = Watch::open(&mut registry.client(), 0).await;
    watch.next().await;
    registry.node.shutdown().trigger();
    let status = watch.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    registry.stop().await;
}

async fn many_watchers_see_every_change(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = described(&mut client, "one", "").await;
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(Watch::open(&mut registry.client(), first).await);
    }
    let mut last = first;
    for n in 0..30 {
        last = described(&mut client, &format!("team-{n}"), "").await;
    }
    for watch in &mut watches {
        watch.until(last).await;
        assert_eq!(watch.known.len(), 30);
    }
}
