//! The agents: who is connected, what they report, and what they are to be told.
//!
//! Responsible for one session per shard ([`Hub`]), for merging reports ([`report`]), for the
//! verdict on a shard as the router sees it ([`Hub::health`]), for what the shard is for each
//! namespace ([`roles`]), and for what an agent's reports prove about a namespace ([`Evidence`]).
//!
//! Invariants: of two sessions of one shard the newer incarnation's stays; changes are added only to
//! the report that they follow; silence is never read as health, nor as a namespace being drained;
//! what is kept of a shard is bounded by `max_namespaces`, and shards by `max_agents`.
//!
//! It must not know the store, nor who decides what the roles are.

mod changes;
mod evidence;
mod hub;
mod moves;
pub(crate) mod report;
mod roles;
mod session;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    changes::Unasked,
    evidence::Evidence,
    hub::{Hello, Hub, Limits, Refusal, Seen},
    moves::Question,
    report::{NamespaceUsage, Report, Taken},
    roles::{Drift, LIST_MAX, Obstacle, PolicyViolation, Release, RoleChange, SeenRole},
    session::Session,
};
