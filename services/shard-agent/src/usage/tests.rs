use super::*;
use crate::airflow::{DagActivity, DagPulse};

fn owners() -> Owners {
    let table: Vec<(NamespaceName, Vec<String>)> = [("pay", "pay__"), ("idle", "idle__")]
        .map(|(name, prefix)| {
            (name.parse().unwrap_or_else(|_| unreachable!()), vec![prefix.to_owned()])
        })
        .into();
    Owners::new(table.iter().map(|(name, prefixes)| (name, prefixes.as_slice())))
}

fn name(text: &str) -> NamespaceName {
    text.parse().unwrap()
}

fn dags<T: Clone>(facts: &[(&str, T)]) -> HashMap<Box<str>, T> {
    facts.iter().map(|(dag_id, fact)| ((*dag_id).into(), fact.clone())).collect()
}

#[test]
fn facts_of_dags_add_up_per_namespace() {
    let listed = DagPulse { listed: true, ..DagPulse::default() };
    let pulse = Pulse {
        dags: dags(&[
            (
                "pay__a",
                DagPulse { active_runs: 2, active_task_instances: 5, occupied_slots: 3, ..listed },
            ),
            ("pay__b", DagPulse { paused: true, ..listed }),
            // Its file is gone, and still something of it runs.
            ("pay__gone", DagPulse { active_runs: 1, occupied_slots: 1, ..DagPulse::default() }),
            ("other__x", DagPulse { occupied_slots: 7, ..listed }),
        ]),
        ..Pulse::default()
    };
    let activity = Activity {
        dags: dags(&[
            ("pay__a", DagActivity { task_starts: 40, parse_us_per_minute: 100 }),
            ("pay__b", DagActivity { task_starts: 2, parse_us_per_minute: 1_000 }),
            ("other__x", DagActivity { task_starts: 1, parse_us_per_minute: 2_900 }),
        ]),
        ..Activity::default()
    };
    let sizes = Sizes { total_bytes: 1_000, dags: dags(&[("pay__a", 600), ("other__x", 100)]) };

    let usage = attribute(&owners(), &pulse, Some(&activity), Some(&sizes));
    assert_eq!(usage.shard.values(), [3, 43, 11, 1_000, 4]);
    assert_eq!((usage.unowned_dags, usage.occupied_slots), (1, 11));
    assert_eq!(
        usage.namespaces[&name("pay")],
        NamespaceUsage {
            usage: Resources::from_values([2, 42, 4, 600, 2]),
            unpaused_dags: 1,
            active_runs: 3,
            active_task_instances: 5,
        }
    );
    // Named by the router, so it is told that there is nothing.
    assert_eq!(usage.namespaces[&name("idle")], NamespaceUsage::default());
    assert_eq!(usage.namespaces.len(), 2);
}

#[test]
fn what_was_not_sampled_yet_counts_as_nothing() {
    let usage = attribute(&owners(), &Pulse::default(), None, None);
    assert!(usage.shard.is_zero());
}

#[test]
fn a_peak_lasts_for_the_window() {
    let start = Instant::now();
    let at = |minutes| start + Duration::from_mins(minutes);
    let mut peaks = Peaks::new(Duration::from_hours(1), start);
    let mut slots_at = |minute, slots| {
        let mut usage = Usage { occupied_slots: slots + 1, ..Usage::default() };
        let mut namespace = NamespaceUsage::default();
        namespace.usage.running_slots = slots;
        usage.namespaces.insert(name("pay"), namespace);
        usage.namespaces.insert(name("idle"), NamespaceUsage::default());
        peaks.apply(&mut usage, at(minute));
        assert_eq!(usage.namespaces[&name("idle")].usage.running_slots, 0);
        let namespace = usage.namespaces[&name("pay")].usage.running_slots;
        assert_eq!(usage.shard.running_slots, namespace + 1);
        namespace
    };
    assert_eq!(slots_at(0, 3), 3);
    assert_eq!(slots_at(1, 9), 9);
    assert_eq!(slots_at(30, 4), 9);
    assert_eq!(slots_at(59, 1), 9);
    assert_eq!(slots_at(61, 1), 4);
    assert_eq!(slots_at(90, 0), 1);
    // Nobody looked for a day.
    assert_eq!(slots_at(2_000, 0), 0);
    assert!(peaks.namespaces.is_empty());
}

#[test]
fn a_namespace_that_left_is_forgotten() {
    let start = Instant::now();
    let mut peaks = Peaks::new(Duration::from_hours(1), start);
    let mut usage = Usage::default();
    let mut namespace = NamespaceUsage::default();
    namespace.usage.running_slots = 3;
    usage.namespaces.insert(name("pay"), namespace);
    peaks.apply(&mut usage, start);
    peaks.apply(&mut Usage::default(), start);
    assert!(peaks.namespaces.is_empty());
}
