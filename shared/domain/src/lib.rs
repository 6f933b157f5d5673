//! What Airfleet decides with: the words of the fleet as types, and the rules over them.
//!
//! Everything here is pure: no IO, no clock, no randomness that is not passed in, nothing async.
//! The crate's dependencies keep it so. Services load, ask this crate, and write.

pub mod dags;
pub mod health;
pub mod ids;
pub mod labels;
pub mod manifest;
pub mod moves;
pub mod placement;
pub mod resources;
pub mod roles;
pub mod routing;
