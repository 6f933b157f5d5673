//! One turn of the leader: decide, commit, show.

use airfleet_domain::{
    ids::{Generation, Revision, ShardName},
    routing::{Assignment, State},
};

use super::{Leader, Tools, publish::News};
use crate::store::{Batch, Changes, Error, Head, Record, Removal};

/// Most changed rows that a leader reads to find out what it missed.
const CATCH_UP_MAX: u32 = 100_000;

/// Where the leader believes the store to be.
#[derive(Debug)]
pub(super) struct Position {
    head: Head,
    /// A commit's outcome is not known.
    in_doubt: bool,
}

impl Position {
    pub(super) fn at(head: Head) -> Self {
        Self { head, in_doubt: false }
    }
}

impl Leader {
    /// The turn to decide and write; others wait.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Error> {
        let position = self.turn.lock().await;
        let mut turn = Turn { leader: self, position };
        if turn.position.in_doubt {
            turn.catch_up().await?;
        }
        Ok(turn)
    }
}

/// The right to decide and write.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) leader: &'a Leader,
    position: tokio::sync::MutexGuard<'a, Position>,
}

impl Turn<'_> {
    /// The revision that a commit of this turn makes.
    pub(crate) fn revision(&self) -> Revision {
        self.position.head.revision.next()
    }

    /// The manifest is taken into account up to here.
    pub(crate) fn manifest_revision(&self) -> Revision {
        self.position.head.manifest_revision
    }

    /// What a decision of this turn is stamped with.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            revision: self.revision(),
            now_us: self.leader.tools.clock.unix_micros(),
            generation_floor: self.position.head.generation_floor,
        }
    }

    /// Writes a batch and shows it to everybody. Whatever was counted as in flight is settled.
    pub(crate) async fn commit(&mut self, mut batch: Batch) -> Result<Revision, Error> {
        let leader = self.leader;
        if batch.is_empty() {
            leader.fleet().settle();
            return Ok(self.position.head.revision);
        }
        leader.add_consequences(&mut batch, &self.stamp());
        let Tools { store, clock, metrics, .. } = &leader.tools;
        // Whoever stops waiting here leaves the outcome in doubt.
        let known = std::mem::replace(&mut self.position.in_doubt, true);
        debug_assert!(!known, "a turn begins without doubt");
        let expected = self.position.head.revision;
        let committed = store.commit(leader.term, expected, &batch, clock.unix_micros()).await;
        match committed {
            Ok(revision) => {
                self.position.in_doubt = false;
                self.advance(revision, batch);
                Ok(revision)
            }
            Err(error) => {
                leader.fleet().settle();
                metrics.store_failed("commit");
                if error.is_stale_term() {
                    leader.end();
                }
                Err(error)
            }
        }
    }

    fn advance(&mut self, revision: Revision, batch: Batch) {
        let head = &mut self.position.head;
        head.revision = revision;
        head.generation_floor = head.generation_floor.max(batch.removed_generation);
        head.manifest_revision = batch.manifest_revision.unwrap_or(head.manifest_revision);
        let news = News {
            records: batch.records,
            removed: batch.removed.into_iter().map(|name| (revision, name)).collect(),
            shards: batch.shards,
            removed_shards: batch.removed_shards,
            residues: batch.residues,
            removed_residues: batch.removed_residues,
            moves: batch.moves.into_iter().map(|moved| moved.row).collect(),
            revision,
            manifest_revision: head.manifest_revision,
        };
        self.leader.log.wrote(batch.events.iter().map(|event| &event.namespace));
        self.leader.publish(news);
    }

    /// Reads what the store has beyond what this leader knows.
    async fn catch_up(&mut self) -> Result<(), Error> {
        self.leader.reread_residues().await?;
        self.leader.reread_moves().await?;
        let head = &self.position.head;
        let store = &self.leader.tools.store;
        let (id, revision) = (head.store_id.as_str(), head.revision);
        match store.changes_since::<Record>(id, revision, CATCH_UP_MAX).await? {
            Changes::None => {}
            Changes::Some(contents) => {
                self.position.head = contents.head.clone();
                let mut news = News {
                    records: contents.namespaces,
                    shards: contents.shards,
                    revision: contents.head.revision,
                    manifest_revision: contents.head.manifest_revision,
                    ..News::default()
                };
                for (revision, removal) in contents.removals {
                    match removal {
                        Removal::Namespace(name) => news.removed.push((revision, name)),
                        // One that came back is among the shards.
                        Removal::Shard(name) if news.shards.iter().any(|s| s.name == name) => {}
                        Removal::Shard(name) => news.removed_shards.push(name),
                    }
                }
                self.leader.publish(news);
            }
            Changes::Everything(head) => {
                self.leader.end();
                return Err(Error::Diverged { expected: revision, found: head.revision });
            }
        }
        self.position.in_doubt = false;
        Ok(())
    }
}

/// What every decision of one turn is stamped with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// The revision that its commit makes.
    pub(crate) revision: Revision,
    /// When. Microseconds since 1970-01-01 UTC.
    pub(crate) now_us: i64,
    /// The generation that a new namespace starts from.
    pub(crate) generation_floor: Generation,
}

impl Stamp {
    /// Gives an assignment another owner, or none, and says why. The generation grows where the
    /// owner changes.
    pub(crate) fn give(
        &self,
        assignment: &mut Assignment,
        owner: Option<ShardName>,
        reason: impl Into<String>,
    ) {
        if assignment.shard != owner {
            assignment.generation = assignment.generation.next();
        }
        assignment.state = if owner.is_some() { State::Assigned } else { State::Unplaced };
        assignment.shard = owner;
        self.note(assignment, reason);
    }

    /// Marks an assignment as changed in this turn, and says why it is where it is.
    pub(crate) fn note(&self, assignment: &mut Assignment, reason: impl Into<String>) {
        assignment.reason = reason.into();
        assignment.revision = self.revision;
        assignment.update_time_us = self.now_us;
    }
}
