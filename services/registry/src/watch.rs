//! Tells whoever watches the manifest what changes.
//!
//! One [`Tail`] a replica follows the store by revision, woken by this replica's own writes and by
//! a timer for those of others, and keeps what happened last in memory. Each watcher reads from
//! there, from the store where it is further back, and the whole manifest where it is too far
//! back. There is no other way in which a change reaches a watcher.
//!
//! Invariants: revisions on a stream are contiguous, and after each message the watcher has the
//! manifest exactly as it was at that message's revision; a slow watcher holds nothing but its
//! position, and is told the latest of each entry when it comes back; while the store is away
//! streams stay open and say nothing, not even that nothing changed.

mod ring;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use airfleet_domain::ids::Revision;
use airfleet_runtime::lifecycle::Shutdown;
use tokio::sync::{Notify, Semaphore, watch};

use self::ring::Ring;
pub(crate) use self::stream::Event;
use crate::config::WatchConfig;
use crate::metrics::Metrics;
use crate::service::ANSWER_MAX_BYTES;
use crate::store::{self, Revised, Store};

/// Most changes in one message, and in one read of the store.
const CHANGES_MAX: usize = 1000;

/// Follows the store and remembers what happened last.
#[derive(Debug)]
pub(crate) struct Tail {
    store: Arc<Store>,
    config: WatchConfig,
    metrics: Metrics,
    /// Set when this replica wrote.
    written: Notify,
    ring: Mutex<Ring>,
    /// The revision that the ring ends with; `None` until the store was read.
    head: watch::Sender<Option<Revision>>,
    /// When the store last said where it stands.
    confirmed: Mutex<Option<Instant>>,
    snapshots: Arc<Semaphore>,
}

impl Tail {
    /// A tail of `store` that has not read it yet.
    pub(crate) fn new(store: Arc<Store>, config: &WatchConfig, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            config: config.clone(),
            metrics,
            written: Notify::new(),
            ring: Mutex::default(),
            head: watch::Sender::new(None),
            confirmed: Mutex::default(),
            snapshots: Arc::new(Semaphore::new(config.max_snapshots.max(1) as usize)),
        })
    }

    /// Says that this replica wrote something.
    pub(crate) fn wake(&self) {
        self.written.notify_one();
    }

    /// Follows the store until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) -> Result<(), store::Error> {
        let mut is_away = false;
        loop {
            match self.metrics.timed("tail", self.catch_up()).await {
                Ok(()) if is_away => {
                    tracing::info!("the store is back");
                    is_away = false;
                }
                Ok(()) => {}
                Err(error) => {
                    if !is_away {
                        tracing::warn!(%error, "the store cannot be followed; watches stand still");
                    }
                    is_away = true;
                }
            }
            self.tell_age();
            tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                () = self.written.notified() => {}
                () = tokio::time::sleep(self.config.poll_interval) => {}
            }
        }
    }

    /// Takes in what happened since the last time.
    async fn catch_up(&self) -> Result<(), store::Error> {
        let asked = Instant::now();
        let head = self.store.head().await?;
        self.metrics.head(&head);
        let mut end = {
            let mut ring = self.ring();
            // The first look; or the store goes on from a backup, and what was remembered never
            // happened.
            if self.head.borrow().is_none() || head.revision < ring.end() {
                ring.restart(head.revision);
            }
            ring.end()
        };
        while end < head.revision {
            let revised = self.store.changes_after(end, CHANGES_MAX, ANSWER_MAX_BYTES).await?;
            let mut ring = self.ring();
            if revised.is_empty() {
                // Forgotten before this replica, away for long, came to read it.
                ring.restart(head.revision);
            }
            for revised in revised {
                ring.push(Arc::new(revised));
            }
            end = ring.end();
        }
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        self.head.send_if_modified(|told| {
            let is_new = *told != Some(end);
            *told = Some(end);
            is_new
        });
        Ok(())
    }

    /// How long ago the store said where it stands; `None` where it never did.
    fn age(&self) -> Option<Duration> {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.map(|at| at.elapsed())
    }

    fn tell_age(&self) {
        self.metrics.store_age.set(self.age().map_or(f64::INFINITY, |age| age.as_secs_f64()));
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
