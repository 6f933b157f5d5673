mod scenarios;

use proptest::prelude::*;

use super::{
    super::{
        amount::FULL,
        bounds,
        dump::{Dump, Snapshot, decide},
        generate::{Recipe, Start, Weights},
        objective::{LEVELS, Policy, Score},
        plan::{Order, Pace, Plan, Purpose},
        problem::{Hold, Member},
        rules::{Constraints, Refusal},
        shape::Shard,
        state::State,
        waves::{Limits, Waves},
    },
    *,
};
use crate::{
    ids::ShardName,
    labels::{Operator, Requirement, Taint, Toleration},
};

fn never() -> bool {
    false
}

/// A small fleet in which everything occurs.
#[derive(Debug, Clone)]
struct Fleet {
    policy: Policy,
    shards: Vec<(i64, u8, u8)>,
    namespaces: Vec<Member8>,
}

#[derive(Debug, Clone)]
struct Member8 {
    demand: [i64; 2],
    shard: u8,
    to: Option<u8>,
    asks: u8,
    group: u8,
    mates: u8,
    cost: i64,
    hold: bool,
}

impl Fleet {
    fn problem(&self) -> Problem {
        let name = |at: usize| -> ShardName { format!("shard-{at:02}").parse().unwrap() };
        let count = self.shards.len();
        let shards = self.shards.iter().enumerate().map(|(at, (capacity, zone, state))| {
            let mut shard = Shard::new(name(at), vec![*capacity, 40]);
            shard.failure_domain = format!("zone-{}", zone % 3);
            shard.region = format!("region-{}", zone % 2);
            if zone % 4 == 0 {
                shard.labels.insert("tier".into(), "gold".into());
            }
            match state {
                0 => shard.draining = true,
                1 => shard.closed.push(Refusal::new("CORDONED", "test")),
                2 => shard.taints.push(Taint { key: "gpu".into(), value: "only".into() }),
                3 => shard.lost = true,
                4 => shard.namespaces_max = 3,
                _ => {}
            }
            shard
        });
        let mut problem = Problem::new(&["dags", "slots"], self.policy, shards.collect());
        for (at, member) in self.namespaces.iter().enumerate() {
            let pin = (member.asks == 0).then(|| name(usize::from(member.shard) % count));
            let constraints = Constraints {
                region: if member.asks == 1 { "region-0".into() } else { String::new() },
                selector: match member.asks {
                    2 => vec![Requirement {
                        key: "tier".into(),
                        operator: Operator::Exists,
                        values: vec![],
                    }],
                    _ => vec![],
                },
                tolerations: match member.asks {
                    3 => vec![Toleration { key: "gpu".into(), value: String::new() }],
                    _ => vec![],
                },
                spread_group: match member.group {
                    0 | 1 => format!("group-{}", member.group),
                    _ => String::new(),
                },
                ..Constraints::default()
            };
            let on = usize::from(member.shard);
            let shard = (on < 2 * count).then(|| name(on % count));
            let to = member
                .to
                .map(|to| name(usize::from(to) % count))
                .filter(|to| Some(to) != shard.as_ref());
            problem.push(&Member {
                name: format!("ns-{at:03}").parse().unwrap(),
                demand: &member.demand,
                constraints: &constraints,
                pinned: pin.as_ref(),
                affinity: if member.mates < 2 { ["a", "b"][usize::from(member.mates)] } else { "" },
                shard: shard.as_ref().map(ShardName::as_str),
                to: to.as_ref().map(ShardName::as_str),
                cost: member.cost,
                hold: if member.hold { Hold::Cooldown } else { Hold::None },
            });
        }
        problem
    }
}

fn fleets() -> impl Strategy<Value = Fleet> {
    let member =
        (
            (1..40_i64, 0..9_i64),
            0..20_u8,
            prop::option::weighted(0.05, 0..8_u8),
            0..12_u8,
            0..8_u8,
            0..10_u8,
            1..300_i64,
            prop::bool::weighted(0.1),
        )
            .prop_map(|((dags, slots), shard, to, asks, group, mates, cost, hold)| {
                Member8 { demand: [dags, slots], shard, to, asks, group, mates, cost, hold }
            });
    let policy =
        (0..200_000_i64, 0..3_u32, any::<bool>()).prop_map(|(tolerance, most, resilience)| {
            Policy { tolerance, group_max_per_domain: most, resilience, ..Policy::default() }
        });
    (
        policy,
        prop::collection::vec((20..200_i64, 0..12_u8, 0..14_u8), 1..8),
        prop::collection::vec(member, 0..50),
    )
        .prop_map(|(policy, shards, namespaces)| Fleet { policy, shards, namespaces })
}

fn settings() -> impl Strategy<Value = Settings> {
    let budget = prop_oneof![
        Just((0, 0)),
        (1..500_i64).prop_map(|c| (c, 0)),
        (1..5_usize).prop_map(|m| (0, m))
    ];
    (any::<bool>(), any::<u64>(), budget).prop_map(|(emergency, seed, (cost_max, moves_max))| {
        Settings {
            mode: if emergency { Mode::Emergency } else { Mode::Periodic },
            seed,
            cost_max,
            moves_max,
            ..Settings::default()
        }
    })
}
fn order(settings: Settings) -> Order {
    Order {
        name: "test".into(),
        purpose: Purpose::Rebalance,
        revision: 7,
        settings,
        limits: Limits::default(),
        pace: Pace::default(),
        tenants: vec![],
    }
}

fn placement_after(problem: &Problem, steps: &[Step]) -> Vec<u32> {
    let mut after = problem.placement().to_vec();
    for step in steps {
        assert_eq!(after[step.namespace as usize], step.from, "a move starts where it is");
        after[step.namespace as usize] = step.to;
    }
    after
}

fn state_after(problem: &Problem, steps: &[Step]) -> State {
    let shape = problem.board().shape();
    let mut state = problem.board().state().clone();
    for step in steps {
        if step.from != NONE {
            state.remove(shape, problem.item(step.namespace), step.from);
        }
        state.add(shape, problem.item(step.namespace), step.to);
    }
    state
}

/// Everything about a placement that breaks a hard constraint, each with how badly.
fn violations(problem: &Problem, placement: &[u32], state: &State) -> Vec<(String, i128)> {
    let shape = problem.board().shape();
    let mut broken = Vec::new();
    for (at, shard) in placement.iter().enumerate() {
        let item = problem.item(at as u32);
        if *shard == NONE {
            broken.push((format!("{at} has no shard"), 1));
            continue;
        }
        if !shape.admitted(item.rule).has(*shard) {
            broken.push((format!("rule of {at}"), 1));
        }
        let most = problem.board().policy().group_max_per_domain;
        let domain = shape.domain_of(*shard);
        let members = if item.group == NONE { 0 } else { state.group_members(item.group, domain) };
        if most > 0 && members > most {
            broken.push((format!("group {} in {domain}", item.group), i128::from(members)));
        }
    }
    for (shard, known) in shape.all() {
        for (d, load) in state.load_of(shard).iter().enumerate() {
            let capacity = i128::from(shape.capacity_of(shard)[d]);
            if capacity > 0 && *load > capacity {
                broken.push((format!("capacity {d} of {}", known.name), load - capacity));
            }
        }
        let most = shape.namespaces_max(shard);
        if state.count_of(shard) > most {
            broken.push((format!("cap of {}", known.name), i128::from(state.count_of(shard))));
        }
    }
    broken.sort();
    broken.dedup();
    broken
}

fn check(problem: &Problem, settings: &Settings) -> Result<Outcome, TestCaseError> {
    let outcome = problem.rebalance(settings, 1, &never);
    let shape = problem.board().shape();
    let after = placement_after(problem, &outcome.steps);
    let state = state_after(problem, &outcome.steps);

    // No hard constraint is newly violated, and no violation is worse.
    let before = violations(problem, problem.placement(), problem.board().state());
    for (what, how_badly) in violations(problem, &after, &state) {
        let known = before.iter().find(|(known, _)| *known == what);
        prop_assert!(
            known.is_some_and(|(_, known)| *known >= how_badly),
            "{what}: {how_badly}, {known:?}"
        );
    }
    for step in &outcome.steps {
        prop_assert!(shape.open().has(step.to), "it goes to a shard that takes something");
        prop_assert!(step.from == NONE || problem.hold_of(step.namespace) == Hold::None);
        prop_assert_ne!(step.from, step.to);
    }

    // The objective never worsens at a higher level, and what is told is what is.
    prop_assert_eq!(outcome.before, problem.score_now());
    prop_assert_eq!(outcome.after, problem.score_of(&after));
    let levels = if settings.mode == Mode::Emergency { 2 } else { 7 };
    prop_assert!(outcome.after.0[..levels] <= outcome.before.0[..levels]);
    if !outcome.steps.is_empty() {
        prop_assert!(outcome.after.0[..levels] < outcome.before.0[..levels]);
    }

    // The budget holds; what had no shard costs nothing.
    let moved: Vec<_> = outcome.steps.iter().filter(|step| step.from != NONE).collect();
    let cost: i128 = moved.iter().map(|step| i128::from(problem.cost_of(step.namespace))).sum();
    prop_assert!(settings.cost_max == 0 || cost <= i128::from(settings.cost_max));
    prop_assert!(settings.moves_max == 0 || moved.len() <= settings.moves_max);

    // A lower bound is one.
    if after.iter().all(|shard| *shard != NONE)
        && outcome.after.0[0] == 0
        && outcome.after.0[3] == 0
        && shape.all().all(|(_, shard)| !shard.draining)
    {
        // One is rounded up, the other down.
        prop_assert!(outcome.peak_after + 1 >= outcome.bounds.peak(), "{outcome:?}");
    }
    Ok(outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_rebalancing_breaks_nothing(fleet in fleets(), settings in settings()) {
        check(&fleet.problem(), &settings)?;
    }

    #[test]
    fn a_fleet_that_is_rebalanced_again_and_again_comes_to_rest(fleet in fleets(), seed in any::<u64>()) {
        let problem = fleet.problem();
        let settings = Settings { seed, ..Settings::default() };
        let mut snapshot = Snapshot::of(&problem, 0, &|_| 0);
        let mut at_rest = false;
        for _ in 0..40 {
            let problem = snapshot.problem().unwrap();
            let outcome = problem.rebalance(&settings, 1, &never);
            for step in &outcome.steps {
                let to = problem.board().shape().shard(step.to).unwrap().name.clone();
                snapshot.namespaces[step.namespace as usize].shard = Some(to);
            }
            if outcome.steps.is_empty() {
                at_rest = true;
                break;
            }
        }
        prop_assert!(at_rest, "it goes round in circles");
    }

    #[test]
    fn placing_then_rebalancing_moves_nothing(
        shards in 1..8_usize, count in 0..80_usize, demand in 1..=400_i64, seed in any::<u64>(),
    ) {
        // Of one size: others may come in an order that only an exchange levels, and it is made then.
        const CAPACITY: i64 = 10_000;
        let all = (0..shards).map(|at| {
            Shard::new(format!("shard-{at}").parse().unwrap(), vec![CAPACITY])
        });
        let mut problem = Problem::new(&["dags"], Policy::default(), all.collect());
        let room = CAPACITY * shards as i64 / 3;
        let mut board = problem.board().clone();
        let count = count.min((room / demand) as usize);
        for at in 0..count {
            let needs = board.needs(&[demand], &Constraints::default(), None, "");
            let (chosen, _) = board.choose(&needs).0.expect("there is room");
            board.add(&needs, chosen);
            problem.push(&Member {
                name: format!("ns-{at:03}").parse().unwrap(),
                demand: &[demand],
                constraints: &Constraints::default(),
                pinned: None,
                affinity: "",
                shard: Some(&format!("shard-{chosen}")),
                to: None,
                cost: 1,
                hold: Hold::None,
            });
        }
        let outcome = problem.rebalance(&Settings { seed, ..Settings::default() }, 1, &never);
        prop_assert!(outcome.steps.is_empty(), "{:?}", outcome);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_answer(fleet in fleets(), settings in settings()) {
        let problem = fleet.problem();
        let one = problem.rebalance(&settings, 1, &never);
        for threads in [2, 7] {
            let other = problem.rebalance(&settings, threads, &never);
            prop_assert_eq!((&one.steps, one.after, one.stop), (&other.steps, other.after, other.stop));
        }
    }

    #[test]
    fn waves_fit_and_any_order_within_them_ends_in_the_same(
        fleet in fleets(), settings in settings(), shuffle in any::<u64>(),
    ) {
        let problem = fleet.problem();
        let shape = problem.board().shape();
        let outcome = problem.rebalance(&settings, 1, &never);
        let limits = Limits { fleet: 3, shard_in: 2, shard_out: 1, tenant: 1 };
        let tenant = |at: u32| at % 5;
        let waves = Waves::of(&problem, &outcome.steps, &limits, &tenant);
        let start = violations(&problem, problem.placement(), problem.board().state());
        let allowed = |what: &str, how_badly: i128| {
            start.iter().any(|(known, known_badly)| known == what && *known_badly >= how_badly)
        };
        let mut state = problem.board().state().clone();
        let mut placement = problem.placement().to_vec();
        let mut random = super::super::random::Random::new(shuffle);
        for wave in &waves.waves {
            prop_assert!(!wave.is_empty() && wave.len() <= 3);
            let (mut into, mut out_of, mut groups, mut tenants) = (vec![0; shape.slots()], vec![0; shape.slots()], vec![], vec![]);
            let mut order = wave.clone();
            for at in (1..order.len()).rev() {
                order.swap(at, random.below(at as u64 + 1) as usize);
            }
            // All under way at once: the worst that can be.
            for step in &order {
                let item = problem.item(step.namespace);
                prop_assert_eq!(placement[step.namespace as usize], step.from);
                state.add(shape, item, step.to);
                into[step.to as usize] += 1;
                if step.from != NONE {
                    out_of[step.from as usize] += 1;
                }
                prop_assert!(item.group == NONE || !groups.contains(&item.group));
                groups.push(item.group);
                prop_assert!(!tenants.contains(&tenant(step.namespace)));
                tenants.push(tenant(step.namespace));
            }
            prop_assert!(into.iter().all(|count| *count <= 2) && out_of.iter().all(|count| *count <= 1));
            for (shard, known) in shape.all() {
                for (d, load) in state.load_of(shard).iter().enumerate() {
                    let capacity = i128::from(shape.capacity_of(shard)[d]);
                    let over = load - capacity;
                    prop_assert!(
                        capacity == 0 || over <= 0 || allowed(&format!("capacity {d} of {}", known.name), over),
                        "{} is over by {over} on the way", known.name,
                    );
                }
            }
            for step in &order {
                if step.from != NONE {
                    state.remove(shape, problem.item(step.namespace), step.from);
                }
                placement[step.namespace as usize] = step.to;
            }
        }
        let left_out: Vec<u32> = waves.left_out.iter().map(|step| step.namespace).collect();
        for step in &outcome.steps {
            if !left_out.contains(&step.namespace) {
                prop_assert_eq!(placement[step.namespace as usize], step.to);
            }
        }
    }

    #[test]
    fn a_dump_is_replayed_to_the_same_plan(fleet in fleets(), settings in settings()) {
        let problem = fleet.problem();
        let order = order(settings);
        let plan = decide(&problem, &order, 1, &never, &|at| i64::from(at));
        prop_assert!(plan.check(&problem, &|at| i64::from(at), &|_| false).is_empty());
        let dump = Dump::new(Snapshot::of(&problem, 7, &|at| i64::from(at)), order, &plan);
        let text = serde_json::to_string(&dump).unwrap();
        let back: Dump = serde_json::from_str(&text).unwrap();
        let again = back.replay(3).unwrap();
        prop_assert_eq!(&again, &plan);
        prop_assert_eq!(again.hash, dump.hash);
    }

    #[test]
    fn what_was_just_placed_is_not_moved(
        weights in prop::collection::vec((1..7_i64, 1..7_i64), 60..200),
        shards in 2..6_usize,
    ) {
        // Small namespaces, placed one after another: then there is nothing to improve.
        let names = (0..shards).map(|at| format!("shard-{at}").parse().unwrap());
        let capacity = weights.iter().map(|(a, b)| a + b).sum::<i64>();
        let shards = names.map(|name| Shard::new(name, vec![capacity, capacity]));
        let policy = Policy { tolerance: 250_000, ..Policy::default() };
        let mut problem = Problem::new(&["a", "b"], policy, shards.collect());
        for (at, (a, b)) in weights.iter().enumerate() {
            let needs = problem.board.needs(&[*a, *b], &Constraints::default(), None, "");
            let (best, _) = problem.board.choose(&needs);
            let shard = problem.board().shape().name(best.unwrap().0).to_owned();
            problem.push(&Member {
                name: format!("ns-{at:03}").parse().unwrap(),
                demand: &[*a, *b],
                constraints: &Constraints::default(),
                pinned: None,
                affinity: "",
                shard: Some(&shard),
                to: None,
                cost: 1,
                hold: Hold::None,
            });
        }
        let outcome = problem.rebalance(&Settings::default(), 1, &never);
        prop_assert_eq!(outcome.steps, vec![]);
    }

    #[test]
    fn the_shard_that_is_chosen_is_the_best_single_move(fleet in fleets(), at in any::<prop::sample::Index>()) {
        // One scorer: what the placer chose, no single move of the rebalancer improves.
        let problem = fleet.problem();
        if problem.is_empty() {
            return Ok(());
        }
        let at = at.index(problem.len()) as u32;
        let mut board = problem.board().clone();
        let needs = problem.needs_of(at);
        if problem.placement()[at as usize] != NONE {
            board.remove(&needs, problem.placement()[at as usize]);
        }
        let Some((chosen, _)) = board.choose(&needs).0 else { return Ok(()) };
        let mut placement = problem.placement().to_vec();
        placement[at as usize] = chosen;
        let best = problem.score_of(&placement);
        let explanation = board.explain("x", &needs, None, Hold::None, None);
        for other in explanation.shards.iter().filter(|answer| answer.answer == super::super::explain::Answer::Yes) {
            placement[at as usize] = board.shape().number(&other.shard).unwrap();
            // The online target is the mean's, without the bounds that need every namespace.
            let score = problem.score_of(&placement);
            prop_assert!(score.0[..5] >= best.0[..5], "{} is better", other.shard);
        }
    }

    #[test]
    fn absurd_amounts_get_an_answer(
        capacities in prop::collection::vec((any::<i64>(), any::<i64>()), 0..5),
        demands in prop::collection::vec((any::<i64>(), 0..6_usize, any::<i64>()), 0..20),
        tolerance in any::<i64>(),
        soft_limit in any::<i64>(),
    ) {
        let shards = capacities.iter().enumerate().map(|(at, (a, b))| {
            Shard::new(format!("shard-{at}").parse().unwrap(), vec![*a, *b])
        });
        let policy = Policy { soft_limit, tolerance, ..Policy::default() };
        let mut problem = Problem::new(&["a", "b"], policy, shards.collect());
        for (at, (demand, shard, cost)) in demands.iter().enumerate() {
            problem.push(&Member {
                name: format!("ns-{at:03}").parse().unwrap(),
                demand: &[*demand, demand.wrapping_mul(3)],
                constraints: &Constraints::default(),
                pinned: None,
                affinity: "",
                shard: Some(&format!("shard-{shard}")),
                to: None,
                cost: *cost,
                hold: Hold::None,
            });
        }
        for mode in [Mode::Emergency, Mode::Periodic] {
            let settings = Settings { mode, ..Settings::default() };
            check(&problem, &settings)?;
            let plan = decide(&problem, &order(settings), 1, &never, &|_| 0);
            prop_assert_eq!(plan.digest(), plan.hash);
        }
        let mut board = problem.board().clone();
        for at in 0..problem.len() as u32 {
            let shard = problem.placement()[at as usize];
            let shard = (shard != NONE).then_some(shard);
            let told = board.explain("x", &problem.needs_of(at), shard, Hold::None, None).text(3);
            prop_assert!(!told.is_empty());
        }
        super::super::headroom::Headroom::of(&problem, &[i64::MAX, 1]);
    }
}
