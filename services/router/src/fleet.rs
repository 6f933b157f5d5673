//! The leader's picture of the fleet: what is declared, what is owned, what is observed, and how
//! much room that leaves.
//!
//! Responsible for the ledger of room and for asking the placer. What a namespace reserves is, in
//! each dimension, the larger of what it declared and what it was measured to use; what was decided
//! and is not written yet is counted too, so that two namespaces never get the same room.
//!
//! Invariants: `reserved` of a shard is the sum over the namespaces that it owns, plus what is in
//! flight; a namespace is in exactly one of the lists by shard, unplaced, or released. The fleet
//! changes by what was committed, never by what was merely tried.
//!
//! It must not know the store, the wire or the clock.

mod candidate;
mod ledger;
mod place;
mod problem;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    ledger::{Fleet, Observation},
    place::Placing,
    problem::Snapshot,
};
