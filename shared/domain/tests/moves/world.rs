//! The events of one history, in the order that the seed gives them.

mod faults;
mod verdict;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use airfleet_domain::{
    ids::{Generation, Revision, ShardName},
    moves::{
        Cancel, Change, Evidence, Left, Move, Options, Order, Owner, Ownership, Phase, Policy,
        RunningTasks,
    },
    roles::Role,
};

use crate::{
    agent::{self, Agent, Parcel},
    checks::{Check, Violation, violated},
    random::Random,
    router::{Contents, Router, Store, Write},
    shard::{DAGS, Database, INTERVAL, Run, SECOND, ticks},
};

pub(crate) const SHARDS: usize = 3;
const ROUTERS: usize = 2;

/// Events while things go wrong.
const STORMY: usize = 1200;
/// Events by which all has to be well again after that. Generous: the longest pause between tries
/// passes many times.
const CALM: usize = 20_000;

/// A rule that is broken, so that a check can show that it bites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    FlipWithoutSeal,
    ObeyLateOrders,
    OrderByGeneration,
    LookOnce,
    ImportUnguarded,
    EffectsUnguarded,
    NothingMadeUp,
    StaleLeaderWrites,
    CompareNothing,
    TurnBack,
    GiveUp,
    ForgetPauses,
    ImportTwice,
}

impl Mutation {
    pub(crate) const ALL: [Mutation; 14] = [
        Mutation::None,
        Mutation::FlipWithoutSeal,
        Mutation::ObeyLateOrders,
        Mutation::OrderByGeneration,
        Mutation::LookOnce,
        Mutation::ImportUnguarded,
        Mutation::EffectsUnguarded,
        Mutation::NothingMadeUp,
        Mutation::StaleLeaderWrites,
        Mutation::CompareNothing,
        Mutation::TurnBack,
        Mutation::GiveUp,
        Mutation::ForgetPauses,
        Mutation::ImportTwice,
    ];
}

/// What happened, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) aborted: u64,
    pub(crate) returned: u64,
    pub(crate) forced: u64,
    pub(crate) takeovers: u64,
    pub(crate) crashes: u64,
    pub(crate) refused_orders: u64,
    pub(crate) refused_commits: u64,
    pub(crate) made_up: u64,
    pub(crate) executed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.done += other.done;
        self.aborted += other.aborted;
        self.returned += other.returned;
        self.forced += other.forced;
        self.takeovers += other.takeovers;
        self.crashes += other.crashes;
        self.refused_orders += other.refused_orders;
        self.refused_commits += other.refused_commits;
        self.made_up += other.made_up;
        self.executed += other.executed;
    }
}

/// On its way.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few hundred of them live at a time")]
enum Message {
    Order { to: usize, order: Order },
    Evidence { from: usize, evidence: Evidence },
    Rows { to: usize, parcel: Parcel },
}

#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub(crate) struct World {
    random: Random,
    mutation: Mutation,
    now_us: i64,
    store: Store,
    routers: Vec<Router>,
    databases: Vec<Database>,
    /// Scheduler heartbeats of each shard.
    beats: [u64; SHARDS],
    /// Processes of each shard's agent; at most one is not a zombie.
    agents: Vec<Vec<Agent>>,
    /// Shards that are down, with all that is on them.
    lost: [bool; SHARDS],
    links: Vec<Message>,
    /// How often each run's task was started, anywhere.
    executed: HashMap<(&'static str, i64), u32>,
    /// What a sealed shard had.
    sealed: [Option<BTreeMap<(&'static str, i64), Run>>; SHARDS],
    highest: Generation,
    moves: usize,
    /// A source was given up as lost: runs may be doubled or lost, as its operator was told.
    forced: bool,
    /// Shards go down, not only what stands beside them.
    frail: bool,
    /// A shard was down while it scheduled: Airflow itself then skips runs of DAGs that do not
    /// catch up.
    was_down: bool,
    stormy: bool,
    pub(crate) tell: bool,
    tally: Tally,
}

fn shard_name(at: usize) -> ShardName {
    format!("shard-{at}").parse().expect("a valid name")
}

pub(crate) fn shard_index(name: &ShardName) -> usize {
    usize::from(name.as_str().as_bytes()[6] - b'0')
}

fn policy() -> Policy {
    Policy {
        planned: Duration::from_mins(2),
        staging: Duration::from_mins(2),
        sealing: Duration::from_mins(1),
        copying: Duration::from_mins(2),
        backoff_first: Duration::from_secs(1),
        backoff_max: Duration::from_secs(8),
        retention: Duration::from_secs(40),
        ..Policy::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Mutation) -> Self {
        let owner =
            Owner { shard: shard_name(0), generation: Generation(1), revision: Revision(1) };
        let contents = Contents {
            owner: owner.clone(),
            row: None,
            residues: Vec::new(),
            revision: Revision(1),
            ended: Vec::new(),
        };
        let mut databases = vec![Database::default(); SHARDS];
        let first = &airfleet_domain::moves::orders(&owner, None)[0];
        agent::owner(&mut databases[0], first);
        Self {
            random: Random::new(seed),
            mutation,
            now_us: 3 * INTERVAL,
            store: Store { term: 0, holder: 0, lease_until_us: 0, contents: Arc::new(contents) },
            routers: vec![Router::default(); ROUTERS],
            databases,
            beats: [0; SHARDS],
            agents: vec![vec![Agent::default()]; SHARDS],
            lost: [false; SHARDS],
            links: Vec::new(),
            executed: HashMap::new(),
            sealed: [const { None }; SHARDS],
            highest: Generation(1),
            moves: 0,
            forced: false,
            frail: seed.is_multiple_of(8),
            was_down: false,
            stormy: true,
            tell: false,
            tally: Tally::default(),
        }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.tell {
            println!("{:>7.1} {}", self.now_us as f64 / SECOND as f64, text());
        }
    }

    /// Lives through the history.
    pub(crate) fn run(mut self) -> Result<Tally, Violation> {
        for _ in 0..STORMY {
            self.event()?;
        }
        self.stormy = false;
        self.lost = [false; SHARDS];
        self.say(|| "--- faults stop".into());
        let mut settled = 0;
        for _ in 0..CALM {
            self.event()?;
            let moving =
                self.store.contents.row.is_some() || !self.store.contents.residues.is_empty();
            settled = if moving { 0 } else { settled + 1 };
            if settled > 100 {
                break;
            }
        }
        if settled == 0 {
            let row = self.store.contents.row.as_ref();
            let residues = &self.store.contents.residues;
            return violated(Check::Ends, format!("{row:#?} {residues:?}"));
        }
        self.check_end()?;
        Ok(self.tally)
    }

    fn event(&mut self) -> Result<(), Violation> {
        let shard = self.random.below(SHARDS);
        let router = self.random.below(ROUTERS);
        match self.random.below(28) {
            0 => self.pass_time(),
            1..=3 => self.work(shard)?,
            4..=9 => self.deliver(),
            10..=13 => self.act(shard),
            14 | 15 => self.report(shard),
            16 | 17 => self.send_rows(shard),
            18..=21 => self.lead(router),
            22..=24 => self.tell_orders(router),
            25 => self.elect(router),
            26 if self.stormy && self.random.once_in(3) => self.fault(shard, router),
            27 => self.ask(),
            _ => {}
        }
        self.check()
    }

    fn pass_time(&mut self) {
        let before = self.now_us;
        self.now_us += SECOND;
        for at in 0..SHARDS {
            // A scheduler may be late, but not by an interval: then it would skip runs by itself.
            let last_chance = (self.now_us + SECOND) / INTERVAL > before / INTERVAL
                || self.now_us / INTERVAL > before / INTERVAL;
            if !self.lost[at] && (last_chance || self.random.once_in(2)) {
                self.databases[at].make_runs(self.now_us);
            }
        }
    }

    /// The scheduler and the workers of a shard do something.
    fn work(&mut self, at: usize) -> Result<(), Violation> {
        if self.lost[at] {
            return Ok(());
        }
        let chosen = self.random.below(1000);
        match self.random.below(4) {
            0 => self.databases[at].pick(chosen),
            1 | 2 => {
                self.beats[at] += 1;
                for run in self.databases[at].beat() {
                    self.tally.executed += 1;
                    let times = self.executed.entry(run).or_default();
                    *times += 1;
                    if *times > 1 && !self.forced {
                        let detail = format!("{run:?} was started again, on shard-{at}");
                        return violated(Check::RunsOnce, detail);
                    }
                }
            }
            _ => self.databases[at].finish(chosen),
        }
        Ok(())
    }

    fn deliver(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let at = self.random.below(self.links.len());
        // Delivered, and perhaps again later; or lost.
        let repeat = self.stormy && self.random.once_in(6);
        let drop = self.stormy && self.random.once_in(6);
        let message = if repeat { self.links[at].clone() } else { self.links.swap_remove(at) };
        if drop {
            return;
        }
        match message {
            Message::Order { to, order } if !self.lost[to] => {
                let agent = self.agents[to].iter_mut().find(|agent| !agent.zombie);
                let Some(agent) = agent else { return };
                let heard = agent.hear(order.clone(), &mut self.databases[to], self.mutation);
                self.tally.refused_orders += u64::from(!heard);
                self.say(|| {
                    let Order { desired, revision, .. } = &order;
                    let word = if heard { "hears" } else { "refuses" };
                    format!(
                        "shard-{to} {word} {}({}) r{revision}",
                        desired.role, desired.generation
                    )
                });
            }
            Message::Evidence { from, evidence } => {
                for router in &mut self.routers {
                    router.evidence[from] = Some(evidence.clone());
                }
            }
            Message::Rows { to, mut parcel } if !self.lost[to] => {
                // What arrives is not always what was sent.
                if self.stormy && self.random.once_in(8) {
                    parcel.rows.runs.pop_last();
                }
                if let Some(agent) = self.agents[to].iter_mut().find(|agent| !agent.zombie) {
                    agent.receive(parcel);
                }
            }
            Message::Order { .. } | Message::Rows { .. } => {}
        }
    }

    /// Messages are bounded: a link that is full loses the oldest.
    fn post(&mut self, message: Message) {
        if self.links.len() >= 40 {
            let at = self.random.below(20);
            self.links.swap_remove(at);
        }
        self.links.push(message);
    }

    fn act(&mut self, at: usize) {
        if self.lost[at] || self.agents[at].is_empty() {
            return;
        }
        let which = self.random.below(self.agents[at].len());
        let agent = &mut self.agents[at][which];
        let database = &mut self.databases[at];
        let before = (database.record.reached, database.record.unfenced);
        agent.act(database, self.beats[at], self.now_us, self.mutation, &mut self.tally);
        let after = (database.record.reached, database.record.unfenced);
        if before != after {
            let zombie = if agent.zombie { " (zombie)" } else { "" };
            self.say(|| format!("shard-{at}{zombie} {before:?} -> {after:?}"));
        }
    }

    fn report(&mut self, at: usize) {
        let agent = self.agents[at].iter().find(|agent| !agent.zombie);
        let evidence = agent.and_then(|agent| agent.evidence(&self.databases[at]));
        if let Some(evidence) = evidence.filter(|_| !self.lost[at]) {
            self.post(Message::Evidence { from: at, evidence });
        }
    }

    fn send_rows(&mut self, at: usize) {
        let agent = self.agents[at].iter().find(|agent| !agent.zombie);
        let parcel = agent.and_then(|agent| agent.send(&self.databases[at]));
        let row = self.store.contents.row.as_ref();
        if let (Some(parcel), Some(row), false) = (parcel, row, self.lost[at]) {
            let to = shard_index(&row.target);
            self.post(Message::Rows { to, parcel });
        }
    }

    /// A router that believes to lead looks at what there is, and writes.
    fn lead(&mut self, at: usize) {
        let connected: [bool; SHARDS] = std::array::from_fn(|shard| {
            !self.lost[shard] && self.agents[shard].iter().any(|agent| !agent.zombie)
        });
        let seed = self.random.next();
        let router = &mut self.routers[at];
        let write = router.look(connected, &policy(), self.now_us, seed, self.mutation);
        let Some(write) = write else { return };
        // Killed before, killed after, or alive to see that it took effect.
        let fate = if self.stormy { self.random.below(12) } else { 11 };
        if fate == 0 {
            return self.crash_router(at);
        }
        let after = write.after.clone();
        let what = write.what.clone();
        let committed = self.commit(write);
        if fate == 1 {
            return self.crash_router(at);
        }
        self.say(|| {
            format!("router-{at} {}: {what}", if committed { "writes" } else { "may not write" })
        });
        let router = &mut self.routers[at];
        if committed {
            router.known = Some(after);
        } else {
            self.tally.refused_commits += 1;
            *router = Router { evidence: router.evidence.clone(), ..Router::default() };
        }
    }

    fn commit(&mut self, write: Write) -> bool {
        let Write { term, expected, mut after, .. } = write;
        let current = &self.store.contents;
        if self.mutation == Mutation::StaleLeaderWrites {
            // Whatever it believed, it is on top of what is now.
            let after = Arc::make_mut(&mut after);
            after.revision = current.revision.next();
            after.owner.revision = after.revision;
        } else if term != self.store.term || expected != current.revision {
            return false;
        }
        if after.ended.len() > current.ended.len() {
            let ended = after.ended.last().expect("one more than before");
            if ended.phase.is_past_flip() {
                self.tally.done += 1;
                let back = current
                    .ended
                    .iter()
                    .any(|earlier| earlier.phase == Phase::Done && earlier.source == ended.target);
                self.tally.returned += u64::from(back);
            } else {
                self.tally.aborted += 1;
            }
        }
        self.store.contents = after;
        true
    }

    fn crash_router(&mut self, at: usize) {
        self.tally.crashes += 1;
        self.say(|| format!("router-{at} crashes"));
        self.routers[at] = Router::default();
    }

    fn elect(&mut self, at: usize) {
        let router = &mut self.routers[at];
        if router.term == Some(self.store.term) {
            self.store.lease_until_us = self.now_us + 5 * SECOND;
        } else if self.now_us >= self.store.lease_until_us {
            self.store.term += 1;
            self.store.holder = at;
            self.store.lease_until_us = self.now_us + 5 * SECOND;
            router.term = Some(self.store.term);
            router.known = Some(self.store.contents.clone());
            self.tally.takeovers += u64::from(self.store.contents.row.is_some());
            self.say(|| format!("router-{at} leads in term {}", self.store.term));
        }
    }

    /// Tells what it believes to be so; one that was overtaken does too.
    fn tell_orders(&mut self, at: usize) {
        let router = &self.routers[at];
        let Some(known) = router.known.as_ref().filter(|_| router.term.is_some()) else { return };
        for order in known.orders() {
            self.post(Message::Order { to: shard_index(&order.shard), order });
        }
    }
}
