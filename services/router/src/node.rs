//! One replica, wired together.

use std::{path::PathBuf, sync::Arc, time::Duration};

use airfleet_proto::{
    agent::v1::agent_service_server::AgentServiceServer,
    dags::v1::dag_service_server::DagServiceServer,
    moves::v1::move_service_server::MoveServiceServer,
    placement::v1::placement_service_server::PlacementServiceServer,
    registry::v1::WatchManifestResponse, router::v1::router_service_server::RouterServiceServer,
};
use airfleet_runtime::{
    client::{self, Backoff, Replicas},
    health::Condition,
    lifecycle::{self, Shutdown},
    node::Node,
    server::{self, IntoListener, Server},
};
use airfleet_sql::{
    Db, Options,
    lease::{Lease, Timing},
};
use tokio::sync::{Mutex, mpsc, watch};

use crate::{
    agents::{Hub, Limits},
    chain,
    config::Config,
    grpc::{AgentApi, DagsApi, EventWatches, MovesApi, PlacementApi, RouterApi, Watches},
    leader::{Tools, election::Leadership},
    manifest::watch::Source,
    metrics::{self, Metrics},
    service::{Service, propose::propose},
    store::Store,
    table::{Live, file::Saved, follow::Follower},
};

/// Largest message of a transfer: one row of 16 MiB, and what is around it.
const CHUNK_MAX_BYTES: usize = 17 << 20;

/// Longest pause between tries to reach the store for the first time.
const STORE_PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Where the manifest comes from.
#[derive(Debug)]
pub enum ManifestSource {
    /// The registry that the settings name; without one, nothing is ever declared.
    Configured,
    /// Messages of a registry in the same process, or of a test.
    Channel(mpsc::Receiver<WatchManifestResponse>),
}

/// Why a router stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's settings are wrong, or its tables cannot be used.
    #[error("the router's store cannot be used")]
    Store(#[source] airfleet_sql::Error),
    /// A setting cannot be.
    #[error(transparent)]
    Setting(#[from] crate::config::Invalid),
    /// The registry's settings are wrong.
    #[error("the registry cannot be reached with these settings")]
    Registry(#[source] client::Error),
    /// It cannot serve.
    #[error("the router cannot serve")]
    Server(#[source] server::Error),
    /// The listener that was handed in does not work.
    #[error("the listener cannot be used")]
    Listener(#[source] std::io::Error),
    /// A task ended, or did not end in time.
    #[error(transparent)]
    Lifecycle(#[from] lifecycle::Error),
}

/// Runs a router until `shutdown`. Its manifest comes from the registry that `config` names.
pub async fn run(
    config: Config,
    listener: impl IntoListener,
    shutdown: Shutdown,
) -> Result<(), Error> {
    run_with(config, listener, shutdown, ManifestSource::Configured).await
}

/// Runs a router until `shutdown`.
pub async fn run_with(
    config: Config,
    listener: impl IntoListener,
    shutdown: Shutdown,
    manifest: ManifestSource,
) -> Result<(), Error> {
    config.moves.check()?;
    let listener = listener.into_listener().map_err(Error::Listener)?;
    let bound = listener.local_addr().map_err(Error::Listener)?;
    let address = config.server.advertise.clone().unwrap_or_else(|| bound.to_string());
    let replica = config.replica.clone().unwrap_or_else(|| address.clone());

    let node = Node::new("router", shutdown);
    let ready = node.readiness.condition("table");
    let metrics = Arc::new(Metrics::new(&node.metrics));
    let live = Arc::new(Live::new(config.table.history, node.clock.clone()));
    if let Some(file) = &config.snapshot.file {
        restore(file.clone(), &live, &node).await;
    }
    let store = Arc::new(open_store(&config, &replica, &address).await?);
    let hub = Arc::new(Hub::new(limits(&config), node.clock.clone()));
    let leadership = Arc::new(Leadership::new(Tools {
        store: store.clone(),
        live: live.clone(),
        hub: hub.clone(),
        metrics: metrics.clone(),
        clock: node.clock.clone(),
        namespaces_max: config.placement.max_namespaces_per_shard,
        keep_retired: config.agents.keep_retired,
        moves: config.moves.clone(),
        events: config.events.clone(),
        policy: config.placement.policy(),
        plans: config.plans.clone(),
        mover: None,
    }));
    metrics::Fleet::install(
        &node.metrics,
        metrics.clone(),
        live.clone(),
        hub.clone(),
        leadership.clone(),
    );
    let service = Arc::new(Service {
        live: live.clone(),
        hub,
        leadership: leadership.clone(),
        metrics: metrics.clone(),
        replica,
        address,
    });
    let source = source(manifest, &config)?;
    node.tasks.spawn("proposals", propose(service.clone(), node.shutdown().clone()));
    serve(&config, &node, service, &store, listener)?;

    spawn_store(&config, &node, &store, &live, &metrics, &leadership, source);
    let shutdown = node.shutdown().clone();
    node.tasks.spawn("readiness", tell_readiness(live.clone(), ready, shutdown.clone()));
    if let Some(file) = config.snapshot.file {
        let keep = keep_snapshot(file, config.snapshot.interval, live, node.clone());
        node.tasks.spawn("snapshot", keep);
    }
    let stopped = node.tasks.run_until_stopped(config.server.drain_deadline).await;
    store.close().await;
    Ok(stopped?)
}

async fn open_store(config: &Config, replica: &str, address: &str) -> Result<Store, Error> {
    let options = Options {
        application_name: format!("airfleet-router {replica}"),
        max_connections: config.store.max_connections,
        acquire_timeout: config.store.acquire_timeout,
        ..Options::default()
    };
    let db = Db::open(config.store.url.expose(), options).await.map_err(Error::Store)?;
    let timing = Timing {
        ttl: config.lease.ttl,
        margin: config.lease.margin,
        interval: config.lease.interval,
    };
    let lease = Lease::new(db.clone(), Store::LEASE, replica, address, timing);
    Ok(Store::new(db, lease.map_err(Error::Store)?))
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_agents: config.agents.max_agents,
        max_namespaces: config.agents.max_namespaces,
        stale_after: config.agents.stale_after,
        settle_after: config.agents.settle_after(),
        require_report: config.placement.require_report,
    }
}

fn source(manifest: ManifestSource, config: &Config) -> Result<Source, Error> {
    Ok(match manifest {
        ManifestSource::Channel(messages) => Source::Channel(Arc::new(Mutex::new(messages))),
        ManifestSource::Configured if config.registry.endpoints.is_empty() => Source::None,
        ManifestSource::Configured => {
            Source::Registry(Replicas::new(&config.registry).map_err(Error::Registry)?)
        }
    })
}

fn serve(
    config: &Config,
    node: &Node,
    service: Arc<Service>,
    store: &Arc<Store>,
    listener: tokio::net::TcpListener,
) -> Result<(), Error> {
    let largest = config.server.limits.max_message_bytes;
    let watches = Watches::new(
        service.live.clone(),
        service.metrics.clone(),
        config.table.max_watchers,
        config.table.progress_interval,
    );
    let events = EventWatches::new(store.clone(), config.events.max_watchers);
    let router = RouterApi::new(service.clone(), watches, events);
    let placement = PlacementApi::new(service.clone());
    let moves = MovesApi::new(service.clone());
    let dags = DagsApi::new(service.clone());
    let agents = AgentApi::new(service, config);
    Server::new(&config.server, node)
        .larger_messages("/airfleet.agent.v1.AgentService/Transfer", CHUNK_MAX_BYTES)
        .descriptors(airfleet_proto::DESCRIPTORS)
        .grpc(PlacementServiceServer::new(placement).max_decoding_message_size(largest))
        .grpc(MoveServiceServer::new(moves).max_decoding_message_size(largest))
        .grpc(DagServiceServer::new(dags).max_decoding_message_size(largest))
        .grpc(RouterServiceServer::new(router).max_decoding_message_size(largest))
        .grpc(
            AgentServiceServer::new(agents).max_decoding_message_size(largest.max(CHUNK_MAX_BYTES)),
        )
        .serve(listener)
        .map_err(Error::Server)?;
    Ok(())
}

/// Starts what works with the store: following it, and electing and being the leader. All of it
/// waits until the tables are there.
fn spawn_store(
    config: &Config,
    node: &Node,
    store: &Arc<Store>,
    live: &Arc<Live>,
    metrics: &Arc<Metrics>,
    leadership: &Arc<Leadership>,
    source: Source,
) {
    let shutdown = node.shutdown().clone();
    let (prepared, is_prepared) = watch::channel(false);
    let follower = Follower {
        store: store.clone(),
        live: live.clone(),
        metrics: metrics.clone(),
        interval: config.table.poll_interval,
    };
    let (store, stop) = (store.clone(), shutdown.clone());
    node.tasks.spawn_critical("store", async move {
        prepare(&store, &stop).await?;
        prepared.send_replace(true);
        follower.run(stop).await;
        Ok::<_, airfleet_sql::Error>(())
    });
    let (lead, stop, interval) = (leadership.clone(), shutdown.clone(), config.lease.interval);
    let wait = is_prepared.clone();
    node.tasks.spawn("election", async move {
        if until(wait, &stop).await {
            lead.elect(interval, stop).await;
        }
    });
    let lead = leadership.clone();
    node.tasks.spawn("leader", async move {
        if until(is_prepared, &shutdown).await {
            lead.work(source, shutdown).await;
        }
    });
}

/// Waits until it is so; false at shutdown.
async fn until(mut so: watch::Receiver<bool>, shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = shutdown.triggered() => false,
        so = so.wait_for(|so| *so) => so.is_ok(),
    }
}

/// Brings the tables up to date, waiting for the store for as long as it takes.
async fn prepare(store: &Store, shutdown: &Shutdown) -> Result<(), airfleet_sql::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), STORE_PAUSE_LONGEST);
    loop {
        let prepared = tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            prepared = store.prepare() => prepared,
        };
        match prepared {
            Ok(()) => return Ok(()),
            Err(error) if error.is_unavailable() || error.is_contention() => {
                if backoff.failures() == 0 {
                    tracing::warn!(error = %chain(&error), "the store is away, waiting for it");
                }
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            () = backoff.wait(None) => {}
        }
    }
}

/// Ready means that there is a table to serve from.
async fn tell_readiness(live: Arc<Live>, condition: Condition, shutdown: Shutdown) {
    let mut changed = live.subscribe();
    condition.unmet("neither the store nor a snapshot file gave a table yet");
    while !live.is_ready() {
        tokio::select! {
            () = shutdown.triggered() => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
    condition.met();
    // Dropping the condition would withdraw it.
    shutdown.triggered().await;
}

async fn restore(file: PathBuf, live: &Arc<Live>, node: &Node) {
    let (live, now_us) = (live.clone(), node.clock.unix_micros());
    let shown = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        let saved = Saved::read(&file)?;
        Ok::<_, crate::table::file::Error>(saved.map(|saved| saved.restore(&live, now_us)))
    });
    match read.await {
        Ok(Ok(Some(()))) => tracing::info!(file = shown, "started from the snapshot file"),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "starting without the snapshot file");
        }
        Err(error) => tracing::error!(%error, file = shown, "reading the snapshot file failed"),
    }
}

/// Writes the snapshot file every so often, and at shutdown, if the table changed.
async fn keep_snapshot(file: PathBuf, interval: Duration, live: Arc<Live>, node: Node) {
    let shutdown = node.shutdown().clone();
    let mut written = None;
    loop {
        let stopping = tokio::select! {
            () = shutdown.triggered() => true,
            () = tokio::time::sleep(interval) => false,
        };
        let view = live.view();
        let state = (view.store_id.clone(), view.table.revision());
        if live.is_ready() && written.as_ref() != Some(&state) {
            let (file, live, now_us) = (file.clone(), live.clone(), node.clock.unix_micros());
            let write = tokio::task::spawn_blocking(move || Saved::of(&live, now_us).write(&file));
            match write.await {
                Ok(Ok(())) => written = Some(state),
                Ok(Err(error)) => {
                    tracing::warn!(error = %chain(&error), "the snapshot file is not up to date");
                }
                Err(error) => tracing::error!(%error, "writing the snapshot file failed"),
            }
        }
        if stopping {
            return;
        }
    }
}
