//! Moves under deterministic simulation: routers with terms, agents with durable records, shards
//! with schedulers, links that lose, repeat and reorder, and crashes around every durable write.
//!
//! A seed is a whole history. Nothing here is real but the rules of `airfleet_domain::moves`: what
//! runs on real shards is tested elsewhere; what no real test can reach, the thousands of orders in
//! which things may happen, is tested here.
//!
//! `AIRFLEET_SEED=17 cargo test -p airfleet-domain --test moves -- --nocapture trace` tells the
//! story of one seed.

mod agent;
mod checks;
mod random;
mod router;
mod shard;
mod world;

use checks::{Check, Violation};
use world::{Mutation, World};

fn run(seed: u64, mutation: Mutation) -> Result<world::Tally, Violation> {
    World::new(seed, mutation).run()
}

/// Seeds of one test run. `AIRFLEET_SIMULATION_SEEDS` asks for more, from the first on.
fn seeds() -> u64 {
    std::env::var("AIRFLEET_SIMULATION_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens() {
    let mut total = world::Tally::default();
    for seed in 0..seeds() {
        match run(seed, Mutation::None) {
            Ok(tally) => total.add(&tally),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{} histories: {total:#?}", seeds());
    // A simulation in which little happens proves little.
    let per_thousand = |count: u64| count * 1000 / seeds();
    assert!(per_thousand(total.done) > 2000, "moves that end in DONE");
    assert!(per_thousand(total.aborted) > 500, "moves that are aborted");
    assert!(per_thousand(total.returned) > 1000, "namespaces that move back to where they were");
    assert!(per_thousand(total.takeovers) > 2000, "routers that take over in a move");
    assert!(per_thousand(total.crashes) > 3000, "crashes");
    assert!(per_thousand(total.refused_orders) > 10_000, "late orders that are refused");
    assert!(per_thousand(total.refused_commits) > 1000, "commits of stale leaders");
    assert!(per_thousand(total.made_up) > 3000, "runs that are made up for");
    assert!(per_thousand(total.forced) > 15, "sources given up as lost");
}

#[test]
fn the_same_seed_is_the_same_history() {
    let once = run(7, Mutation::None).unwrap();
    assert_eq!(once, run(7, Mutation::None).unwrap());
}

/// Tells the story of `AIRFLEET_SEED`.
#[test]
fn trace() {
    let Some(seed) = std::env::var("AIRFLEET_SEED").ok().and_then(|n| n.parse().ok()) else {
        return;
    };
    let mutation = std::env::var("AIRFLEET_MUTATION").unwrap_or_default();
    let mutation = Mutation::ALL.into_iter().find(|m| format!("{m:?}") == mutation);
    let mut world = World::new(seed, mutation.unwrap_or(Mutation::None));
    world.tell = true;
    match world.run() {
        Ok(tally) => println!("{tally:#?}"),
        Err(violation) => panic!("{violation}"),
    }
}

/// Breaks one rule and expects a check to notice. A check that notices nothing checks nothing.
fn is_caught(mutation: Mutation, by: &[Check]) {
    for seed in 0..seeds() {
        if let Err(violation) = run(seed, mutation) {
            assert!(by.contains(&violation.check), "seed {seed}: caught by another: {violation}");
            return;
        }
    }
    panic!("{mutation:?} went unnoticed");
}

#[test]
fn a_flip_without_a_seal_is_caught() {
    is_caught(
        Mutation::FlipWithoutSeal,
        &[Check::OneActive, Check::RunsOnce, Check::SealHolds, Check::NothingLost],
    );
}

#[test]
fn an_agent_that_obeys_late_orders_is_caught() {
    is_caught(
        Mutation::ObeyLateOrders,
        &[Check::OneActive, Check::RunsOnce, Check::SealHolds, Check::OrderGrows],
    );
}

#[test]
fn ordering_by_generation_alone_is_caught() {
    is_caught(
        Mutation::OrderByGeneration,
        &[
            Check::OneActive,
            Check::RunsOnce,
            Check::SealHolds,
            Check::NothingLost,
            Check::OrderGrows,
        ],
    );
}

#[test]
fn looking_once_whether_it_is_drained_is_caught() {
    is_caught(Mutation::LookOnce, &[Check::RunsOnce, Check::SealHolds]);
}

#[test]
fn an_import_that_does_not_look_at_the_fence_is_caught() {
    is_caught(Mutation::ImportUnguarded, &[Check::RunsOnce, Check::NothingLost]);
}

#[test]
fn taking_the_same_attempt_in_again_is_caught() {
    is_caught(Mutation::ImportTwice, &[Check::RunsOnce, Check::NothingLost]);
}

#[test]
fn a_stale_process_that_is_not_refused_by_the_database_is_caught() {
    is_caught(
        Mutation::EffectsUnguarded,
        &[
            Check::OneActive,
            Check::RunsOnce,
            Check::SealHolds,
            Check::NothingLost,
            Check::AsUsersLeftIt,
        ],
    );
}

#[test]
fn leaving_out_what_came_due_in_between_is_caught() {
    is_caught(Mutation::NothingMadeUp, &[Check::NothingLost]);
}

#[test]
fn a_stale_leader_that_may_write_is_caught() {
    is_caught(
        Mutation::StaleLeaderWrites,
        &[Check::OneActive, Check::RunsOnce, Check::SealHolds, Check::GenerationGrows],
    );
}

#[test]
fn a_copy_that_is_not_compared_is_caught() {
    is_caught(Mutation::CompareNothing, &[Check::RunsOnce, Check::NothingLost]);
}

#[test]
fn turning_back_past_the_flip_is_caught() {
    is_caught(
        Mutation::TurnBack,
        &[Check::OneActive, Check::RunsOnce, Check::SealHolds, Check::NothingLost],
    );
}

#[test]
fn giving_up_instead_of_trying_again_is_caught() {
    is_caught(Mutation::GiveUp, &[Check::Ends]);
}

#[test]
fn forgetting_how_users_paused_is_caught() {
    is_caught(Mutation::ForgetPauses, &[Check::AsUsersLeftIt, Check::NothingLost]);
}
