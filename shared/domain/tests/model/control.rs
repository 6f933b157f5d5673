//! What the control plane wrote, and what a router does with it.

use airfleet_domain::{
    ids::{Generation, MoveId, Revision, ShardName},
    moves::{
        Assigned, Cancel, Change, End, Evidence, Left, Move, Observations, Options, Order,
        Ownership, Phase, Policy, Step, order_for, preflight::Inspection, step, unfenced,
    },
    roles::{Fence, Residue, ResidueStep, Role},
};

use crate::{Mutation, SHARDS, shard::Told};

/// Before every deadline.
const EARLY_US: i64 = 0;
/// After every deadline.
const LATE_US: i64 = 1 << 50;

pub(crate) fn shard_name(at: u8) -> ShardName {
    format!("shard-{at}").parse().expect("a name")
}

fn shard_at(name: &ShardName) -> u8 {
    name.as_str().as_bytes()[6] - b'0'
}

pub(crate) fn move_id(number: u8) -> MoveId {
    format!("m{number}").parse().expect("an id")
}

/// What is committed of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Contents {
    pub(crate) owner: u8,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) row: Option<Row>,
    pub(crate) left: [Option<Remains>; SHARDS],
    /// What was asked for so far. Count.
    pub(crate) asked: u8,
    /// How the last move ended.
    pub(crate) ended: Option<Phase>,
}

#[allow(clippy::struct_excessive_bools, reason = "each says whether a time is set")]
/// A move without its times: each look is before all of them or after.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) number: u8,
    pub(crate) source: u8,
    pub(crate) target: u8,
    pub(crate) generation: Generation,
    pub(crate) began: Revision,
    pub(crate) phase: Phase,
    pub(crate) is_cancelled: bool,
    pub(crate) is_lost: bool,
    staged: bool,
    stopped: bool,
    sealed: bool,
}

/// A residue without what is only shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Remains {
    pub(crate) generation: Generation,
    pub(crate) role: Role,
    pub(crate) fence: Fence,
    pub(crate) revision: Revision,
}

impl Row {
    pub(crate) fn begin(
        number: u8,
        (source, target): (u8, u8),
        known: &Contents,
        is_lost: bool,
    ) -> Self {
        Self {
            number,
            source,
            target,
            generation: known.generation,
            began: known.revision.next(),
            phase: Phase::Planned,
            is_cancelled: false,
            is_lost,
            staged: false,
            stopped: false,
            sealed: false,
        }
    }

    fn expand(&self) -> Move {
        let policy = Policy::default();
        let options = Options { source_is_lost: self.is_lost, ..Options::default() };
        let ends = (shard_name(self.source), shard_name(self.target));
        let who = ("op".to_owned(), String::new());
        let namespace = "payments".parse().expect("a name");
        let begun = Move::begin(
            move_id(self.number),
            namespace,
            ends,
            self.generation,
            self.began,
            options,
            who,
            &policy,
            EARLY_US,
        );
        let cancel = Cancel { actor: "op".into(), reason: String::new(), at_us: EARLY_US };
        Move {
            phase: self.phase,
            deadline_at_us: self.phase.is_abortable().then_some(LATE_US),
            cancel: self.is_cancelled.then_some(cancel),
            staged_at_us: self.staged.then_some(EARLY_US),
            quiesced_at_us: self.stopped.then_some(EARLY_US),
            flipped_at_us: self.phase.is_past_flip().then_some(EARLY_US),
            sealed: self.sealed.then(|| [].into()),
            ..begun
        }
    }

    fn shorten(row: &Move) -> Self {
        assert_eq!(row.deadline_at_us.is_some(), row.phase.is_abortable(), "{row:?}");
        assert_eq!((row.attempt, row.next_attempt_at_us), (1, None), "nothing fails here: {row:?}");
        Self {
            number: row.id.as_str()[1..].parse().expect("a number"),
            source: shard_at(&row.source),
            target: shard_at(&row.target),
            generation: row.generation,
            began: row.began_revision,
            phase: row.phase,
            is_cancelled: row.cancel.is_some(),
            is_lost: row.options.source_is_lost,
            staged: row.staged_target(),
            stopped: row.stopped_source(),
            sealed: row.sealed.is_some(),
        }
    }
}

impl Remains {
    fn expand(self, shard: u8) -> Residue {
        Residue {
            namespace: "payments".parse().expect("a name"),
            shard: shard_name(shard),
            prefixes: Vec::new(),
            generation: self.generation,
            role: self.role,
            fence: self.fence,
            reason: String::new(),
            left_at_us: EARLY_US,
            purge_at_us: LATE_US,
            revision: self.revision,
        }
    }
}

impl Contents {
    pub(crate) fn new() -> Self {
        Self {
            owner: 0,
            generation: Generation(1),
            revision: Revision(1),
            row: None,
            left: [None; SHARDS],
            asked: 0,
            ended: None,
        }
    }

    fn residues(&self) -> Vec<Residue> {
        let all = (0..).zip(&self.left);
        all.filter_map(|(shard, left)| Some((*left)?.expand(shard))).collect()
    }

    /// What the shards are told.
    pub(crate) fn orders(&self) -> Vec<Told> {
        let (owner, row, left) =
            (shard_name(self.owner), self.row.as_ref().map(Row::expand), self.residues());
        let assigned =
            Assigned { shard: Some(&owner), generation: self.generation, revision: self.revision };
        let order = |shard| -> Option<(u8, Order)> {
            Some((shard, order_for(&shard_name(shard), Some(assigned), row.as_ref(), &left)?.0))
        };
        (0..SHARDS as u8).filter_map(order).map(|(at, order)| Told::of(at, &order)).collect()
    }

    fn next(&self) -> Self {
        Self { revision: self.revision.next(), ..self.clone() }
    }

    /// The namespace is another shard's from now on.
    fn give(&mut self, to: u8, fence: Fence) {
        self.generation = self.generation.next();
        let left = Remains {
            generation: self.generation,
            role: Role::Retired,
            fence,
            revision: self.revision,
        };
        self.left[usize::from(self.owner)] = Some(left);
        self.left[usize::from(to)] = None;
        self.owner = to;
    }

    /// As the transaction of a change leaves it.
    fn with(&self, change: Change) -> Self {
        let mut after = self.next();
        let Change { row, ownership, left } = change.at(after.revision);
        match ownership {
            Ownership::Keep => {}
            Ownership::Renew => after.generation = self.generation.next(),
            Ownership::Give => {
                let lost = row.options.source_is_lost;
                after.give(shard_at(&row.target), if lost { Fence::Waived } else { Fence::Seen });
            }
        }
        match left {
            Left::AsIs => {}
            Left::TakenOver => after.left[usize::from(shard_at(&row.target))] = None,
            Left::Behind(residue) => {
                after.left[usize::from(shard_at(&residue.shard))] = Some(Remains {
                    generation: residue.generation,
                    role: residue.role,
                    fence: if residue.unfenced { Fence::Waived } else { Fence::Seen },
                    revision: residue.revision,
                });
            }
        }
        after.ended = row.phase.is_final().then_some(row.phase);
        after.row = (!row.phase.is_final()).then(|| Row::shorten(&row));
        after
    }

    /// A move that somebody asks for; none where it is refused.
    pub(crate) fn begin(&self, target: u8, is_lost: bool, mutation: Mutation) -> Option<Self> {
        let residues = self.residues();
        let held = unfenced(&shard_name(target), &residues).is_some();
        let refused = self.row.is_some()
            || target == self.owner
            || (held && mutation != Mutation::TakeUnfenced);
        (!refused).then(|| {
            let number = self.asked + 1;
            let row = Row::begin(number, (self.owner, target), self, is_lost);
            Self { row: Some(row), asked: number, ..self.next() }
        })
    }

    /// The move is to be given up.
    pub(crate) fn cancel(&self) -> Option<Self> {
        let row = self.row.as_ref().filter(|row| row.phase.is_abortable() && !row.is_cancelled)?;
        Some(Self { row: Some(Row { is_cancelled: true, ..row.clone() }), ..self.next() })
    }

    /// The namespace is bound to another shard without a move: nothing is copied.
    pub(crate) fn reassign(&self, target: u8, mutation: Mutation) -> Option<Self> {
        if self.row.is_some() || target == self.owner {
            return None;
        }
        let mut after = self.next();
        after.asked += 1;
        let at_once = mutation == Mutation::ActivateAtOnce;
        after.give(target, if at_once { Fence::Seen } else { Fence::Awaited });
        Some(after)
    }

    /// An operator does not wait for shards that had it.
    pub(crate) fn waive(&self) -> Option<Self> {
        let mut after = self.next();
        let awaited = after.left.iter_mut().flatten().filter(|left| left.fence == Fence::Awaited);
        let mut any = false;
        for left in awaited {
            *left = Remains { fence: Fence::Waived, revision: after.revision, ..*left };
            any = true;
        }
        any.then_some(after)
    }

    /// Takes in what a shard says of what it gave up.
    pub(crate) fn settle(&self, shard: u8, said: Option<&Evidence>, late: bool) -> Option<Self> {
        let residue = self.left[usize::from(shard)]?.expand(shard);
        let observed = said.and_then(|said| said.observed);
        let mut after = self.next();
        let left = &mut after.left[usize::from(shard)];
        match residue.step(observed, if late { LATE_US } else { EARLY_US }) {
            ResidueStep::Keep => return None,
            ResidueStep::Remove => *left = None,
            ResidueStep::Write(next) => {
                let (role, fence) = (next.role, next.fence);
                *left = Some(Remains { role, fence, revision: after.revision, ..(*left)? });
            }
        }
        Some(after)
    }

    /// Takes the move further.
    pub(crate) fn look(
        &self,
        said: &[Option<Evidence>; SHARDS],
        away: [bool; SHARDS],
        late: bool,
        mutation: Mutation,
    ) -> Option<Self> {
        let row = self.row.as_ref()?;
        let now_us = if late { LATE_US } else { EARLY_US };
        let end = |shard: u8| {
            let at = usize::from(shard);
            let inspection = Inspection {
                at_us: now_us,
                database: "postgresql".into(),
                ..Inspection::default()
            };
            End {
                connected: !away[at],
                evidence: said[at].clone(),
                inspection: (!away[at]).then(|| inspection.into()),
            }
        };
        let seen = Observations {
            source: end(row.source),
            target: end(row.target),
            ..Observations::default()
        };
        let row = row.expand();
        if mutation == Mutation::FlipUnsealed && row.phase == Phase::Quiescing {
            let row = Move { phase: Phase::Flipped, deadline_at_us: None, ..row };
            return Some(self.with(Change { row, ownership: Ownership::Give, left: Left::AsIs }));
        }
        let change = match step(&row, &seen, &Policy::default(), now_us, 0) {
            Step::Effect(_) | Step::Wait { .. } | Step::Ended => return None,
            step => step.into_change()?,
        };
        Some(self.with(change))
    }
}
