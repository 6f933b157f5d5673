//! Keeps the table in step with the store.
//!
//! One task per replica asks the store every so often what came after the table's revision. It is
//! the only way in which a follower learns of anything, and the way in which every table is first
//! filled, so there is no other path to recover by. A leader's own commits reach its table at once
//! ([`Live::apply`]); the task then finds nothing and only tells the age.

use std::{sync::Arc, time::Duration};

use airfleet_domain::routing::{Change, Entry};
use airfleet_runtime::lifecycle::Shutdown;

use super::{Live, Origin, Update};
use crate::{
    chain,
    metrics::Metrics,
    store::{Changes, Contents, Removal, Result, Store},
};

/// Longest pause between tries while the store is away.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Most changed namespaces that are read as changes; beyond it reading everything is as quick.
const CHANGES_MAX: u32 = 200_000;

/// Follows the store until shutdown.
pub(crate) struct Follower {
    pub(crate) store: Arc<Store>,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Arc<Metrics>,
    /// Pause between two looks.
    pub(crate) interval: Duration,
}

impl Follower {
    /// Runs until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut pause = Duration::ZERO;
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.look().await {
                Ok(()) => {
                    if away {
                        tracing::info!("the store is back, the table is in step again");
                    }
                    away = false;
                    pause = self.interval;
                }
                Err(error) => {
                    self.metrics.store_failed("follow");
                    if !away {
                        let age_ms = self.live.age().as_millis() as u64;
                        tracing::warn!(error = %chain(&error), age_ms, "cannot follow the store, serving what is known");
                    }
                    away = true;
                    pause = (pause * 2).clamp(self.interval, BACKOFF_MAX.max(self.interval));
                }
            }
        }
    }

    /// Looks once.
    pub(crate) async fn look(&self) -> Result<()> {
        let asked = self.live.now();
        let view = self.live.view();
        if view.origin == Origin::Nowhere {
            self.read_everything().await?;
        } else {
            let known = view.table.revision();
            let changes =
                self.store.changes_since::<Entry>(&view.store_id, known, CHANGES_MAX).await?;
            match changes {
                Changes::None => {}
                Changes::Some(contents) => self.live.apply(update_of(contents)),
                Changes::Everything(head) => {
                    tracing::info!(
                        table = known.0,
                        store = head.revision.0,
                        "the store no longer has all changes since the table; reading everything"
                    );
                    self.read_everything().await?;
                }
            }
            if view.origin == Origin::File {
                self.live.confirm();
            }
        }
        self.live.mark_current(asked);
        Ok(())
    }

    async fn read_everything(&self) -> Result<()> {
        let contents = self.store.load::<Entry>().await?;
        let live = self.live.clone();
        // Building an index of a million names takes a moment that belongs to no request.
        let replaced =
            tokio::task::spawn_blocking(move || live.replace(contents, Origin::Store)).await;
        if let Err(error) = replaced
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        Ok(())
    }
}

/// What a table has to take in.
pub(crate) fn update_of(contents: Contents<Entry>) -> Update {
    let Contents { head, namespaces, shards, removals } = contents;
    let upserts = namespaces.into_iter().map(|entry| (entry.revision(), Change::Upsert(entry)));
    let mut changes: Vec<_> = upserts.collect();
    let mut removed_shards = Vec::new();
    for (revision, removal) in removals {
        match removal {
            Removal::Namespace(name) => changes.push((revision, Change::Delete(name))),
            Removal::Shard(name) => removed_shards.push(name),
        }
    }
    changes.sort_by_key(|(revision, _)| *revision);
    let shards =
        shards.into_iter().map(|shard| (shard.name, shard.manifest.spec.url.as_str().into()));
    Update {
        changes,
        shards: shards.collect(),
        removed_shards,
        revision: head.revision,
        manifest_revision: head.manifest_revision,
    }
}
