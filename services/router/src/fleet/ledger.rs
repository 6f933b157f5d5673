//! What is owned, and what it reserves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::candidate::{candidate, capacity, takes_more};
use crate::{
    service::propose::Standing,
    store::{Record, Rules, ShardRecord},
};
use airfleet_domain::{
    health::Verdict,
    ids::{NamespaceName, ShardName},
    placement::{self, Board, Policy, Refusal, demand::Estimator, history::History, objective},
    resources::{DIMENSIONS, Resources},
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
    /// What it counts as on the board while a shard owns it.
    pub(super) counts: Option<placement::Needs>,
    /// Follows what it uses; none where too many are followed already, or nothing was measured.
    estimator: Option<Box<Estimator>>,
    /// The last snapshot of the manifest that had it.
    pub(super) seen: u64,
}

impl Member {
    /// How much room it takes.
    pub(crate) fn reserved(&self) -> Resources {
        match self.estimator.as_ref().and_then(|estimator| estimator.demand()) {
            // Declared until measured, from then on as measured.
            Some(told) => Resources::from_values(std::array::from_fn(|d| told[d])),
            None => self.record.needs.demand.max(self.measured),
        }
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
    /// Its number on the board.
    pub(super) at: u32,
    /// The last snapshot of the manifest that had it.
    pub(super) seen: u64,
}

impl Shard {
    /// What it can take.
    pub(crate) fn capacity(&self) -> Resources {
        capacity(&self.record, &self.observation)
    }
}

/// Coming back to a shard within this time of leaving it is thrash. Microseconds.
const THRASH_WINDOW_US: i64 = 7 * 24 * 3_600_000_000;

/// How long a namespace that was moved is left alone. Microseconds.
const COOLDOWN_US: i64 = 24 * 3_600_000_000;

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
    /// The shards as placement sees them, with what lies on them, in flight included.
    pub(super) board: Board,
    pub(super) shards: BTreeMap<ShardName, Shard>,
    pub(super) members: HashMap<NamespaceName, Member>,
    pub(super) unplaced: BTreeSet<NamespaceName>,
    orphans: BTreeSet<NamespaceName>,
    /// Decided and not committed: what counts on which shard.
    pub(super) in_flight: Vec<(placement::Needs, u32)>,
    /// What a namespace that is moved counts beside its owner: at the other end.
    held: HashMap<NamespaceName, (placement::Needs, u32)>,
    /// Moves that were made.
    pub(crate) history: History,
    /// Most namespaces that a shard may own.
    namespaces_max: usize,
    /// Counts snapshots of the manifest.
    pub(super) snapshot: u64,
    /// Whether one is being taken in from its first piece on.
    pub(super) snapshot_open: bool,
}

impl Fleet {
    /// An empty fleet.
    pub(crate) fn new(policy: Policy, namespaces_max: usize) -> Self {
        Self {
            board: Board::new(&DIMENSIONS, policy),
            shards: BTreeMap::new(),
            members: HashMap::new(),
            unplaced: BTreeSet::new(),
            orphans: BTreeSet::new(),
            in_flight: Vec::new(),
            held: HashMap::new(),
            history: History::new(THRASH_WINDOW_US, COOLDOWN_US),
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

    /// What all shards' namespaces reserve together.
    pub(crate) fn reserved(&self) -> Resources {
        self.shards.values().fold(Resources::ZERO, |sum, shard| sum.plus(shard.reserved))
    }

    /// How full the fullest dimension of the fullest shard is. Millionths.
    pub(crate) fn peak(&self) -> i64 {
        let shape = self.board.shape();
        let full = |at: u32| {
            let loads = self.board.state().load_of(at).iter().zip(shape.ratio_of(at));
            loads.map(|(load, ratio)| ratio.millionths(*load)).max().unwrap_or(0)
        };
        shape.all().map(|(at, _)| full(at)).max().unwrap_or(0)
    }

    /// What no placement can undercut by evening out. Millionths.
    pub(crate) fn mean_peak(&self) -> i64 {
        let state = self.board.state();
        objective::mean_peak(self.board.shape(), |dimension| state.sum(dimension))
    }

    /// Whether some shard is overloaded or too full.
    pub(crate) fn standing(&self) -> Standing {
        let (peak, policy) = (self.peak(), self.board.policy());
        Standing {
            overloaded: peak > policy.soft(),
            hot: peak > objective::target(self.mean_peak(), policy),
        }
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
        let (measured, estimator, seen, freed) = match self.members.remove(&name) {
            Some(old) => {
                self.detach(&name, &old);
                let same_owner = old.record.entry.shard() == record.entry.shard();
                let freed = old.record.entry.shard().is_some() && !same_owner;
                self.note_move(&old.record, &record);
                // Another shard's measurement says nothing about this one.
                let measured = if same_owner { old.measured } else { Resources::ZERO };
                // What it was seen to use over hours is its own, wherever it goes.
                (measured, old.estimator, old.seen, freed)
            }
            None => (Resources::ZERO, None, self.snapshot, false),
        };
        let mut member = Member { record, measured, counts: None, estimator, seen };
        self.attach(&name, &mut member);
        self.members.insert(name, member);
        freed
    }

    fn note_move(&mut self, old: &Record, new: &Record) {
        let name = |record: &Record| record.entry.shard().and_then(|s| s.parse::<ShardName>().ok());
        if let (Some(from), Some(to)) = (name(old), name(new))
            && from != to
        {
            self.history.note(&new.namespace(), &from, &to, new.entry.update_time_us());
        }
    }

    /// Takes in that a namespace was removed.
    pub(crate) fn remove(&mut self, name: &NamespaceName) {
        if let Some(old) = self.members.remove(name) {
            self.detach(name, &old);
        }
    }

    /// Why a shard takes nothing now; empty where it does.
    pub(crate) fn closures(&self, shard: &Shard) -> Vec<Refusal> {
        let seen = self.board.shape().shard(shard.at);
        let mut closures = seen.map(placement::Shard::closures).unwrap_or_default();
        closures.extend(self.board.namespace_limit(shard.at));
        closures
    }

    /// Takes in a shard that was committed. Answers whether it may take more than before.
    pub(crate) fn put_shard(&mut self, record: ShardRecord, observation: Observation) -> bool {
        let name = record.name.clone();
        let Some(known) = self.shards.get(&name) else {
            self.add_shard(record, observation);
            return true;
        };
        let domain_changes =
            known.record.manifest.spec.failure_domain != record.manifest.spec.failure_domain;
        // What is on it counts in its failure domain.
        let at = known.at;
        let counted: Vec<placement::Needs> = known
            .namespaces
            .iter()
            .filter(|_| domain_changes)
            .filter_map(|name| self.members.get(name)?.counts)
            .chain(self.held.values().filter(|(_, on)| domain_changes && *on == at).map(|h| h.0))
            .chain(self.in_flight.iter().filter(|(_, on)| domain_changes && *on == at).map(|f| f.0))
            .collect();
        for needs in &counted {
            self.board.remove(needs, at);
        }
        let opened = self.change(name.as_str(), |shard| {
            shard.record = record;
            shard.observation = observation;
        });
        for needs in &counted {
            self.board.add(needs, at);
        }
        opened
    }

    /// Takes in that a shard was removed.
    pub(crate) fn remove_shard(&mut self, name: &ShardName) {
        if self.board.remove_shard(name.as_str()) {
            self.shards.remove(name);
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
        let at = self.board.put_shard(candidate(&record, &observation, self.namespaces_max));
        let shard = Shard {
            at,
            observation,
            namespaces: HashSet::new(),
            reserved: Resources::ZERO,
            seen: self.snapshot,
            record,
        };
        self.shards.insert(shard.record.name.clone(), shard);
    }

    /// Changes a shard and what placement sees of it. Answers whether it may take more than before.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Shard)) -> bool {
        let Some(shard) = self.shards.get_mut(name) else { return false };
        change(shard);
        let after = candidate(&shard.record, &shard.observation, self.namespaces_max);
        let before = self.board.shape().shard(shard.at).cloned();
        let more = before.as_ref().is_none_or(|before| takes_more(before, &after));
        if before.as_ref() != Some(&after) {
            self.board.put_shard(after);
        }
        more
    }

    /// What a namespace needs, in the board's numbers.
    pub(super) fn needs(
        &mut self,
        rules: &Rules,
        demand: Resources,
        pinned: Option<&ShardName>,
    ) -> placement::Needs {
        self.board.needs(&demand.values(), &rules.constraints, pinned, "")
    }

    /// Takes in what a namespace was measured to use on a shard. Answers whether that freed room.
    pub(crate) fn measure(&mut self, shard: &str, namespace: &str, measured: Resources) -> bool {
        let Some(member) = self.members.get_mut(namespace) else { return false };
        if member.record.entry.shard() != Some(shard) || member.measured == measured {
            return false;
        }
        let before = member.reserved();
        member.measured = measured;
        reweigh(&mut self.board, &mut self.shards, member, before)
    }

    /// Notes what every namespace uses in this minute, by minutes since 1970, for at most `followed`
    /// of them. Answers whether that freed room.
    pub(crate) fn sample(&mut self, minute: i64, followed: usize) -> bool {
        let Self { board, shards, members, .. } = self;
        let mut count = members.values().filter(|member| member.estimator.is_some()).count();
        let mut freed = false;
        for member in members.values_mut() {
            let shard = member.record.entry.shard().and_then(|shard| shards.get(shard));
            // What a silent agent last said is not what is used now.
            let heard = shard.is_some_and(|s| s.observation.verdict != Some(Verdict::Unknown));
            if !heard || member.measured.is_zero() {
                continue;
            }
            if member.estimator.is_none() {
                if count >= followed {
                    continue;
                }
                count += 1;
                member.estimator = Some(Box::new(Estimator::new(DIMENSIONS.len(), true)));
            }
            let before = member.reserved();
            let usage = member.measured.values();
            if member.estimator.as_mut().is_some_and(|e| e.observe(minute, &usage)) {
                freed |= reweigh(board, shards, member, before);
            }
        }
        freed
    }

    /// Counts a decision that is about to be committed.
    pub(super) fn reserve(&mut self, needs: placement::Needs, shard: &ShardName) {
        if let Some(shard) = self.shards.get(shard) {
            self.board.add(&needs, shard.at);
            self.in_flight.push((needs, shard.at));
        }
    }

    /// Forgets all decisions that are not committed; those that are count as owned.
    pub(crate) fn settle(&mut self) {
        for (needs, shard) in std::mem::take(&mut self.in_flight) {
            self.board.remove(&needs, shard);
        }
    }

    /// Counts a namespace that is moved also at the end that does not own it; none where it needs no
    /// room there any more.
    pub(crate) fn hold(&mut self, namespace: &NamespaceName, on: Option<&ShardName>) {
        if let Some((needs, at)) = self.held.remove(namespace) {
            self.board.remove(&needs, at);
        }
        let at = on.and_then(|on| self.shards.get(on)).map(|shard| shard.at);
        let member = self.members.get(namespace);
        let counted = member.map(|member| (member.record.needs.rules.clone(), member.reserved()));
        if let (Some(at), Some((rules, reserved))) = (at, counted) {
            let needs = self.needs(&rules, reserved, None);
            self.board.add(&needs, at);
            self.held.insert(namespace.clone(), (needs, at));
        }
    }

    fn attach(&mut self, name: &NamespaceName, member: &mut Member) {
        let entry = &member.record.entry;
        if entry.state() == State::Unplaced {
            self.unplaced.insert(name.clone());
        }
        if member.record.orphaned {
            self.orphans.insert(name.clone());
        }
        let rules = member.record.needs.rules.clone();
        let pinned = entry.pinned_shard().and_then(|pin| pin.parse().ok());
        let reserved = member.reserved();
        if let Some(shard) = entry.shard().and_then(|owner| self.shards.get(owner)) {
            let at = shard.at;
            let needs = self.needs(&rules, reserved, pinned.as_ref());
            self.board.add(&needs, at);
            member.counts = Some(needs);
            let owner = member.record.entry.shard().expect("it was found by its owner");
            let shard = self.shards.get_mut(owner).expect("it was found a moment ago");
            shard.namespaces.insert(name.clone());
            shard.reserved = shard.reserved.plus(reserved);
        }
    }

    fn detach(&mut self, name: &NamespaceName, member: &Member) {
        self.unplaced.remove(name);
        self.orphans.remove(name);
        if let Some(needs) = &member.counts
            && let Some(owner) = member.record.entry.shard()
            && let Some(shard) = self.shards.get_mut(owner)
        {
            self.board.remove(needs, shard.at);
            shard.namespaces.remove(name);
            shard.reserved = shard.reserved.minus(member.reserved());
        }
    }
}

/// Counts a namespace whose reservation was `before` as what it reserves now. Answers whether that
/// freed room.
fn reweigh(
    board: &mut Board,
    shards: &mut BTreeMap<ShardName, Shard>,
    member: &mut Member,
    before: Resources,
) -> bool {
    let after = member.reserved();
    let change = after.minus(before);
    let owner = member.record.entry.shard().and_then(|owner| shards.get_mut(owner));
    let (Some(shard), Some(counted), false) = (owner, member.counts, change.is_zero()) else {
        return false;
    };
    shard.reserved = shard.reserved.plus(change);
    let counts = counted.with_demand(&after.values());
    member.counts = Some(counts);
    board.remove(&counted, shard.at);
    board.add(&counts, shard.at);
    change.values().iter().any(|change| *change < 0)
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
