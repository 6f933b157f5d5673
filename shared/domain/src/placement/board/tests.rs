use proptest::prelude::*;
use semver::{Version, VersionReq};

use super::*;
use crate::{
    labels::{Operator, Requirement, Taint},
    placement::Score,
};

const DIMENSIONS: [&str; 2] = ["dags", "running_slots"];

fn shard(name: &str, change: impl FnOnce(&mut Shard)) -> Shard {
    let mut shard = Shard::new(name.parse().unwrap(), vec![100, 10]);
    shard.airflow_version = Some(Version::new(3, 3, 2));
    change(&mut shard);
    shard
}

fn board(shards: Vec<Shard>) -> Board {
    let mut board = Board::new(&DIMENSIONS, Policy::default());
    for shard in shards {
        board.put_shard(shard);
    }
    board
}

fn load(board: &mut Board, name: &str, demand: [i64; 2]) {
    let needs = board.needs(&demand, &Constraints::default(), None, "");
    let at = board.shape().number(name).unwrap();
    board.add(&needs, at);
}

fn place(board: &mut Board, constraints: &Constraints, dags: i64) -> Decision {
    let needs = board.needs(&[dags, 0], constraints, None, "");
    board.decide(&needs)
}

fn chosen(decision: &Decision) -> Option<&str> {
    decision.shard.as_ref().map(ShardName::as_str)
}

#[test]
fn the_least_loaded_shard_is_taken_and_the_reason_says_so() {
    let shards = ["busy", "calm", "slots"].map(|name| shard(name, |_| {}));
    let mut board = board(shards.into());
    load(&mut board, "busy", [80, 0]);
    load(&mut board, "calm", [20, 0]);
    load(&mut board, "slots", [0, 9]);
    let decision = place(&mut board, &Constraints::default(), 10);
    assert_eq!(chosen(&decision), Some("calm"));
    assert_eq!(decision.reason, "least loaded of 3 eligible shards: dags at 30.0 % with it");
}

#[test]
fn each_hard_rule_refuses_with_its_own_code() {
    let shards = vec![
        shard("cordoned", |s| s.closed.push(Refusal::new("CORDONED", "upgrade"))),
        shard("draining", |s| s.draining = true),
        shard("east", |s| s.region = "us-east".into()),
        shard("full", |_| {}),
        shard("limited", |s| s.namespaces_max = 1),
        shard("lost", |s| s.lost = true),
        shard("old", |s| s.airflow_version = Some(Version::new(2, 11, 2))),
        shard("tainted", |s| s.taints.push(Taint { key: "gpu".into(), value: "only".into() })),
        shard("unknown", |s| s.airflow_version = None),
        shard("wrong-tier", |s| drop(s.labels.insert("tier".into(), "silver".into()))),
    ];
    let mut board = board(shards);
    load(&mut board, "full", [91, 0]);
    load(&mut board, "limited", [1, 0]);
    let constraints = Constraints {
        selector: vec![Requirement {
            key: "tier".into(),
            operator: Operator::NotIn,
            values: vec!["silver".into()],
        }],
        airflow_version: VersionReq::parse(">=3").unwrap(),
        ..Constraints::default()
    };
    let needs = board.needs(&[10, 0], &constraints, None, "");
    let codes = |board: &Board, needs: &Needs| -> Vec<String> {
        board
            .shape()
            .all()
            .map(|(at, shard)| {
                let refusals = board.refusals(needs, at);
                let codes: Vec<&str> = refusals.iter().map(|r| &*r.code).collect();
                format!("{}: {}", shard.name, codes.join(" "))
            })
            .collect()
    };
    assert_eq!(
        codes(&board, &needs),
        [
            "cordoned: CORDONED",
            "draining: DRAINING",
            "east: ",
            "full: NO_ROOM",
            "limited: NAMESPACE_LIMIT",
            "lost: LOST",
            "old: VERSION_MISMATCH",
            "tainted: TAINT_NOT_TOLERATED",
            "unknown: VERSION_UNKNOWN",
            "wrong-tier: SELECTOR_MISMATCH",
        ]
    );
    assert_eq!(chosen(&board.decide(&needs)), Some("east"));
    let western = Constraints { region: "us-west".into(), ..constraints };
    let decision = place(&mut board, &western, 10);
    assert_eq!(
        decision.reason,
        "none of 10 shards will do: REGION_MISMATCH on 10, CORDONED on 1, DRAINING on 1, LOST on \
         1, NAMESPACE_LIMIT on 1, NO_ROOM on 1, SELECTOR_MISMATCH on 1, TAINT_NOT_TOLERATED on 1, \
         VERSION_MISMATCH on 1, VERSION_UNKNOWN on 1"
    );
}

#[test]
fn a_pin_leaves_one_shard() {
    let mut board = board(vec![shard("aaa", |_| {}), shard("bbb", |_| {})]);
    load(&mut board, "bbb", [50, 0]);
    let pin: ShardName = "bbb".parse().unwrap();
    let needs = board.needs(&[0, 0], &Constraints::default(), Some(&pin), "");
    assert_eq!(chosen(&board.decide(&needs)), Some("bbb"));
    let gone: ShardName = "gone".parse().unwrap();
    let needs = board.needs(&[0, 0], &Constraints::default(), Some(&gone), "");
    let reason = board.decide(&needs).reason;
    assert_eq!(reason, "none of 2 shards will do: PINNED_ELSEWHERE on 2");
}

#[test]
fn a_group_is_spread_before_load_is_levelled() {
    let zone = |name, zone: &str| shard(name, |s| s.failure_domain = zone.to_owned());
    let mut board = board(vec![zone("aaa", "z1"), zone("bbb", "z1"), zone("ccc", "z2")]);
    let grouped = Constraints { spread_group: "core".into(), ..Constraints::default() };
    let needs = board.needs(&[10, 0], &grouped, None, "");
    let at = board.shape().number("aaa").unwrap();
    board.add(&needs, at);
    load(&mut board, "ccc", [70, 0]);
    assert_eq!(chosen(&board.decide(&needs)), Some("ccc"));
    assert_eq!(chosen(&place(&mut board, &Constraints::default(), 10)), Some("bbb"));
}

#[test]
fn a_group_may_be_held_to_so_many_in_a_domain() {
    let policy = Policy { group_max_per_domain: 1, ..Policy::default() };
    let mut board = Board::new(&DIMENSIONS, policy);
    board.put_shard(shard("aaa", |_| {}));
    let grouped = Constraints { spread_group: "core".into(), ..Constraints::default() };
    let needs = board.needs(&[10, 0], &grouped, None, "");
    board.add(&needs, 0);
    assert_eq!(board.decide(&needs).reason, "none of 1 shards will do: GROUP_LIMIT on 1");
}

#[test]
fn mates_go_to_one_shard_as_long_as_that_overloads_none() {
    let mut board = board(vec![shard("aaa", |_| {}), shard("bbb", |_| {})]);
    let mate = board.needs(&[20, 0], &Constraints::default(), None, "team");
    let mut shards = Vec::new();
    for _ in 0..4 {
        let (best, _) = board.choose(&mate);
        let (shard, _) = best.unwrap();
        board.add(&mate, shard);
        shards.push(shard);
    }
    // The target of an evenly loaded fleet comes before mates being together.
    assert_eq!(shards.iter().filter(|shard| **shard == 0).count(), 2, "{shards:?}");
    let mut roomy = board.clone();
    load(&mut roomy, "bbb", [40, 0]);
    let small = roomy.needs(&[1, 0], &Constraints::default(), None, "team-2");
    let (best, _) = roomy.choose(&small);
    let first = best.unwrap().0;
    roomy.add(&small, first);
    assert_eq!(roomy.choose(&small).0.unwrap().0, first);
}

#[test]
fn what_a_lost_domain_would_need_elsewhere_is_kept_free() {
    // Two zones; the gold rule admits only half of each.
    let mut shards = Vec::new();
    for (name, zone, gold) in
        [("aaa", "z1", true), ("bbb", "z1", false), ("ccc", "z2", true), ("ddd", "z2", false)]
    {
        shards.push(shard(name, |s| {
            s.failure_domain = zone.to_owned();
            if gold {
                s.labels.insert("tier".into(), "gold".into());
            }
        }));
    }
    let mut board = board(shards);
    let gold = Constraints {
        selector: vec![Requirement {
            key: "tier".into(),
            operator: Operator::Exists,
            values: vec![],
        }],
        ..Constraints::default()
    };
    let needs = board.needs(&[40, 0], &gold, None, "");
    board.add(&needs, 0);
    load(&mut board, "bbb", [50, 0]);
    load(&mut board, "ddd", [55, 0]);
    // ccc is emptiest, but if z1 died the gold one would need its room.
    let plain = board.needs(&[62, 0], &Constraints::default(), None, "");
    let (best, _) = board.choose(&plain);
    let change = best.unwrap().1;
    assert_eq!(board.shape().name(best.unwrap().0), "ccc", "nothing else has room");
    assert!(change.missing > 0, "{change:?}");
    let plain = board.needs(&[30, 0], &Constraints::default(), None, "");
    let (best, _) = board.choose(&plain);
    assert_eq!(best.unwrap().1.missing, 0);
}

#[test]
fn an_empty_fleet_says_what_to_do() {
    let mut board = board(vec![]);
    assert!(place(&mut board, &Constraints::default(), 1).reason.contains("kind: Shard"));
}

#[test]
fn a_shard_without_limits_takes_everything() {
    let mut board = board(vec![shard("aaa", |s| s.capacity = vec![])]);
    let decision = place(&mut board, &Constraints::default(), i64::MAX);
    assert_eq!(chosen(&decision), Some("aaa"));
    load(&mut board, "aaa", [i64::MAX; 2]);
    load(&mut board, "aaa", [i64::MAX; 2]);
    assert_eq!(chosen(&place(&mut board, &Constraints::default(), i64::MAX)), Some("aaa"));
}

#[test]
fn a_removed_shards_number_is_used_again() {
    let mut board = board(vec![shard("aaa", |_| {}), shard("bbb", |_| {})]);
    load(&mut board, "bbb", [1, 1]);
    assert!(!board.remove_shard("bbb"), "it holds something");
    assert!(board.remove_shard("aaa"));
    let at = board.put_shard(shard("ccc", |s| s.region = "mars".into()));
    assert_eq!(at, 0);
    let martian = Constraints { region: "mars".into(), ..Constraints::default() };
    assert_eq!(chosen(&place(&mut board, &martian, 1)), Some("ccc"));
    assert!(board.remove_shard("ccc"));
    assert_eq!(chosen(&place(&mut board, &martian, 1)), None);
}

proptest! {
    #[test]
    fn the_order_of_the_shards_does_not_matter_and_nothing_overflows(
        amounts in prop::collection::vec((any::<i64>(), any::<i64>()), 1..12),
        dags in any::<i64>(),
        seed in any::<u64>(),
    ) {
        let fleet = |turn: usize| {
            let mut shards: Vec<(Shard, i64)> = amounts
                .iter()
                .enumerate()
                .map(|(i, (capacity, reserved))| {
                    (shard(&format!("shard-{i:02}"), |s| s.capacity = vec![*capacity, 0]), *reserved)
                })
                .collect();
            shards.rotate_left(turn);
            let mut board = board(shards.iter().map(|(shard, _)| shard.clone()).collect());
            for (shard, reserved) in shards {
                load(&mut board, shard.name.as_str(), [reserved, 0]);
            }
            place(&mut board, &Constraints::default(), dags)
        };
        let turn = (seed % amounts.len() as u64) as usize;
        prop_assert_eq!(fleet(turn), fleet(0));
    }

    #[test]
    fn no_shard_is_ever_filled_beyond_its_capacity(
        capacities in prop::collection::vec(0_i64..50, 1..6),
        demands in prop::collection::vec(1_i64..20, 0..60),
    ) {
        let shards = capacities.iter().enumerate();
        let shards = shards.map(|(i, c)| shard(&format!("shard-{i:02}"), |s| s.capacity = vec![c + 1, 0]));
        let mut board = board(shards.collect());
        for dags in demands {
            let needs = board.needs(&[dags, 0], &Constraints::default(), None, "");
            let (best, _) = board.choose(&needs);
            let room = |board: &Board, at: u32| {
                i128::from(board.shape().capacity_of(at)[0]) - board.state().load_of(at)[0]
            };
            match best {
                Some((at, _)) => {
                    board.add(&needs, at);
                    prop_assert!(room(&board, at) >= 0);
                }
                None => {
                    let most = board.shape().all().map(|(at, _)| room(&board, at)).max();
                    prop_assert!(most.unwrap() < i128::from(dags));
                }
            }
        }
    }

    #[test]
    fn what_coming_changes_is_what_the_whole_changes_by(
        zones in prop::collection::vec(0..3_u8, 2..6),
        members in prop::collection::vec((0..6_usize, 1..60_i64, 0..9_i64, 0..4_u8, 0..4_u8), 1..25),
    ) {
        let shards = zones.iter().enumerate().map(|(i, zone)| {
            shard(&format!("shard-{i:02}"), |s| {
                s.failure_domain = format!("z{zone}");
                s.draining = i == 1;
            })
        });
        let mut board = board(shards.collect());
        let scored = |board: &Board| {
            Scorer { shape: &board.shape, state: &board.state, soft_limit: 500_000, target: 400_000 }.whole()
        };
        for (at, dags, slots, group, mate) in members {
            let at = (at % zones.len()) as u32;
            let group = if group == 0 { String::new() } else { format!("g{group}") };
            let constraints = Constraints { spread_group: group, ..Constraints::default() };
            let mate = if mate == 0 { String::new() } else { format!("m{mate}") };
            let needs = board.needs(&[dags, slots], &constraints, None, &mate);
            let before = scored(&board);
            let scorer = Scorer { shape: &board.shape, state: &board.state, soft_limit: 500_000, target: 400_000 };
            let change: Score = scorer.coming(needs.item(), at).into();
            board.add(&needs, at);
            prop_assert_eq!(scored(&board).minus(before), change);
            let scorer = Scorer { shape: &board.shape, state: &board.state, soft_limit: 500_000, target: 400_000 };
            prop_assert_eq!(Score::default().minus(scorer.leaving(needs.item(), at)), change);
        }
    }

    #[test]
    fn resilience_kept_up_to_date_is_resilience_worked_out_anew(
        zones in prop::collection::vec((0..3_u8, 0..2_u8, 0..80_i64), 2..6),
        members in prop::collection::vec((0..6_usize, 1..60_i64, 0..3_u8), 1..30),
        leave in any::<u32>(),
    ) {
        let shards = zones.iter().enumerate().map(|(i, (zone, region, capacity))| {
            shard(&format!("shard-{i:02}"), |s| {
                s.failure_domain = format!("z{zone}");
                s.region = format!("r{region}");
                s.capacity = vec![*capacity, 20];
            })
        });
        let mut board = board(shards.collect());
        let mut all = Vec::new();
        for (at, dags, region) in members {
            let region = if region == 2 { String::new() } else { format!("r{region}") };
            let constraints = Constraints { region, ..Constraints::default() };
            let needs = board.needs(&[dags, 1], &constraints, None, "");
            all.push((needs, (at % zones.len()) as u32));
        }
        let mut state = board.state.clone();
        for (needs, at) in &all {
            state.add(&board.shape, needs.item(), *at);
        }
        state.watch_resilience(&board.shape);
        for (position, (needs, at)) in all.iter().enumerate() {
            if leave >> (position % 32) & 1 == 1 {
                state.remove(&board.shape, needs.item(), *at);
                let to = (at + 1) % zones.len() as u32;
                state.add(&board.shape, needs.item(), to);
            }
        }
        let kept = state.resilience().unwrap().level();
        let mut anew = state.clone();
        anew.forget_resilience();
        anew.watch_resilience(&board.shape);
        prop_assert_eq!(anew.resilience().unwrap().level(), kept);
    }
}
