//! One agent's stream, as the hub sees it.

use std::{collections::HashSet, sync::Arc};

use airfleet_domain::ids::{NamespaceName, ShardName};
use tokio_util::sync::CancellationToken;

use super::{
    hub::{Agent, Hub, PENDING_MAX, Pending, State, lock},
    moves::MovesSeen,
    report::{Merge, Report, Taken, merge},
};
use crate::fleet::Observation;

/// One agent's stream. Dropping it says that the agent is gone.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) hub: Arc<Hub>,
    pub(super) agent: Arc<Agent>,
    shard: ShardName,
    pub(super) id: u64,
    ended: CancellationToken,
}

impl Session {
    pub(super) fn new(
        hub: Arc<Hub>,
        agent: Arc<Agent>,
        shard: ShardName,
        id: u64,
        ended: CancellationToken,
    ) -> Self {
        Self { hub, agent, shard, id, ended }
    }

    /// Whether no other session took its place.
    pub(super) fn is_current(&self, state: &State) -> bool {
        state.session.as_ref().is_some_and(|(id, _)| *id == self.id)
    }

    /// The shard.
    pub(crate) fn shard(&self) -> &ShardName {
        &self.shard
    }

    /// Waits until another session takes its place.
    pub(crate) async fn replaced(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until there may be something to tell.
    pub(crate) async fn woken(&self) {
        self.agent.wake.notified().await;
    }

    /// Takes a report in, and shows what changed before anything else can; answers whether the
    /// agent has to send a full one.
    pub(crate) fn report(&self, report: Report, show: impl FnOnce(&Observation, &Taken)) -> bool {
        let mut state = lock(&self.agent.state);
        if !self.is_current(&state) {
            return true;
        }
        let (airflow, schema) = (report.airflow_version.clone(), report.schema_revision.clone());
        let merge = merge(&mut state.merged, report, self.hub.limits().max_namespaces);
        let Merge::Added(taken) = merge else { return true };
        state.reported_at = Some(self.hub.now());
        state.reported_at_us = self.hub.now_us();
        if let Some(hello) = &mut state.hello {
            hello.airflow_version = airflow.unwrap_or_else(|| hello.airflow_version.clone());
            hello.schema_revision = schema.unwrap_or_else(|| hello.schema_revision.clone());
        }
        let observation = self.hub.observation_of(Some(&state));
        show(&observation, &taken);
        false
    }

    /// What is to be told now.
    pub(crate) fn take_pending(&self) -> Pending {
        std::mem::take(&mut lock(&self.agent.state).pending)
    }

    /// Notes that the agent has to be told everything again.
    pub(crate) fn forget_told(&self) {
        lock(&self.agent.state).pending = Pending { full: true, names: HashSet::default() };
    }

    /// Notes that the agent was told everything.
    pub(crate) fn told_all(&self) {
        let mut state = lock(&self.agent.state);
        state.told_all_at = Some(self.hub.now());
        state.told_lately.clear();
    }

    /// Notes that the agent was told of these.
    pub(crate) fn told(&self, names: impl IntoIterator<Item = NamespaceName>) {
        let now = self.hub.now();
        let mut state = lock(&self.agent.state);
        let lately = &mut state.told_lately;
        // A name matters until a report that settles it can have come.
        let forget = self.hub.limits().settle_after + self.hub.limits().stale_after;
        while lately.pop_front_if(|(at, _)| now.saturating_duration_since(*at) > forget).is_some() {
        }
        lately.extend(names.into_iter().map(|name| (now, name)));
        if lately.len() > PENDING_MAX {
            lately.clear();
            state.told_all_at = Some(now);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = lock(&self.agent.state);
        if self.is_current(&state) {
            state.session = None;
            // Whoever waits is told that the agent is away, not what it said before.
            state.moves = MovesSeen::default();
            state.changes.end();
        }
    }
}
