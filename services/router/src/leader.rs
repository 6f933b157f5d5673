//! What one router does for all of them: it alone writes.
//!
//! Responsible for the turns in which something is decided, committed and published ([`Turn`]), for
//! what follows from each ([`consequences`]), for taking in the manifest ([`manifest`]), for placing
//! what has no shard ([`retry`]), for what each shard is to be ([`roles`]) and still has
//! ([`residues`]), for the log of events ([`events`]), and for gaining and losing the lead
//! ([`election`]).
//!
//! Invariants: decisions and commits go one after another, each on what the one before left; what
//! is not committed is nowhere but in the ledger's "in flight"; a leader that cannot say whether a
//! commit took effect reads the store before it decides anything again.
//!
//! Locks are taken in the order: turn, agent, fleet, residues, moves. Nothing is awaited under the
//! latter four.
//!
//! It must not know the wire.

mod consequences;
pub(crate) mod election;
pub(crate) mod events;
pub(crate) mod executor;
mod log;
mod manifest;
pub(crate) mod moves;
mod publish;
pub(crate) mod residues;
mod retry;
pub(crate) mod roles;
mod run;
mod turn;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    log::begun,
    moves::Transfer,
    turn::{Stamp, Turn},
};

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use airfleet_domain::{
    ids::{Revision, ShardName, Term},
    placement::{Policy, plan::Order},
    resources::Resources,
};
use airfleet_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{events::EventLog, executor::Running, moves::Moves, residues::Residues, turn::Position};
use crate::{
    agents::{Hub, Taken},
    config::{EventsConfig, MovesConfig, PlansConfig},
    fleet::{Fleet, Observation, Snapshot},
    metrics::Metrics,
    mover::Mover,
    store::{Contents, Error, Event, Freeze, Record, Store},
    table::{Live, Origin},
};

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
    /// How long a shard keeps the rows of a namespace that it gave up.
    pub(crate) keep_retired: Duration,
    /// How namespaces are moved.
    pub(crate) moves: MovesConfig,
    /// How much of what happened is kept.
    pub(crate) events: EventsConfig,
    /// What placement asks of the fleet.
    pub(crate) policy: Policy,
    /// How plans are made and carried out.
    pub(crate) plans: PlansConfig,
    /// Who carries the moves of plans out instead of this router itself.
    pub(crate) mover: Option<Arc<dyn Mover>>,
}

/// The leader of one term.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) term: Term,
    pub(crate) tools: Tools,
    fleet: Mutex<Fleet>,
    residues: Mutex<Residues>,
    moves: Mutex<Moves>,
    /// Something was said or done that may take a move further.
    moved: Notify,
    /// Some shard said something of a namespace that it has to give up.
    unsettled: Notify,
    log: EventLog,
    turn: tokio::sync::Mutex<Position>,
    /// The manifest as far as it is known, for those who do not take a turn.
    manifest_revision: AtomicI64,
    /// Some shard may take more than before.
    roomier: Notify,
    /// Another leads, or everything has to be read again.
    ended: CancellationToken,
    /// The plan that is being carried out.
    running: tokio::sync::Mutex<Option<Running>>,
    /// Whether the store was asked for one.
    looked_for_plan: AtomicBool,
    /// Why rebalancing is frozen, where it is.
    freeze: Mutex<Option<Freeze>>,
    /// What the latest plans were made of, the newest last.
    dumps: Mutex<VecDeque<Arc<(Snapshot, Order)>>>,
    /// The minute in which it was last noted what namespaces use. Minutes since 1970.
    sampled_minute: AtomicI64,
    /// What all namespaces together reserved when this leader began to lead, and when that was.
    /// Microseconds since 1970-01-01 UTC.
    demand_at_first: Mutex<Option<(Resources, i64)>>,
}

impl Leader {
    /// Reads all that a leader needs to know, and leads in `term`.
    pub(crate) async fn begin(tools: Tools, term: Term) -> Result<Arc<Self>, Error> {
        let contents = tools.store.load::<Record>().await?;
        let residues = tools.store.residues().await?.into_iter().collect();
        let moves = tools.store.open_moves().await?.into_iter().collect();
        let freeze = tools.store.freeze().await?;
        let build = move || Self::on(tools, term, contents, (residues, moves), freeze);
        match tokio::task::spawn_blocking(build).await {
            Ok(leader) => Ok(leader),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => unreachable!("a blocking task that has begun is never cancelled"),
        }
    }

    fn on(
        tools: Tools,
        term: Term,
        mut contents: Contents<Record>,
        (residues, moves): (Residues, Moves),
        freeze: Option<Freeze>,
    ) -> Arc<Self> {
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
        let mut fleet = Fleet::new(tools.policy, tools.namespaces_max);
        for shard in contents.shards {
            let observation = hub.observation(shard.name.as_str());
            fleet.put_shard(shard, observation);
        }
        for record in contents.namespaces {
            fleet.put(record);
        }
        for row in moves.iter() {
            fleet.hold(&row.namespace, moves::other_end(row));
        }
        let leader = Arc::new(Self {
            term,
            fleet: Mutex::new(fleet),
            residues: Mutex::new(residues),
            moves: Mutex::new(moves),
            moved: Notify::new(),
            unsettled: Notify::new(),
            log: EventLog::default(),
            manifest_revision: AtomicI64::new(contents.head.manifest_revision.0),
            turn: tokio::sync::Mutex::new(Position::at(contents.head)),
            roomier: Notify::new(),
            ended: CancellationToken::new(),
            running: tokio::sync::Mutex::new(None),
            looked_for_plan: AtomicBool::new(false),
            freeze: Mutex::new(freeze),
            dumps: Mutex::new(VecDeque::new()),
            sampled_minute: AtomicI64::new(0),
            demand_at_first: Mutex::new(None),
            tools,
        });
        // From here on reports reach the fleet by themselves once the leader is known; what came
        // before is taken in by `absorb`.
        leader.place_soon();
        leader.moves_soon();
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

    /// Takes in what an agent just reported. Answers what that tells of roles.
    pub(crate) fn observed(
        &self,
        shard: &ShardName,
        observation: &Observation,
        taken: &Taken,
    ) -> Vec<Event> {
        let now_us = self.tools.clock.unix_micros();
        let events = taken.roles.iter().flat_map(|change| log::seen(shard, change, now_us));
        let events = events.collect();
        if !taken.roles.is_empty() {
            let residues = self.residues();
            let is_left = |namespace: &str| residues.at(namespace, shard.as_str()).is_some();
            if taken.roles.iter().any(|change| is_left(change.namespace.as_str())) {
                self.unsettled.notify_one();
            }
        }
        let mut fleet = self.fleet();
        let mut roomier = fleet.observe(shard.as_str(), observation.clone());
        for (namespace, usage) in &taken.usage {
            let measured = usage.map(|usage| usage.usage).unwrap_or_default();
            roomier |= fleet.measure(shard.as_str(), namespace.as_str(), measured);
        }
        drop(fleet);
        if roomier {
            self.place_soon();
        }
        events
    }

    /// Some shard may take more than before: what waits is tried again. Also while nothing seems to
    /// wait, since a turn may be about to commit that something does, for want of this very room.
    fn place_soon(&self) {
        self.roomier.notify_one();
    }

    /// The fleet, for a look or a decision; not across an await.
    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What shards still have of namespaces that they no longer own; not across an await.
    pub(crate) fn residues(&self) -> MutexGuard<'_, Residues> {
        self.residues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked_for_plan(&self) -> bool {
        self.looked_for_plan.load(Ordering::Relaxed)
    }

    fn note_looked_for_plan(&self) {
        self.looked_for_plan.store(true, Ordering::Relaxed);
    }

    /// The store has a plan that is to be carried out.
    pub(crate) fn look_for_plan(&self) {
        self.looked_for_plan.store(false, Ordering::Relaxed);
    }

    /// Why rebalancing is frozen, where it is.
    pub(crate) fn frozen(&self) -> Option<Freeze> {
        lock(&self.freeze).clone()
    }

    /// Notes that rebalancing was frozen, or no longer is.
    pub(crate) fn set_frozen(&self, freeze: Option<Freeze>) {
        *lock(&self.freeze) = freeze;
    }

    /// Keeps what a plan was made of, and forgets the oldest.
    pub(crate) fn keep_dump(&self, snapshot: Snapshot, order: Order) {
        let mut dumps = lock(&self.dumps);
        dumps.push_back(Arc::new((snapshot, order)));
        while dumps.len() > self.tools.plans.dumps_kept {
            dumps.pop_front();
        }
    }

    /// What a plan was made of, where that is still kept.
    pub(crate) fn dump(&self, plan: &str) -> Option<Arc<(Snapshot, Order)>> {
        lock(&self.dumps).iter().find(|dump| dump.1.name == plan).cloned()
    }

    /// By how much the demand of all namespaces grows a day, and from how many days that is told.
    pub(crate) fn growth(&self) -> (Resources, f64) {
        const DAY_US: f64 = 86_400e6;
        let now_us = self.tools.clock.unix_micros();
        let now = self.fleet().reserved();
        let first = *lock(&self.demand_at_first).get_or_insert((now, now_us));
        let days = (now_us - first.1) as f64 / DAY_US;
        // An hour says little, and less nothing.
        if days < 1.0 / 24.0 {
            return (Resources::ZERO, 0.0);
        }
        let a_day = now.minus(first.0).values().map(|grown| (grown as f64 / days) as i64);
        (Resources::from_values(a_day), days)
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
