//! Single fleets, by what is special about them.

use super::*;

#[test]
fn ten_to_the_eighteenth_is_a_weight_like_any_other() {
    let huge = 1_000_000_000_000_000_000;
    let shards =
        (0..3).map(|at| Shard::new(format!("shard-{at}").parse().unwrap(), vec![5 * huge]));
    let mut problem = Problem::new(&["bytes"], Policy::default(), shards.collect());
    for at in 0..12 {
        problem.push(&Member {
            name: format!("ns-{at:03}").parse().unwrap(),
            demand: &[huge],
            constraints: &Constraints::default(),
            pinned: None,
            affinity: "",
            shard: Some("shard-0"),
            to: None,
            cost: 1,
            hold: Hold::None,
        });
    }
    let outcome = check(&problem, &Settings::default()).unwrap();
    assert_eq!(outcome.steps.len(), 8);
    assert_eq!((outcome.peak_before, outcome.peak_after), (2_400_000, 800_000));
}

#[test]
fn a_generated_fleet_is_brought_to_within_a_percent_with_few_moves() {
    for weights in [Weights::Lognormal(150), Weights::Ratio(20), Weights::PowerLaw(20)] {
        let policy = Policy { tolerance: 8_000, ..Policy::default() };
        let recipe = Recipe {
            namespaces: 20_000,
            shards: 100,
            weights,
            flat_cost: 1,
            policy,
            ..Recipe::default()
        };
        let problem = recipe.generate();
        let outcome = check(&problem, &Settings::default()).unwrap();
        assert_eq!(outcome.stop, Stop::Reached, "{weights:?}: {outcome:?}");
        assert!(outcome.peak_after * 100 <= outcome.bounds.peak() * 101);
        // Half of what would have to be moved if it were dealt out anew.
        assert!(outcome.steps.len() < 8_000, "{}", outcome.steps.len());
        let two = problem.rebalance(&Settings::default(), 2, &never);
        assert_eq!(two.steps, outcome.steps);
    }
}

#[test]
fn a_fleet_of_all_sizes_that_was_placed_one_by_one_is_left_as_it_is() {
    for (weights, seed) in [Weights::Lognormal(150), Weights::Ratio(20), Weights::PowerLaw(20)]
        .into_iter()
        .flat_map(|weights| (1..=40).map(move |seed| (weights, seed)))
    {
        let recipe = Recipe {
            namespaces: 4_000,
            shards: 20,
            weights,
            seed,
            start: Start::Unplaced,
            ..Recipe::default()
        };
        let problem = recipe.generate();
        let mut board = problem.board().clone();
        let mut snapshot = Snapshot::of(&problem, 0, &|_| 0);
        for at in 0..problem.len() as u32 {
            let needs = problem.needs_of(at);
            let (chosen, _) = board.choose(&needs).0.expect("there is room");
            board.add(&needs, chosen);
            let shard = board.shape().shard(chosen).unwrap().name.clone();
            snapshot.namespaces[at as usize].shard = Some(shard);
        }
        let outcome = snapshot.problem().unwrap().rebalance(&Settings::default(), 2, &never);
        assert!(outcome.steps.is_empty(), "{weights:?} {seed}: {outcome:?}");
    }
}

#[test]
fn a_whole_fleet_without_shards_is_placed() {
    let recipe =
        Recipe { namespaces: 20_000, shards: 50, start: Start::Unplaced, ..Recipe::default() };
    let problem = recipe.generate();
    let outcome = check(&problem, &Settings::default()).unwrap();
    assert_eq!(outcome.steps.len(), 20_000);
    assert_eq!(outcome.after.0[..7], [0; 7], "{outcome:?}");
}

#[test]
fn losing_a_shard_moves_only_what_was_on_it() {
    let recipe = Recipe {
        namespaces: 5_000,
        shards: 50,
        start: Start::Skewed(100_000),
        empty_shards: 0,
        fill: 400_000,
        ..Recipe::default()
    };
    let snapshot = Snapshot::of(&recipe.generate(), 0, &|_| 0);
    let lost = snapshot.shards[7].name.clone();
    let mut after = snapshot.clone();
    after.shards[7].lost = true;
    let problem = after.problem().unwrap();
    let settings = Settings { mode: Mode::Emergency, ..Settings::default() };
    let outcome = check(&problem, &settings).unwrap();
    let was_there = snapshot.namespaces.iter().filter(|n| n.shard.as_ref() == Some(&lost)).count();
    assert_eq!(outcome.steps.len(), was_there);
    assert!(outcome.steps.iter().all(|step| step.from == NONE));
    assert_eq!(outcome.after.0[..2], [0, 0]);
}

#[test]
fn draining_and_filling_touch_nothing_else() {
    let recipe = Recipe {
        namespaces: 2_000,
        shards: 20,
        start: Start::Skewed(300_000),
        empty_shards: 0,
        fill: 500_000,
        ..Recipe::default()
    };
    let mut snapshot = Snapshot::of(&recipe.generate(), 0, &|_| 0);
    snapshot.shards[3].draining = true;
    let problem = snapshot.problem().unwrap();
    let drain = problem.board().shape().number(snapshot.shards[3].name.as_str()).unwrap();
    let settings = Settings { scope: Scope::Drain, ..Settings::default() };
    let outcome = check(&problem, &settings).unwrap();
    assert!(!outcome.steps.is_empty() && outcome.steps.iter().all(|step| step.from == drain));
    assert_eq!(outcome.after.0[3], 0, "it is empty");

    snapshot.shards[3].draining = false;
    for namespace in &mut snapshot.namespaces {
        if namespace.shard.as_ref() == Some(&snapshot.shards[3].name) {
            namespace.shard = Some(snapshot.shards[7].name.clone());
        }
    }
    let problem = snapshot.problem().unwrap();
    let settings = Settings { scope: Scope::Fill(vec![drain]), ..Settings::default() };
    let outcome = check(&problem, &settings).unwrap();
    assert!(!outcome.steps.is_empty() && outcome.steps.iter().all(|step| step.to == drain));
}

#[test]
fn a_circle_is_broken_by_a_detour_or_left_out() {
    // Two full shards swap; only a third has room on the way.
    let circle = |spare: i64| {
        let shards = [("shard-a", 10), ("shard-b", 10), ("shard-c", spare)];
        let shards = shards.map(|(name, own)| Shard::new(name.parse().unwrap(), vec![own]));
        let mut problem = Problem::new(&["dags"], Policy::default(), shards.into());
        for (name, shard) in [("one", "shard-a"), ("two", "shard-b")] {
            problem.push(&Member {
                name: name.parse().unwrap(),
                demand: &[8],
                constraints: &Constraints::default(),
                pinned: None,
                affinity: "",
                shard: Some(shard),
                to: None,
                cost: 1,
                hold: Hold::None,
            });
        }
        let steps = [Step { namespace: 0, from: 0, to: 1 }, Step { namespace: 1, from: 1, to: 0 }];
        Waves::of(&problem, &steps, &Limits::default(), &|_| NONE)
    };
    let waves = circle(8);
    assert_eq!((waves.detours, waves.left_out.len(), waves.waves.len()), (1, 0, 3));
    let waves = circle(7);
    assert_eq!((waves.detours, waves.left_out.len(), waves.waves.len()), (0, 2, 0));
}

#[test]
fn what_goes_back_finds_its_place_in_its_spread_group_taken() {
    // Two of group 1 go in turn through one place in a failure domain; undoing the move of the
    // first gains on a higher level, and would leave both there.
    let members = [
        (11, 1, 0, 1),
        (21, 2, 0, 1),
        (4, 8, 0, 1),
        (29, 1, 3, 1),
        (1, 1, 3, 0),
        (26, 3, 3, 1),
        (16, 7, 3, 2),
        (12, 13, 0, 2),
        (4, 4, 3, 0),
        (30, 1, 3, 1),
        (33, 5, 3, 1),
        (29, 3, 3, 1),
        (16, 9, 3, 2),
        (31, 8, 3, 1),
        (34, 0, 3, 1),
        (25, 8, 3, 1),
    ];
    let namespaces = members.map(|(dags, shard, asks, group)| Member8 {
        demand: [dags, 0],
        shard,
        to: None,
        asks,
        group,
        mates: 0,
        cost: 1,
        hold: false,
    });
    let fleet = Fleet {
        policy: Policy {
            tolerance: 0,
            group_max_per_domain: 1,
            resilience: false,
            ..Policy::default()
        },
        shards: vec![(95, 5, 4), (91, 1, 5), (38, 5, 4), (150, 5, 5), (20, 0, 3)],
        namespaces: namespaces.into(),
    };
    check(&fleet.problem(), &Settings { seed: 0, ..Settings::default() }).unwrap();
}

#[test]
fn a_gain_that_is_not_worth_it_moves_nothing() {
    let recipe = Recipe { namespaces: 500, shards: 10, ..Recipe::default() };
    let problem = recipe.generate();
    let free = problem.rebalance(&Settings::default(), 1, &never);
    assert!(!free.steps.is_empty());
    let dear = Settings { gain_min: i64::MAX, ..Settings::default() };
    // Overload is always worth it; without any, only the gain counts.
    let snapshot = Snapshot {
        policy: Policy { soft_limit: 10 * FULL, ..*problem.board().policy() },
        ..Snapshot::of(&problem, 0, &|_| 0)
    };
    let problem = snapshot.problem().unwrap();
    if problem.score_now().0[..5] == [0; 5] {
        let outcome = problem.rebalance(&dear, 1, &never);
        assert_eq!((outcome.steps.len(), outcome.stop), (0, Stop::NotWorthIt));
    }
}

#[test]
fn a_stale_plan_says_what_changed() {
    let recipe = Recipe { namespaces: 200, shards: 5, ..Recipe::default() };
    let problem = recipe.generate();
    let plan = decide(&problem, &order(Settings::default()), 1, &never, &|_| 1);
    let first = plan.moves[0].clone();
    let mut snapshot = Snapshot::of(&problem, 8, &|_| 1);
    let at = problem.number(first.namespace.as_str()).unwrap() as usize;
    snapshot.namespaces[at].shard = Some(first.to.clone());
    let changes = plan.check(&snapshot.problem().unwrap(), &|_| 1, &|_| false);
    let from = first.from.clone().unwrap();
    let expected = format!(
        "{} was on {from} at generation 1, is on {} at generation 1",
        first.namespace, first.to
    );
    assert_eq!(changes, [expected]);
    let mut snapshot = Snapshot::of(&problem, 8, &|_| 1);
    for shard in snapshot.shards.iter_mut().filter(|shard| shard.name == first.to) {
        shard.closed.push(Refusal::new("CORDONED", "cordoned by ann: disk"));
    }
    let changes = plan.check(&snapshot.problem().unwrap(), &|_| 1, &|_| false);
    assert!(
        changes[0].contains("no longer takes") && changes[0].contains("CORDONED"),
        "{changes:?}"
    );
    let changes = plan.check(&problem, &|_| 2, &|_| false);
    assert_eq!(changes.len(), plan.moves.len(), "other generations");
    let forged = Plan { moves: plan.moves[1..].to_vec(), ..plan.clone() };
    assert!(forged.check(&problem, &|_| 1, &|_| false)[0].contains("hash"));
}

#[test]
fn the_score_of_everything_has_every_level() {
    assert_eq!(LEVELS, 8);
    let empty = Problem::new(&["a"], Policy::default(), vec![]);
    assert_eq!(empty.score_now(), Score::default());
    assert_eq!(bounds::peak(&empty), 0);
}
