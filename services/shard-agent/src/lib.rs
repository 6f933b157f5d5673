//! The agent beside an Airflow cluster.
//!
//! Responsible for looking at one shard (its metadata database, its broker, its web server), for
//! judging its health, for adding up what each namespace uses, and for reporting that to the
//! router over one stream that the agent dials. It alone holds the shard's credentials.
//!
//! It also brings the shard to what it is to be for each namespace ([`reconcile`]).
//!
//! Invariant: nothing secret leaves the agent, and nothing of the shard is changed by looking at
//! it. A router that is away costs nothing but reports; a shard that is away costs nothing but the
//! truth about it.
//!
//! [`run`] is a whole agent. [`probe`](probe_once) looks once, for people. [`simulate`] is for
//! measuring routers.

pub mod airflow;
mod backoff;
pub mod broker;
mod changes;
mod config;
mod delivery;
pub mod fence_command;
mod link;
mod metrics;
mod moves;
mod observe;
mod owners;
mod probe;
mod reconcile;
mod report;
mod reporting;
mod secrets;
pub mod simulate;
mod summary;
mod usage;
mod words;

use std::{sync::Arc, time::Duration};

use airfleet_domain::ids::Invalid;
use airfleet_runtime::{
    client::{self, Replicas},
    lifecycle::{self, Shutdown},
    metrics::Metrics,
    node::Node,
    server::{self, Server},
};
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

use self::{
    changes::{Changes, Maker, keep_changing},
    link::{Attachment, Identity, Outbox, Roles},
    metrics::AgentMetrics,
    moves::{Inspector, keep_inspecting},
    observe::Observer,
    reconcile::{Board, Foreign, Shard, keep_asking, keep_reconciling},
    reporting::keep_reporting,
};
pub use self::{
    config::{
        AgentConfig, AirflowConfig, BrokerConfig, CapacityConfig, DEFAULT_PORT, ReportConfig,
        SecretsConfig, ThresholdsConfig,
    },
    delivery::{DeliveryConfig, DeliveryMetrics},
    link::LoadError,
    reconcile::RetentionConfig,
    summary::{NamespaceSummary, ProbeSummary, SignalSummary, Summary},
};

/// Version that the agent gives itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often a report is a full one until the router says.
const FULL_INTERVAL: Duration = Duration::from_mins(1);

/// Time to reach a broker before listening counts, when looking once.
const SUBSCRIBE_TIME: Duration = Duration::from_millis(500);

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shard has no name.
    #[error("the agent does not know its shard; set shard (--shard) to the name in the manifest")]
    Shard(#[source] Invalid),
    /// The routers cannot be called.
    #[error("the router settings cannot be used")]
    Router(#[source] client::Error),
    /// A probe cannot be started.
    #[error("{what}")]
    Probe {
        /// Which setting.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was remembered cannot be used.
    #[error("state_dir cannot be used")]
    State(#[source] LoadError),
    /// The agent's own listener does not serve.
    #[error("the listener of the agent cannot serve")]
    Server(#[source] server::Error),
    /// A part of the agent ended.
    #[error("the agent stopped")]
    Lifecycle(#[source] lifecycle::Error),
}

/// What cannot be started, and why.
fn not_set_up(error: &(dyn std::error::Error + 'static)) -> Error {
    let what = error.to_string();
    // Its cause is what there is to tell.
    let source = words::chain(error).replacen(&format!("{what}: "), "", 1).into();
    Error::Probe { what, source }
}

impl From<reconcile::SetUpError> for Error {
    fn from(error: reconcile::SetUpError) -> Self {
        not_set_up(&error)
    }
}

impl From<changes::SetUpError> for Error {
    fn from(error: changes::SetUpError) -> Self {
        not_set_up(&error)
    }
}

impl From<observe::SetUpError> for Error {
    fn from(error: observe::SetUpError) -> Self {
        not_set_up(&error)
    }
}

fn identity(shard: String, agent_version: &str) -> Identity {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Identity {
        shard,
        // A UUIDv7: the agent that started last sorts last.
        incarnation: Uuid::now_v7().to_string(),
        agent_version: agent_version.to_owned(),
        hostname: hostname.trim().to_owned(),
    }
}

fn roles(config: &AgentConfig) -> Result<Roles, Error> {
    match &config.state_dir {
        Some(folder) => Roles::load(folder, &config.shard).map_err(Error::State),
        None => Ok(Roles::forgetful()),
    }
}

/// Runs an agent until shutdown. `/metrics`, `/healthz` and `/readyz` are served on `listener`,
/// if there is one.
pub async fn run(
    config: AgentConfig,
    listener: Option<TcpListener>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let shard = config.shard_name().map_err(Error::Shard)?;
    let node = Node::new("agent", shutdown);
    let metrics = AgentMetrics::new(&node.metrics);
    let roles = roles(&config)?;
    let observer = Observer::start(&config, roles.owners(), &metrics)?;
    let replicas = Replicas::new(&config.router).map_err(Error::Router)?;
    let outbox = Outbox::new(FULL_INTERVAL, metrics.clone());
    let board = Board::new(outbox.clone(), roles.owners(), metrics.clone());
    let delivery_metrics = DeliveryMetrics::new(&node.metrics);
    let (uplink, uplinked) = watch::channel(None);
    let reconciled =
        Shard::new(&config, &shard, board, metrics.clone(), delivery_metrics, uplinked)?;
    let reconciled = Arc::new(reconciled);
    let (foreign, heard) = Foreign::new();
    let inspector = Inspector::new(reconciled.metadata());
    let maker = Maker::new(&config.airflow, roles.orders())?;
    let (changes, waiting) = Changes::new(outbox.clone());
    let (report_interval, interval) = watch::channel(config.report.interval);
    let (looked, attached) =
        (node.readiness.condition("probes"), node.readiness.condition("router"));
    serve(&config, &node, listener)?;

    let (tasks, stop) = (&node.tasks, node.shutdown());
    let reporting = keep_reporting(
        observer,
        outbox.clone(),
        interval,
        metrics.clone(),
        Some(looked),
        Some(foreign.clone()),
        stop.clone(),
    );
    tasks.spawn_critical("reporting", reporting);
    tasks.spawn("roles", roles.clone().keep_saving(stop.clone()));
    let asking =
        keep_asking(reconciled.clone(), outbox.clone(), roles.owners(), heard, stop.clone());
    tasks.spawn_critical("foreign DAGs", asking);
    let reconciling = keep_reconciling(reconciled, roles.orders(), stop.clone());
    tasks.spawn_critical("reconciler", reconciling);
    let inspecting = keep_inspecting(
        inspector.clone(),
        config.clone(),
        outbox.clone(),
        roles.orders(),
        stop.clone(),
    );
    tasks.spawn_critical("inspector", inspecting);
    let changing = keep_changing(maker, waiting, outbox.clone(), stop.clone());
    tasks.spawn_critical("changes", changing);
    let attachment = Attachment {
        identity: identity(shard.to_string(), VERSION),
        config: config.router.clone(),
        replicas,
        outbox,
        roles,
        foreign: Some(foreign),
        inspector: Some(inspector),
        changes: Some(changes),
        uplink,
        report_interval,
        metrics,
        condition: Some(attached),
        shutdown: stop.clone(),
    };
    tasks.spawn_critical("router", attachment.keep());
    tracing::info!(%shard, version = VERSION, "agent started");
    tasks.clone().run_until_stopped(config.server.drain_deadline).await.map_err(Error::Lifecycle)
}

/// Runs simulated agents in place of a real one: `config.shard` names the first part of their
/// shards. For measuring routers only.
pub async fn run_simulated(
    config: AgentConfig,
    simulation: simulate::Simulation,
    listener: Option<TcpListener>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let node = Node::new("agent", shutdown);
    serve(&config, &node, listener)?;
    let (metrics, stop) = (node.metrics.clone(), node.shutdown().clone());
    node.tasks.spawn_critical("simulation", async move { simulation.run(&metrics, &stop).await });
    node.tasks
        .clone()
        .run_until_stopped(config.server.drain_deadline)
        .await
        .map_err(Error::Lifecycle)
}

fn serve(config: &AgentConfig, node: &Node, listener: Option<TcpListener>) -> Result<(), Error> {
    if let Some(listener) = listener {
        Server::new(&config.server, node).serve(listener).map_err(Error::Server)?;
    }
    Ok(())
}

/// Looks at the shard once, with everything that an agent looks with, and waits for all of it.
/// Listens for workers for `listen`. Namespaces are those that `state_dir` remembers.
pub async fn probe_once(config: &AgentConfig, listen: Duration) -> Result<Summary, Error> {
    let mut config = config.clone();
    // Silence counts once it lasted for as long as somebody listened.
    config.broker.worker_window = listen;
    let roles = roles(&config)?;
    let metrics = AgentMetrics::new(&Metrics::new());
    let mut observer = Observer::start(&config, roles.owners(), &metrics)?;
    if config.broker.url.is_some() {
        tokio::time::sleep(listen + SUBSCRIBE_TIME).await;
    }
    let sighting = observer.observe_all().await;
    let mut summary = Summary::new(config.shard.clone(), sighting);
    let maker = Maker::new(&config.airflow, roles.orders())?;
    if let Some(tried) = maker.try_login().await {
        summary.add_login(tried);
    }
    Ok(summary)
}
