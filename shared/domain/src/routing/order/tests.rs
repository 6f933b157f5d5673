use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{Generation, Revision},
    routing::{Assignment, State},
};

fn entry(namespace: &str, generation: i64) -> Entry {
    Entry::new(&Assignment {
        namespace: namespace.parse().unwrap(),
        namespace_uid: String::new(),
        prefixes: Vec::new(),
        shard: None,
        generation: Generation(generation),
        state: State::Unplaced,
        pinned_shard: None,
        reason: String::new(),
        revision: Revision(1),
        update_time_us: 0,
    })
}

type Content = Vec<(String, i64)>;

fn content<'a>(entries: impl Iterator<Item = &'a Entry>) -> Content {
    entries.map(|entry| (entry.namespace().to_owned(), entry.generation().0)).collect()
}

#[test]
fn it_grows_by_splitting_and_shrinks_to_nothing_in_any_direction() {
    let names: Vec<String> = (0..5_000).map(|n| format!("ns{n:05}")).collect();
    let orders: [Vec<usize>; 3] = [
        (0..names.len()).collect(),
        (0..names.len()).rev().collect(),
        (0..names.len()).map(|n| n * 1_999 % names.len()).collect(),
    ];
    for inserted in &orders {
        for removed in &orders {
            let mut order = Order::default();
            for n in inserted {
                order.insert(entry(&names[*n], 1));
            }
            assert_eq!(order.len(), names.len());
            assert!(order.iter().map(Entry::namespace).eq(names.iter().map(String::as_str)));
            let full = order.clone();
            for n in removed {
                order.remove(&names[*n]);
            }
            assert_eq!((order.len(), order.iter().count()), (0, 0));
            assert_eq!(full.iter().count(), names.len(), "an older snapshot is untouched");
        }
    }
}

#[test]
fn a_removal_of_what_is_not_there_changes_nothing() {
    let mut order = Order::build((0..100).map(|n| entry(&format!("ns{n:03}"), 1)).collect());
    order.remove("ns1000");
    assert_eq!((order.len(), order.iter().count()), (100, 100));
}

proptest! {
    #[test]
    fn it_lists_what_a_map_lists(
        built in proptest::collection::btree_set(0..400_i64, 0..200),
        steps in proptest::collection::vec((0..400_i64, 0..3_i64), 0..600),
        after in 0..400_i64,
    ) {
        let name = |n: i64| format!("ns{n:03}");
        let mut order = Order::build(built.iter().map(|n| entry(&name(*n), 0)).collect());
        let mut model: BTreeMap<String, i64> = built.iter().map(|n| (name(*n), 0)).collect();
        for (n, generation) in steps {
            if generation == 0 {
                order.remove(&name(n));
                model.remove(&name(n));
            } else {
                order.insert(entry(&name(n), generation));
                model.insert(name(n), generation);
            }
        }
        prop_assert_eq!(order.len(), model.len());
        prop_assert_eq!(content(order.iter()), model.clone().into_iter().collect::<Content>());
        for after in [name(after), "a".into(), "zzz".into(), format!("{}x", name(after))] {
            let expected: Content =
                model.iter().filter(|(name, _)| **name > after).map(|(n, g)| (n.clone(), *g)).collect();
            prop_assert_eq!(content(order.iter_after(&after)), expected, "after {}", after);
        }
    }
}
