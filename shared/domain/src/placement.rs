//! Which shard a namespace goes to, and which move would make the fleet better.
//!
//! One engine answers both. [`board::Board`] is the fleet as it stands and places one namespace at
//! a time; [`search`] improves a whole fleet by moving what is worth moving; both go by the same
//! [`objective`], so that the second never undoes what the first did. Everything else tells of
//! them: [`plan`] what will move and in which order, [`explain`] why, [`headroom`] how much room is
//! left. The design, and what was rejected, stands in `docs/adr`.
//!
//! Invariants:
//!
//! - *Pure and deterministic*: no IO, no clock, nothing async, integers only. The same snapshot,
//!   configuration and seed give the same answer on every machine and any number of threads.
//! - *No hard constraint is newly violated.* What is broken already may be mended, never worsened.
//! - *No level of the objective gets worse for the sake of a lower one.*
//! - *Room is counted once for each claim*: a namespace that is on its way counts where it comes
//!   from and where it goes.
//! - *Absurd input gets an answer*, never a panic or an overflow.

pub mod amount;
pub mod board;
pub mod bounds;
pub mod demand;
pub mod dump;
pub mod execute;
pub mod explain;
pub mod generate;
pub mod headroom;
pub mod history;
pub mod objective;
pub mod plan;
pub mod problem;
pub mod random;
mod resilience;
pub mod rules;
pub mod search;
pub mod shape;
pub mod simulate;
pub mod state;
pub mod waves;

pub use self::{
    board::{Board, Decision, Needs},
    objective::{Policy, Score},
    rules::{Constraints, Refusal},
    shape::Shard,
};
