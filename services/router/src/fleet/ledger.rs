//! What is owned, and what it reserves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::candidate::{domain, limit_namespaces, new, refresh, takes_more};
use crate::store::{Record, ShardRecord};
use airfleet_domain::{
    health::Verdict,
    ids::{NamespaceName, ShardName},
    placement::{Candidate, Placer},
    resources::Resources,
    routing::State,
};

/// What an agent's reports say that placement goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The verdict on the shard's health; none where no agent was ever heard of and none is asked
    /// for.
    pub(crate) verdict: Option<Verdict>,
    /// The code of the reason behind the verdict; empty where it is healthy.
    pub(crate) code: String,
    /// What the agent measured or was told that the shard can take.
    pub(crate) capacity: Resources,
    /// Version of Airflow, as the agent found it.
    pub(crate) airflow_version: String,
}

/// A namespace.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// As it was last committed.
    pub(crate) record: Record,
    /// What its shard's agent measured.
    pub(crate) measured: Resources,
    /// The last snapshot of the manifest that had it.
    pub(super) seen: u64,
}

impl Member {
    /// How much room it takes.
    pub(crate) fn reserved(&self) -> Resources {
        self.record.needs.demand.max(self.measured)
    }
}

/// A shard.
#[derive(Debug)]
pub(crate) struct Shard {
    /// As it was last committed.
    pub(crate) record: ShardRecord,
    /// What was last observed of it.
    pub(crate) observation: Observation,
    /// Namespaces that it owns.
    pub(crate) namespaces: HashSet<NamespaceName>,
    /// What they reserve, without what is in flight.
    pub(crate) reserved: Resources,
    /// Decided and not committed.
    pub(super) in_flight: Resources,
    /// Where it stands among the candidates.
    at: usize,
    /// The last snapshot of the manifest that had it.
    pub(super) seen: u64,
}

/// A spread group and a failure domain.
type Group = (Arc<str>, Arc<str>);

/// Counts over the fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Namespaces without a shard.
    pub(crate) unplaced: usize,
    /// Namespaces that the manifest no longer has and a shard owns.
    pub(crate) orphans: usize,
    /// Shards that the manifest no longer has and that own something.
    pub(crate) unregistered_shards: usize,
}

/// The leader's picture of the fleet.
pub(crate) struct Fleet {
    pub(super) placer: Box<dyn Placer>,
    pub(super) shards: BTreeMap<ShardName, Shard>,
    /// The shards as the placer sees them, kept ready. In any order.
    pub(super) candidates: Vec<Candidate>,
    pub(super) members: HashMap<NamespaceName, Member>,
    pub(super) unplaced: BTreeSet<NamespaceName>,
    orphans: BTreeSet<NamespaceName>,
    /// Namespaces of a spread group by failure domain, those in flight included.
    pub(super) groups: HashMap<Group, i64>,
    groups_in_flight: Vec<Group>,
    /// Most namespaces that a shard may own.
    namespaces_max: usize,
    /// Counts snapshots of the manifest.
    pub(super) snapshot: u64,
    /// Whether one is being taken in from its first piece on.
    pub(super) snapshot_open: bool,
}

impl Fleet {
    /// An empty fleet.
    pub(crate) fn new(placer: Box<dyn Placer>, namespaces_max: usize) -> Self {
        Self {
            placer,
            shards: BTreeMap::new(),
            candidates: Vec::new(),
            members: HashMap::new(),
            unplaced: BTreeSet::new(),
            orphans: BTreeSet::new(),
            groups: HashMap::new(),
            groups_in_flight: Vec::new(),
            namespaces_max,
            snapshot: 0,
            snapshot_open: false,
        }
    }

    /// A namespace.
    pub(crate) fn member(&self, namespace: &str) -> Option<&Member> {
        self.members.get(namespace)
    }

    /// A shard.
    pub(crate) fn shard(&self, name: &str) -> Option<&Shard> {
        self.shards.get(name)
    }

    /// All shards, by name.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// The shards after one, by name.
    pub(crate) fn shards_after(&self, name: &str) -> impl Iterator<Item = &Shard> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.shards.range::<str, _>((Excluded(name), Unbounded)).map(|(_, shard)| shard)
    }

    /// Counts over the fleet.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            unplaced: self.unplaced.len(),
            orphans: self.orphans.len(),
            unregistered_shards: self.shards.values().filter(|s| !s.record.registered).count(),
        }
    }

    /// Shards that the manifest no longer has and that own nothing any more.
    pub(crate) fn abandoned_shards(&self) -> Vec<ShardName> {
        let abandoned = |shard: &&Shard| !shard.record.registered && shard.namespaces.is_empty();
        self.shards.values().filter(abandoned).map(|shard| shard.record.name.clone()).collect()
    }

    /// Namespaces that the manifest no longer has and that nobody owns any more, at most `limit`.
    pub(crate) fn abandoned(&self, limit: usize) -> Vec<&Record> {
        let records = self.orphans.iter().filter_map(|name| self.members.get(name));
        let abandoned = records.map(|member| &member.record).filter(|r| r.entry.shard().is_none());
        abandoned.take(limit).collect()
    }

    /// Takes in a namespace that was committed. Answers whether that freed room.
    pub(crate) fn put(&mut self, record: Record) -> bool {
        let name = record.namespace();
        let (measured, seen, freed) = match self.members.remove(&name) {
            Some(old) => {
                self.detach(&name, &old);
                let same_owner = old.record.entry.shard() == record.entry.shard();
                let freed = old.record.entry.shard().is_some() && !same_owner;
                // Another shard's measurement says nothing about this one.
                (if same_owner { old.measured } else { Resources::ZERO }, old.seen, freed)
            }
            None => (Resources::ZERO, self.snapshot, false),
        };
        let member = Member { record, measured, seen };
        self.attach(&name, &member);
        self.members.insert(name, member);
        freed
    }

    /// Takes in that a namespace was removed.
    pub(crate) fn remove(&mut self, name: &NamespaceName) {
        if let Some(old) = self.members.remove(name) {
            self.detach(name, &old);
        }
    }

    /// The shard as the placer sees it.
    pub(crate) fn candidate(&self, shard: &Shard) -> &Candidate {
        &self.candidates[shard.at]
    }

    /// Takes in a shard that was committed. Answers whether it may take more than before.
    pub(crate) fn put_shard(&mut self, record: ShardRecord, observation: Observation) -> bool {
        let name = record.name.clone();
        let Some(known) = self.shards.get(&name) else {
            self.add_shard(record, observation);
            return true;
        };
        let domain_changed =
            known.record.manifest.spec.failure_domain != record.manifest.spec.failure_domain;
        let regrouped: Vec<_> =
            known.namespaces.iter().filter(|_| domain_changed).cloned().collect();
        self.regroup(&regrouped, -1);
        let opened = self.change(name.as_str(), |shard| {
            shard.record = record;
            shard.observation = observation;
        });
        self.regroup(&regrouped, 1);
        opened
    }

    /// Takes in that a shard was removed.
    pub(crate) fn remove_shard(&mut self, name: &ShardName) {
        let Some(gone) = self.shards.remove(name) else { return };
        self.candidates.swap_remove(gone.at);
        if let Some(moved) = self.candidates.get(gone.at) {
            let shard = self.shards.get_mut(&moved.name).expect("each candidate has its shard");
            shard.at = gone.at;
        }
    }

    /// Takes in what an agent, or its silence, says. Answers whether the shard may take more than
    /// before.
    pub(crate) fn observe(&mut self, name: &str, observation: Observation) -> bool {
        match self.shards.get(name) {
            Some(shard) if shard.observation != observation => {
                self.change(name, |shard| shard.observation = observation)
            }
            _ => false,
        }
    }

    fn add_shard(&mut self, record: ShardRecord, observation: Observation) {
        let name = record.name.clone();
        self.candidates.push(new(name.clone()));
        let shard = Shard {
            record,
            observation,
            namespaces: HashSet::new(),
            reserved: Resources::ZERO,
            in_flight: Resources::ZERO,
            at: self.candidates.len() - 1,
            seen: self.snapshot,
        };
        self.shards.insert(name.clone(), shard);
        self.change(name.as_str(), |_| {});
    }

    /// Changes a shard and what the placer sees of it. Answers whether it may take more than before.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Shard)) -> bool {
        let Some(shard) = self.shards.get_mut(name) else { return false };
        change(shard);
        let candidate = &mut self.candidates[shard.at];
        let before = candidate.clone();
        refresh(shard, candidate, self.namespaces_max);
        takes_more(&before, candidate)
    }

    /// Changes what a shard reserves, and what the placer sees of that.
    fn weigh(&mut self, name: &str, change: impl FnOnce(&mut Shard)) {
        if let Some(shard) = self.shards.get_mut(name) {
            change(shard);
            let candidate = &mut self.candidates[shard.at];
            candidate.reserved = shard.reserved.plus(shard.in_flight);
            limit_namespaces(shard, candidate, self.namespaces_max);
        }
    }

    /// Takes in what a namespace was measured to use on a shard. Answers whether that freed room.
    pub(crate) fn measure(&mut self, shard: &str, namespace: &str, measured: Resources) -> bool {
        let Some(member) = self.members.get_mut(namespace) else { return false };
        if member.record.entry.shard() != Some(shard) || member.measured == measured {
            return false;
        }
        let before = member.reserved();
        member.measured = measured;
        let change = member.reserved().minus(before);
        if change.is_zero() {
            return false;
        }
        self.weigh(shard, |shard| shard.reserved = shard.reserved.plus(change));
        change.values().iter().any(|change| *change < 0)
    }

    /// Counts a decision that is about to be committed.
    pub(super) fn reserve(&mut self, shard: &ShardName, amount: Resources, group: &str) {
        self.weigh(shard.as_str(), |shard| shard.in_flight = shard.in_flight.plus(amount));
        if !group.is_empty()
            && let Some(shard) = self.shards.get(shard)
        {
            let key = (Arc::from(group), Arc::from(domain(&self.candidates[shard.at])));
            *self.groups.entry(Group::clone(&key)).or_default() += 1;
            self.groups_in_flight.push(key);
        }
    }

    /// Forgets all decisions that are not committed; those that are count as owned.
    pub(crate) fn settle(&mut self) {
        for shard in self.shards.values_mut().filter(|shard| !shard.in_flight.is_zero()) {
            shard.in_flight = Resources::ZERO;
            self.candidates[shard.at].reserved = shard.reserved;
        }
        for key in std::mem::take(&mut self.groups_in_flight) {
            self.count(&key, -1);
        }
    }

    fn attach(&mut self, name: &NamespaceName, member: &Member) {
        let entry = &member.record.entry;
        if entry.state() == State::Unplaced {
            self.unplaced.insert(name.clone());
        }
        if member.record.orphaned {
            self.orphans.insert(name.clone());
        }
        if let Some(owner) = entry.shard() {
            self.weigh(owner, |shard| {
                shard.namespaces.insert(name.clone());
                shard.reserved = shard.reserved.plus(member.reserved());
            });
            self.count_group(member, 1);
        }
    }

    fn detach(&mut self, name: &NamespaceName, member: &Member) {
        self.unplaced.remove(name);
        self.orphans.remove(name);
        if let Some(owner) = member.record.entry.shard() {
            self.count_group(member, -1);
            self.weigh(owner, |shard| {
                shard.namespaces.remove(name);
                shard.reserved = shard.reserved.minus(member.reserved());
            });
        }
    }

    fn count_group(&mut self, member: &Member, change: i64) {
        let group = &member.record.needs.rules.declared.spread_group;
        let (false, Some(owner)) = (group.is_empty(), member.record.entry.shard()) else { return };
        let Some(shard) = self.shards.get(owner) else { return };
        let domain = domain(&self.candidates[shard.at]);
        self.count(&(Arc::from(group.as_str()), Arc::from(domain)), change);
    }

    fn count(&mut self, key: &Group, change: i64) {
        let count = self.groups.entry(key.clone()).or_default();
        *count += change;
        if *count <= 0 {
            self.groups.remove(key);
        }
    }

    fn regroup(&mut self, names: &[NamespaceName], change: i64) {
        for name in names {
            if let Some(member) = self.members.get(name).cloned() {
                self.count_group(&member, change);
            }
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("shards", &self.shards.len())
            .field("members", &self.members.len())
            .field("unplaced", &self.unplaced.len())
            .finish_non_exhaustive()
    }
}
