//! Agents of shards that do not exist, for measuring how many a router bears.
//!
//! Responsible for many agents in one process that say plausible things about nothing. They go
//! through the same stream, the same tracker and the same roles as real ones, and say in their
//! version that they are simulated. Nothing here must ever speak for a real shard.

use std::{sync::Arc, time::Duration};

use airfleet_domain::{health::Health, ids::NamespaceName, resources::Resources};
use airfleet_proto::agent::v1 as wire;
use airfleet_runtime::{
    client::Replicas, config::ClientConfig, lifecycle::Shutdown, metrics::Metrics,
};
use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Error,
    link::{Attachment, Outbox, Roles},
    metrics::AgentMetrics,
    observe::Source,
    owners::Owners,
    report::{NamespaceUsage, State},
    reporting::keep_reporting,
};

/// What simulated agents say that they are.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+simulated");

/// Agents connect one after the other in this distance: a fleet does not start at one moment, and
/// a router accepts so many handshakes at a time.
const RAMP: Duration = Duration::from_millis(1);

/// Many simulated agents.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The routers to report to.
    pub router: ClientConfig,
    /// How many agents.
    pub agents: usize,
    /// What shards are called, before their number from 0: `sim-0042`.
    pub shard_prefix: String,
    /// How often they report until the router says otherwise.
    pub interval: Duration,
    /// Share of a shard's namespaces whose usage differs from one report to the next, 0 to 1.
    pub change_share: f64,
    /// Same seed, same story.
    pub seed: u64,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            router: ClientConfig::default(),
            agents: 1,
            shard_prefix: "sim-".to_owned(),
            interval: Duration::from_secs(5),
            change_share: 0.1,
            seed: 1,
        }
    }
}

impl Simulation {
    /// Name of the shard of agent number `index`.
    pub fn shard(&self, index: usize) -> String {
        format!("{}{index:04}", self.shard_prefix)
    }

    /// Runs them all until shutdown. Counts into `metrics`.
    pub async fn run(&self, metrics: &Metrics, shutdown: &Shutdown) -> Result<(), Error> {
        tracing::warn!(
            agents = self.agents,
            "these agents are simulated: their shards do not exist"
        );
        let metrics = AgentMetrics::new(metrics);
        let mut agents = JoinSet::new();
        for index in 0..self.agents {
            let shard = self.shard(index);
            let seed = self.seed.wrapping_add(index as u64);
            self.start(shard, seed, &metrics, shutdown, &mut agents)?;
            tokio::time::sleep(RAMP).await;
        }
        while agents.join_next().await.is_some() {}
        Ok(())
    }

    /// One simulated agent of the shard `shard`, in `tasks`.
    fn start(
        &self,
        shard: String,
        seed: u64,
        metrics: &AgentMetrics,
        shutdown: &Shutdown,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Error> {
        // A connection of its own each, as real ones have.
        let replicas = Replicas::new(&self.router).map_err(Error::Router)?;
        let roles = Roles::forgetful();
        let outbox = Outbox::new(Duration::from_mins(1), metrics.clone());
        let (report_interval, interval) = watch::channel(self.interval);
        let source = Simulated {
            owners: roles.owners(),
            known: Arc::default(),
            random: SmallRng::seed_from_u64(seed),
            change_share: self.change_share.clamp(0.0, 1.0),
            state: State::default(),
        };
        let attachment = Attachment {
            identity: crate::identity(shard, VERSION),
            config: self.router.clone(),
            replicas,
            outbox: outbox.clone(),
            roles,
            foreign: None,
            inspector: None,
            changes: None,
            uplink: watch::Sender::new(None),
            report_interval,
            metrics: metrics.clone(),
            condition: None,
            shutdown: shutdown.clone(),
        };
        let reporting =
            keep_reporting(source, outbox, interval, metrics.clone(), None, None, shutdown.clone());
        tasks.spawn(async move {
            let (Ok(()), Ok(())) = tokio::join!(attachment.keep(), reporting);
        });
        Ok(())
    }
}

/// Tells a story about the namespaces that the router names.
#[derive(Debug)]
struct Simulated {
    owners: watch::Receiver<Arc<Owners>>,
    known: Arc<Owners>,
    random: SmallRng,
    change_share: f64,
    state: State,
}

impl Source for Simulated {
    async fn observe(&mut self, _patience: Duration) -> State {
        self.state.observed_at = Timestamp::now();
        self.state.health = Health::default();
        let owners = self.owners.borrow_and_update().clone();
        let all_new = !Arc::ptr_eq(&owners, &self.known);
        let share = if all_new { 1.0 } else { self.change_share };
        let random = &mut self.random;
        if all_new || (share > 0.0 && !owners.names().is_empty()) {
            let namespaces = Arc::make_mut(&mut self.state.namespaces);
            if all_new {
                namespaces.retain(|name, _| owners.names().binary_search(name).is_ok());
            }
            for name in owners.names() {
                if random.random_bool(share) || !namespaces.contains_key(name) {
                    change(namespaces.entry(NamespaceName::clone(name)).or_default(), random);
                }
            }
        }
        self.known = owners;
        let used = self.state.namespaces.values().map(|seen| seen.usage);
        self.state.usage = Some(used.fold(Resources::ZERO, Resources::plus));
        self.state.signals = wire::Signals {
            scheduler_heartbeat_age_ms: random.random_range(0..5_000),
            dag_processor_heartbeat_age_ms: random.random_range(0..5_000),
            triggerer_heartbeat_age_ms: -1,
            live_workers: 2,
            queued_messages: random.random_range(0..20),
            unacked_messages: random.random_range(0..20),
            scheduling_delay_p95_ms: random.random_range(500..5_000),
            metadata_probe_ms: random.random_range(5..50),
            broker_probe_ms: 1,
            api_probe_ms: random.random_range(3..20),
            pool_slots: 128,
            ..wire::Signals::default()
        };
        self.state.clone()
    }
}

fn change(seen: &mut NamespaceUsage, random: &mut SmallRng) {
    if seen.usage.dags == 0 {
        seen.usage.dags = random.random_range(1..40);
        seen.unpaused_dags = seen.usage.dags;
        seen.usage.metadata_bytes = seen.usage.dags * random.random_range(10_000..1_000_000);
        seen.usage.parse_ms_per_minute = seen.usage.dags * random.random_range(20..400);
    }
    seen.usage.task_starts_per_hour = seen.usage.dags * random.random_range(1..30);
    seen.active_task_instances = random.random_range(0..=seen.usage.dags);
    seen.active_runs = seen.active_task_instances.min(seen.usage.dags);
    seen.usage.running_slots = seen.active_task_instances;
}
