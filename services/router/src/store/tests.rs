//! One suite on both engines.

use airfleet_domain::{
    ids::{Generation, Revision, Term},
    manifest::Workload,
    roles::{Fence, Residue, Role},
    routing::{Entry, State},
};
use airfleet_sql::{
    Db, Options,
    lease::{Lease, Timing},
};

use super::{
    Batch, Changes, Cordon, Declared, Error, Event, NewWorkload, Override, Record, Recorded,
    Removal, ShardRecord, Source, Store,
};
use crate::testing::{self, Database, name, record, shard};

macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::testing::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::testing::postgres().await).await; })*
        }
    };
}

on_both_engines!(
    what_was_committed_comes_back,
    changes_come_each_at_its_latest,
    a_commit_follows_the_revision_that_the_leader_knows,
    a_stale_leader_is_refused,
    an_owner_and_its_generation_change_together,
    what_is_owned_is_not_removed,
    who_missed_forgotten_removals_reads_everything,
    another_store_is_told_apart,
    generations_never_go_back,
    workloads_are_kept_beside_their_namespaces,
    what_is_left_behind_is_kept_until_it_is_gone,
    events_are_numbered_kept_once_and_forgotten,
);

async fn open(database: &Database, replica: &str) -> Store {
    let db = Db::open(&database.url, Options::default()).await.unwrap();
    let lease = Lease::new(db.clone(), Store::LEASE, replica, replica, Timing::default()).unwrap();
    let store = Store::new(db, lease);
    store.prepare().await.unwrap();
    store
}

async fn lead(store: &Store) -> Term {
    testing::lead(store).await
}

fn records(records: Vec<Record>) -> Batch {
    Batch { records, ..Batch::default() }
}

async fn what_was_committed_comes_back(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let owned = record("payments").on("shard-a", 3).prefixes(&["größe__", "pay."]).at(1);
    let waiting = record("waiting").at(1);
    let placement = r#"{"selector":[{"key":"tier","operator":"In","values":["gold"]}],
        "airflowVersion":">=3","region":"eu"}"#;
    let mut picky = record("picky").needs(r#"{"dags":7,"metadataBytes":9}"#, placement).at(1);
    picky.manifest_revision = Revision(12);
    let mut orphan = record("orphan").on("shard-a", 1).pinned("shard-a").at(1);
    orphan.orphaned = true;
    let cordon = Cordon { actor: "token:op".into(), reason: "disk".into(), time_us: 77 };
    let shard_a = ShardRecord {
        cordon: Some(cordon),
        barred_revision: Revision(4),
        agent_seen_at_us: Some(5),
        revision: Revision(1),
        ..shard("shard-a")
    };
    let mut expected = vec![owned, waiting, picky, orphan];
    let batch = Batch {
        records: expected.clone(),
        shards: vec![shard_a.clone()],
        manifest_revision: Some(Revision(12)),
        overrides: vec![Override {
            action: "force-pin",
            subject: "payments".into(),
            actor: "token:op".into(),
            reason: "the shard burnt down".into(),
        }],
        ..Batch::default()
    };
    assert_eq!(store.commit(term, Revision(0), &batch, 9).await.unwrap(), Revision(1));

    let mut contents = store.load::<Record>().await.unwrap();
    contents.namespaces.sort_by(|a, b| a.entry.namespace().cmp(b.entry.namespace()));
    expected.sort_by(|a, b| a.entry.namespace().cmp(b.entry.namespace()));
    assert_eq!(contents.namespaces, expected);
    assert_eq!(contents.shards, [shard_a]);
    assert_eq!(contents.head.revision, Revision(1));
    assert_eq!(contents.head.manifest_revision, Revision(12));
    // What asks the same is kept once.
    let rules = |name: &str| {
        let found = contents.namespaces.iter().find(|r| r.entry.namespace() == name).unwrap();
        found.needs.rules.clone()
    };
    assert!(std::sync::Arc::ptr_eq(&rules("payments"), &rules("waiting")));

    let entries = store.load::<Entry>().await.unwrap();
    assert_eq!(entries.namespaces.len(), 4);
    // Another replica on the same database finds the same.
    let other = open(&database, "b").await;
    assert_eq!(other.load::<Record>().await.unwrap().head, contents.head);
}

async fn changes_come_each_at_its_latest(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let first = records(vec![record("one").at(1), record("two").at(1), record("three").at(1)]);
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    let id = store.load::<Entry>().await.unwrap().head.store_id;
    let second = Batch {
        records: vec![record("two").on("shard-a", 1).at(2)],
        removed: vec![name("one")],
        shards: vec![ShardRecord { revision: Revision(2), ..shard("shard-a") }],
        ..Batch::default()
    };
    store.commit(term, Revision(1), &second, 0).await.unwrap();
    let third = records(vec![record("two").on("shard-b", 2).at(3), record("four").at(3)]);
    store.commit(term, Revision(2), &third, 0).await.unwrap();

    let Changes::Some(changes) = store.changes_since::<Entry>(&id, Revision(1), 9).await.unwrap()
    else {
        panic!("something changed");
    };
    let mut seen: Vec<_> =
        changes.namespaces.iter().map(|e| (e.namespace(), e.shard(), e.revision().0)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("four", None, 3), ("two", Some("shard-b"), 3)]);
    assert_eq!(changes.removals, [(Revision(2), Removal::Namespace(name("one")))]);
    assert_eq!(changes.shards.len(), 1);
    assert_eq!(changes.head.revision, Revision(3));

    let since = async |revision, limit| {
        store.changes_since::<Entry>(&id, Revision(revision), limit).await.unwrap()
    };
    assert!(matches!(since(3, 9).await, Changes::None));
    assert!(matches!(since(4, 9).await, Changes::Everything(_)), "the store is behind the reader");
    assert!(matches!(since(1, 1).await, Changes::Everything(_)), "more than the limit");
    assert!(matches!(since(1, 2).await, Changes::Some(_)));
}

async fn a_commit_follows_the_revision_that_the_leader_knows(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let one = records(vec![record("one").at(1)]);
    store.commit(term, Revision(0), &one, 0).await.unwrap();
    let again = store.commit(term, Revision(0), &records(vec![record("two").at(1)]), 0).await;
    let diverged = again.unwrap_err();
    assert!(matches!(diverged, Error::Diverged { expected: Revision(0), found: Revision(1) }));
    assert!(diverged.is_transient());
    assert_eq!(store.load::<Entry>().await.unwrap().namespaces.len(), 1);
}

async fn a_stale_leader_is_refused(database: Database) {
    let (old, new) = (open(&database, "a").await, open(&database, "b").await);
    let stale = lead(&old).await;
    old.lease().release().await.unwrap();
    let term = lead(&new).await;
    assert!(term > stale);
    let late = old.commit(stale, Revision(0), &records(vec![record("late").at(1)]), 0).await;
    assert!(late.unwrap_err().is_stale_term());
    assert!(old.forget_removals(stale, 0).await.unwrap_err().is_stale_term());
    new.commit(term, Revision(0), &records(vec![record("good").at(1)]), 0).await.unwrap();
    let found = new.load::<Entry>().await.unwrap().namespaces;
    assert_eq!(found.iter().map(Entry::namespace).collect::<Vec<_>>(), ["good"]);
}

async fn an_owner_and_its_generation_change_together(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let first = records(vec![record("owned").on("shard-a", 4).at(1), record("free").at(1)]);
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    for wrong in [
        record("owned").on("shard-b", 4).at(2), // another owner at the same generation
        record("owned").on("shard-b", 6).at(2), // more than one further
        record("owned").on("shard-b", 3).at(2), // backwards
        record("owned").on("shard-a", 5).at(2), // the same owner at another generation
        record("free").on("shard-a", 0).at(2),
    ] {
        let shown = format!("{:?}", wrong.entry);
        let fine = record("fine").at(2);
        let refused = store.commit(term, Revision(1), &records(vec![fine, wrong]), 0).await;
        assert!(
            matches!(refused, Err(Error::Rule { wanted: 2, written: 1, .. })),
            "{refused:?} for {shown}"
        );
    }
    let left = store.load::<Entry>().await.unwrap();
    assert_eq!(left.head.revision, Revision(1), "nothing of a refused batch is there");
    assert_eq!(left.namespaces.len(), 2);
    let right = records(vec![record("owned").on("shard-b", 5).at(2), record("free").at(2)]);
    store.commit(term, Revision(1), &right, 0).await.unwrap();
}

async fn what_is_owned_is_not_removed(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let first = Batch {
        records: vec![record("owned").on("shard-a", 1).at(1), record("free").at(1)],
        shards: vec![shard("shard-a"), shard("shard-b")],
        ..Batch::default()
    };
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    let owned = Batch { removed: vec![name("free"), name("owned")], ..Batch::default() };
    let occupied = Batch { removed_shards: vec![name("shard-a")], ..Batch::default() };
    for batch in [owned, occupied] {
        let refused = store.commit(term, Revision(1), &batch, 0).await;
        assert!(matches!(refused, Err(Error::Rule { .. })), "{refused:?}");
    }
    let rest = Batch {
        removed: vec![name("free")],
        removed_shards: vec![name("shard-b")],
        ..Batch::default()
    };
    store.commit(term, Revision(1), &rest, 0).await.unwrap();
    let left = store.load::<Entry>().await.unwrap();
    assert_eq!((left.namespaces.len(), left.shards.len(), left.removals.len()), (1, 1, 2));
}

async fn who_missed_forgotten_removals_reads_everything(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let names = ["aaa", "bbb", "ccc"];
    let first = records(names.map(|name| record(name).at(1)).to_vec());
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    for (removed, revision) in names.iter().zip(1..) {
        let batch = Batch { removed: vec![name(removed)], ..Batch::default() };
        store.commit(term, Revision(revision), &batch, 0).await.unwrap();
    }
    // Removed at 2, 3 and 4.
    assert_eq!(store.forget_removals(term, 3).await.unwrap(), 0);
    assert_eq!(store.forget_removals(term, 1).await.unwrap(), 2);
    let head = store.load::<Entry>().await.unwrap().head;
    assert_eq!(head.removals_floor, Revision(3));
    let since = async |revision| {
        store.changes_since::<Entry>(&head.store_id, Revision(revision), 9).await.unwrap()
    };
    assert!(matches!(since(2).await, Changes::Everything(_)));
    let Changes::Some(changes) = since(3).await else { panic!("the last removal is known") };
    assert_eq!(changes.removals, [(Revision(4), Removal::Namespace(name("ccc")))]);
}

async fn another_store_is_told_apart(database: Database) {
    let store = open(&database, "a").await;
    let changes = store.changes_since::<Entry>("another", Revision(0), 9).await.unwrap();
    assert!(matches!(changes, Changes::Everything(_)));
    // Its identity is drawn once.
    let id = store.load::<Entry>().await.unwrap().head.store_id;
    store.prepare().await.unwrap();
    assert_eq!(store.load::<Entry>().await.unwrap().head.store_id, id);
}

async fn generations_never_go_back(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let mut gone = record("gone").state(State::Released).at(1);
    gone = testing::with_generation(gone, 7);
    store.commit(term, Revision(0), &records(vec![gone]), 0).await.unwrap();
    let remove = |generation| Batch {
        removed: vec![name("gone")],
        removed_generation: Generation(generation),
        ..Batch::default()
    };
    store.commit(term, Revision(1), &remove(7), 0).await.unwrap();
    let floor = async || store.load::<Entry>().await.unwrap().head.generation_floor;
    assert_eq!(floor().await, Generation(7));
    store.commit(term, Revision(2), &records(vec![record("gone").at(3)]), 0).await.unwrap();
    store.commit(term, Revision(3), &remove(2), 0).await.unwrap();
    assert_eq!(floor().await, Generation(7));
}

async fn workloads_are_kept_beside_their_namespaces(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let workload = |owner: &str| Workload { owners: vec![owner.into()], ..Workload::default() };
    let new = |namespace: &str, owner: &str, revision| NewWorkload {
        namespace: name(namespace),
        declared: Declared::from(&workload(owner)),
        manifest_revision: Revision(revision),
    };
    assert_eq!(new("one", "ä", 1).declared.digest(), new("two", "ä", 2).declared.digest());
    assert_ne!(new("one", "ä", 1).declared.digest(), new("one", "b", 1).declared.digest());
    let mut one = record("one").at(1);
    one.workload_digest = -7;
    let first = Batch {
        records: vec![one.clone(), record("two").at(1)],
        workloads: vec![new("one", "größe", 3), new("two", "b", 3)],
        ..Batch::default()
    };
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    let second = Batch {
        removed: vec![name("two")],
        workloads: vec![new("one", "größer", 4)],
        ..Batch::default()
    };
    store.commit(term, Revision(1), &second, 0).await.unwrap();
    let found = store.workloads(&[name("one"), name("two"), name("never")]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found["one"], (workload("größer"), Revision(4)));
    assert!(store.workloads(&[]).await.unwrap().is_empty());
    assert_eq!(store.load::<Record>().await.unwrap().namespaces, [one]);
}

async fn what_is_left_behind_is_kept_until_it_is_gone(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let residue = |shard: &str, fence| Residue {
        namespace: name("one"),
        shard: name(shard),
        prefixes: vec![name("größe__"), name("one.")],
        generation: Generation(4),
        role: Role::Retired,
        fence,
        reason: "pinned".into(),
        left_at_us: 5,
        purge_at_us: 9,
        revision: Revision(1),
    };
    let first = Batch {
        residues: vec![residue("shard-a", Fence::Awaited), residue("shard-b", Fence::Waived)],
        ..Batch::default()
    };
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    assert_eq!(store.residues().await.unwrap().len(), 2);
    let absent = Residue { role: Role::Absent, ..residue("shard-a", Fence::Seen) };
    let second = Batch {
        residues: vec![absent.clone()],
        removed_residues: vec![(name("one"), name("shard-b")), (name("two"), name("shard-b"))],
        ..Batch::default()
    };
    store.commit(term, Revision(1), &second, 0).await.unwrap();
    // Another replica on the same database finds the same, also of a namespace that is gone.
    assert_eq!(open(&database, "b").await.residues().await.unwrap(), [absent]);
}

async fn events_are_numbered_kept_once_and_forgotten(database: Database) {
    let store = open(&database, "a").await;
    let term = lead(&store).await;
    let happened = |namespace: &str, number: u128| Event {
        id: uuid::Uuid::from_u128(number),
        namespace: name(namespace),
        shard: "shard-a".into(),
        source: Source::Agent,
        code: "ROLE_REACHED".into(),
        message: format!("größe {number}"),
        warning: number.is_multiple_of(2),
        happened_at_us: 7,
    };
    let with_a_commit = Batch {
        records: vec![record("one").at(1)],
        events: vec![Event { source: Source::Router, ..happened("one", 1) }],
        ..Batch::default()
    };
    store.commit(term, Revision(0), &with_a_commit, 10).await.unwrap();
    let told: Vec<_> = (2..8).map(|number| happened("one", number)).collect();
    store.record_events(term, &told, 20).await.unwrap();
    // Told again, and again within one go, they are kept once.
    let again = [told.clone(), told, vec![happened("two", 100)]].concat();
    store.record_events(term, &again, 30).await.unwrap();

    let numbers = |events: &[Recorded]| -> Vec<u128> {
        events.iter().map(|one| one.event.id.as_u128()).collect()
    };
    let all = store.events_before(&name("one"), None, 100).await.unwrap();
    assert_eq!(numbers(&all), [7, 6, 5, 4, 3, 2, 1], "newest first");
    assert_eq!(all[6].event, with_a_commit.events[0]);
    assert_eq!((&all[0].event, all[0].at_us), (&happened("one", 7), 20));
    let page = store.events_before(&name("one"), Some(all[2].sequence), 2).await.unwrap();
    assert_eq!(numbers(&page), [4, 3]);
    let news = store.events_after(&name("one"), all[2].sequence, 100).await.unwrap();
    assert_eq!(numbers(&news), [6, 7], "oldest first");
    let last = store.last_event().await.unwrap();
    assert!(store.events_after(&name("one"), last, 9).await.unwrap().is_empty());

    // Nothing of a stale leader.
    let stale = Term(term.0 - 1);
    let late = store.record_events(stale, &[happened("one", 200)], 40).await;
    assert!(late.unwrap_err().is_stale_term());
    assert!(store.forget_events(stale, &[], 1, i64::MAX).await.unwrap_err().is_stale_term());

    assert_eq!(store.forget_events(term, &[name("one"), name("never")], 3, 0).await.unwrap(), 4);
    assert_eq!(numbers(&store.events_before(&name("one"), None, 9).await.unwrap()), [7, 6, 5]);
    assert_eq!(store.forget_events(term, &[], 3, 25).await.unwrap(), 3, "by age");
    assert_eq!(numbers(&store.events_before(&name("two"), None, 9).await.unwrap()), [100]);
}
