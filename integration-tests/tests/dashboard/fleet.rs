//! A small fleet that does something of everything that the dashboard shows: a registry, a router,
//! and two agents. One agent is simulated, so that namespaces find a healthy shard; the other one
//! is real and looks at a PostgreSQL and a Redis that no Airflow uses, so that there are probes to
//! show, and a shard that is not healthy.

use std::{future::Future, net::SocketAddr, time::Duration};

use airfleet_local::{Postgres, Redis};
use airfleet_proto::{
    common::v1::{Resources, SelectorOperator, SelectorRequirement},
    registry::v1::{
        ApplyManifestRequest, GetNamespaceRequest, ManifestEntry, Namespace, PlacementRules, Shard,
        WatchManifestRequest, manifest_entry::Kind, registry_service_client::RegistryServiceClient,
    },
    router::v1::{
        AssignmentState, BatchResolveRequest, GetAssignmentRequest, ResolveRequest,
        WatchAssignmentsRequest, resolve_request::Target,
        router_service_client::RouterServiceClient,
    },
};
use airfleet_runtime::{
    config::{ClientConfig, ConnectionUrl, StoreConfig},
    lifecycle::Shutdown,
};
use airfleet_shard_agent::{AgentConfig, simulate::Simulation};
use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::transport::Channel;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The simulated shard; the name follows from the prefix that its agent is given.
const SIMULATED: &str = "calm-0000";
/// The shard whose agent looks at real services.
const REAL: &str = "real";
/// Namespaces that find a shard.
const PLACED: [&str; 3] = ["payments", "search", "reports"];
/// The namespace that finds none.
const UNPLACED: &str = "homeless";

/// A running fleet.
pub(crate) struct Fleet {
    /// Where each node tells its metrics, by job.
    pub(crate) targets: Vec<(&'static str, SocketAddr)>,
    shutdown: Shutdown,
    nodes: JoinSet<()>,
    load: JoinSet<()>,
    _services: (Postgres, Redis, tempfile::TempDir),
}

impl Fleet {
    /// Starts all of it, and returns once every namespace stands as it should and clients are busy.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        let postgres = Postgres::start_new().await?;
        let metadata = postgres.create_database("airflow").await?;
        let redis = Redis::start_new().await?;
        let shutdown = Shutdown::new();
        let mut nodes = JoinSet::new();
        let mut targets = Vec::new();
        let mut listen = async |job| -> Result<(TcpListener, String)> {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            targets.push((job, address));
            Ok((listener, format!("http://{address}")))
        };

        let (listener, router_url) = listen("airfleet-router").await?;
        let (registry_listener, registry_url) = listen("airfleet-registry").await?;
        let registry = airfleet_registry::Config {
            store: StoreConfig::sqlite(&file("registry.db")),
            router: ClientConfig::plain(&router_url),
            ..airfleet_registry::Config::default()
        };
        let run = airfleet_registry::run(registry, registry_listener, shutdown.clone());
        nodes.spawn(expect_good_end("registry", run));

        let mut router = airfleet_router::Config {
            store: StoreConfig::sqlite(&file("router.db")),
            registry: ClientConfig::plain(&registry_url),
            ..airfleet_router::Config::default()
        };
        router.agents.report_interval = Duration::from_millis(500);
        let run = airfleet_router::run(router, listener, shutdown.clone());
        nodes.spawn(expect_good_end("router", run));

        let (listener, _) = listen("airfleet-agent").await?;
        let simulation = Simulation {
            router: ClientConfig::plain(&router_url),
            shard_prefix: "calm-".to_owned(),
            ..Simulation::default()
        };
        let agent = AgentConfig { router: simulation.router.clone(), ..AgentConfig::default() };
        let run = airfleet_shard_agent::run_simulated(
            agent.clone(),
            simulation,
            Some(listener),
            shutdown.clone(),
        );
        nodes.spawn(expect_good_end("simulated agent", run));

        let (listener, _) = listen("airfleet-agent").await?;
        let mut agent = AgentConfig { shard: REAL.to_owned(), ..agent };
        agent.airflow.metadata_url = Some(ConnectionUrl::new(metadata)?);
        agent.broker.url = Some(ConnectionUrl::new(redis.url())?);
        let run = airfleet_shard_agent::run(agent, Some(listener), shutdown.clone());
        nodes.spawn(expect_good_end("agent", run));

        let channel = Channel::from_shared(registry_url)?.connect_lazy();
        let registry = RegistryServiceClient::new(channel);
        let router = RouterServiceClient::new(Channel::from_shared(router_url)?.connect_lazy());
        register(registry.clone()).await?;
        wait_for_assignments(router.clone()).await?;
        let mut load = JoinSet::new();
        load.spawn(keep_asking(registry, router));
        Ok(Self { targets, shutdown, nodes, load, _services: (postgres, redis, folder) })
    }

    /// Fails where something of it ended.
    pub(crate) fn check(&mut self) {
        assert!(self.load.try_join_next().is_none(), "the clients stopped asking");
        assert!(self.nodes.try_join_next().is_none(), "a node ended");
    }

    /// Stops it in good order.
    pub(crate) async fn stop(mut self) {
        self.load.abort_all();
        self.shutdown.trigger();
        while let Some(ended) = self.nodes.join_next().await {
            ended.expect("nodes end without panic");
        }
    }
}

async fn expect_good_end<E: std::fmt::Debug>(
    name: &'static str,
    run: impl Future<Output = Result<(), E>>,
) {
    run.await.unwrap_or_else(|error| panic!("the {name} failed: {error:?}"));
}

/// Tries until it works or the deadline passes.
async fn eventually<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
    }
}

async fn register(registry: RegistryServiceClient<Channel>) -> Result<()> {
    let shards = [SIMULATED, REAL].map(|name| Shard {
        name: name.to_owned(),
        size: "large".to_owned(),
        ..Shard::default()
    });
    let namespace = |name: &str| Namespace {
        name: name.to_owned(),
        owners: vec!["test".to_owned()],
        prefixes: vec![format!("{name}.")],
        demand: Some(Resources { dags: 10, running_slots: 1, ..Resources::default() }),
        ..Namespace::default()
    };
    let mut namespaces: Vec<_> = PLACED.map(namespace).into();
    namespaces.push(Namespace {
        placement: Some(PlacementRules {
            selector: vec![SelectorRequirement {
                key: "nowhere".to_owned(),
                operator: SelectorOperator::Exists.into(),
                values: Vec::new(),
            }],
            ..PlacementRules::default()
        }),
        ..namespace(UNPLACED)
    });
    let kinds = shards.into_iter().map(Kind::Shard);
    let kinds = kinds.chain(namespaces.into_iter().map(Kind::Namespace));
    let request = ApplyManifestRequest {
        entries: kinds.map(|kind| ManifestEntry { kind: Some(kind) }).collect(),
        request_id: "the-only-one".to_owned(),
        validate_only: false,
    };
    eventually(|| {
        let (mut registry, request) = (registry.clone(), request.clone());
        async move { Ok(registry.apply_manifest(request).await.map(drop)?) }
    })
    .await
    .context("the fleet could not be registered")
}

async fn wait_for_assignments(router: RouterServiceClient<Channel>) -> Result<()> {
    let wanted = PLACED.map(|name| (name, AssignmentState::Assigned));
    for (name, state) in wanted.into_iter().chain([(UNPLACED, AssignmentState::Unplaced)]) {
        eventually(|| {
            let mut router = router.clone();
            async move {
                let request = GetAssignmentRequest { namespace: name.to_owned() };
                let found = router.get_assignment(request).await?.into_inner();
                anyhow::ensure!(found.state() == state, "{name} stands as {found:?}");
                Ok(())
            }
        })
        .await?;
    }
    Ok(())
}

/// Asks for everything, over and over, with a watch of each kind open.
async fn keep_asking(
    mut registry: RegistryServiceClient<Channel>,
    mut router: RouterServiceClient<Channel>,
) {
    let ask = async {
        let _table = router.watch_assignments(WatchAssignmentsRequest::default()).await?;
        let _manifest = registry.watch_manifest(WatchManifestRequest::default()).await?;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let dag_id = format!("{}.daily", PLACED[0]);
            let target = Some(Target::DagId(dag_id.clone()));
            router.resolve(ResolveRequest { target }).await?;
            let dag_ids = vec![dag_id, "nobodys.daily".to_owned()];
            router.batch_resolve(BatchResolveRequest { dag_ids }).await?;
            registry.get_namespace(GetNamespaceRequest { name: PLACED[0].to_owned() }).await?;
        }
    };
    let ended: Result<(), tonic::Status> = ask.await;
    panic!("asking failed: {ended:?}");
}
