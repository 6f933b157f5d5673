use airfleet_domain::{health::Verdict, ids::ShardName, placement::Policy, resources::Resources};
use proptest::prelude::*;

use super::{Fleet, Observation, Placing};
use crate::{
    store::{Cordon, ShardRecord},
    testing::{name, needs, record, shard},
};

fn healthy() -> Observation {
    Observation {
        verdict: Some(Verdict::Healthy),
        code: String::new(),
        capacity: Resources::ZERO,
        airflow_version: String::new(),
    }
}

fn fleet(shards: &[&str]) -> Fleet {
    let mut fleet = Fleet::new(Policy::default(), 1000);
    for name in shards {
        fleet.put_shard(shard(name), healthy());
    }
    fleet
}

fn dags(count: i64) -> Resources {
    Resources { dags: count, ..Resources::ZERO }
}

fn reserved(fleet: &Fleet, name: &str) -> i64 {
    fleet.shard(name).unwrap().reserved.dags
}

fn codes(fleet: &Fleet, name: &str) -> Vec<String> {
    let shard = fleet.shard(name).unwrap();
    fleet.closures(shard).into_iter().map(|refusal| refusal.code.into_owned()).collect()
}

#[test]
fn a_namespace_reserves_the_larger_of_declared_and_measured() {
    let mut fleet = fleet(&["shard-a", "shard-b"]);
    fleet.put(record("pay").needs(r#"{"dags":10,"runningSlots":2}"#, "{}").on("shard-a", 1).at(1));
    assert_eq!(reserved(&fleet, "shard-a"), 10);
    let more = Resources { dags: 30, running_slots: 1, ..Resources::ZERO };
    assert!(!fleet.measure("shard-a", "pay", more), "no room was freed");
    assert_eq!(
        fleet.shard("shard-a").unwrap().reserved,
        Resources { running_slots: 2, ..dags(30) }
    );
    assert!(fleet.measure("shard-a", "pay", dags(20)), "room was freed");
    assert_eq!(reserved(&fleet, "shard-a"), 20);
    assert!(!fleet.measure("shard-b", "pay", dags(500)), "not the owner");
    assert_eq!((reserved(&fleet, "shard-a"), reserved(&fleet, "shard-b")), (20, 0));
    // Measured on one shard says nothing about another.
    assert!(fleet.put(record("pay").needs(r#"{"dags":10}"#, "{}").on("shard-b", 2).at(2)));
    assert_eq!((reserved(&fleet, "shard-a"), reserved(&fleet, "shard-b")), (0, 10));
    fleet.remove(&name("pay"));
    assert_eq!(reserved(&fleet, "shard-b"), 0);
}

#[test]
fn declared_demand_counts_until_an_hour_was_measured() {
    let mut fleet = fleet(&["shard-a"]);
    fleet.put(record("pay").needs(r#"{"dags":100,"runningSlots":2}"#, "{}").on("shard-a", 1).at(1));
    fleet.put(record("new").needs(r#"{"dags":7}"#, "{}").on("shard-a", 1).at(1));
    fleet.measure("shard-a", "pay", Resources { running_slots: 5, ..dags(30) });
    for minute in 0..60 {
        assert!(!fleet.sample(minute, 10));
    }
    assert_eq!(reserved(&fleet, "shard-a"), 107);
    assert!(fleet.sample(60, 10), "less than declared: room was freed");
    let shard = fleet.shard("shard-a").unwrap();
    assert_eq!((shard.reserved.dags, shard.reserved.running_slots), (37, 5));
    // Silence is no measurement, and noise no change.
    fleet.measure("shard-a", "pay", Resources { running_slots: 5, ..dags(32) });
    for minute in 61..200 {
        fleet.sample(minute, 10);
    }
    assert_eq!(reserved(&fleet, "shard-a"), 37);
    fleet.put(record("pay").needs(r#"{"dags":100}"#, "{}").at(2));
    assert_eq!(reserved(&fleet, "shard-a"), 7);
}

#[test]
fn what_is_in_flight_takes_room_until_it_is_settled() {
    let mut fleet = fleet(&["shard-a"]);
    let needs = needs(r#"{"dags":150}"#, "{}");
    let mut placing = Placing::default();
    let mut place = |fleet: &mut Fleet| placing.place(fleet, &needs, dags(150), None).0;
    assert_eq!(place(&mut fleet), Some(name("shard-a")));
    assert_eq!(place(&mut fleet), None, "a medium shard takes 200");
    assert_eq!(reserved(&fleet, "shard-a"), 0, "it is not committed");
    fleet.settle();
    assert_eq!(
        Placing::default().place(&mut fleet, &needs, dags(150), None).0,
        Some(name("shard-a"))
    );
}

#[test]
fn what_does_not_fit_is_known_to_fit_no_better_when_it_asks_for_more() {
    let mut fleet = fleet(&["shard-a"]);
    let small = needs("{}", "{}");
    let picky = needs("{}", r#"{"region":"mars"}"#);
    let mut placing = Placing::default();
    let (none, why) = placing.place(&mut fleet, &small, dags(201), None);
    assert!(none.is_none() && why.contains("NO_ROOM"), "{why}");
    let (none, same) = placing.place(&mut fleet, &small, dags(500), None);
    assert!(none.is_none());
    assert!(std::sync::Arc::ptr_eq(&why, &same), "it was not asked again");
    assert_eq!(placing.place(&mut fleet, &small, dags(200), None).0, Some(name("shard-a")));
    let (none, why) = placing.place(&mut fleet, &picky, dags(1), None);
    assert!(none.is_none() && why.contains("REGION_MISMATCH"), "{why}");
}

#[test]
fn a_group_is_spread_over_domains_also_while_nothing_is_committed() {
    let mut fleet = Fleet::new(Policy::default(), 1000);
    for (name, zone) in [("shard-a", "z1"), ("shard-b", "z1"), ("shard-c", "z2")] {
        let mut record = shard(name);
        let mut manifest = (*record.manifest).clone();
        manifest.spec.failure_domain = zone.into();
        record.manifest = manifest.into();
        fleet.put_shard(record, healthy());
    }
    let grouped = needs(r#"{"dags":1}"#, r#"{"spreadGroup":"core"}"#);
    let mut placing = Placing::default();
    let places: Vec<Option<ShardName>> =
        (0..4).map(|_| placing.place(&mut fleet, &grouped, dags(1), None).0).collect();
    let zone_two = places.iter().flatten().filter(|shard| shard.as_str() == "shard-c").count();
    assert_eq!(zone_two, 2, "{places:?}");
    fleet.settle();
    assert!(fleet.in_flight.is_empty(), "what was not committed leaves no trace");
    fleet.put(record("one").needs("{}", r#"{"spreadGroup":"core"}"#).on("shard-c", 1).at(1));
    assert_eq!(
        Placing::default().place(&mut fleet, &grouped, dags(1), None).0,
        Some(name("shard-a"))
    );
    fleet.settle();
    fleet.remove(&name("one"));
    let empty = |fleet: &Fleet| {
        fleet.board.shape().all().all(|(at, _)| fleet.board.state().count_of(at) == 0)
    };
    assert!(empty(&fleet));
}

#[test]
fn every_reason_against_a_shard_is_told() {
    let mut fleet = fleet(&["shard-a"]);
    assert_eq!(codes(&fleet, "shard-a"), Vec::<String>::new());
    let cordon = Cordon { actor: "op".into(), reason: "disk".into(), time_us: 1 };
    let closed = ShardRecord {
        registered: false,
        barred_revision: airfleet_domain::ids::Revision(1),
        cordon: Some(cordon),
        ..shard("shard-a")
    };
    let silent =
        Observation { verdict: Some(Verdict::Unknown), code: "REPORT_STALE".into(), ..healthy() };
    assert!(!fleet.put_shard(closed, silent));
    let all = ["NOT_REGISTERED", "BEING_REMOVED", "CORDONED", "SHARD_HEALTH_UNKNOWN"];
    assert_eq!(codes(&fleet, "shard-a"), all);
    assert!(fleet.observe("shard-a", healthy()), "one reason less");
    assert!(fleet.put_shard(shard("shard-a"), healthy()));
    assert_eq!(codes(&fleet, "shard-a"), Vec::<String>::new());
    for (verdict, code) in
        [(Verdict::Degraded, "SHARD_DEGRADED"), (Verdict::Unhealthy, "SHARD_UNHEALTHY")]
    {
        fleet.observe("shard-a", Observation { verdict: Some(verdict), ..healthy() });
        assert_eq!(codes(&fleet, "shard-a"), [code]);
    }
    // No agent was ever asked for.
    fleet.observe("shard-a", Observation { verdict: None, ..healthy() });
    assert_eq!(codes(&fleet, "shard-a"), Vec::<String>::new());
}

#[test]
fn a_shard_takes_so_many_namespaces_and_no_more() {
    let mut fleet = Fleet::new(Policy::default(), 2);
    fleet.put_shard(shard("shard-a"), healthy());
    fleet.put(record("one").on("shard-a", 1).at(1));
    assert!(codes(&fleet, "shard-a").is_empty());
    fleet.put(record("two").on("shard-a", 1).at(1));
    assert_eq!(codes(&fleet, "shard-a"), ["NAMESPACE_LIMIT"]);
    fleet.observe("shard-a", Observation { code: "X".into(), ..healthy() });
    assert_eq!(codes(&fleet, "shard-a"), ["NAMESPACE_LIMIT"], "told once");
    fleet.remove(&name("two"));
    assert!(codes(&fleet, "shard-a").is_empty());
}

#[test]
fn the_manifests_numbers_win_over_the_agents_and_those_over_the_class() {
    let mut fleet = fleet(&["shard-a"]);
    let capacity = |fleet: &Fleet| fleet.shard("shard-a").unwrap().capacity();
    assert_eq!(capacity(&fleet), Resources { running_slots: 10, ..dags(200) });
    let agents = Resources { running_slots: 32, parse_ms_per_minute: 5, ..Resources::ZERO };
    assert!(fleet.observe("shard-a", Observation { capacity: agents, ..healthy() }));
    assert_eq!(capacity(&fleet), Resources { dags: 200, ..agents });
    let mut record = shard("shard-a");
    let mut manifest = (*record.manifest).clone();
    manifest.spec.capacity = Resources { running_slots: 4, ..Resources::ZERO };
    record.manifest = manifest.into();
    fleet.put_shard(record, Observation { capacity: agents, ..healthy() });
    assert_eq!(
        capacity(&fleet),
        Resources { running_slots: 4, dags: 200, parse_ms_per_minute: 5, ..Resources::ZERO }
    );
}

#[test]
fn a_snapshot_tells_what_is_gone_only_if_it_was_seen_whole() {
    let mut fleet = fleet(&["shard-a", "shard-b"]);
    fleet.put(record("one").at(1));
    fleet.put(record("two").at(1));
    fleet.see(&name("one"));
    assert_eq!(fleet.unseen(), (vec![], vec![]), "its beginning went to another leader");
    fleet.begin_snapshot();
    fleet.see(&name("one"));
    fleet.see_shard(&name("shard-a"));
    fleet.put(record("new").at(2));
    assert_eq!(fleet.unseen(), (vec![name("two")], vec![name("shard-b")]));
    fleet.end_snapshot();
    assert_eq!(fleet.unseen(), (vec![], vec![]));
}

/// What may happen to the fleet.
#[derive(Debug, Clone)]
enum Step {
    Put { namespace: u8, shard: Option<u8>, demand: i64, group: bool },
    Remove(u8),
    Measure { namespace: u8, shard: u8, dags: i64 },
    Place { demand: i64, group: bool },
    Settle,
    Shard { shard: u8, zone: bool },
    RemoveShard(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (namespace, shard) = (0u8..8, 0u8..4);
    prop_oneof![
        (namespace.clone(), proptest::option::of(shard.clone()), 0i64..50, any::<bool>()).prop_map(
            |(namespace, shard, demand, group)| Step::Put { namespace, shard, demand, group }
        ),
        namespace.clone().prop_map(Step::Remove),
        (namespace, shard.clone(), 0i64..90).prop_map(|(namespace, shard, dags)| Step::Measure {
            namespace,
            shard,
            dags
        }),
        (0i64..90, any::<bool>()).prop_map(|(demand, group)| Step::Place { demand, group }),
        Just(Step::Settle),
        (shard.clone(), any::<bool>()).prop_map(|(shard, zone)| Step::Shard { shard, zone }),
        shard.prop_map(Step::RemoveShard),
    ]
}

proptest! {
    /// The ledger is always what adding everything up anew gives.
    #[test]
    fn the_books_balance(steps in proptest::collection::vec(step(), 1..60)) {
        let mut fleet = fleet(&["shard-0", "shard-1", "shard-2", "shard-3"]);
        for step in steps {
            let placement = |group| if group { r#"{"spreadGroup":"g"}"# } else { "{}" };
            let demand_json = |demand: i64| format!(r#"{{"dags":{demand}}}"#);
            match step {
                Step::Put { namespace, shard, demand, group } => {
                    let mut draft = record(&format!("ns-{namespace}"))
                        .needs(&demand_json(demand), placement(group));
                    let owner = shard.map(|shard| format!("shard-{shard}"));
                    if let Some(owner) = owner.filter(|owner| fleet.shard(owner).is_some()) {
                        draft = draft.on(&owner, 1);
                    }
                    fleet.put(draft.at(1));
                }
                Step::Remove(namespace) => fleet.remove(&name(&format!("ns-{namespace}"))),
                Step::Measure { namespace, shard, dags: count } => {
                    let shard = format!("shard-{shard}");
                    fleet.measure(&shard, &format!("ns-{namespace}"), dags(count));
                }
                Step::Place { demand, group } => {
                    let needs = needs(&demand_json(demand), placement(group));
                    Placing::default().place(&mut fleet, &needs, dags(demand), None);
                }
                Step::Settle => fleet.settle(),
                Step::Shard { shard: number, zone } => {
                    let mut record = shard(&format!("shard-{number}"));
                    let mut manifest = (*record.manifest).clone();
                    manifest.spec.failure_domain = if zone { "z".into() } else { String::new() };
                    record.manifest = manifest.into();
                    fleet.put_shard(record, healthy());
                }
                Step::RemoveShard(number) => {
                    let name = format!("shard-{number}");
                    if fleet.shard(&name).is_some_and(|shard| shard.namespaces.is_empty()) {
                        fleet.settle();
                        fleet.remove_shard(&name.parse().unwrap());
                    }
                }
            }
        }
        fleet.settle();
        for shard in fleet.shards() {
            let own = fleet.members.values().filter(|member| {
                member.record.entry.shard() == Some(shard.record.name.as_str())
            });
            let sum = own.clone().fold(Resources::ZERO, |sum, m| sum.plus(m.reserved()));
            prop_assert_eq!(shard.reserved, sum);
            let counted: Vec<i64> = fleet.board.state().load_of(shard.at).iter().map(|load| *load as i64).collect();
            prop_assert_eq!(counted, sum.values().to_vec());
            prop_assert_eq!(fleet.board.shape().name(shard.at), shard.record.name.as_str());
            prop_assert_eq!(shard.namespaces.len(), own.clone().count());
            prop_assert_eq!(fleet.board.state().count_of(shard.at) as usize, own.count());
        }
        // Groups count where a board that is filled anew counts them.
        let mut anew = fleet.board.clone();
        let counted: Vec<_> = fleet.members.values().filter_map(|m| {
            Some((m.counts?, fleet.shard(m.record.entry.shard()?)?.at))
        }).collect();
        for (needs, at) in &counted {
            anew.remove(needs, *at);
        }
        for (at, _) in fleet.board.shape().all() {
            let domain = fleet.board.shape().domain_of(at);
            prop_assert_eq!(anew.state().group_members(0, domain), 0);
        }
        let waiting = fleet.members.values().filter(|m| m.record.entry.shard().is_none());
        prop_assert_eq!(fleet.totals().unplaced, waiting.count());
    }
}
