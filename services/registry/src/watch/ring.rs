//! What happened last, in memory and within bounds.

use std::collections::VecDeque;
use std::sync::Arc;

use airfleet_domain::ids::Revision;

use super::Revised;

/// Most changes that are remembered.
const CHANGES_MAX: usize = 20_000;
/// Most bytes of text that are remembered, about.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The revisions after `start`, each with what it did, without a gap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    start: Revision,
    revisions: VecDeque<Arc<Revised>>,
    changes: usize,
    bytes: usize,
}

impl Ring {
    /// The last revision that is known.
    pub(super) fn end(&self) -> Revision {
        self.revisions.back().map_or(self.start, |last| last.revision)
    }

    /// Forgets everything and goes on from `revision`.
    pub(super) fn restart(&mut self, revision: Revision) {
        *self = Self { start: revision, ..Self::default() };
    }

    /// Adds the next revision. One that does not follow on the last restarts the ring with it.
    pub(super) fn push(&mut self, revised: Arc<Revised>) {
        if revised.revision != self.end().next() {
            self.restart(Revision(revised.revision.0 - 1));
        }
        self.changes += revised.changes.len();
        self.bytes += revised.bytes;
        self.revisions.push_back(revised);
        while self.changes > CHANGES_MAX || self.bytes > BYTES_MAX {
            let Some(first) = self.revisions.pop_front() else { return };
            self.start = first.revision;
            self.changes -= first.changes.len();
            self.bytes -= first.bytes;
        }
    }

    /// The revisions after `position`, as many as stay below the limits and at least one where
    /// there is one; `None` where `position` is not remembered.
    pub(super) fn after(
        &self,
        position: Revision,
        max_changes: usize,
        max_bytes: usize,
    ) -> Option<Vec<Arc<Revised>>> {
        if position < self.start || position > self.end() {
            return None;
        }
        let from = (position.0 - self.start.0) as usize;
        let (mut changes, mut bytes) = (0, 0);
        let fitting = self.revisions.range(from..).take_while(|revised| {
            let is_first = changes == 0;
            changes += revised.changes.len();
            bytes += revised.bytes;
            is_first || (changes <= max_changes && bytes <= max_bytes)
        });
        Some(fitting.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Key, Kind};

    fn revised(revision: i64, changes: usize, bytes: usize) -> Arc<Revised> {
        let key = Key { kind: Kind::Shard, name: "x".to_owned() };
        let change = Change { key, after: None };
        Arc::new(Revised { revision: Revision(revision), changes: vec![change; changes], bytes })
    }

    fn numbers(ring: &Ring, position: i64, changes: usize) -> Option<Vec<i64>> {
        let after = ring.after(Revision(position), changes, 1000)?;
        Some(after.iter().map(|revised| revised.revision.0).collect())
    }

    #[test]
    fn it_answers_what_comes_after_a_revision_in_pieces() {
        let mut ring = Ring::default();
        ring.restart(Revision(10));
        for revision in 11..=15 {
            ring.push(revised(revision, 2, 10));
        }
        assert_eq!(numbers(&ring, 15, 100), Some(vec![]));
        assert_eq!(numbers(&ring, 12, 100), Some(vec![13, 14, 15]));
        assert_eq!(numbers(&ring, 10, 4), Some(vec![11, 12]));
        assert_eq!(numbers(&ring, 10, 1), Some(vec![11]), "one at least");
        assert_eq!(numbers(&ring, 9, 100), None);
        assert_eq!(numbers(&ring, 16, 100), None);
    }

    #[test]
    fn it_forgets_the_oldest_by_count_and_by_size() {
        let mut ring = Ring::default();
        for revision in 1..=30 {
            ring.push(revised(revision, 1000, 10));
        }
        assert_eq!(ring.start, Revision(10));
        assert_eq!(ring.revisions.len(), 20);
        ring.push(revised(31, 1, BYTES_MAX - 5));
        assert_eq!((ring.start, ring.end()), (Revision(30), Revision(31)));
        assert_eq!((ring.changes, ring.bytes), (1, BYTES_MAX - 5));
    }

    #[test]
    fn a_gap_starts_it_anew() {
        let mut ring = Ring::default();
        ring.restart(Revision(5));
        ring.push(revised(6, 1, 1));
        ring.push(revised(9, 1, 1));
        assert_eq!((ring.start, ring.end()), (Revision(8), Revision(9)));
    }
}
