use proptest::prelude::*;

use super::*;
use crate::{
    ids::Generation,
    routing::{Assignment, State},
};

/// An entry of a namespace with one prefix, and the prefix's place.
fn entry(namespace: &str, prefix: &str, revision: i64) -> (NamePlace, Entry) {
    let entry = Entry::new(&Assignment {
        namespace: namespace.parse().unwrap(),
        namespace_uid: String::new(),
        prefixes: vec![prefix.parse().unwrap()],
        shard: None,
        generation: Generation(1),
        state: State::Unplaced,
        pinned_shard: None,
        reason: String::new(),
        revision: Revision(revision),
        update_time_us: 0,
    });
    let place = entry.prefix_places().next().unwrap().0;
    (place, entry)
}

fn add(index: &mut Index, hash: u64, prefix: &str, (place, entry): &(NamePlace, Entry)) {
    index.replace(hash, prefix.as_bytes(), None, Some((*place, entry)));
}

fn remove(index: &mut Index, hash: u64, prefix: &str, (_, entry): &(NamePlace, Entry)) {
    index.replace(hash, prefix.as_bytes(), Some(entry), None);
}

fn found<'a>(index: &'a Index, hash: u64, prefix: &str) -> Option<&'a str> {
    index.get(hash, prefix.as_bytes()).map(Entry::namespace)
}

#[test]
fn names_that_all_collide_are_told_apart() {
    for hash in [0, u64::MAX, 0x1234_5678_9abc_def0] {
        let mut index = Index::default();
        let names: Vec<String> = (0..200)
            .map(
                |n| if n % 2 == 0 { format!("p{n}.") } else { format!("a-rather-long-prefix{n}.") },
            )
            .collect();
        let entries: Vec<_> =
            names.iter().enumerate().map(|(n, name)| entry(&format!("ns{n}"), name, 1)).collect();
        for (name, entry) in names.iter().zip(&entries) {
            add(&mut index, hash, name, entry);
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(found(&index, hash, name), Some(&*format!("ns{n}")));
        }
        assert_eq!(found(&index, hash, "p200."), None);
        for (name, entry) in names.iter().zip(&entries).step_by(2) {
            remove(&mut index, hash, name, entry);
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(found(&index, hash, name).is_some(), n % 2 == 1, "{name}");
        }
    }
}

#[test]
fn of_two_claims_the_latest_counts_whatever_came_first() {
    let old = entry("bbb", "shared.", 4);
    let new = entry("ccc", "shared.", 5);
    let same = entry("aaa", "shared.", 5);
    for order in [[&old, &new, &same], [&same, &new, &old], [&new, &old, &same]] {
        let mut index = Index::default();
        for claim in order {
            add(&mut index, 7, "shared.", claim);
        }
        assert_eq!(found(&index, 7, "shared."), Some("aaa"));
        remove(&mut index, 7, "shared.", &same);
        assert_eq!(found(&index, 7, "shared."), Some("ccc"));
        remove(&mut index, 7, "shared.", &new);
        assert_eq!(found(&index, 7, "shared."), Some("bbb"));
        remove(&mut index, 7, "shared.", &old);
        assert_eq!(found(&index, 7, "shared."), None);
    }
}

#[test]
fn only_the_claim_under_this_name_is_removed() {
    let (first, both) = {
        let (_, entry) = entry("aaa", "one.", 1);
        let two = Assignment {
            prefixes: vec!["one.".parse().unwrap(), "two.".parse().unwrap()],
            ..entry.assignment()
        };
        (entry, Entry::new(&two))
    };
    let mut index = Index::default();
    for (place, prefix) in both.prefix_places() {
        index.replace(3, prefix, None, Some((place, &both)));
    }
    index.replace(3, b"two.", Some(&first), None);
    assert_eq!(found(&index, 3, "two."), Some("aaa"), "the other entry is not there to remove");
    index.replace(3, b"two.", Some(&both), None);
    assert_eq!(found(&index, 3, "two."), None);
    assert_eq!(found(&index, 3, "one."), Some("aaa"));
}

/// Hashes that fall into few pages and on few tags, so that cells overflow and pages end crowded.
fn crowded_hash() -> impl Strategy<Value = u64> {
    let page = prop_oneof![Just(0_u64), Just((1 << PAGE_BITS) - 1)];
    let tag = prop_oneof![
        any::<u32>(),
        Just(0),
        Just(u32::MAX),
        Just(u32::MAX - 2),
        (0..8_u32).prop_map(|tag| tag << 29),
    ];
    (page, tag).prop_map(|(page, tag)| {
        page << (u64::BITS - PAGE_BITS) | u64::from(tag) << (u64::BITS - PAGE_BITS - u32::BITS)
    })
}

proptest! {
    #[test]
    fn it_finds_what_a_map_finds(
        hashes in proptest::collection::vec(crowded_hash(), 1..120),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..300),
    ) {
        let names: Vec<String> = (0..hashes.len()).map(|n| format!("prefix-{n}.")).collect();
        let entries: Vec<_> =
            names.iter().enumerate().map(|(n, name)| entry(&format!("ns{n}"), name, 1)).collect();
        let mut present = vec![false; names.len()];
        let mut index = Index::default();
        for (at, insert) in steps {
            let n = at.index(names.len());
            match (insert, present[n]) {
                (true, false) => add(&mut index, hashes[n], &names[n], &entries[n]),
                (false, _) => remove(&mut index, hashes[n], &names[n], &entries[n]),
                (true, true) => index.replace(
                    hashes[n],
                    names[n].as_bytes(),
                    Some(&entries[n].1),
                    Some((entries[n].0, &entries[n].1)),
                ),
            }
            present[n] = insert;
        }
        let built = Index::build(
            (0..names.len())
                .filter(|n| present[*n])
                .map(|n| (hashes[n], entries[n].0, entries[n].1.clone()))
                .collect(),
        );
        for (n, name) in names.iter().enumerate() {
            let expected = present[n].then(|| format!("ns{n}"));
            prop_assert_eq!(found(&index, hashes[n], name), expected.as_deref());
            prop_assert_eq!(found(&built, hashes[n], name), expected.as_deref());
        }
    }
}
