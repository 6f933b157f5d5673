use proptest::prelude::*;

use super::*;
use crate::labels::Operator;

fn shard(name: &str, change: impl FnOnce(&mut Candidate)) -> Candidate {
    let mut shard = Candidate {
        name: name.parse().unwrap(),
        labels: Labels::new(),
        taints: vec![],
        region: String::new(),
        failure_domain: String::new(),
        airflow_version: Some(Version::new(3, 3, 2)),
        capacity: Resources { dags: 100, running_slots: 10, ..Resources::ZERO },
        reserved: Resources::ZERO,
        closed: vec![],
        group_members: 0,
    };
    change(&mut shard);
    shard
}

fn place(constraints: &Constraints, dags: i64, fleet: &[Candidate]) -> Decision {
    let demand = Resources { dags, ..Resources::ZERO };
    LeastLoaded.place(&Request { demand, constraints, pinned: None }, fleet)
}

fn chosen(decision: &Decision) -> Option<&str> {
    decision.shard.as_ref().map(ShardName::as_str)
}

#[test]
fn the_least_loaded_shard_is_taken_and_the_reason_says_so() {
    let fleet = [
        shard("busy", |s| s.reserved.dags = 80),
        shard("calm", |s| s.reserved.dags = 20),
        shard("slots", |s| s.reserved.running_slots = 9),
    ];
    let decision = place(&Constraints::default(), 10, &fleet);
    assert_eq!(chosen(&decision), Some("calm"));
    assert_eq!(decision.reason, "least loaded of 3 eligible shards: dags at 30.0 % with it");
}

#[test]
fn each_hard_rule_refuses_with_its_own_code() {
    let fleet = [
        shard("cordoned", |s| {
            s.closed.push(Refusal::new("CORDONED", "upgrade"));
        }),
        shard("full", |s| s.reserved.dags = 91),
        shard("old", |s| s.airflow_version = Some(Version::new(2, 11, 2))),
        shard("tainted", |s| {
            s.taints.push(Taint { key: "gpu".into(), value: "only".into() });
        }),
        shard("unknown", |s| s.airflow_version = None),
        shard("west", |s| s.region = "us-west".into()),
        shard("wrong-tier", |s| {
            drop(s.labels.insert("tier".into(), "silver".into()));
        }),
    ];
    let constraints = Constraints {
        selector: vec![Requirement {
            key: "tier".into(),
            operator: Operator::NotIn,
            values: vec!["silver".into()],
        }],
        airflow_version: VersionReq::parse(">=3").unwrap(),
        ..Constraints::default()
    };
    let decision = place(&constraints, 10, &fleet[..5]);
    let codes: Vec<&str> = decision.refused.iter().map(|(_, r)| r[0].code).collect();
    let expected =
        ["CORDONED", "NO_ROOM", "VERSION_MISMATCH", "TAINT_NOT_TOLERATED", "VERSION_UNKNOWN"];
    assert_eq!(codes, expected);
    assert_eq!(
        decision.reason,
        "none of 5 shards will do: CORDONED on 1, NO_ROOM on 1, TAINT_NOT_TOLERATED on 1, \
         VERSION_MISMATCH on 1, VERSION_UNKNOWN on 1"
    );
    let eastern = Constraints { region: "us-east".into(), ..constraints };
    let decision = place(&eastern, 10, &fleet[5..]);
    assert_eq!(decision.refused[0].1[0].code, "REGION_MISMATCH");
    let codes: Vec<&str> = decision.refused[1].1.iter().map(|r| r.code).collect();
    assert_eq!(codes, ["SELECTOR_MISMATCH", "REGION_MISMATCH"]);
}

#[test]
fn a_pin_leaves_one_shard() {
    let fleet = [shard("aaa", |_| {}), shard("bbb", |s| s.reserved.dags = 50)];
    let pin: ShardName = "bbb".parse().unwrap();
    let constraints = Constraints::default();
    let request =
        Request { demand: Resources::ZERO, constraints: &constraints, pinned: Some(&pin) };
    assert_eq!(chosen(&LeastLoaded.place(&request, &fleet)), Some("bbb"));
}

#[test]
fn a_group_is_spread_before_load_is_levelled() {
    let fleet = [shard("aaa", |s| s.group_members = 1), shard("bbb", |s| s.reserved.dags = 70)];
    assert_eq!(chosen(&place(&Constraints::default(), 10, &fleet)), Some("bbb"));
}

#[test]
fn an_empty_fleet_says_what_to_do() {
    assert!(place(&Constraints::default(), 1, &[]).reason.contains("kind: Shard"));
}

proptest! {
    #[test]
    fn the_order_of_the_shards_does_not_matter_and_nothing_overflows(
        amounts in prop::collection::vec((any::<i64>(), any::<i64>()), 1..12),
        dags in any::<i64>(),
        seed in any::<u64>(),
    ) {
        let mut fleet: Vec<Candidate> = amounts
            .iter()
            .enumerate()
            .map(|(i, (capacity, reserved))| {
                shard(&format!("shard-{i:02}"), |s| {
                    s.capacity.dags = *capacity;
                    s.reserved.dags = *reserved;
                })
            })
            .collect();
        let first = place(&Constraints::default(), dags, &fleet);
        let turn = (seed % fleet.len() as u64) as usize;
        fleet.rotate_left(turn);
        prop_assert_eq!(place(&Constraints::default(), dags, &fleet), first);
    }

    #[test]
    fn no_shard_is_ever_filled_beyond_its_capacity(
        capacities in prop::collection::vec(0_i64..50, 1..6),
        demands in prop::collection::vec(1_i64..20, 0..60),
    ) {
        let mut fleet: Vec<Candidate> = capacities
            .iter()
            .enumerate()
            .map(|(i, c)| shard(&format!("shard-{i:02}"), |s| s.capacity.dags = c + 1))
            .collect();
        for dags in demands {
            let decision = place(&Constraints::default(), dags, &fleet);
            match decision.shard {
                Some(name) => {
                    let taken = fleet.iter_mut().find(|s| s.name == name).unwrap();
                    taken.reserved.dags += dags;
                    prop_assert!(taken.reserved.dags <= taken.capacity.dags);
                }
                None => {
                    let room = fleet.iter().map(|s| s.capacity.dags - s.reserved.dags).max();
                    prop_assert!(room.unwrap() < dags);
                }
            }
        }
    }
}
