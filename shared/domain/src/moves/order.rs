//! What a shard is told of a namespace, in steady state and in a move.

use serde::{Deserialize, Serialize};

use super::{History, Move, Phase};
use crate::{
    ids::{Generation, MoveId, Revision, ShardName},
    roles::{self, Desired, Role, owner_role},
};

/// Who owns a namespace, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The shard.
    pub shard: ShardName,
    /// Generation of the assignment.
    pub generation: Generation,
    /// Revision at which the assignment last changed. Every change of a move changes it too.
    pub revision: Revision,
}

/// What one shard is told of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whom it is for.
    pub shard: ShardName,
    /// What to be.
    pub desired: Desired,
    /// Revision at which it was committed.
    pub revision: Revision,
    /// What else to do, in a move.
    pub task: Option<Task>,
}

/// The last order that an agent obeyed, or began to.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Its generation.
    pub generation: Generation,
    /// Its revision.
    pub revision: Revision,
}

impl Seen {
    /// Whether whoever has seen this may obey an order of that place. The same one may come again.
    /// Generations and revisions grow together, so an order that is ahead in one and behind in the
    /// other was never committed, and is not obeyed.
    pub fn admits(self, next: Seen) -> bool {
        next.generation >= self.generation && next.revision >= self.revision
    }
}

impl Order {
    /// Its place in the order of all.
    pub fn place(&self) -> Seen {
        Seen { generation: self.desired.generation, revision: self.revision }
    }

    /// Whether an agent that has seen `seen` may obey it.
    pub fn follows(&self, seen: Seen) -> bool {
        seen.admits(self.place())
    }
}

/// Which end of a move a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It gives the namespace up.
    Source,
    /// It gets it.
    Target,
}

impl Side {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// What a shard does in a move beside being in its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The move.
    pub move_id: MoveId,
    /// Which end the shard is.
    pub side: Side,
    /// The other end.
    pub peer: ShardName,
    /// Which try it is. A new one says that the one before failed: begin anew, without a pause.
    pub attempt: u32,
    /// What to send or take in, once the role is reached.
    pub transfer: Option<TransferTask>,
}

/// What to send or take in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferTask {
    /// Which part.
    pub part: Part,
    /// How much of what happened goes along.
    pub history: History,
}

/// Which part of a namespace's rows travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// While the source runs: DAG rows and their versions, and runs that have ended.
    Ahead,
    /// Under seal: all that is left, or has changed, so that the target has everything.
    Rest,
}

impl Part {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Ahead => "ahead",
            Part::Rest => "rest",
        }
    }
}

/// What the shards are told of a namespace: its owner, and the ends of its move while there is one.
/// Whoever is not named has nothing to do with it.
pub fn orders(owner: &Owner, row: Option<&Move>) -> Vec<Order> {
    let order = |shard: &ShardName, role, task| Order {
        shard: shard.clone(),
        desired: Desired { role, generation: owner.generation },
        revision: owner.revision,
        task,
    };
    let Some(row) = row.filter(|row| !row.phase.is_final()) else {
        return vec![order(&owner.shard, Role::Active, None)];
    };
    let transfer = |part| Some(TransferTask { part, history: row.options.history });
    let ahead = || if row.options.source_is_lost { None } else { transfer(Part::Ahead) };
    let (source, target) = match row.phase {
        Phase::Planned => ((Role::Active, None), None),
        Phase::Staging => ((Role::Active, ahead()), Some((Role::Staged, ahead()))),
        Phase::Quiescing => ((Role::Quiesced, None), Some((Role::Staged, None))),
        // What is to be sent is known before the seal is: the source sends as soon as it is sealed.
        Phase::Sealing | Phase::Copying => {
            ((Role::Sealed, transfer(Part::Rest)), Some((Role::Staged, transfer(Part::Rest))))
        }
        Phase::Flipped | Phase::Activating => {
            // A source that is lost runs perhaps still: it is to stop as soon as it is back.
            let role = if row.options.source_is_lost { Role::Retired } else { Role::Sealed };
            ((role, None), Some((Role::Active, None)))
        }
        Phase::Retiring => ((Role::Retired, None), Some((Role::Active, None))),
        Phase::Aborting => ((Role::Active, None), Some((Role::Absent, None))),
        Phase::Done | Phase::Aborted => unreachable!("a move that has ended gives no orders"),
    };
    let task = |side, transfer| {
        let peer = if side == Side::Source { &row.target } else { &row.source };
        Some(Task {
            move_id: row.id.clone(),
            side,
            peer: peer.clone(),
            attempt: row.attempt,
            transfer,
        })
    };
    let (role, sends) = source;
    let mut orders = vec![order(&row.source, role, task(Side::Source, sends))];
    if let Some((role, takes)) = target {
        orders.push(order(&row.target, role, task(Side::Target, takes)));
    }
    orders
}

/// A namespace's assignment, as it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned<'a> {
    /// The shard that owns it, if one does.
    pub shard: Option<&'a ShardName>,
    /// Generation of the assignment.
    pub generation: Generation,
    /// Revision at which it last changed.
    pub revision: Revision,
}

/// On what grounds a shard is told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds<'a> {
    /// It is an end of this move.
    Move(&'a Move),
    /// It owns the namespace.
    Owns,
    /// It had the namespace, and this is left of it there.
    Left(&'a roles::Residue),
}

/// What a shard is told of a namespace, and on what grounds; none where it has nothing to do with
/// it. `left` is what shards that had the namespace before still have.
pub fn order_for<'a>(
    shard: &ShardName,
    assigned: Option<Assigned<'_>>,
    row: Option<&'a Move>,
    left: &'a [roles::Residue],
) -> Option<(Order, Grounds<'a>)> {
    let owned = assigned.and_then(|assigned| Some((assigned.shard?, assigned)));
    if let (Some((owner, assigned)), Some(row)) = (owned, row) {
        let Assigned { generation, revision, .. } = assigned;
        let owner = Owner { shard: owner.clone(), generation, revision };
        let mut orders = orders(&owner, Some(row)).into_iter();
        if let Some(order) = orders.find(|order| order.shard == *shard) {
            return Some((order, Grounds::Move(row)));
        }
    }
    let order = |desired, revision| Order { shard: shard.clone(), desired, revision, task: None };
    if let Some((_, assigned)) = owned.filter(|(owner, _)| *owner == shard) {
        let role = owner_role(left.iter().filter(|residue| residue.shard != *shard));
        let desired = Desired { role, generation: assigned.generation };
        return Some((order(desired, assigned.revision), Grounds::Owns));
    }
    let residue = left.iter().find(|residue| residue.shard == *shard)?;
    let (generation, revision) = match assigned {
        Some(assigned) => (Some(assigned.generation), assigned.revision.max(residue.revision)),
        None => (None, residue.revision),
    };
    Some((order(residue.desired(generation), revision), Grounds::Left(residue)))
}

/// What has to be seen to be fenced before a move to `target` may begin: whatever may still run
/// elsewhere unless somebody waived that, and the target itself in any case. What an earlier move
/// left on the target is the new move's from its first order on, and whoever gives that move up
/// takes it that the target is fenced.
pub fn unfenced<'a>(target: &ShardName, left: &'a [roles::Residue]) -> Option<&'a roles::Residue> {
    left.iter().find(|residue| match residue.fence {
        roles::Fence::Awaited => true,
        roles::Fence::Waived => residue.shard == *target,
        roles::Fence::Seen => false,
    })
}
