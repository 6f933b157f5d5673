//! Numbers of namespaces, kept as the table changes: counting a million takes too long for whoever
//! reads metrics.

use std::{collections::HashMap, sync::Arc};

use airfleet_domain::routing::{Entry, State, Table};

/// Numbers of namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// That a shard owns.
    pub(crate) assigned: usize,
    /// Without a shard.
    pub(crate) unplaced: usize,
    /// Given up.
    pub(crate) released: usize,
    /// Between shards.
    pub(crate) moving: usize,
    /// By the shard that owns them.
    pub(crate) by_shard: HashMap<Arc<str>, usize>,
}

impl Counts {
    pub(super) fn of(table: &Table) -> Self {
        let mut counts = Self::default();
        table.iter().for_each(|entry| counts.add(entry));
        counts
    }

    fn state(&mut self, entry: &Entry) -> &mut usize {
        match entry.state() {
            State::Assigned => &mut self.assigned,
            State::Unplaced => &mut self.unplaced,
            State::Released => &mut self.released,
            State::Moving => &mut self.moving,
        }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        *self.state(entry) += 1;
        let Some(shard) = entry.shard() else { return };
        match self.by_shard.get_mut(shard) {
            Some(count) => *count += 1,
            None => drop(self.by_shard.insert(shard.into(), 1)),
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        *self.state(entry) -= 1;
        let Some(shard) = entry.shard() else { return };
        if let Some(count) = self.by_shard.get_mut(shard) {
            *count -= 1;
            if *count == 0 {
                self.by_shard.remove(shard);
            }
        }
    }
}
