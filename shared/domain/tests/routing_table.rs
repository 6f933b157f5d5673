//! The routing table against a model that is slow and plainly right.

use std::collections::BTreeMap;

use airfleet_domain::{
    ids::{Generation, Prefix, Revision},
    routing::{Assignment, Change, Entry, State, Table},
};
use proptest::prelude::*;

/// Every assignment by namespace; resolving looks at all of them.
#[derive(Default)]
struct Model(BTreeMap<String, Assignment>);

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Upsert(entry) => {
                self.0.insert(entry.namespace().to_owned(), entry.assignment());
            }
            Change::Delete(namespace) => {
                self.0.remove(namespace.as_str());
            }
        }
    }

    /// The longest prefix owns; of equal ones the latest claim, then the first by name.
    fn resolve_dag(&self, dag_id: &str) -> Option<&Assignment> {
        self.0
            .values()
            .flat_map(|assignment| {
                let prefixes = assignment.prefixes.iter().map(Prefix::as_str);
                let owned = prefixes.filter(|prefix| dag_id.starts_with(prefix));
                owned.map(move |prefix| (prefix.len(), assignment))
            })
            .max_by(|(length, a), (other_length, b)| {
                length
                    .cmp(other_length)
                    .then(a.revision.cmp(&b.revision))
                    .then(b.namespace.cmp(&a.namespace))
            })
            .map(|(_, assignment)| assignment)
    }
}

fn assert_same(table: &Table, model: &Model, dag_ids: &[String]) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.0.len());
    prop_assert_eq!(table.is_empty(), model.0.is_empty());
    let listed: Vec<Assignment> = table.iter().map(Entry::assignment).collect();
    prop_assert_eq!(listed, model.0.values().cloned().collect::<Vec<_>>());
    for name in NAMESPACES.into_iter().chain(["", "zz"]) {
        let expected = model.0.get(name).cloned();
        prop_assert_eq!(table.resolve_namespace(name).map(Entry::assignment), expected);
    }
    let batch = table.resolve_dags(dag_ids.iter().map(String::as_str));
    prop_assert_eq!(batch.len(), dag_ids.len());
    for (dag_id, batched) in dag_ids.iter().zip(batch) {
        let expected = model.resolve_dag(dag_id).map(|a| (a.namespace.as_str(), a.generation));
        let answer = table.resolve_dag(dag_id).map(|e| (e.namespace(), e.generation()));
        prop_assert_eq!(answer, expected, "of {:?}", dag_id);
        let answer = batched.map(|e| (e.namespace(), e.generation()));
        prop_assert_eq!(answer, expected, "of {:?} in a batch", dag_id);
    }
    Ok(())
}

const NAMESPACES: [&str; 9] = [
    "abc",
    "abd",
    "ab0",
    "payments",
    "pay",
    "a-rather-long-name-of-a-namespace",
    "x_y",
    "x-y",
    "zzz",
];

/// Prefixes that overlap, share endings and lengths, and cut through each other's characters.
fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab_.é]{3,6}",
        2 => "(pay|päy|payments)(_|__|[.]|-|eu__|eu_)?",
        1 => "[a_]{15,22}[.]",
        1 => "[é.]{30,40}__",
        1 => "[a-c]{62,67}(_|__)?",
        1 => Just("x".repeat(250)),
        1 => Just("本".repeat(250)),
    ]
}

fn dag_id(prefixes: Vec<String>) -> impl Strategy<Value = String> {
    let owned = prop::sample::select(prefixes);
    prop_oneof![
        5 => (owned.clone(), "[ab_.é-]{0,8}").prop_map(|(prefix, rest)| prefix + &rest),
        2 => owned.prop_map(|mut prefix| {
            prefix.pop();
            prefix
        }),
        2 => prefix(),
        1 => "[\\w.-]{0,250}",
        1 => any::<String>(),
        1 => Just(String::new()),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Upsert { namespace: usize, prefixes: Vec<prop::sample::Index>, shard: Option<u8> },
    Delete { namespace: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let namespace = 0..NAMESPACES.len();
    let prefixes = proptest::collection::vec(any::<prop::sample::Index>(), 0..5);
    let shard = proptest::option::of(0..3_u8);
    prop_oneof![
        3 => (namespace.clone(), prefixes, shard)
            .prop_map(|(namespace, prefixes, shard)| Step::Upsert { namespace, prefixes, shard }),
        1 => namespace.prop_map(|namespace| Step::Delete { namespace }),
    ]
}

fn change(step: &Step, pool: &[String], revision: i64) -> Change {
    match step {
        Step::Upsert { namespace, prefixes, shard } => {
            let prefixes = prefixes.iter().map(|at| at.get(pool).parse().unwrap()).collect();
            Change::Upsert(entry(NAMESPACES[*namespace], prefixes, *shard, revision))
        }
        Step::Delete { namespace } => Change::Delete(NAMESPACES[*namespace].parse().unwrap()),
    }
}

fn entry(namespace: &str, prefixes: Vec<Prefix>, shard: Option<u8>, revision: i64) -> Entry {
    Entry::new(&Assignment {
        namespace: namespace.parse().unwrap(),
        namespace_uid: format!("uid of {namespace}"),
        prefixes,
        shard: shard.map(|n| format!("shard-{n}").parse().unwrap()),
        generation: Generation(revision),
        state: if shard.is_some() { State::Assigned } else { State::Unplaced },
        pinned_shard: None,
        reason: String::new(),
        revision: Revision(revision),
        update_time_us: revision,
    })
}

/// Prefixes to choose from, batches of steps, and dag_ids to ask for.
fn scenario() -> impl Strategy<Value = (Vec<String>, Vec<Vec<Step>>, Vec<String>)> {
    proptest::collection::vec(prefix(), 2..10).prop_flat_map(|pool| {
        let batches = proptest::collection::vec(proptest::collection::vec(step(), 0..6), 1..15);
        let dag_ids = proptest::collection::vec(dag_id(pool.clone()), 1..60);
        (Just(pool), batches, dag_ids)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Two namespaces may claim overlapping or equal prefixes at any time here.
    #[test]
    fn the_table_answers_as_the_model_does((pool, batches, dag_ids) in scenario()) {
        let mut table = Table::empty();
        let mut model = Model::default();
        let mut first = None;
        for (n, steps) in batches.iter().enumerate() {
            let revision = n as i64 + 1;
            let changes: Vec<Change> = steps.iter().map(|s| change(s, &pool, revision)).collect();
            table = table.apply(&changes, Revision(revision));
            for change in &changes {
                model.apply(change);
            }
            prop_assert_eq!(table.revision(), Revision(revision));
            assert_same(&table, &model, &dag_ids)?;
            first.get_or_insert_with(|| (table.clone(), model.0.clone()));
        }
        let built = Table::build(table.iter().cloned(), table.revision());
        assert_same(&built, &model, &dag_ids)?;
        if let Some((table, assignments)) = first {
            assert_same(&table, &Model(assignments), &dag_ids)?;
        }
    }

    #[test]
    fn a_table_built_from_entries_in_any_order_keeps_the_last_of_each(
        (pool, batches, dag_ids) in scenario(),
    ) {
        let mut model = Model::default();
        let mut entries = Vec::new();
        for (n, step) in batches.iter().flatten().enumerate() {
            let change = change(step, &pool, n as i64);
            if let Change::Upsert(entry) = &change {
                entries.push(entry.clone());
                model.apply(&change);
            }
        }
        assert_same(&Table::build(entries, Revision(9)), &model, &dag_ids)?;
    }
}

#[test]
fn a_prefix_passes_from_one_namespace_to_another_in_either_order() {
    let own = |namespace, prefix: &str, revision| {
        Change::Upsert(entry(namespace, vec![prefix.parse().unwrap()], Some(1), revision))
    };
    let none =
        |namespace, revision| Change::Upsert(entry(namespace, Vec::new(), Some(1), revision));
    let owner = |table: &Table| table.resolve_dag("sales.daily").map(|e| e.namespace().to_owned());

    let before = Table::empty().apply(&[own("aaa", "sales.", 1)], Revision(1));
    let gap = before.apply(&[none("aaa", 2)], Revision(2));
    assert_eq!(owner(&gap), None);
    assert_eq!(owner(&gap.apply(&[own("bbb", "sales.", 3)], Revision(3))).as_deref(), Some("bbb"));

    let both = before.apply(&[own("bbb", "sales.", 2)], Revision(2));
    assert_eq!(owner(&both).as_deref(), Some("bbb"), "the later claim");
    assert_eq!(owner(&both.apply(&[none("aaa", 3)], Revision(3))).as_deref(), Some("bbb"));
    assert_eq!(owner(&before).as_deref(), Some("aaa"), "an older snapshot is untouched");
}

#[test]
fn a_page_of_a_listing_goes_on_after_a_name_that_is_gone() {
    let entries = (0..50).map(|n| entry(&format!("ns{n:02}"), Vec::new(), None, 1));
    let table = Table::build(entries, Revision(1));
    let table = table.apply(&[Change::Delete("ns19".parse().unwrap())], Revision(2));
    let page: Vec<&str> = table.iter_after("ns19").take(2).map(Entry::namespace).collect();
    assert_eq!(page, ["ns20", "ns21"]);
    assert_eq!(table.iter_after("ns49").count(), 0);
    assert_eq!(table.iter_after("").count(), 49);
}

#[test]
fn a_large_table_resolves_every_name_and_outlives_its_successors() {
    let prefix = |n: usize| match n % 3 {
        0 => format!("team-{n:06}."),
        1 => format!("ns{n:06}__"),
        _ => format!("a_department_of_many_words_{n}__"),
    };
    let entries = (0..20_000).map(|n| {
        entry(&format!("ns-{n}"), vec![prefix(n).parse().unwrap()], Some((n % 3) as u8), 1)
    });
    let table = Table::build(entries, Revision(1));
    let dag_ids: Vec<String> = (0..25_000).map(|n| format!("{}load_7", prefix(n))).collect();
    let batch = table.resolve_dags(dag_ids.iter().map(String::as_str));
    for (n, (dag_id, batched)) in dag_ids.iter().zip(batch).enumerate() {
        let expected = (n < 20_000).then(|| format!("ns-{n}"));
        assert_eq!(table.resolve_dag(dag_id).map(Entry::namespace), expected.as_deref());
        assert_eq!(batched.map(Entry::namespace), expected.as_deref());
    }
    let emptied = (0..20_000).fold(table.clone(), |table, n| {
        let change = Change::Delete(format!("ns-{n}").parse().unwrap());
        table.apply([&change], table.revision().next())
    });
    assert_eq!((emptied.len(), emptied.revision()), (0, Revision(20_001)));
    assert!(dag_ids.iter().all(|dag_id| emptied.resolve_dag(dag_id).is_none()));
    assert_eq!((table.len(), table.iter().count()), (20_000, 20_000));
}

#[test]
fn tables_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Table>();
    shared::<Change>();
}
