//! Deciding where namespaces go, many at a time.

use std::{collections::HashMap, sync::Arc};

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    placement::Refusal,
    resources::Resources,
};

use super::ledger::Fleet;
use crate::store::Needs;

/// A run of decisions of which none is committed yet. Each sees the room that those before it took.
/// It ends with [`Fleet::settle`].
#[derive(Default)]
pub(crate) struct Placing {
    /// What did not fit: room only shrinks within a run, so what asks the same of its shard and
    /// needs no less does not fit either. Keeps a million hopeless tries from costing anything.
    hopeless: HashMap<Question, Vec<(Resources, Arc<str>)>>,
}

/// Rules go by their address: equal ones are shared, and each is alive while the run lasts.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    rules: usize,
    pinned: Option<ShardName>,
}

/// Demands remembered for each question; more would cost more than they save.
const REMEMBERED: usize = 8;

impl Placing {
    /// Decides where a namespace goes and counts it there. Answers the shard and why.
    pub(crate) fn place(
        &mut self,
        fleet: &mut Fleet,
        needs: &Needs,
        reserved: Resources,
        pinned: Option<&ShardName>,
    ) -> (Option<ShardName>, Arc<str>) {
        let question =
            Question { rules: Arc::as_ptr(&needs.rules).addr(), pinned: pinned.cloned() };
        let known = self.hopeless.get(&question).into_iter().flatten();
        if let Some((_, reason)) = known.into_iter().find(|(failed, _)| covers(reserved, *failed)) {
            return (None, reason.clone());
        }
        let asked = fleet.needs(&needs.rules, reserved, pinned);
        let decision = fleet.board.decide(&asked);
        let reason: Arc<str> = decision.reason.into();
        match &decision.shard {
            Some(shard) => fleet.reserve(asked, shard),
            None => {
                let failed = self.hopeless.entry(question).or_default();
                if failed.len() < REMEMBERED {
                    failed.push((reserved, reason.clone()));
                }
            }
        }
        (decision.shard, reason)
    }
}

/// Whether a demand asks for at least as much as another in every dimension.
fn covers(demand: Resources, other: Resources) -> bool {
    demand.values().iter().zip(other.values()).all(|(demand, other)| *demand >= other)
}

impl Fleet {
    /// What speaks against a shard for a namespace, were it to go there now.
    pub(crate) fn objections(
        &mut self,
        needs: &Needs,
        reserved: Resources,
        shard: &ShardName,
    ) -> Vec<Refusal> {
        let Some(at) = self.shards.get(shard).map(|shard| shard.at) else { return Vec::new() };
        // Whether it is pinned elsewhere is the caller's to know.
        let asked = self.needs(&needs.rules, reserved, None);
        self.board.refusals(&asked, at)
    }

    /// At most `limit` namespaces without a shard that come after `after`, by name.
    pub(crate) fn unplaced_after(
        &self,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Vec<NamespaceName> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.unplaced.range::<NamespaceName, _>((from, Unbounded)).take(limit).cloned().collect()
    }

    /// A snapshot of the manifest begins: whatever is not seen in it is gone.
    pub(crate) fn begin_snapshot(&mut self) {
        self.snapshot += 1;
        self.snapshot_open = true;
    }

    /// The snapshot was taken in.
    pub(crate) fn end_snapshot(&mut self) {
        self.snapshot_open = false;
    }

    /// The manifest has this namespace.
    pub(crate) fn see(&mut self, namespace: &NamespaceName) {
        if let Some(member) = self.members.get_mut(namespace) {
            member.seen = self.snapshot;
        }
    }

    /// The manifest has this shard.
    pub(crate) fn see_shard(&mut self, shard: &ShardName) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.seen = self.snapshot;
        }
    }

    /// What the snapshot that ends did not have, and is not known to be gone already. Nothing where
    /// its first pieces went to another leader: then it does not tell what is missing.
    pub(crate) fn unseen(&self) -> (Vec<NamespaceName>, Vec<ShardName>) {
        if !self.snapshot_open {
            return (Vec::new(), Vec::new());
        }
        let namespaces = self
            .members
            .iter()
            .filter(|(_, member)| member.seen != self.snapshot && !member.record.orphaned)
            .map(|(name, _)| name.clone())
            .collect();
        let shards = self
            .shards
            .iter()
            .filter(|(_, shard)| shard.seen != self.snapshot && shard.record.registered)
            .map(|(name, _)| name.clone())
            .collect();
        (namespaces, shards)
    }
}
