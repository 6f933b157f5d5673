//! Bringing the shard to what it is to be for each namespace.
//!
//! Responsible for closing the difference between what the router wants ([`Orders`]) and what is
//! found on the shard, and for telling what it is now ([`Board`]). The order of steps is that of
//! [`airfleet_domain::roles::next_step`]; here they are done.
//!
//! # What holds
//! - Each namespace has a worker of its own, which works on it alone and tries again with growing
//!   pauses. What one waits for holds up no other; what all share (transactions, deliveries) is
//!   bounded, and a namespace whose source fails only ever takes half of the deliveries at once.
//! - A newer order interrupts what is done for an older one at its next await. Every step is a
//!   transaction, or a delivery that is whole or not seen, so it may end anywhere.
//! - Nothing is remembered that matters: what is there is looked at anew before every step, so that
//!   a killed agent goes on where it was.
//! - Where something cannot be brought about, what runs goes on running; what does not run yet
//!   stays fenced. What is in the way is told with a code.
//!
//! It must not know how orders and reports travel.

mod board;
mod findings;
mod foreign;
mod moving;
mod pass;
mod problem;
mod retention;
mod rules;
mod worker;

use std::{
    collections::HashMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airfleet_delivery::Roller;
use airfleet_domain::ids::{NamespaceName, ShardName};
use airfleet_runtime::{client::Transport, lifecycle::Shutdown};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

pub use self::retention::RetentionConfig;
pub(crate) use self::{
    board::Board,
    foreign::{Foreign, keep_asking},
};
use self::{findings::Findings, rules::RulesFile, worker::Worker};
use crate::{
    AgentConfig,
    airflow::{
        self,
        fence::{self, Installed},
        metadata::Metadata,
    },
    delivery::DeliveryMetrics,
    link::{Order, Orders},
    metrics::AgentMetrics,
    moves::Mover,
    secrets::{BadKey, Cipher, SecretFiles},
};

/// Passes over namespaces in a second, at most, once everything is settled: on a shard with many,
/// each is looked at less often.
const PASSES_PER_SECOND: u32 = 10;

/// How often it is seen to that the fence is there and holds.
const FENCE_INTERVAL: Duration = Duration::from_secs(30);

/// Passes at once. Each holds at most one transaction, of which there are fewer.
const PASSES_AT_ONCE: usize = 64;

/// What workers share.
pub(crate) struct Shard {
    /// None where there is no database to fence in.
    metadata: Option<Metadata>,
    /// None where rows cannot be moved.
    mover: Option<Mover>,
    /// None where somebody else brings the files.
    roller: Option<Roller>,
    dags_folder: Option<PathBuf>,
    rules: Option<RulesFile>,
    findings: Findings,
    secrets: SecretFiles,
    cipher: Cipher,
    retention: RetentionConfig,
    retention_permit: Semaphore,
    /// How often a source is asked.
    interval: Duration,
    passes: Semaphore,
    /// Taken by deliveries of namespaces whose last one failed.
    slow_deliveries: Semaphore,
    board: Board,
    metrics: AgentMetrics,
    delivery_metrics: DeliveryMetrics,
    /// Namespaces that have a worker. Count.
    workers: watch::Sender<usize>,
}

/// Why the shard cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The metadata database.
    #[error("airflow.metadata_url cannot be used")]
    Metadata(#[source] airflow::Error),
    /// The key for variables and connections.
    #[error("secrets.fernet_key cannot be used")]
    Key(#[source] BadKey),
}

impl Shard {
    /// Nothing is touched yet.
    pub(crate) fn new(
        config: &AgentConfig,
        name: &ShardName,
        board: Board,
        metrics: AgentMetrics,
        delivery_metrics: DeliveryMetrics,
        router: watch::Receiver<Option<Transport>>,
    ) -> Result<Self, SetUpError> {
        let metadata = config.airflow.metadata_url.as_ref();
        let metadata = metadata
            .map(|url| Metadata::new(url, config.airflow.metadata_timeout))
            .transpose()
            .map_err(SetUpError::Metadata)?;
        let mover =
            metadata.as_ref().and_then(|metadata| Mover::new(name.clone(), metadata, router));
        let key = config.secrets.fernet_key.as_ref().map_or("", |key| key.expose());
        let dags = config.delivery.dags_folder.as_deref();
        Ok(Self {
            metadata,
            mover,
            roller: config.delivery.roller(),
            dags_folder: config.delivery.dags_folder.clone(),
            rules: dags.map(|dags| RulesFile::new(dags, &config.shard)),
            findings: Findings::new(dags),
            secrets: SecretFiles::new(config.secrets.folder.clone()),
            cipher: Cipher::new(key).map_err(SetUpError::Key)?,
            retention: config.retention.clone(),
            retention_permit: Semaphore::new(1),
            interval: config.delivery.interval.max(Duration::from_millis(100)),
            passes: Semaphore::new(PASSES_AT_ONCE),
            slow_deliveries: Semaphore::new((config.delivery.namespaces_at_once / 2).max(1)),
            board,
            metrics,
            delivery_metrics,
            workers: watch::Sender::new(0),
        })
    }

    /// The database that namespaces are fenced in.
    pub(crate) fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    fn dags_folder(&self) -> Option<&Path> {
        self.dags_folder.as_deref()
    }

    /// The time from one look at a settled namespace to the next.
    fn pause(&self) -> Duration {
        let spread = Duration::from_secs(1) / PASSES_PER_SECOND * (*self.workers.borrow() as u32);
        self.interval.max(spread)
    }
}

/// Starts a worker for each namespace and hands it its orders, until shutdown.
pub(crate) async fn keep_reconciling(
    shard: Arc<Shard>,
    mut orders: watch::Receiver<Arc<Orders>>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut workers: HashMap<NamespaceName, watch::Sender<Option<Arc<Order>>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut ticks = interval(FENCE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fence = FenceKeeper::default();
    // The fence before anything else: nothing is brought to a shard without one.
    ticks.tick().await;
    fence.keep(&shard).await;
    loop {
        let wanted = orders.borrow_and_update().clone();
        for (name, sender) in &workers {
            if !wanted.contains_key(name) {
                sender.send_if_modified(|order| order.take().is_some());
            }
        }
        for (name, order) in wanted.iter() {
            let start = || {
                let (sender, receiver) = watch::channel(Some(Arc::new(order.clone())));
                let worker = Worker::new(shard.clone(), name.clone(), receiver);
                tasks.spawn(worker.run());
                sender
            };
            let sender = workers.entry(name.clone()).or_insert_with(start);
            sender.send_if_modified(|given| {
                let changed = given.as_deref() != Some(order);
                if changed {
                    *given = Some(Arc::new(order.clone()));
                }
                changed
            });
        }
        shard.workers.send_replace(workers.len());
        tokio::select! {
            Ok(()) = orders.changed() => {}
            Some(ended) = tasks.join_next() => match ended {
                // Its namespace was let go; unless it was named again meanwhile.
                Ok(name) => {
                    let gone = workers.get(&name).is_some_and(|sender| sender.borrow().is_none());
                    if gone || !orders.borrow().contains_key(&name) {
                        workers.remove(&name);
                    }
                }
                Err(error) => {
                    // A defect: begin anew for the namespaces whose workers ended by it.
                    tracing::error!(%error, "a worker ended unexpectedly");
                    workers.retain(|_, sender| sender.receiver_count() > 0);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            _ = ticks.tick() => fence.keep(&shard).await,
            () = shutdown.triggered() => {
                tasks.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// Sees to it that the fence is there and holds.
#[derive(Debug, Default)]
struct FenceKeeper {
    complaint: Option<String>,
}

impl FenceKeeper {
    async fn keep(&mut self, shard: &Shard) {
        let Some(metadata) = &shard.metadata else { return };
        let limit = FENCE_INTERVAL / 2;
        let kept = tokio::time::timeout(limit, Self::try_to_keep(shard, metadata)).await;
        let complaint = match kept {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(crate::words::chain(&error)),
            Err(_) => Some(format!("the metadata database did not answer within {limit:?}")),
        };
        if complaint != self.complaint {
            match &complaint {
                Some(why) => tracing::error!("cannot see to the fence: {why}"),
                None => tracing::info!("the fence is in place"),
            }
        }
        self.complaint = complaint;
    }

    async fn try_to_keep(
        shard: &Shard,
        metadata: &Metadata,
    ) -> Result<(), airflow::metadata::Error> {
        match fence::install(metadata, None).await? {
            Installed::Already => {}
            Installed::Now => tracing::warn!("the fence was not in place; it is now"),
            Installed::Newer(version) => {
                tracing::debug!(version, "a newer version of the fence is in place");
            }
        }
        let mut tx = metadata.begin().await?;
        let leaks = fence::gate::enforce(&mut tx).await?;
        tx.commit().await?;
        if !leaks.is_empty() {
            tracing::error!(dags = ?leaks, "fenced DAGs were not paused; they are now");
            shard.board.leaked(&leaks);
        }
        Ok(())
    }
}

/// When something is due, spread so that namespaces are not all looked at together.
fn spread(pause: Duration) -> Instant {
    Instant::now() + pause.mul_f64(rand::random_range(0.8..=1.0))
}
