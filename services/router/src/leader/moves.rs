//! Moves under way, and what takes them further.
//!
//! What happens next is decided by [`airfleet_domain::moves::step`] from the row as it was committed
//! and from what the agents say; what it decides is written in one transaction with the assignment,
//! whose revision every change of a move changes. Nothing of a move is kept here alone: a new leader
//! goes on from the rows.
//!
//! Invariant: an order is told only from a row and an assignment that were committed.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard},
};

use airfleet_domain::{
    ids::{MoveId, NamespaceName, Prefix, ShardName},
    moves::{
        self, Change, Effect, End, Left, Move, Observations, Ownership, Part, Phase, Policy, Side,
        Step, Waiting,
    },
    placement::waves::Limits,
    roles::{Fence, Residue},
    routing::{Assignment, State},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Leader, Stamp, lock, log};
use crate::store::{Batch, Error, Moved, Record};

/// Moves that have not ended, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    open: HashMap<NamespaceName, Arc<Move>>,
}

impl FromIterator<Move> for Moves {
    fn from_iter<T: IntoIterator<Item = Move>>(rows: T) -> Self {
        let mut all = Self::default();
        rows.into_iter().for_each(|row| all.put(row));
        all
    }
}

impl Moves {
    /// The one of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<&Arc<Move>> {
        self.open.get(namespace)
    }

    /// All, by no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Move>> {
        self.open.values()
    }

    /// Namespaces that a shard is one end of a move of.
    pub(crate) fn on(&self, shard: &str) -> impl Iterator<Item = &NamespaceName> {
        let has =
            move |row: &&Arc<Move>| row.source.as_str() == shard || row.target.as_str() == shard;
        self.open.values().filter(has).map(|row| &row.namespace)
    }

    pub(super) fn put(&mut self, row: Move) {
        if row.phase.is_final() {
            self.open.remove(&row.namespace);
        } else {
            self.open.insert(row.namespace.clone(), Arc::new(row));
        }
    }

    /// How many have to end before one that has not begun may: those that go on, and those that
    /// were asked for earlier, as far as they are too many.
    fn ahead(&self, row: &Move, limits: &Limits) -> usize {
        if row.phase != Phase::Planned {
            return 0;
        }
        let before = |other: &&Arc<Move>| {
            other.id != row.id && (other.phase != Phase::Planned || other.id < row.id)
        };
        let before: Vec<_> = self.open.values().filter(before).collect();
        let over = |count: usize, limit: usize| (count + 1).saturating_sub(limit);
        let into = before.iter().filter(|other| other.target == row.target).count();
        let off = before.iter().filter(|other| other.source == row.source).count();
        over(before.len(), limits.fleet)
            .max(over(into, limits.shard_in))
            .max(over(off, limits.shard_out))
    }
}

/// One end of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The move.
    pub(crate) move_id: MoveId,
    /// Which end.
    pub(crate) side: Side,
    /// Which part.
    pub(crate) part: Part,
    /// Which attempt.
    pub(crate) attempt: u32,
}

/// The shard beside the owner on which a namespace needs room while it is moved.
pub(super) fn other_end(row: &Move) -> Option<&ShardName> {
    match row.phase {
        Phase::Planned | Phase::Done | Phase::Aborted => None,
        phase if phase.is_past_flip() => Some(&row.source),
        _ => Some(&row.target),
    }
}

impl Leader {
    /// Moves that have not ended; not across an await.
    pub(crate) fn moves(&self) -> MutexGuard<'_, Moves> {
        lock(&self.moves)
    }

    /// Moves that have not ended, by phase; and how many of all somebody should look at.
    pub(crate) fn move_counts(&self) -> (Vec<(Phase, i64)>, i64) {
        let (policy, now_us) = (self.moves_policy(), self.tools.clock.unix_micros());
        let moves = self.moves();
        let in_phase = |phase| moves.iter().filter(|row| row.phase == phase).count() as i64;
        let open = Phase::ALL.into_iter().filter(|phase| !phase.is_final());
        let alarming = moves.iter().filter(|row| policy.is_alarming(row, now_us)).count();
        (open.map(|phase| (phase, in_phase(phase))).collect(), alarming as i64)
    }

    /// How moves are made.
    pub(crate) fn moves_policy(&self) -> Policy {
        self.tools.moves.policy(self.tools.keep_retired)
    }

    /// Something was said or done that may take a move further.
    pub(crate) fn moves_soon(&self) {
        self.moved.notify_one();
    }

    /// Takes every move as far as it goes now.
    pub(crate) async fn drive_moves(&self) -> Result<(), Error> {
        let open: BTreeMap<MoveId, NamespaceName> =
            self.moves().iter().map(|row| (row.id.clone(), row.namespace.clone())).collect();
        for namespace in open.into_values() {
            self.drive_move(&namespace).await?;
        }
        Ok(())
    }

    async fn drive_move(&self, namespace: &NamespaceName) -> Result<(), Error> {
        // No move takes more steps than there are phases without anybody saying something new.
        for _ in Phase::ALL {
            let Some(row) = self.moves().of(namespace.as_str()).cloned() else { return Ok(()) };
            let change = match self.next_step(&row) {
                Step::Effect(Effect::Inspect { source, target }) => {
                    self.inspect(&row, source, target);
                    return Ok(());
                }
                Step::Wait { .. } | Step::Ended => return Ok(()),
                step => step.into_change().expect("whatever is left changes something"),
            };
            let mut turn = self.turn().await?;
            // Somebody may have asked to give it up while this waited for its turn.
            let same = self.moves().of(namespace.as_str()).is_some_and(|now| *now == row);
            if !same {
                continue;
            }
            let stamp = turn.stamp();
            let Some(batch) = self.batch_of(&row, change.at(stamp.revision), &stamp) else {
                return Ok(());
            };
            turn.commit(batch).await?;
        }
        // There may be more to do; others come first.
        self.moves_soon();
        Ok(())
    }

    /// What happens next to a move.
    pub(crate) fn next_step(&self, row: &Move) -> Step {
        let seen = self.observations(row);
        let now_us = self.tools.clock.unix_micros();
        moves::step(row, &seen, &self.moves_policy(), now_us, xxh3_64(row.id.as_str().as_bytes()))
    }

    /// What a move waits for; none where it can go on.
    pub(crate) fn waiting(&self, row: &Move) -> Option<Waiting> {
        match self.next_step(row) {
            Step::Wait { waiting, .. } => Some(waiting),
            Step::Effect(Effect::Inspect { .. }) => Some(Waiting::Inspection),
            _ => None,
        }
    }

    /// All that is seen of a move.
    pub(crate) fn observations(&self, row: &Move) -> Observations {
        let end = |shard: &ShardName| -> End {
            self.tools.hub.end_of_move(shard.as_str(), row.namespace.as_str())
        };
        let unfit = if row.phase == Phase::Planned { self.unfit(row) } else { Vec::new() };
        let ahead = self.moves().ahead(row, &self.tools.plans.limits());
        Observations { source: end(&row.source), target: end(&row.target), ahead, unfit }
    }

    fn unfit(&self, row: &Move) -> Vec<String> {
        let mut fleet = self.fleet();
        let Some(member) = fleet.member(row.namespace.as_str()) else { return Vec::new() };
        let (needs, reserved) = (member.record.needs.clone(), member.reserved());
        let refusals = fleet.objections(&needs, reserved, &row.target);
        refusals.into_iter().map(|one| format!("{}: {}", one.code, one.message)).collect()
    }

    /// Asks the agents what they find.
    pub(crate) fn inspect(&self, row: &Move, source: bool, target: bool) {
        let prefixes: Vec<String> = {
            let fleet = self.fleet();
            let Some(member) = fleet.member(row.namespace.as_str()) else { return };
            member.record.entry.prefixes().map(str::to_owned).collect()
        };
        for (shard, side, wanted) in
            [(&row.source, Side::Source, source), (&row.target, Side::Target, target)]
        {
            if wanted {
                self.tools.hub.inspect(shard.as_str(), &row.namespace, side, &prefixes);
            }
        }
    }

    /// What one transaction writes of a change; none where the namespace is gone.
    pub(crate) fn batch_of(&self, before: &Move, change: Change, stamp: &Stamp) -> Option<Batch> {
        let Change { row, ownership, left } = change;
        let known = {
            let fleet = self.fleet();
            fleet.member(row.namespace.as_str())?.record.clone()
        };
        let mut assignment = known.entry.assignment();
        settle_owner(&mut assignment, &row, ownership, stamp);
        let mut batch = Batch::default();
        match left {
            Left::AsIs => {}
            Left::Behind(left) => batch.residues.push(Residue {
                prefixes: known.entry.prefixes().filter_map(|p| p.parse::<Prefix>().ok()).collect(),
                fence: if left.unfenced { Fence::Waived } else { Fence::Seen },
                reason: assignment.reason.clone(),
                left_at_us: stamp.now_us,
                namespace: left.namespace,
                shard: left.shard,
                generation: left.generation,
                role: left.role,
                purge_at_us: left.purge_at_us,
                revision: left.revision,
            }),
            Left::TakenOver => {
                batch.removed_residues.push((row.namespace.clone(), row.target.clone()));
            }
        }
        batch.records.push(Record { entry: (&assignment).into(), ..known });
        batch.events.extend(log::moved(before, &row, stamp.now_us));
        batch.moves.push(Moved { row, request_id: String::new() });
        Some(batch)
    }

    /// Reads all that have not ended, after a commit whose outcome was not known.
    pub(super) async fn reread_moves(&self) -> Result<(), Error> {
        let rows: Moves = self.tools.store.open_moves().await?.into_iter().collect();
        let before = std::mem::replace(&mut *self.moves(), rows);
        let now: Vec<Arc<Move>> = self.moves().iter().cloned().collect();
        for row in before.iter().chain(&now) {
            let open = now.iter().find(|open| open.namespace == row.namespace);
            self.fleet().hold(&row.namespace, open.and_then(|open| other_end(open)));
            self.tell_ends(row);
        }
        self.moves_soon();
        Ok(())
    }

    /// Whether an end of a move is to send or take in this part, in this attempt.
    pub(crate) fn wants_transfer(&self, shard: &str, namespace: &str, asked: &Transfer) -> bool {
        let task = self.desired(shard, namespace).and_then(|role| role.task);
        task.is_some_and(|task| {
            task.move_id == asked.move_id
                && task.side == asked.side
                && task.attempt == asked.attempt
                && task.transfer.is_some_and(|ordered| ordered.part == asked.part)
        })
    }

    /// Both ends hear of a change.
    pub(super) fn tell_ends(&self, row: &Move) {
        for shard in [&row.source, &row.target] {
            self.tools.hub.mark(shard.as_str(), &row.namespace);
        }
    }
}

fn settle_owner(assignment: &mut Assignment, row: &Move, ownership: Ownership, stamp: &Stamp) {
    match ownership {
        Ownership::Keep => {
            let reason = std::mem::take(&mut assignment.reason);
            stamp.note(assignment, reason);
        }
        Ownership::Renew => {
            let why = row.last_error.as_ref().map_or("", |error| error.code.as_str());
            assignment.generation = assignment.generation.next();
            stamp.note(assignment, format!("stays, a move to {} was given up: {why}", row.target));
        }
        Ownership::Give => {
            let why = format!("moved from {} by {}", row.source, row.requested_by);
            stamp.give(assignment, Some(row.target.clone()), why);
        }
    }
    assignment.state = if row.phase.is_between_shards() { State::Moving } else { State::Assigned };
}
