//! What the API does not show: the search for overlaps against a plain one, and forgetting.

use airfleet_domain::manifest::{Metadata, Namespace, NamespaceSpec};
use airfleet_sql::{Options, Sql};

use super::prefixes::{Claim, find_overlaps};
use super::*;

async fn store() -> Store {
    let db = Db::open("sqlite::memory:", Options::default()).await.unwrap();
    let store = Store::new(db);
    store.prepare().await.unwrap();
    store
}

fn write_at(keys: Vec<Key>, at: i64, request_id: Option<&str>) -> Write {
    Write {
        keys,
        actor: "test".to_owned(),
        call_id: "call".to_owned(),
        reason: String::new(),
        at,
        idempotency: request_id
            .map(|id| Idempotency { request_id: id.to_owned(), fingerprint: "same".to_owned() }),
        dry_run: false,
    }
}

fn namespace(name: &str, description: &str) -> Entry {
    Entry::Namespace(Namespace {
        metadata: Metadata {
            name: name.to_owned(),
            description: description.to_owned(),
            ..Metadata::default()
        },
        spec: NamespaceSpec {
            owners: vec!["team".to_owned()],
            prefixes: vec![format!("{name}__")],
            ..NamespaceSpec::default()
        },
    })
}

async fn put(store: &Store, name: &str, description: &str, at: i64, id: Option<&str>) -> Outcome {
    let entry = namespace(name, description);
    let write = write_at(vec![Key::of(&entry)], at, id);
    store.write::<()>(&write, |_| Ok(vec![Some(entry.clone())])).await.unwrap()
}

/// Random prefixes over a small alphabet, so that they overlap often, in every order.
#[tokio::test]
async fn overlaps_are_those_that_a_plain_search_finds() {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut found_some = 0;
    for round in 0..40 {
        let store = store().await;
        let db = store.db().unwrap();
        let mut text = || -> String {
            let length = 3 + random(5);
            (0..length).map(|_| ['a', 'b', 'é', '_'][random(4) as usize]).collect()
        };
        // What is stored: overlaps within a namespace only.
        let mut stored: Vec<Claim> = Vec::new();
        for number in 0..60 {
            let claim = Claim { prefix: text(), namespace: format!("stored-{}", number % 7) };
            let fits = stored.iter().all(|other| {
                let nested = other.prefix.starts_with(&claim.prefix)
                    || claim.prefix.starts_with(&other.prefix);
                !nested || (other.namespace == claim.namespace && other.prefix != claim.prefix)
            });
            if fits {
                stored.push(claim);
            }
        }
        let rows: Vec<_> = stored.iter().map(|c| params![&c.prefix, &c.namespace]).collect();
        write_tx!(db, |tx| -> airfleet_sql::Result<u64> {
            let head = "INSERT INTO registry_prefixes (prefix, namespace)";
            tx.insert_many(head, "", rows.clone()).await
        })
        .unwrap();
        for _ in 0..30 {
            let claim = Claim { prefix: text(), namespace: "new".to_owned() };
            let plain = stored.iter().any(|other| {
                other.prefix.starts_with(&claim.prefix) || claim.prefix.starts_with(&other.prefix)
            });
            let mut tx = store.read().await.unwrap();
            let found = find_overlaps(&mut tx, std::slice::from_ref(&claim)).await.unwrap();
            assert_eq!(!found.is_empty(), plain, "round {round}: {claim:?} in {stored:?}");
            for overlap in found {
                found_some += 1;
                let owner = stored.iter().find(|other| other.prefix == overlap.other_prefix);
                assert_eq!(owner.unwrap().namespace, overlap.other_namespace);
            }
        }
    }
    assert!(found_some > 100, "{found_some}");
}

#[tokio::test]
async fn requests_and_events_are_forgotten_when_their_time_is_over() {
    let store = store().await;
    for at in 0..100 {
        put(&store, "busy", &format!("{at}"), at, Some(&format!("id-{at}"))).await;
    }
    let first = store.head().await.unwrap().revision.0 - 99;
    let retention =
        Retention { requests_before: 90, events_before: 40, events_max: 1000, events_min: 10 };
    assert_eq!(store.forget(&retention).await.unwrap(), (90, 40));
    assert_eq!(store.forget(&retention).await.unwrap(), (0, 0));
    // A request that is kept is answered; one that is not is a new one.
    assert!(put(&store, "busy", "95", 200, Some("id-95")).await.replayed);
    assert!(!put(&store, "busy", "85", 200, Some("id-85")).await.replayed);
    // Who is at a revision whose successors are forgotten has to read everything.
    let resume = async |revision| store.resume(Revision(revision), 1000).await.unwrap();
    assert_eq!(resume(first + 38).await, Resume::Everything);
    assert_eq!(resume(first + 39).await, Resume::Changes);
    let changes = store.changes_after(Revision(first + 39), 10_000, 1 << 30).await.unwrap();
    assert_eq!(changes.first().unwrap().revision, Revision(first + 40));
    assert!(changes.windows(2).all(|two| two[1].revision == two[0].revision.next()));

    // Too many of them go before their time, but never those that calls may be answered from.
    let crowded =
        Retention { requests_before: 90, events_before: 0, events_max: 20, events_min: 10 };
    let (_, events) = store.forget(&crowded).await.unwrap();
    assert_eq!(events, 41, "101 events are made, 40 are gone, 20 stay");
    let greedy =
        Retention { requests_before: 1000, events_before: 1000, events_max: 0, events_min: 10 };
    store.forget(&greedy).await.unwrap();
    let head = store.head().await.unwrap();
    assert_eq!(head.revision.0 - head.events_floor.0, 10, "some are always kept");
}

/// An entry whose last change is forgotten is still what a repeated call answers with.
#[tokio::test]
async fn answers_survive_the_events_of_what_did_not_change() {
    let store = store().await;
    put(&store, "still", "same", 1, None).await;
    for at in 2..50 {
        put(&store, "busy", &format!("{at}"), at, None).await;
    }
    let first = put(&store, "still", "same", 100, Some("id")).await;
    assert_eq!(first.items[0].action, Action::Unchanged);
    let retention =
        Retention { requests_before: 60, events_before: 60, events_max: 1000, events_min: 0 };
    store.forget(&retention).await.unwrap();
    let again = put(&store, "still", "same", 101, Some("id")).await;
    assert!(again.replayed);
    assert_eq!(again.items, first.items);
    // Also after it changed.
    put(&store, "still", "changed", 102, None).await;
    let again = put(&store, "still", "same", 103, Some("id")).await;
    assert_eq!(again.items, first.items);
}

/// The plans that a million entries need: no statement on the way of a write or a page scans.
#[tokio::test]
async fn lookups_use_indexes() {
    let store = store().await;
    let mut tx = store.read().await.unwrap();
    for sql in [
        "SELECT prefix FROM registry_prefixes WHERE prefix <= 'x' ORDER BY prefix DESC LIMIT 1",
        "SELECT prefix FROM registry_prefixes WHERE prefix >= 'x' ORDER BY prefix LIMIT 1",
        "SELECT after FROM registry_events WHERE kind = 'namespace' AND name = 'x'
            AND revision <= 5 ORDER BY sequence DESC LIMIT 1",
        "SELECT revision, after FROM registry_events WHERE revision > 5
            ORDER BY revision, sequence LIMIT 9",
        "SELECT after FROM registry_events WHERE sequence < 5 AND kind = 'shard'
            ORDER BY sequence DESC LIMIT 9",
        "SELECT after FROM registry_events WHERE sequence < 5 AND kind IN ('namespace', 'shard')
            AND name = 'x' ORDER BY sequence DESC LIMIT 9",
        "SELECT name FROM registry_entries WHERE kind = 'namespace' AND name > 'x'
            ORDER BY name LIMIT 9",
        "DELETE FROM registry_owners WHERE 'namespace' = 'namespace' AND namespace IN ('x')",
        "SELECT l.name FROM registry_labels l WHERE l.kind = 'namespace' AND l.key = 'k'
            AND l.value IN ('a', 'b') AND l.name > 'x'",
    ] {
        let explained = Sql::assembled(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = tx.fetch_all(explained, Vec::new(), |row| row.get::<String>(3)).await.unwrap();
        let scans = plan.iter().any(|step| step.starts_with("SCAN") && !step.contains("CONSTANT"));
        assert!(!scans, "{sql}: {plan:?}");
    }
}
