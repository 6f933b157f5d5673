//! What a shard is for a namespace: one mechanism for steady state and moves.
//!
//! The router keeps a *desired* role with its generation for each namespace and shard; the agent
//! reports the *observed* one; a reconciler on each side closes the difference. Nothing here acts:
//! these are the words, and the one rule about order that an agent must keep.
//!
//! Invariant: of all shards at most one is ever told to be [`Role::Active`] for a namespace, and
//! an agent never goes back to a generation below one that it has seen ([`Desired::follows`]).

mod plan;
mod residue;

use serde::{Deserialize, Serialize};

pub use self::plan::{FenceFound, Found, Overtaken, Presence, Step, next_step};
pub use self::residue::{Fence, Residue, ResidueStep, owner_role};
use crate::ids::Generation;

/// What a shard is for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nothing of the namespace runs or parses here; rows may wait for their retention.
    Absent,
    /// Files, pools and DAG rows are present, paused and fenced.
    Staged,
    /// The shard runs the namespace: DAGs have the pause state that their users gave them.
    Active,
    /// All DAGs are paused and fenced, each one's own pause state remembered; draining.
    Quiesced,
    /// Drained and fenced, high-water marks reported; ready to export.
    Sealed,
    /// Files removed; the fence stays, and so do rows until their retention.
    Retired,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 6] =
        [Role::Absent, Role::Staged, Role::Active, Role::Quiesced, Role::Sealed, Role::Retired];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Absent => "absent",
            Role::Staged => "staged",
            Role::Active => "active",
            Role::Quiesced => "quiesced",
            Role::Sealed => "sealed",
            Role::Retired => "retired",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Role> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether DAGs of the namespace may be unpaused. Everything else is fenced: denied by
    /// default, so that a role that is forgotten never schedules.
    pub fn may_schedule(self) -> bool {
        self == Role::Active
    }

    /// Whether the namespace's files, pools, variables and connections are on the shard.
    pub fn has_workload(self) -> bool {
        matches!(self, Role::Staged | Role::Active | Role::Quiesced | Role::Sealed)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a shard is to be for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Desired {
    /// The role.
    pub role: Role,
    /// Generation of the assignment that it is of.
    pub generation: Generation,
}

impl Desired {
    /// Whether an agent that has seen `seen` of the namespace may obey this: a lower generation is
    /// the word of somebody who was overtaken.
    pub fn follows(&self, seen: Generation) -> bool {
        self.generation >= seen
    }
}

/// What a shard is for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observed {
    /// The last role that was reached completely.
    pub role: Role,
    /// Generation at which it was reached.
    pub generation: Generation,
}

impl Observed {
    /// Whether it is what it is to be.
    pub fn is(&self, desired: Desired) -> bool {
        self.role == desired.role && self.generation == desired.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_active_shard_may_schedule() {
        let scheduling: Vec<_> = Role::ALL.into_iter().filter(|r| r.may_schedule()).collect();
        assert_eq!(scheduling, [Role::Active]);
    }

    #[test]
    fn names_are_told_apart() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("owner"), None);
    }

    #[test]
    fn an_overtaken_word_is_not_followed() {
        let desired = Desired { role: Role::Active, generation: Generation(4) };
        assert!(desired.follows(Generation(3)) && desired.follows(Generation(4)));
        assert!(!desired.follows(Generation(5)));
        assert!(Observed { role: Role::Active, generation: Generation(4) }.is(desired));
        assert!(!Observed { role: Role::Active, generation: Generation(3) }.is(desired));
    }
}
