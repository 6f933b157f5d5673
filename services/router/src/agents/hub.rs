//! One session per shard, and what is known of each.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use airfleet_domain::{
    health::{Health, Reason, Verdict},
    ids::{NamespaceName, ShardName},
    resources::Resources,
};
use airfleet_runtime::clock::SharedClock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    changes::Changes,
    moves::MovesSeen,
    report::{Merged, NamespaceUsage},
    roles::{RoleCounts, SeenRole},
    session::Session,
};
use crate::fleet::Observation;

/// Bounds and times.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Most shards that anything is kept of.
    pub(crate) max_agents: usize,
    /// Most namespaces kept of one shard's reports.
    pub(crate) max_namespaces: usize,
    /// From this age on a report says nothing any more.
    pub(crate) stale_after: Duration,
    /// How long after it was told of a namespace an agent's reports count for it.
    pub(crate) settle_after: Duration,
    /// Whether a shard of which no agent was ever heard takes nothing.
    pub(crate) require_report: bool,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The shard that it stands beside.
    pub(crate) shard: ShardName,
    /// New at every start of the agent; a later one is greater.
    pub(crate) incarnation: Uuid,
    /// Version of the agent.
    pub(crate) agent_version: String,
    /// Version of Airflow.
    pub(crate) airflow_version: String,
    /// Alembic revision of the metadata database.
    pub(crate) schema_revision: String,
}

/// Why an agent is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A newer incarnation of it is connected.
    #[error("a newer agent of {shard} is connected (incarnation {newer}); stop this one")]
    Superseded {
        /// The shard.
        shard: ShardName,
        /// The incarnation that stays.
        newer: Uuid,
    },
    /// As many shards are known as may be.
    #[error("{max} agents are known already; raise agents.max_agents")]
    TooMany {
        /// How many.
        max: usize,
    },
}

/// Names whose roles a session has not told its agent yet. Bounded by the number of namespaces of
/// the shard: what is true of a name is looked up when it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Everything has to be told.
    pub(crate) full: bool,
    /// These have changed.
    pub(crate) names: HashSet<NamespaceName>,
}

/// Changes from which on telling everything is simpler.
pub(super) const PENDING_MAX: usize = 10_000;

/// What is known of a shard's agent, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Whether it is connected.
    pub(crate) connected: bool,
    /// What it said of itself, if one ever connected.
    pub(crate) hello: Option<Hello>,
    /// When the last report came. Microseconds since 1970-01-01 UTC.
    pub(crate) reported_at_us: Option<i64>,
    /// When it was observed, by the agent's clock.
    pub(crate) observed_at_us: Option<i64>,
    /// The verdict.
    pub(crate) health: Health,
    /// The shard's usage.
    pub(crate) usage: Resources,
    /// DAGs that belong to no namespace. Count.
    pub(crate) unowned_dags: i64,
}

/// What is known of a shard's role for a namespace, at one moment.
#[derive(Debug)]
pub(crate) struct RoleLook<'a> {
    /// Whether its agent is connected.
    pub(crate) connected: bool,
    /// When the last report came. Microseconds since 1970-01-01 UTC.
    pub(crate) reported_at_us: Option<i64>,
    /// The role, as its agent last said.
    pub(crate) role: Option<&'a SeenRole>,
}

/// All agents.
#[derive(Debug)]
pub(crate) struct Hub {
    agents: RwLock<BTreeMap<ShardName, Arc<Agent>>>,
    limits: Limits,
    clock: SharedClock,
    sessions: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) state: Mutex<State>,
    /// Wakes the session when there is something to tell.
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) session: Option<(u64, CancellationToken)>,
    pub(super) hello: Option<Hello>,
    pub(super) merged: Option<Merged>,
    pub(super) reported_at: Option<Instant>,
    pub(super) reported_at_us: i64,
    pub(super) pending: Pending,
    /// When this session was told everything.
    pub(super) told_all_at: Option<Instant>,
    /// What it was told of lately beside that.
    pub(super) told_lately: VecDeque<(Instant, NamespaceName)>,
    /// Of moves, on this session.
    pub(super) moves: MovesSeen,
    /// Asked for by users, on this session.
    pub(super) changes: Changes,
}

impl State {
    pub(super) fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn was_heard_of(&self) -> bool {
        self.hello.is_some()
    }
}

impl Hub {
    /// Knows no agent yet.
    pub(crate) fn new(limits: Limits, clock: SharedClock) -> Self {
        Self { agents: RwLock::default(), limits, clock, sessions: AtomicU64::new(0) }
    }

    /// Bounds and times.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes an agent in, and ends the session that it replaces.
    pub(crate) fn attach(self: &Arc<Self>, hello: Hello) -> Result<Session, Refusal> {
        let agent = self.agent_of(&hello.shard)?;
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        let ended = CancellationToken::new();
        {
            let mut state = lock(&agent.state);
            let known = state.hello.as_ref().map(|known| known.incarnation);
            if let (Some(_), Some(newer)) = (&state.session, known)
                && newer > hello.incarnation
            {
                return Err(Refusal::Superseded { shard: hello.shard, newer });
            }
            if let Some((_, older)) = state.session.replace((id, ended.clone())) {
                older.cancel();
            }
            if known != Some(hello.incarnation) {
                // Its sequence begins anew, so nothing may be added to what was before.
                state.merged = None;
            }
            state.hello = Some(hello.clone());
            state.pending = Pending { full: true, names: HashSet::new() };
            state.told_all_at = None;
            state.told_lately.clear();
            state.moves = MovesSeen::default();
            state.changes.end();
        }
        Ok(Session::new(self.clone(), agent, hello.shard, id, ended))
    }

    fn agent_of(&self, shard: &ShardName) -> Result<Arc<Agent>, Refusal> {
        if let Some(agent) = self.find(shard.as_str()) {
            return Ok(agent);
        }
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        if agents.len() >= self.limits.max_agents && !agents.contains_key(shard) {
            let gone = agents
                .iter()
                .find(|(_, agent)| !lock(&agent.state).is_connected())
                .map(|(name, _)| name.clone());
            match gone {
                Some(name) => agents.remove(&name),
                None => return Err(Refusal::TooMany { max: self.limits.max_agents }),
            };
        }
        let new = || Arc::new(Agent { state: Mutex::default(), wake: Notify::new() });
        Ok(agents.entry(shard.clone()).or_insert_with(new).clone())
    }

    /// Names whose agents were heard of, in order.
    pub(crate) fn shards(&self) -> Vec<ShardName> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.keys().cloned().collect()
    }

    /// Agents that are connected. Count.
    pub(crate) fn connected(&self) -> usize {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.values().filter(|agent| lock(&agent.state).is_connected()).count()
    }

    /// What is known of a shard's agent.
    pub(crate) fn seen(&self, shard: &str) -> Seen {
        self.with(shard, |state| {
            let merged = state.and_then(|state| state.merged.as_ref());
            Seen {
                connected: state.is_some_and(State::is_connected),
                hello: state.and_then(|state| state.hello.clone()),
                reported_at_us: state
                    .filter(|state| state.reported_at.is_some())
                    .map(|state| state.reported_at_us),
                observed_at_us: merged.map(|merged| merged.observed_at_us),
                health: self.health(state),
                usage: merged.map(|merged| merged.usage).unwrap_or_default(),
                unowned_dags: merged.map_or(0, |merged| merged.unowned_dags),
            }
        })
    }

    /// What placement goes by.
    pub(crate) fn observation(&self, shard: &str) -> Observation {
        self.with(shard, |state| self.observation_of(state))
    }

    /// The namespaces that the shard's agent reports, at most `limit`, by name.
    pub(crate) fn usage_by_namespace(
        &self,
        shard: &str,
        limit: usize,
    ) -> Vec<(NamespaceName, NamespaceUsage)> {
        self.with(shard, |state| {
            let merged = state.and_then(|state| state.merged.as_ref());
            let mut all: Vec<_> = merged
                .iter()
                .flat_map(|merged| &merged.namespaces)
                .map(|(name, usage)| (name.clone(), *usage))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.truncate(limit);
            all
        })
    }

    /// What a shard is for a namespace, as its agent last said.
    pub(crate) fn role(&self, shard: &str, namespace: &str) -> Option<SeenRole> {
        self.with(shard, |state| state?.merged.as_ref()?.roles.get(namespace).cloned())
    }

    /// Shows what a shard is for a namespace.
    pub(crate) fn with_role<R>(
        &self,
        shard: &str,
        namespace: &str,
        look: impl FnOnce(RoleLook<'_>) -> R,
    ) -> R {
        self.with(shard, |state| {
            let merged = state.and_then(|state| state.merged.as_ref());
            look(RoleLook {
                connected: state.is_some_and(State::is_connected),
                reported_at_us: state
                    .filter(|state| state.reported_at.is_some())
                    .map(|state| state.reported_at_us),
                role: merged.and_then(|merged| merged.roles.get(namespace)),
            })
        })
    }

    /// Namespaces that the shard's agent reports a role for.
    pub(crate) fn namespaces_with_roles(&self, shard: &str) -> Vec<NamespaceName> {
        self.with(shard, |state| {
            let merged = state.and_then(|state| state.merged.as_ref());
            merged.into_iter().flat_map(|merged| merged.roles.names().cloned()).collect()
        })
    }

    /// Numbers of a shard's roles, as its agent last said.
    pub(crate) fn role_counts(&self, shard: &str) -> RoleCounts {
        self.with(shard, |state| {
            state
                .and_then(|state| state.merged.as_ref())
                .map(|merged| merged.roles.counts())
                .unwrap_or_default()
        })
    }

    /// Shows what every agent reports, one shard at a time; no report comes in between.
    pub(crate) fn for_each_report(&self, mut show: impl FnMut(&ShardName, &Observation, &Merged)) {
        for shard in self.shards() {
            self.with(shard.as_str(), |state| {
                let observation = self.observation_of(state);
                if let Some(merged) = state.and_then(|state| state.merged.as_ref()) {
                    show(&shard, &observation, merged);
                }
            });
        }
    }

    /// A namespace's role on a shard may have changed: its session tells the agent.
    pub(crate) fn mark(&self, shard: &str, namespace: &NamespaceName) {
        let Some(agent) = self.find(shard) else { return };
        {
            let mut state = lock(&agent.state);
            let pending = &mut state.pending;
            if pending.full {
                return;
            }
            pending.names.insert(namespace.clone());
            if pending.names.len() > PENDING_MAX {
                *pending = Pending { full: true, names: HashSet::new() };
            }
        }
        agent.wake.notify_one();
    }

    /// Every session tells its agent everything, as after a change of leader.
    pub(crate) fn mark_all(&self) {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        for agent in agents.values() {
            lock(&agent.state).pending = Pending { full: true, names: HashSet::new() };
            agent.wake.notify_one();
        }
    }

    pub(super) fn find(&self, shard: &str) -> Option<Arc<Agent>> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(shard).cloned()
    }

    pub(super) fn with<R>(&self, shard: &str, look: impl FnOnce(Option<&State>) -> R) -> R {
        match self.find(shard) {
            Some(agent) => look(Some(&lock(&agent.state))),
            None => look(None),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.instant()
    }

    pub(super) fn now_us(&self) -> i64 {
        self.clock.unix_micros()
    }

    pub(super) fn observation_of(&self, state: Option<&State>) -> Observation {
        let heard_of = state.is_some_and(State::was_heard_of);
        let merged = state.and_then(|state| state.merged.as_ref());
        let hello = state.and_then(|state| state.hello.as_ref());
        let (verdict, code) = if heard_of || self.limits.require_report {
            let health = self.health(state);
            let code = health.reasons.into_iter().next().map(|reason| reason.code);
            (Some(health.verdict), code.unwrap_or_default())
        } else {
            (None, String::new())
        };
        Observation {
            verdict,
            code,
            capacity: merged.map(|merged| merged.capacity).unwrap_or_default(),
            airflow_version: hello.map(|hello| hello.airflow_version.clone()).unwrap_or_default(),
        }
    }

    /// The verdict on a shard: its agent's, as long as that is fresh.
    fn health(&self, state: Option<&State>) -> Health {
        let unknown = |code, message: String| {
            Health::from_reasons(vec![Reason::plain(code, Verdict::Unknown, message)])
        };
        let Some(state) = state.filter(|state| state.was_heard_of()) else {
            return unknown(
                "AGENT_NEVER_CONNECTED",
                "no agent of this shard has connected to this router; start airfleet-agent \
                 beside it"
                    .into(),
            );
        };
        let (Some(merged), Some(reported_at)) = (&state.merged, state.reported_at) else {
            return unknown("NO_FULL_REPORT", "its agent has not sent a full report yet".into());
        };
        let age = self.now().saturating_duration_since(reported_at);
        if age <= self.limits.stale_after {
            return merged.health.clone();
        }
        let (observed, threshold) =
            (age.as_secs() as i64, self.limits.stale_after.as_secs() as i64);
        let look = if state.is_connected() { "is it stuck" } else { "is it running" };
        Health::from_reasons(vec![Reason {
            code: "REPORT_STALE".into(),
            verdict: Verdict::Unknown,
            message: format!("its agent last reported {observed} s ago; {look}?"),
            observed,
            threshold,
            unit: "seconds".into(),
        }])
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
