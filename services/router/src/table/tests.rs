use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    ids::{NamespaceName, Revision},
    routing::{Change, Entry, Table, history::Since},
};
use airfleet_runtime::clock::{Clock as _, ManualClock};
use proptest::prelude::*;

use super::{Directory, Live, Origin, Update, View, file::Saved};
use crate::{
    store::{Contents, Head, Removal},
    testing::{name, record, shard},
};

fn clock() -> ManualClock {
    ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap())
}

fn live(history: usize) -> Live {
    Live::new(history, Arc::new(clock()))
}

fn entry(namespace: &str, revision: i64) -> Entry {
    record(namespace).on("shard-a", revision).at(revision).entry
}

/// A store with these namespaces at these revisions.
fn contents(store_id: &str, revision: i64, entries: &[(&str, i64)]) -> Contents<Entry> {
    Contents {
        head: Head { store_id: store_id.into(), revision: Revision(revision), ..Head::default() },
        namespaces: entries.iter().map(|(namespace, at)| entry(namespace, *at)).collect(),
        shards: vec![shard("shard-a")],
        removals: Vec::new(),
    }
}

fn update(revision: i64, changes: Vec<(i64, Change)>) -> Update {
    Update {
        changes: changes.into_iter().map(|(at, change)| (Revision(at), change)).collect(),
        revision: Revision(revision),
        ..Update::default()
    }
}

fn put(namespace: &str, revision: i64) -> (i64, Change) {
    (revision, Change::Upsert(entry(namespace, revision)))
}

fn gone(namespace: &str, revision: i64) -> (i64, Change) {
    (revision, Change::Delete(name(namespace)))
}

fn names(live: &Live) -> Vec<String> {
    live.view().table.iter().map(|entry| entry.namespace().to_owned()).collect()
}

/// Names that one who stood at `revision` is told of: changed, and gone.
fn told(live: &Live, revision: i64) -> Option<(Vec<String>, Vec<String>)> {
    match live.since(live.position_at(Revision(revision))) {
        Since::Changed(set) => {
            assert_eq!(set.previous_revision, Revision(revision));
            assert_eq!(set.revision, live.view().table.revision());
            let upserts = set.upserts.iter().map(|entry| entry.namespace().to_owned());
            Some((upserts.collect(), set.deleted.iter().map(ToString::to_string).collect()))
        }
        Since::Current => Some((vec![], vec![])),
        Since::Behind | Since::Ahead => None,
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_table_is_ready_once_it_was_read() {
    let live = live(100);
    assert!(!live.is_ready());
    live.replace(contents("s", 7, &[("aaa", 7)]), Origin::Store);
    assert!(live.is_ready());
    let view = live.view();
    assert_eq!(view.table.resolve_dag("aaa.etl").unwrap().namespace(), "aaa");
    assert_eq!(view.shards.len(), 1);
}

#[test]
fn only_what_is_newer_is_taken_in() {
    let live = live(100);
    live.replace(contents("s", 2, &[("aaa", 1), ("bbb", 2)]), Origin::Store);
    live.apply(update(4, vec![put("ccc", 3), gone("aaa", 4)]));
    assert_eq!(names(&live), ["bbb", "ccc"]);
    // The same read again, as the follower does beside a leader's own commit; and an older one.
    live.apply(update(4, vec![put("ccc", 3), gone("aaa", 4)]));
    live.apply(update(3, vec![put("aaa", 3)]));
    assert_eq!(names(&live), ["bbb", "ccc"]);
    live.apply(update(6, vec![put("old", 4), put("ddd", 5)]));
    assert_eq!(names(&live), ["bbb", "ccc", "ddd"], "what is of a known revision is known");
    assert_eq!(told(&live, 2), Some((strings(&["ccc", "ddd"]), strings(&["aaa"]))));
    assert_eq!(told(&live, 6), Some((vec![], vec![])));
    assert_eq!(told(&live, 7), None, "ahead of this replica");
}

#[test]
fn a_restart_remembers_what_the_rows_tell() {
    let live = live(3);
    let mut contents = contents("s", 9, &[("aaa", 2), ("bbb", 5), ("ccc", 7), ("ddd", 9)]);
    contents.removals = vec![
        (Revision(4), Removal::Namespace(name("old"))),
        (Revision(8), Removal::Namespace(name("gone"))),
        (Revision(6), Removal::Namespace(name("ccc"))),
    ];
    live.replace(contents, Origin::Store);
    assert_eq!(told(&live, 9), Some((vec![], vec![])));
    assert_eq!(told(&live, 7), Some((strings(&["ddd"]), strings(&["gone"]))));
    assert_eq!(told(&live, 2), None, "more than is kept");
}

#[test]
fn removals_that_the_store_forgot_make_older_watchers_start_over() {
    let live = live(100);
    let mut contents = contents("s", 9, &[("aaa", 2), ("bbb", 9)]);
    contents.head.removals_floor = Revision(5);
    live.replace(contents, Origin::Store);
    assert_eq!(told(&live, 4), None);
    assert_eq!(told(&live, 5), Some((strings(&["bbb"]), vec![])));
}

#[test]
fn a_table_read_whole_is_told_as_what_differs() {
    let live = live(100);
    live.replace(contents("s", 3, &[("aaa", 1), ("bbb", 2), ("ccc", 3)]), Origin::Store);
    let watcher = live.position_at(Revision(3));
    live.replace(contents("s", 9, &[("aaa", 1), ("bbb", 8), ("ddd", 7)]), Origin::Store);
    let Since::Changed(set) = live.since(watcher) else { panic!("a successor") };
    let mut upserts: Vec<_> = set.upserts.iter().map(Entry::namespace).collect();
    upserts.sort_unstable();
    assert_eq!((upserts, set.deleted), (vec!["bbb", "ddd"], vec![name("ccc")]));
}

#[test]
fn another_store_or_an_older_state_makes_everybody_start_over() {
    let live = live(100);
    live.replace(contents("s", 9, &[("aaa", 9)]), Origin::Store);
    for (store, revision) in [("s", 4), ("other", 9), ("another", 20)] {
        let watcher = live.position_of(&live.view());
        live.replace(contents(store, revision, &[("bbb", 4)]), Origin::Store);
        assert_eq!(live.since(watcher), Since::Ahead, "{store} {revision}");
        assert_eq!(names(&live), ["bbb"]);
    }
}

#[test]
fn age_is_that_of_the_last_look_at_the_store() {
    let clock = clock();
    let live = Live::new(10, Arc::new(clock.clone()));
    live.mark_age(Duration::from_hours(1));
    assert_eq!(live.age(), Duration::from_hours(1));
    let asked = live.now();
    clock.advance(Duration::from_secs(2));
    live.mark_current(asked);
    assert_eq!(live.age(), Duration::from_secs(2), "the answer is as old as the question");
    clock.advance(Duration::from_secs(1));
    assert_eq!(live.age(), Duration::from_secs(3));
}

fn saved(live: &Live, now_us: i64) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/table.snapshot");
    Saved::of(live, now_us).write(&path).unwrap();
    (folder, path)
}

#[test]
fn a_file_brings_back_the_table_its_age_and_its_history() {
    let clock = clock();
    let live = Live::new(100, Arc::new(clock.clone()));
    live.replace(contents("store-id", 3, &[("aaa", 1), ("bbb", 2), ("ccc", 3)]), Origin::Store);
    live.apply(update(5, vec![put("ddd", 4), gone("bbb", 5)]));
    live.mark_current(live.now());
    clock.advance(Duration::from_secs(10));
    let (_folder, path) = saved(&live, clock.unix_micros());

    clock.advance(Duration::from_secs(50));
    let other = Live::new(100, Arc::new(clock.clone()));
    Saved::read(&path).unwrap().unwrap().restore(&other, clock.unix_micros());
    let (one, two) = (live.view(), other.view());
    assert!(one.table.iter().eq(two.table.iter()));
    assert_eq!(two.table.revision(), Revision(5));
    assert_eq!((&*two.store_id, two.origin), ("store-id", Origin::File));
    assert_eq!(two.shards, one.shards);
    assert_eq!(other.age(), Duration::from_mins(1));
    assert_eq!(told(&other, 3), Some((strings(&["ddd"]), strings(&["bbb"]))));
    assert_eq!(other.counts(), live.counts());
    other.confirm();
    assert_eq!(other.view().origin, Origin::Store);
}

#[test]
fn a_damaged_file_is_not_used() {
    let live = live(100);
    live.replace(contents("store-id", 3, &[("aaa", 1), ("bbb", 2)]), Origin::Store);
    let (_folder, path) = saved(&live, 0);
    let good = std::fs::read(&path).unwrap();
    assert!(Saved::read(&path).unwrap().is_some());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        assert!(Saved::read(&path).is_err(), "byte {at} was changed");
    }
    for length in [0, 4, 8, 20, good.len() - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(Saved::read(&path).is_err(), "cut to {length} bytes");
    }
    let mut longer = good.clone();
    longer.push(0);
    std::fs::write(&path, &longer).unwrap();
    assert!(Saved::read(&path).is_err());
    assert!(Saved::read(&path.with_extension("missing")).unwrap().is_none());
}

#[test]
fn a_view_without_anything_fits_a_file() {
    let live = live(10);
    live.replace_view(
        View {
            table: Table::empty(),
            shards: Arc::new(Directory::new()),
            origin: Origin::Store,
            manifest_revision: Revision(3),
            store_id: "s".into(),
        },
        Revision(0),
        Vec::new(),
    );
    let (_folder, path) = saved(&live, 0);
    let saved = Saved::read(&path).unwrap().unwrap();
    assert_eq!(saved.view.manifest_revision, Revision(3));
    assert!(saved.view.table.is_empty());
}

proptest! {
    /// However a follower's looks and a whole read interleave with changes, one who watches ends
    /// up with the table, and the counts are those of the table.
    #[test]
    fn a_watcher_ends_up_with_the_table(
        steps in proptest::collection::vec((0u8..6, any::<bool>(), 0u8..10), 1..80),
        history in 1usize..20,
    ) {
        let live = live(history);
        live.replace(contents("s", 0, &[]), Origin::Store);
        let mut seen = Table::empty();
        let mut position = live.position_of(&live.view());
        for (revision, (namespace, remove, what)) in (1..).zip(steps) {
            let namespace = format!("ns-{namespace}");
            let change = if remove { gone(&namespace, revision) } else { put(&namespace, revision) };
            if what == 0 {
                // Read whole, as after a gap.
                let mut table = live.view().table.clone();
                table = table.apply([&change.1], Revision(revision));
                let all = Contents {
                    namespaces: table.iter().cloned().collect(),
                    ..contents("s", revision, &[])
                };
                live.replace(all, Origin::Store);
            } else {
                live.apply(update(revision, vec![change]));
            }
            if what < 4 {
                match live.since(position) {
                    Since::Current => {}
                    Since::Changed(set) => {
                        prop_assert_eq!(set.previous_revision, position.revision);
                        let changes: Vec<Change> = set.changes().collect();
                        seen = seen.apply(&changes, set.revision);
                        position.revision = set.revision;
                    }
                    Since::Behind | Since::Ahead => {
                        let view = live.view();
                        seen = view.table.clone();
                        position = live.position_of(&view);
                    }
                }
                let view = live.view();
                prop_assert_eq!(seen.revision(), view.table.revision());
                prop_assert!(seen.iter().eq(view.table.iter()));
            }
            prop_assert_eq!(live.counts().assigned, live.view().table.len());
        }
    }
}

#[test]
fn names_are_counted_by_shard_and_state() {
    let live = live(10);
    live.replace(contents("s", 1, &[("aaa", 1)]), Origin::Store);
    live.apply(update(
        2,
        vec![
            (2, Change::Upsert(record("bbb").at(2).entry)),
            (2, Change::Upsert(record("aaa").on("shard-b", 2).at(2).entry)),
        ],
    ));
    let counts = live.counts();
    assert_eq!((counts.assigned, counts.unplaced, counts.released), (1, 1, 0));
    assert_eq!(counts.by_shard.get("shard-b"), Some(&1));
    assert_eq!(counts.by_shard.get("shard-a"), None);
    let missing: NamespaceName = name("never");
    live.apply(update(3, vec![(3, Change::Delete(missing))]));
    assert_eq!(live.counts(), counts);
}

#[test]
fn it_is_known_when_it_last_changed_whose_a_dag_is() {
    let live = live(100);
    live.replace(contents("s", 7, &[("aaa", 7)]), Origin::Store);
    assert_eq!(live.prefixes_revision(), Revision(7));
    live.apply(update(8, vec![]));
    // The same prefixes and owner, at another generation.
    live.apply(update(9, vec![put("aaa", 9)]));
    assert_eq!(live.prefixes_revision(), Revision(7));
    live.apply(update(10, vec![put("bbb", 10)]));
    assert_eq!(live.prefixes_revision(), Revision(10));
    let elsewhere = record("aaa").on("shard-b", 11).at(11).entry;
    live.apply(update(11, vec![(11, Change::Upsert(elsewhere))]));
    assert_eq!(live.prefixes_revision(), Revision(11));
    live.apply(update(12, vec![gone("bbb", 12)]));
    assert_eq!(live.prefixes_revision(), Revision(12));
}
