//! What one router does for all of them: it alone writes.
//!
//! Responsible for the turns in which something is decided, committed and published ([`Turn`]), for
//! taking in the manifest ([`manifest`]), for placing what has no shard ([`retry`]), and for gaining
//! and losing the lead ([`election`]).
//!
//! Invariants: decisions and commits go one after another, each on what the one before left; what
//! is not committed is nowhere but in the ledger's "in flight"; a leader that cannot say whether a
//! commit took effect reads the store before it decides anything again.
//!
//! Locks are taken in the order: turn, agent, fleet. Nothing is awaited under the latter two.
//!
//! It must not know the wire.

pub(crate) mod election;
mod manifest;
mod retry;
mod run;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision, ShardName, Term},
    placement::LeastLoaded,
    routing::{Assignment, Change, Entry, State},
};
use airfleet_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::{Hub, report::UsageChange},
    fleet::{Fleet, Observation},
    metrics::Metrics,
    store::{Batch, Changes, Contents, Error, Head, Record, Removal, Store},
    table::{Live, Origin, Update},
};

/// Most changed rows that a leader reads to find out what it missed.
const CATCH_UP_MAX: u32 = 100_000;

/// What every leader of this replica works with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) store: Arc<Store>,
    pub(crate) live: Arc<Live>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: SharedClock,
    /// Most namespaces that one shard may own.
    pub(crate) namespaces_max: usize,
}

/// The leader of one term.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) term: Term,
    pub(crate) tools: Tools,
    fleet: Mutex<Fleet>,
    turn: tokio::sync::Mutex<Position>,
    /// The manifest as far as it is known, for those who do not take a turn.
    manifest_revision: AtomicI64,
    /// Some shard may take more than before.
    roomier: Notify,
    /// Another leads, or everything has to be read again.
    ended: CancellationToken,
}

/// Where the leader believes the store to be.
#[derive(Debug)]
struct Position {
    head: Head,
    /// A commit's outcome is not known.
    in_doubt: bool,
}

impl Leader {
    /// Reads all that a leader needs to know, and leads in `term`.
    pub(crate) async fn begin(tools: Tools, term: Term) -> Result<Arc<Self>, Error> {
        let contents = tools.store.load::<Record>().await?;
        let build = move || Self::on(tools, term, contents);
        match tokio::task::spawn_blocking(build).await {
            Ok(leader) => Ok(leader),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => unreachable!("a blocking task that has begun is never cancelled"),
        }
    }

    fn on(tools: Tools, term: Term, mut contents: Contents<Record>) -> Arc<Self> {
        let Tools { live, hub, .. } = &tools;
        let view = live.view();
        if view.store_id.as_ref() == contents.head.store_id {
            // The same assignment is kept once, not once for the table and once for the fleet.
            for record in &mut contents.namespaces {
                if let Some(known) = view.table.resolve_namespace(record.entry.namespace())
                    && *known == record.entry
                {
                    record.entry = known.clone();
                }
            }
        }
        if view.table.revision() != contents.head.revision
            || view.store_id.as_ref() != contents.head.store_id
            || view.origin != Origin::Store
        {
            live.replace(
                Contents {
                    head: contents.head.clone(),
                    namespaces: contents.namespaces.iter().map(|r| r.entry.clone()).collect(),
                    shards: contents.shards.clone(),
                    removals: contents.removals,
                },
                Origin::Store,
            );
        }
        let mut fleet = Fleet::new(Box::new(LeastLoaded), tools.namespaces_max);
        for shard in contents.shards {
            let observation = hub.observation(shard.name.as_str());
            fleet.put_shard(shard, observation);
        }
        for record in contents.namespaces {
            fleet.put(record);
        }
        let leader = Arc::new(Self {
            term,
            fleet: Mutex::new(fleet),
            manifest_revision: AtomicI64::new(contents.head.manifest_revision.0),
            turn: tokio::sync::Mutex::new(Position { head: contents.head, in_doubt: false }),
            roomier: Notify::new(),
            ended: CancellationToken::new(),
            tools,
        });
        // From here on reports reach the fleet by themselves once the leader is known; what came
        // before is taken in by `absorb`.
        leader.roomier.notify_one();
        leader
    }

    /// Takes in what all agents have reported so far.
    pub(crate) fn absorb(&self) {
        self.tools.hub.for_each_report(|shard, observation, merged| {
            let mut fleet = self.fleet();
            fleet.observe(shard.as_str(), observation.clone());
            for (namespace, usage) in &merged.namespaces {
                fleet.measure(shard.as_str(), namespace.as_str(), usage.usage);
            }
        });
    }

    /// Takes in what an agent just reported.
    pub(crate) fn observed(
        &self,
        shard: &ShardName,
        observation: &Observation,
        changes: &[UsageChange],
    ) {
        let mut fleet = self.fleet();
        let mut roomier = fleet.observe(shard.as_str(), observation.clone());
        for (namespace, usage) in changes {
            let measured = usage.map(|usage| usage.usage).unwrap_or_default();
            roomier |= fleet.measure(shard.as_str(), namespace.as_str(), measured);
        }
        let waiting = fleet.totals().unplaced > 0;
        drop(fleet);
        if roomier && waiting {
            self.roomier.notify_one();
        }
    }

    /// The fleet, for a look or a decision; not across an await.
    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest is taken into account up to here.
    pub(crate) fn manifest_revision(&self) -> Revision {
        Revision(self.manifest_revision.load(Ordering::Relaxed))
    }

    /// Whether this leader is done for.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

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
    pub(crate) async fn commit(&mut self, batch: Batch) -> Result<Revision, Error> {
        let leader = self.leader;
        if batch.is_empty() {
            leader.fleet().settle();
            return Ok(self.position.head.revision);
        }
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
            revision,
            manifest_revision: head.manifest_revision,
        };
        self.leader.publish(news);
    }

    /// Reads what the store has beyond what this leader knows.
    async fn catch_up(&mut self) -> Result<(), Error> {
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

/// What was committed and is to be shown.
#[derive(Debug, Default)]
struct News {
    records: Vec<Record>,
    removed: Vec<(Revision, NamespaceName)>,
    shards: Vec<crate::store::ShardRecord>,
    removed_shards: Vec<ShardName>,
    revision: Revision,
    manifest_revision: Revision,
}

impl Leader {
    /// Shows what was committed to the fleet, the table and the agents.
    fn publish(&self, news: News) {
        let Tools { live, hub, .. } = &self.tools;
        let observations: HashMap<ShardName, Observation> = news
            .shards
            .iter()
            .map(|shard| (shard.name.clone(), hub.observation(shard.name.as_str())))
            .collect();
        let mut update = Update {
            changes: Vec::with_capacity(news.records.len() + news.removed.len()),
            shards: Vec::new(),
            removed_shards: news.removed_shards.clone(),
            revision: news.revision,
            manifest_revision: news.manifest_revision,
        };
        let mut roomier = false;
        let mut told = Vec::new();
        let mut fleet = self.fleet();
        for shard in news.shards {
            update.shards.push((shard.name.clone(), shard.manifest.spec.url.as_str().into()));
            let observation = observations[&shard.name].clone();
            roomier |= fleet.put_shard(shard, observation);
        }
        for (revision, name) in news.removed {
            let known = fleet.member(name.as_str()).map(|member| member.record.entry.clone());
            if known.as_ref().is_some_and(|known| known.revision() < revision) {
                roles_to_tell(known.as_ref(), None, &mut told);
                fleet.remove(&name);
            }
            update.changes.push((revision, Change::Delete(name)));
        }
        for record in news.records {
            let known = fleet.member(record.entry.namespace());
            roles_to_tell(known.map(|known| &known.record.entry), Some(&record.entry), &mut told);
            update.changes.push((record.entry.revision(), Change::Upsert(record.entry.clone())));
            roomier |= fleet.put(record);
        }
        for name in &news.removed_shards {
            if fleet.shard(name.as_str()).is_some_and(|shard| shard.namespaces.is_empty()) {
                fleet.remove_shard(name);
            }
        }
        fleet.settle();
        let waiting = fleet.totals().unplaced > 0;
        drop(fleet);
        update.changes.sort_by_key(|(revision, _)| *revision);
        live.apply(update);
        self.manifest_revision.store(news.manifest_revision.0, Ordering::Relaxed);
        for (shard, namespace) in told {
            hub.mark(shard.as_str(), &namespace);
        }
        if roomier && waiting {
            self.roomier.notify_one();
        }
    }
}

/// Adds the shards whose agents have to hear of a change.
fn roles_to_tell(
    old: Option<&Entry>,
    new: Option<&Entry>,
    told: &mut Vec<(String, NamespaceName)>,
) {
    let Some(name) = new.or(old).map(Entry::namespace_name) else { return };
    let (from, to) = (old.and_then(Entry::shard), new.and_then(Entry::shard));
    let same = from == to
        && old.zip(new).is_some_and(|(old, new)| {
            old.generation() == new.generation() && old.prefixes().eq(new.prefixes())
        });
    if same {
        return;
    }
    if from != to {
        told.extend(from.map(|shard| (shard.to_owned(), name.clone())));
    }
    told.extend(to.map(|shard| (shard.to_owned(), name)));
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
