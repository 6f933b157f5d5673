//! What follows from a batch, whoever put it together.
//!
//! A shard that loses a namespace is to retire it, one that gets it back no longer is, and what
//! happens is told in the log of events. All of it is written in the batch's own transaction, and
//! made here, so that no way of changing an owner can leave it out.

use airfleet_domain::{
    ids::Prefix,
    roles::{Fence, Residue},
    routing::Entry,
};

use super::{Leader, Stamp, log};
use crate::store::{Batch, Record};

impl Leader {
    /// Adds to a batch what follows from it. Not to be called with the fleet in hand.
    pub(super) fn add_consequences(&self, batch: &mut Batch, stamp: &Stamp) {
        let fleet = self.fleet();
        let residues = self.residues();
        for record in &batch.records {
            let known = fleet.member(record.entry.namespace()).map(|member| &member.record);
            let forced =
                batch.overrides.iter().find(|forced| forced.subject == record.entry.namespace());
            log::record(known, record, forced, stamp.now_us, &mut batch.events);
            let from = known.and_then(|known| known.entry.shard());
            let to = record.entry.shard();
            if let Some(to) = to
                && let Some(back) = residues.at(record.entry.namespace(), to)
            {
                batch.removed_residues.push((back.namespace.clone(), back.shard.clone()));
            }
            let Some(from) = from.filter(|from| to != Some(from)) else { continue };
            let told = batch.residues.iter().any(|residue| {
                residue.shard.as_str() == from && residue.namespace == record.namespace()
            });
            // Of a shard that no agent ever stood beside nobody can say anything, or do.
            let has_agent = fleet.shard(from).is_some_and(|shard| {
                shard.record.agent_seen_at_us.is_some() || self.tools.hub.limits().require_report
            });
            if !told && has_agent {
                let fence = match batch.moves.iter().find(|m| m.row.namespace == record.namespace())
                {
                    Some(moved) if moved.row.options.source_is_lost => Fence::Waived,
                    // It moved: its source said that it is sealed before the target got it.
                    Some(_) => Fence::Seen,
                    None if forced.is_some() => Fence::Waived,
                    None => Fence::Awaited,
                };
                batch.residues.extend(self.left_behind(known, record, fence, stamp));
            }
        }
        for name in &batch.removed {
            if let Some(member) = fleet.member(name.as_str()) {
                batch.events.push(log::removed(&member.record, stamp.now_us));
            }
        }
        for shard in &batch.removed_shards {
            // What it was not seen to be rid of it may run still, should it be up: that it is no
            // longer declared proves nothing.
            let fenced = residues.on(shard.as_str()).filter(|namespace| {
                let left = residues.at(namespace.as_str(), shard.as_str());
                left.is_some_and(|left| left.fence == Fence::Seen)
            });
            let fenced = fenced.cloned().map(|namespace| (namespace, shard.clone()));
            batch.removed_residues.extend(fenced);
        }
    }

    fn left_behind(
        &self,
        known: Option<&Record>,
        record: &Record,
        fence: Fence,
        stamp: &Stamp,
    ) -> Option<Residue> {
        let entry = &known?.entry;
        let keep_us = i64::try_from(self.tools.keep_retired.as_micros()).unwrap_or(i64::MAX);
        Some(Residue {
            namespace: entry.namespace_name(),
            shard: entry.shard()?.parse().ok()?,
            prefixes: prefixes(entry, &record.entry),
            generation: record.entry.generation(),
            role: airfleet_domain::roles::Role::Retired,
            fence,
            reason: record.entry.reason().to_owned(),
            left_at_us: stamp.now_us,
            purge_at_us: stamp.now_us.saturating_add(keep_us),
            revision: stamp.revision,
        })
    }
}

/// All that the shard may have DAGs of: the prefixes may change together with the owner.
fn prefixes(before: &Entry, after: &Entry) -> Vec<Prefix> {
    let mut all: Vec<Prefix> = before
        .prefixes()
        .chain(after.prefixes())
        .filter_map(|prefix| prefix.parse().ok())
        .collect();
    all.sort();
    all.dedup();
    all
}
