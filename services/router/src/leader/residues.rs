//! What shards still have of namespaces that they no longer own.
//!
//! Held as it was committed. The rules are those of [`airfleet_domain::roles`]; here they are asked
//! with what the agents say, and what comes of it is written.

use std::collections::{BTreeSet, HashMap};

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    roles::{Fence, Residue, ResidueStep, Role, owner_role},
};

use super::{Leader, Stamp, log, manifest::BATCH_MAX};
use crate::store::{Batch, Error, Record};

/// All residues, found by namespace and by shard.
#[derive(Debug, Default)]
pub(crate) struct Residues {
    by_namespace: HashMap<NamespaceName, Vec<Residue>>,
    by_shard: HashMap<ShardName, BTreeSet<NamespaceName>>,
}

/// Numbers of residues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResidueCounts {
    /// Whose shard has not said that it is fenced; the new owner waits for it.
    pub(crate) awaited: usize,
    /// Whose shard has not said so, and somebody took it on that another runs the namespace.
    pub(crate) waived: usize,
    /// Whose rows are kept until their time.
    pub(crate) kept: usize,
    /// Whose rows are being removed.
    pub(crate) purging: usize,
}

impl FromIterator<Residue> for Residues {
    fn from_iter<T: IntoIterator<Item = Residue>>(residues: T) -> Self {
        let mut all = Self::default();
        residues.into_iter().for_each(|residue| all.put(residue));
        all
    }
}

impl Residues {
    /// What is left of a namespace, on any shard.
    pub(crate) fn of(&self, namespace: &str) -> &[Residue] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// What is left of a namespace on a shard.
    pub(crate) fn at(&self, namespace: &str, shard: &str) -> Option<&Residue> {
        self.of(namespace).iter().find(|residue| residue.shard.as_str() == shard)
    }

    /// Namespaces of which something is left on a shard, by name.
    pub(crate) fn on(&self, shard: &str) -> impl Iterator<Item = &NamespaceName> {
        self.by_shard.get(shard).into_iter().flatten()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Residue> {
        self.by_namespace.values().flatten()
    }

    pub(crate) fn counts(&self) -> ResidueCounts {
        let mut counts = ResidueCounts::default();
        for residue in self.iter() {
            *match (residue.fence, residue.role) {
                (Fence::Awaited, _) => &mut counts.awaited,
                (Fence::Waived, _) => &mut counts.waived,
                (Fence::Seen, Role::Absent) => &mut counts.purging,
                (Fence::Seen, _) => &mut counts.kept,
            } += 1;
        }
        counts
    }

    pub(super) fn put(&mut self, residue: Residue) {
        self.by_shard.entry(residue.shard.clone()).or_default().insert(residue.namespace.clone());
        let known = self.by_namespace.entry(residue.namespace.clone()).or_default();
        match known.iter_mut().find(|known| known.shard == residue.shard) {
            Some(known) => *known = residue,
            None => known.push(residue),
        }
    }

    pub(super) fn remove(&mut self, namespace: &NamespaceName, shard: &ShardName) {
        if let Some(known) = self.by_namespace.get_mut(namespace) {
            known.retain(|residue| residue.shard != *shard);
            if known.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        if let Some(names) = self.by_shard.get_mut(shard) {
            names.remove(namespace);
            if names.is_empty() {
                self.by_shard.remove(shard);
            }
        }
    }
}

impl Leader {
    /// Takes in what shards say of namespaces that they have to give up, and lets go of what is
    /// gone or whose time is over. Answers how many changed.
    pub(crate) async fn settle_residues(&self) -> Result<usize, Error> {
        let mut settled = 0;
        loop {
            // Looked at without a turn first: there is nothing to do as a rule.
            if self.residue_steps(1).is_empty() {
                return Ok(settled);
            }
            let mut turn = self.turn().await?;
            let steps = self.residue_steps(BATCH_MAX);
            if steps.is_empty() {
                return Ok(settled);
            }
            settled += steps.len();
            let stamp = turn.stamp();
            let mut batch = Batch::default();
            for (residue, step) in steps {
                self.take_step(&residue, step, &stamp, &mut batch);
            }
            turn.commit(batch).await?;
        }
    }

    fn residue_steps(&self, limit: usize) -> Vec<(Residue, ResidueStep)> {
        let now_us = self.tools.clock.unix_micros();
        // Copied, since an agent is not asked with the residues in hand.
        let all: Vec<Residue> = self.residues().iter().cloned().collect();
        let steps = all.into_iter().filter_map(|residue| {
            let shard = residue.shard.as_str();
            let seen = self.tools.hub.role(shard, residue.namespace.as_str());
            match residue.step(seen.and_then(|seen| seen.observed), now_us) {
                ResidueStep::Keep => None,
                step => Some((residue, step)),
            }
        });
        steps.take(limit).collect()
    }

    fn take_step(&self, old: &Residue, step: ResidueStep, stamp: &Stamp, batch: &mut Batch) {
        batch.events.push(log::residue(old, &step, stamp.now_us));
        let mut next = match step {
            ResidueStep::Keep => return,
            ResidueStep::Remove => {
                batch.removed_residues.push((old.namespace.clone(), old.shard.clone()));
                return;
            }
            ResidueStep::Write(next) => *next,
        };
        next.revision = stamp.revision;
        if old.fence == Fence::Awaited
            && next.fence == Fence::Seen
            && let Some(record) = self.released_owner(&next)
        {
            // Another role for the owner is another word to it, which must be newer.
            let mut assignment = record.entry.assignment();
            let reason = std::mem::take(&mut assignment.reason);
            stamp.note(&mut assignment, reason);
            let is_new = !batch.records.iter().any(|r| r.namespace() == record.namespace());
            if is_new {
                batch.records.push(Record { entry: (&assignment).into(), ..record });
            }
        }
        batch.residues.push(next);
    }

    /// The namespace, if it has an owner that only this residue held back.
    fn released_owner(&self, residue: &Residue) -> Option<Record> {
        let fleet = self.fleet();
        let record = &fleet.member(residue.namespace.as_str())?.record;
        record.entry.shard()?;
        let residues = self.residues();
        let others = residues.of(residue.namespace.as_str()).iter();
        let others = others.filter(|other| other.shard != residue.shard);
        (owner_role(others) == Role::Active).then(|| record.clone())
    }
}
