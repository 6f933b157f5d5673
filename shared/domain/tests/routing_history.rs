//! A follower that takes snapshots and coalesced changes always ends with the table.

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    routing::{
        Assignment, Change, Entry, State, Table,
        history::{History, OutOfOrder, Since},
    },
};
use proptest::prelude::*;

fn entry(namespace: u8, revision: i64) -> Entry {
    Entry::new(&Assignment {
        namespace: name(namespace).parse().unwrap(),
        namespace_uid: String::new(),
        prefixes: vec![format!("{}.", name(namespace)).parse().unwrap()],
        shard: Some("shard".parse().unwrap()),
        generation: Generation(revision),
        state: State::Assigned,
        pinned_shard: None,
        reason: String::new(),
        revision: Revision(revision),
        update_time_us: 0,
    })
}

fn name(namespace: u8) -> String {
    format!("ns{namespace}")
}

fn upsert(namespace: u8, revision: i64) -> Change {
    Change::Upsert(entry(namespace, revision))
}

fn delete(namespace: u8) -> Change {
    Change::Delete(name(namespace).parse().unwrap())
}

fn content(table: &Table) -> Vec<Assignment> {
    table.iter().map(Entry::assignment).collect()
}

#[derive(Debug, Clone)]
enum Event {
    /// The table moves on by some revisions at once; true upserts, false deletes.
    Revision { step: i64, changes: Vec<(u8, bool)> },
    /// A follower catches up.
    Follow { follower: usize },
    /// The table is loaded anew, some revisions later.
    Reload { step: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    let changes = proptest::collection::vec((0..12_u8, any::<bool>()), 0..5);
    prop_oneof![
        6 => (1..3_i64, changes).prop_map(|(step, changes)| Event::Revision { step, changes }),
        3 => (0..4_usize).prop_map(|follower| Event::Follow { follower }),
        1 => (0..5_i64).prop_map(|step| Event::Reload { step }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn followers_reproduce_the_table(
        limit in 0..20_usize,
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut table = Table::empty();
        let mut history = History::new(table.revision(), limit);
        let mut followers = vec![Table::empty(); 4];
        for event in events {
            match event {
                Event::Revision { step, changes } => {
                    let revision = Revision(table.revision().0 + step);
                    let changes: Vec<Change> = changes
                        .iter()
                        .map(|(n, keep)| if *keep { upsert(*n, revision.0) } else { delete(*n) })
                        .collect();
                    table = table.apply(&changes, revision);
                    history.record(changes, revision).unwrap();
                }
                Event::Reload { step } => {
                    let revision = Revision(table.revision().0 + step);
                    table = Table::build(table.iter().cloned(), revision);
                    history.reset(revision);
                }
                Event::Follow { follower } => {
                    let follower = &mut followers[follower];
                    follow(follower, &table, &history)?;
                    prop_assert_eq!(follower.revision(), table.revision());
                    prop_assert_eq!(content(follower), content(&table));
                }
            }
            prop_assert_eq!(history.revision(), table.revision());
        }
    }
}

/// What a watcher does: goes on from its revision by changes, or takes the table whole.
fn follow(follower: &mut Table, table: &Table, history: &History) -> Result<(), TestCaseError> {
    match history.since(follower.revision()) {
        Since::Current => prop_assert_eq!(follower.revision(), table.revision()),
        Since::Changed(set) => {
            prop_assert_eq!(set.previous_revision, follower.revision());
            prop_assert_eq!(set.revision, table.revision());
            let upserts = set.upserts.iter().map(Entry::namespace);
            let deleted = set.deleted.iter().map(NamespaceName::as_str);
            let mut told: Vec<&str> = upserts.chain(deleted).collect();
            told.sort_unstable();
            prop_assert!(told.is_sorted_by(|a, b| a < b), "each namespace once: {:?}", told);
            let changes: Vec<Change> = set.changes().collect();
            *follower = follower.apply(&changes, set.revision);
        }
        Since::Behind => {
            prop_assert!(follower.revision() < history.floor());
            *follower = table.clone();
        }
        Since::Ahead => return Err(TestCaseError::fail("no follower saw more than there is")),
    }
    Ok(())
}

#[test]
fn changes_are_folded_into_the_latest_of_each_namespace() {
    let mut history = History::new(Revision(10), 100);
    history.record([upsert(1, 11), upsert(2, 11)], Revision(11)).unwrap();
    history.record([delete(1)], Revision(12)).unwrap();
    history.record([upsert(3, 13), upsert(2, 13), delete(4)], Revision(13)).unwrap();
    let Since::Changed(set) = history.since(Revision(10)) else { panic!("it has all of it") };
    assert_eq!((set.previous_revision, set.revision), (Revision(10), Revision(13)));
    assert_eq!(set.upserts, [entry(3, 13), entry(2, 13)]);
    assert_eq!(set.deleted, [name(1).parse().unwrap(), name(4).parse().unwrap()]);

    let Since::Changed(set) = history.since(Revision(12)) else { panic!("it has all of it") };
    assert_eq!(set.previous_revision, Revision(12));
    assert_eq!((set.upserts.len(), set.deleted.len()), (2, 1));
    assert_eq!(history.since(Revision(13)), Since::Current);
    assert_eq!(history.since(Revision(9)), Since::Behind);
    assert_eq!(history.since(Revision(14)), Since::Ahead);
}

#[test]
fn a_revision_without_changes_still_moves_followers_on() {
    let mut history = History::new(Revision(1), 10);
    history.record([], Revision(5)).unwrap();
    let Since::Changed(set) = history.since(Revision(1)) else { panic!("it has all of it") };
    assert_eq!((set.revision, set.changes().count()), (Revision(5), 0));
}

#[test]
fn old_revisions_are_forgotten_whole_and_the_limit_holds() {
    let mut history = History::new(Revision(0), 4);
    history.record([upsert(1, 1), upsert(2, 1), upsert(3, 1)], Revision(1)).unwrap();
    history.record([upsert(4, 2)], Revision(2)).unwrap();
    assert_eq!(history.floor(), Revision(0));
    history.record([upsert(5, 3)], Revision(3)).unwrap();
    assert_eq!(history.floor(), Revision(1), "the fifth change drove out the first revision");
    assert_eq!(history.since(Revision(0)), Since::Behind);
    assert!(matches!(history.since(Revision(1)), Since::Changed(set) if set.upserts.len() == 2));

    history.record((0..9).map(|n| upsert(n, 4)), Revision(4)).unwrap();
    assert_eq!(history.floor(), Revision(4), "more than the limit by itself");
    assert_eq!(history.since(Revision(3)), Since::Behind);
    assert_eq!(history.since(Revision(4)), Since::Current);
    history.record([delete(1)], Revision(5)).unwrap();
    assert!(matches!(history.since(Revision(4)), Since::Changed(set) if set.deleted.len() == 1));
}

#[test]
fn revisions_that_do_not_grow_are_refused_and_change_nothing() {
    let mut history = History::new(Revision(7), 10);
    for revision in [Revision(7), Revision(6)] {
        let refused = OutOfOrder { revision, latest: Revision(7) };
        assert_eq!(history.record([upsert(1, 7)], revision), Err(refused));
    }
    assert_eq!(history.since(Revision(7)), Since::Current);
    history.reset(Revision(3));
    assert_eq!((history.revision(), history.floor()), (Revision(3), Revision(3)));
    assert_eq!(history.since(Revision(7)), Since::Ahead);
}
