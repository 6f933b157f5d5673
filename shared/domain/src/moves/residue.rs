//! What a move leaves behind on the shard that does not own the namespace.

use serde::{Deserialize, Serialize};

use super::{Change, Left, Move, Order, Owner, Phase, Policy, evidence::Obstacle, policy::micros};
use crate::{
    ids::{Generation, MoveId, NamespaceName, Revision, ShardName},
    roles::{Desired, Observed, Role},
};

/// Rows of a namespace on a shard that does not own it. Kept until their retention, so that a
/// mistake can be looked into, then removed; the record of it is removed once they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Residue {
    /// The namespace.
    pub namespace: NamespaceName,
    /// Where its rows are.
    pub shard: ShardName,
    /// The move that left them.
    pub move_id: MoveId,
    /// Generation of the assignment when they were left. As long as the shard owns the namespace
    /// at none above it, they are nobody's.
    pub generation: Generation,
    /// Retired while they are kept, absent from when on they are to be removed.
    pub role: Role,
    /// When they are to be removed. Microseconds since 1970-01-01 UTC.
    pub purge_at_us: i64,
    /// Whether the shard has not been seen to be fenced: it was lost when the namespace was given
    /// to another, and may run it still, should it be up.
    pub unfenced: bool,
    /// Revision at which this last changed.
    pub revision: Revision,
}

/// What becomes of a residue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResidueStep {
    /// Nothing now.
    Keep,
    /// It is to be written like this.
    Write(Residue),
    /// Nothing is left: the record is to be removed.
    Remove,
}

impl Residue {
    /// What the shard is told.
    pub fn order(&self, owner: Option<&Owner>) -> Order {
        // A namespace that changed since still has one line of orders.
        let (generation, revision) = owner.map_or((self.generation, self.revision), |owner| {
            (owner.generation.max(self.generation), owner.revision.max(self.revision))
        });
        Order {
            shard: self.shard.clone(),
            desired: Desired { role: self.role, generation },
            revision,
            task: None,
        }
    }

    /// What becomes of it, with what its shard is seen to be.
    pub fn step(&self, observed: Option<(Observed, Revision)>, now_us: i64) -> ResidueStep {
        let reached = observed.is_some_and(|(observed, revision)| {
            revision >= self.revision
                && observed.role == self.role
                && observed.generation >= self.generation
        });
        match self.role {
            Role::Absent if reached => ResidueStep::Remove,
            Role::Absent => ResidueStep::Keep,
            _ if now_us >= self.purge_at_us && (reached || !self.unfenced) => {
                ResidueStep::Write(Self { role: Role::Absent, unfenced: false, ..self.clone() })
            }
            _ if reached && self.unfenced => {
                ResidueStep::Write(Self { unfenced: false, ..self.clone() })
            }
            _ => ResidueStep::Keep,
        }
    }
}

impl Move {
    /// What it leaves behind as it ends.
    pub(super) fn residue(&self, policy: &Policy, fenced: bool, now_us: i64) -> Option<Residue> {
        let (shard, role, keep_us) = match self.phase {
            Phase::Done => (&self.source, Role::Retired, micros(policy.retention)),
            Phase::Aborted if self.staged_target() => (&self.target, Role::Absent, 0),
            _ => return None,
        };
        Some(Residue {
            namespace: self.namespace.clone(),
            shard: shard.clone(),
            move_id: self.id.clone(),
            generation: self.generation.next(),
            role,
            purge_at_us: now_us.saturating_add(keep_us),
            unfenced: !fenced,
            revision: self.revision,
        })
    }
}

impl Change {
    /// The same change, at the revision that its commit makes.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.row.revision = revision;
        if let Left::Behind(residue) = &mut self.left {
            residue.revision = revision;
        }
        self
    }
}

/// An obstacle in words, for where there is none to name.
pub(super) fn unknown_obstacle() -> Obstacle {
    Obstacle { code: "UNKNOWN".into(), message: "the agent gave no reason; see its log".into() }
}
