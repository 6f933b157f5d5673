//! Ownership and fencing, looked at in every state that a small fleet can reach.
//!
//! One namespace, two or three shards, routers that lead in terms, an operator who moves, gives up,
//! reassigns and waives. Orders that were ever committed arrive late, twice, in any order, or not
//! at all; agents crash between any two durable steps; a shard goes away while it runs, and comes
//! back. What happens next is decided by `moves::step`, `moves::order_for`, `Residue::step` and
//! `roles::next_step` themselves: there are no copies of them here that could be right while they
//! are wrong.
//!
//! The simulation beside this (`tests/moves`) goes deeper, into runs and rows, along histories that
//! a seed chooses. This one leaves nothing out of what little it looks at.

mod control;
mod shard;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use world::{COMES_ALONG, FENCED_FIRST, GENERATION_GROWS, ONE_ACTIVE, SEEN_IS_FENCED, World};

/// Shards that there is room for.
pub(crate) const SHARDS: usize = 3;

/// A rule that is broken, so that an invariant can show that it bites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// None is.
    None,
    /// A fence lets itself be set by an order of a lower place.
    ObeyLate,
    /// A fence compares generations only.
    OrderByGeneration,
    /// The target is made active before the source said that it is sealed.
    FlipUnsealed,
    /// A shard that gets the namespace without a move does not wait for the one that had it.
    ActivateAtOnce,
    /// A router that was replaced may still write.
    StaleLeaderWrites,
    /// A move may go to a shard that was never seen to be fenced since it had the namespace.
    TakeUnfenced,
}

/// Looks at everything, and answers how many states that was.
fn explore(world: World) -> usize {
    let checker = world.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    checker.unique_state_count()
}

/// A move, given up or not, a source that is lost and returns, routers that hear late.
#[test]
fn one_move_of_which_routers_hear_late() {
    let world = World { losses: 1, prompt: false, ..World::default() };
    assert!(explore(world) > 50_000);
}

/// There and back, with a move or without, and a shard that is cut off and returns at any time.
#[test]
fn there_and_back() {
    let world = World { asks: 2, losses: 1, ..World::default() };
    assert!(explore(world) > 100_000);
}

/// A router that was replaced and does not know it.
#[test]
fn two_routers() {
    let world = World { terms: 2, losses: 1, ..World::default() };
    assert!(explore(world) > 25_000);
}

/// On from the shard that it came to, while what is left on the first is cleared away.
#[test]
fn three_shards() {
    let world = World { shards: 3, asks: 2, reassigns: false, in_turn: true, ..World::default() };
    assert!(explore(world) > 100_000);
}

/// What takes minutes.
#[test]
#[ignore = "minutes; run it after a change of the rules"]
fn all_of_it_at_once() {
    explore(World { asks: 2, terms: 2, losses: 1, ..World::default() });
    explore(World { shards: 3, asks: 2, losses: 1, in_turn: true, ..World::default() });
}

/// Breaks one rule, and expects that one of these does not hold any more.
fn is_found(mutation: Mutation, world: World, by: &'static [&'static str]) {
    let world = World { mutation, ..world };
    let wanted = HasDiscoveries::AnyOf(by.iter().copied().collect());
    let checker = world.checker().finish_when(wanted).threads(2).spawn_bfs().join();
    let found = checker.discoveries();
    let broken: Vec<_> = by.iter().filter(|name| found.contains_key(**name)).collect();
    assert!(!broken.is_empty(), "{mutation:?} goes unnoticed");
    println!("{mutation:?} breaks {broken:?}, within {} states", checker.unique_state_count());
}

#[test]
fn a_fence_that_accepts_lower_places_is_found() {
    is_found(Mutation::ObeyLate, World::default(), &[ONE_ACTIVE]);
}

#[test]
fn a_fence_that_compares_generations_only_is_found() {
    let world = World { asks: 2, reassigns: false, ..World::default() };
    is_found(Mutation::OrderByGeneration, world, &[ONE_ACTIVE]);
}

#[test]
fn activation_without_waiting_is_found() {
    for invariant in [&[ONE_ACTIVE], &[FENCED_FIRST], &[COMES_ALONG]] {
        is_found(Mutation::FlipUnsealed, World::default(), invariant);
    }
    is_found(Mutation::ActivateAtOnce, World::default(), &[ONE_ACTIVE]);
}

#[test]
fn a_router_that_was_replaced_and_writes_is_found() {
    let world = World { terms: 2, ..World::default() };
    is_found(Mutation::StaleLeaderWrites, world, &[GENERATION_GROWS]);
}

#[test]
fn a_move_to_a_shard_that_was_not_seen_fenced_is_found() {
    let world = World { asks: 2, losses: 1, ..World::default() };
    is_found(Mutation::TakeUnfenced, world, &[SEEN_IS_FENCED]);
}
