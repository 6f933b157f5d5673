//! The agent's part in moves.
//!
//! Responsible for telling what is found on the shard before a move ([`Inspector`]). What is asked
//! of the metadata database is [`airfleet_transfer`]'s. It must not know how roles are brought
//! about, or how messages travel.

mod inspect;

pub(crate) use self::inspect::{Inspector, keep_inspecting};
