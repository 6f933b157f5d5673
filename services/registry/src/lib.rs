//! The registry: keeps the manifest of namespaces and shards, and tells everybody who watches it.
//!
//! # What never happens
//!
//! 1. *Two namespaces own one dag_id.* Prefixes of different namespaces never start with one
//!    another; it is checked in the transaction that writes them.
//! 2. *A change without an author.* Each change has an event with who, when, before and after,
//!    written in its own transaction.
//! 3. *Half an apply.* A call changes everything that it names or nothing, and watchers see it as
//!    one revision.
//! 4. *A repeated call does something twice.* A request id is recorded in the transaction that it
//!    caused, and answers again as it did.
//! 5. *Something in use is deleted* without an operator saying so: the router gives it up first.
//! 6. *A watcher misses a change*: revisions are contiguous on each stream, and whoever is too far
//!    back gets the manifest whole.
//!
//! # How it works
//!
//! [`grpc`] takes requests apart, [`convert`] reads wire types, [`service`] decides who may and
//! what is to change, [`store`] does it in one transaction. Replicas share a PostgreSQL and are
//! equal; on SQLite there is one. [`watch`] follows the store by revision and serves the streams.
//!
//! # What fails, and what then
//!
//! - *The store is away.* Reads and writes answer UNAVAILABLE with RetryInfo. Watches stay open,
//!   say nothing, and go on by themselves when it is back. A registry that starts meanwhile is not
//!   ready until it has brought its tables up to date.
//! - *The outcome of a commit is unknown* (connection lost). The caller repeats the call with the
//!   same request id, or reads.
//! - *The store goes on from a backup.* Watchers that are ahead of it get the manifest whole.
//! - *The router is away.* Nothing is deleted; all else works.

mod config;
mod convert;
mod grpc;
mod metrics;
mod router;
mod service;
mod store;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use airfleet_runtime::client::{self, Backoff};
use airfleet_runtime::clock::SharedClock;
use airfleet_runtime::config::StoreConfig;
use airfleet_runtime::lifecycle::{self, Shutdown};
use airfleet_runtime::node::Node;
use airfleet_runtime::server::{self, IntoListener, Server};
use airfleet_sql::Db;

pub use self::config::{Config, DEFAULT_PORT, RetentionConfig, WatchConfig};
use self::metrics::Metrics;
use self::router::Router;
use self::service::Service;
use self::store::{Retention, Store};
use self::watch::Tail;

/// Why a registry does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its store cannot be used.
    #[error("the store {url} cannot be used")]
    Store {
        /// Where it is, without a password.
        url: String,
        /// Why.
        source: airfleet_sql::Error,
    },
    /// It cannot call the router.
    #[error("the settings of the router (router.*) are wrong")]
    Router(#[source] client::Error),
    /// It cannot serve.
    #[error("the registry cannot serve")]
    Server(#[from] server::Error),
    /// It stopped otherwise than it was asked to.
    #[error(transparent)]
    Stopped(#[from] lifecycle::Error),
}

/// Runs a registry on `listener` until `shutdown`, and then until its requests are answered.
pub async fn run(
    config: Config,
    listener: impl IntoListener,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let node = Node::new("registry", shutdown);
    start(&config, listener, &node).await?;
    Ok(node.tasks.run_until_stopped(config.server.drain_deadline).await?)
}

/// Starts a registry as a part of `node`, whose owner runs it. Answers where it listens. It is
/// ready once its tables are up to date; while the store is away it starts all the same.
pub async fn start(
    config: &Config,
    listener: impl IntoListener,
    node: &Node,
) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Store { url: config.store.url.to_string(), source };
    let db = open(&config.store).await.map_err(failed)?;
    let store = Arc::new(Store::new(db));
    let metrics = Metrics::new(&node.metrics);
    Metrics::follow(&node.metrics, &store);
    let router = Router::new(&config.router).map_err(Error::Router)?;
    let tail = Tail::new(Arc::clone(&store), &config.watch, metrics.clone());
    let service =
        Arc::new(Service::new(Arc::clone(&store), Arc::clone(&tail), router, node, metrics));

    let ready = node.readiness.condition("store");
    let is_prepared = match store.prepare().await {
        Ok(()) => true,
        Err(store::Error::Database(error)) if !error.is_unavailable() => return Err(failed(error)),
        Err(error) => {
            tracing::warn!(%error, "the store is away; starting without it");
            false
        }
    };
    let api = grpc::Api::server(
        service,
        Arc::clone(&tail),
        node.tasks.clone(),
        config.server.limits.max_message_bytes,
    );
    let address = Server::new(&config.server, node)
        .descriptors(airfleet_proto::DESCRIPTORS)
        .grpc(api)
        .serve(listener)?;

    let shutdown = node.shutdown().clone();
    let retention = config.retention.clone();
    let history = config.watch.history;
    let clock = node.clock.clone();
    node.tasks.spawn_critical("store", async move {
        if !is_prepared && !prepare_later(&store, &shutdown).await? {
            return Ok::<(), store::Error>(());
        }
        ready.met();
        tokio::try_join!(
            Arc::clone(&tail).run(shutdown.clone()),
            maintain(&store, &retention, history, &clock, &shutdown),
        )?;
        Ok(())
    });
    Ok(address)
}

async fn open(config: &StoreConfig) -> airfleet_sql::Result<Db> {
    let options = airfleet_sql::Options {
        application_name: "airfleet-registry".to_owned(),
        max_connections: config.max_connections,
        acquire_timeout: config.acquire_timeout,
        ..airfleet_sql::Options::default()
    };
    Db::open(config.url.expose(), options).await
}

/// Brings the tables up to date as soon as the store is there. False where the node stops before.
async fn prepare_later(store: &Store, shutdown: &Shutdown) -> Result<bool, store::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        tokio::select! {
            () = shutdown.triggered() => return Ok(false),
            () = backoff.wait(None) => {}
        }
        match store.prepare().await {
            Ok(()) => {
                tracing::info!("the store is there");
                return Ok(true);
            }
            Err(store::Error::Database(error)) if !error.is_unavailable() => {
                return Err(error.into());
            }
            Err(error) => tracing::debug!(%error, "the store is still away"),
        }
    }
}

/// Forgets what is past its time, now and then. A failure is tried again the next time.
async fn maintain(
    store: &Store,
    retention: &RetentionConfig,
    history: i64,
    clock: &SharedClock,
    shutdown: &Shutdown,
) -> Result<(), store::Error> {
    let micros = |age: Duration| i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            () = tokio::time::sleep(retention.interval) => {}
        }
        let now = clock.unix_micros();
        let limits = Retention {
            requests_before: now.saturating_sub(micros(retention.requests)),
            events_before: now.saturating_sub(micros(retention.audit)),
            events_max: retention.audit_events,
            events_min: history,
        };
        loop {
            match store.forget(&limits).await {
                Ok((0, 0)) => break,
                Ok((requests, events)) => tracing::debug!(requests, events, "forgotten"),
                Err(error) => {
                    tracing::warn!(%error, "what is past its time could not be removed");
                    break;
                }
            }
            if shutdown.is_triggered() {
                return Ok(());
            }
        }
    }
}
