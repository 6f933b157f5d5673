//! The recent changes of the table, for those who follow it.
//!
//! A follower that stands at some revision asks what happened [`since`](History::since) and gets
//! one set of changes up to the present, each namespace at its latest. However slow it is, nothing
//! is queued for it; when it fell behind what is kept it has to take the table whole.
//!
//! Invariant: what is kept is everything that happened after the floor. Revisions are kept or
//! forgotten whole, so a set never stops in the middle of one.
//!
//! It must not know who follows or how changes reach them.

use std::collections::{HashSet, VecDeque};

use super::{Change, Entry};
use crate::ids::{NamespaceName, Revision};

/// A revision that does not come after what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} does not come after {latest}; reload the table and reset its history")]
pub struct OutOfOrder {
    /// The revision that was to be recorded.
    pub revision: Revision,
    /// The latest revision recorded.
    pub latest: Revision,
}

/// What to tell a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// It has everything.
    Current,
    /// This brings it up to the present.
    Changed(ChangeSet),
    /// What it misses is no longer kept; it needs the whole table.
    Behind,
    /// It has seen more than this history, which belongs to a replica that is itself behind, or to
    /// a store that was restored from a backup.
    Ahead,
}

/// What changed between two revisions: of each namespace only how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// The revision that it follows.
    pub previous_revision: Revision,
    /// The revision that it leads to.
    pub revision: Revision,
    /// Entries that are new or changed, in the order of their last change.
    pub upserts: Vec<Entry>,
    /// Namespaces that are gone, in the order of their deletion. The follower may not have known
    /// one that came and went in between.
    pub deleted: Vec<NamespaceName>,
}

impl ChangeSet {
    /// Its changes, for [`Table::apply`](super::Table::apply). Each is about another namespace, so
    /// their order does not matter.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let upserts = self.upserts.iter().cloned().map(Change::Upsert);
        upserts.chain(self.deleted.iter().cloned().map(Change::Delete))
    }
}

/// The latest changes, at most a given number of them.
#[derive(Debug, Clone)]
pub struct History {
    /// Most changes that are kept.
    limit: usize,
    /// Everything after this revision is kept.
    floor: Revision,
    latest: Revision,
    changes: VecDeque<(Revision, Change)>,
}

impl History {
    /// The history of a table that is as of `revision`, keeping at most `limit` changes.
    pub fn new(revision: Revision, limit: usize) -> Self {
        Self { limit, floor: revision, latest: revision, changes: VecDeque::new() }
    }

    /// Adds what led to a revision: all of it, in order. A revision may have no changes.
    pub fn record(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        revision: Revision,
    ) -> Result<(), OutOfOrder> {
        if revision <= self.latest {
            return Err(OutOfOrder { revision, latest: self.latest });
        }
        self.latest = revision;
        for change in changes {
            self.changes.push_back((revision, change));
            self.forget_beyond_limit();
            if self.floor == revision {
                // It alone is more than the limit, so no follower gets here by changes.
                break;
            }
        }
        Ok(())
    }

    /// Forgets everything: the table was replaced by one as of `revision`.
    pub fn reset(&mut self, revision: Revision) {
        *self = Self::new(revision, self.limit);
    }

    /// What a follower that stands at `revision` is to be told.
    pub fn since(&self, revision: Revision) -> Since {
        if revision > self.latest {
            return Since::Ahead;
        }
        if revision == self.latest {
            return Since::Current;
        }
        if revision < self.floor {
            return Since::Behind;
        }
        let start = self.changes.partition_point(|(at, _)| *at <= revision);
        let mut set = ChangeSet {
            previous_revision: revision,
            revision: self.latest,
            upserts: Vec::new(),
            deleted: Vec::new(),
        };
        let mut seen = HashSet::with_capacity(self.changes.len() - start);
        for (_, change) in self.changes.range(start..).rev() {
            if !seen.insert(change.namespace()) {
                continue;
            }
            match change {
                Change::Upsert(entry) => set.upserts.push(entry.clone()),
                Change::Delete(namespace) => set.deleted.push(namespace.clone()),
            }
        }
        set.upserts.reverse();
        set.deleted.reverse();
        Since::Changed(set)
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.latest
    }

    /// The oldest revision that a follower may stand at without being behind.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Drops the oldest revisions, each whole, until the limit is kept.
    fn forget_beyond_limit(&mut self) {
        while self.changes.len() > self.limit
            && let Some((oldest, _)) = self.changes.front()
        {
            let oldest = *oldest;
            self.floor = oldest;
            while self.changes.pop_front_if(|(at, _)| *at == oldest).is_some() {}
        }
    }
}
