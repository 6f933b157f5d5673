//! What a leader does as long as it leads.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use airfleet_domain::ids::ShardName;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Leader, manifest::BATCH_MAX, retry};
use crate::{
    chain,
    fleet::Fleet,
    manifest::Event,
    store::{Batch, Error, ShardRecord},
};

/// How often silence is noticed and what is left over is tidied up.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked at what shards still have of namespaces that they gave up. What an agent
/// says of one is looked at when it says so.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
/// How often old removals and events are forgotten.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// Removals that are kept for those who follow.
const REMOVALS_KEPT: u32 = 100_000;
/// Events that are taken in together, at most.
const EVENTS_MAX: usize = 256;
/// Longest pause after a failed write.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

impl Leader {
    /// Works until it ends. `manifest` brings what is declared.
    pub(crate) async fn work(self: &Arc<Self>, manifest: &mut mpsc::Receiver<Event>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forget = interval(FORGET_EVERY);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settle = interval(SETTLE_EVERY);
        settle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut place_from = Instant::now();
        let mut pending: VecDeque<Event> = VecDeque::new();
        let mut pause = Duration::ZERO;
        let mut manifest_open = true;
        loop {
            let retrying = !pending.is_empty();
            let outcome = tokio::select! {
                () = self.ended.cancelled() => return,
                () = tokio::time::sleep(pause), if retrying => self.take_in_all(&mut pending).await,
                event = manifest.recv(), if manifest_open && !retrying => match event {
                    Some(event) => {
                        collect(event, manifest, &mut pending);
                        self.take_in_all(&mut pending).await
                    }
                    None => {
                        manifest_open = false;
                        Ok(())
                    }
                },
                () = self.roomier.notified(), if Instant::now() >= place_from => {
                    let outcome = self.place_waiting().await;
                    place_from = Instant::now() + retry::PAUSE;
                    if outcome.is_err() {
                        self.place_soon();
                    }
                    outcome.map(|_| ())
                }
                // Only wakes the loop, so that the branch above is looked at again.
                () = tokio::time::sleep_until(place_from), if Instant::now() < place_from => Ok(()),
                () = self.unsettled.notified() => self.settle().await,
                () = self.moved.notified() => self.drive_moves().await,
                _ = settle.tick() => self.settle().await,
                _ = tick.tick() => match self.tick().await {
                    Ok(()) => match self.drive_moves().await {
                        Ok(()) => self.drive_plan().await,
                        failed => failed,
                    },
                    failed => failed,
                },
                _ = forget.tick() => self.forget().await,
            };
            match outcome {
                Ok(()) => pause = Duration::ZERO,
                Err(error) => {
                    pause = (pause * 2).clamp(Duration::from_millis(100), BACKOFF_MAX);
                    self.complain(&error);
                }
            }
        }
    }

    async fn take_in_all(&self, pending: &mut VecDeque<Event>) -> Result<(), Error> {
        // Kept until it succeeded: a failed write is tried again from the start of the batch.
        self.take_in(pending.iter().cloned().collect()).await?;
        pending.clear();
        Ok(())
    }

    /// Notices silence, first connections and shards that nobody needs any more.
    async fn tick(&self) -> Result<(), Error> {
        let hub = &self.tools.hub;
        let names: Vec<ShardName> =
            self.fleet().shards().map(|shard| shard.record.name.clone()).collect();
        let mut roomier = false;
        for name in &names {
            let observation = hub.observation(name.as_str());
            roomier |= self.fleet().observe(name.as_str(), observation);
        }
        roomier |= self.sample();
        let heard_of = hub.shards();
        let tidy = {
            let fleet = self.fleet();
            heard_of.iter().any(|name| is_first_heard_of(&fleet, name))
                || !fleet.abandoned_shards().is_empty()
                || !fleet.abandoned(1).is_empty()
        };
        if roomier {
            self.place_soon();
        }
        if tidy { self.tidy_up(&heard_of).await } else { Ok(()) }
    }

    /// Once a minute, notes what every namespace uses. Answers whether that freed room.
    fn sample(&self) -> bool {
        const MINUTE_US: i64 = 60_000_000;
        let minute = self.tools.clock.unix_micros().div_euclid(MINUTE_US);
        let last = self.sampled_minute.swap(minute, Ordering::Relaxed);
        last != minute && self.fleet().sample(minute, self.tools.plans.followed_max)
    }

    /// What happens every so often, now.
    #[cfg(test)]
    pub(crate) async fn tidy(&self) {
        self.tick().await.unwrap();
    }

    async fn tidy_up(&self, heard_of: &[ShardName]) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let stamp = turn.stamp();
        let batch = {
            let fleet = self.fleet();
            let removed_shards = fleet.abandoned_shards();
            let first_heard_of = heard_of
                .iter()
                .filter(|name| is_first_heard_of(&fleet, name) && !removed_shards.contains(name))
                .filter_map(|name| fleet.shard(name.as_str()))
                .take(BATCH_MAX);
            let shards = first_heard_of.map(|shard| ShardRecord {
                agent_seen_at_us: Some(stamp.now_us),
                revision: stamp.revision,
                ..shard.record.clone()
            });
            let abandoned = fleet.abandoned(BATCH_MAX);
            let generations = abandoned.iter().map(|record| record.entry.generation());
            Batch {
                shards: shards.collect(),
                removed_generation: generations.max().unwrap_or_default(),
                removed: abandoned.iter().map(|record| record.namespace()).collect(),
                removed_shards,
                ..Batch::default()
            }
        };
        turn.commit(batch).await.map(|_| ())
    }

    async fn settle(&self) -> Result<(), Error> {
        let settled = self.settle_residues().await;
        if settled.is_err() {
            self.unsettled.notify_one();
        }
        settled.map(drop)
    }

    async fn forget(&self) -> Result<(), Error> {
        self.forget_removals().await?;
        let moves = &self.tools.moves;
        let keep_us = i64::try_from(moves.ended_keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = self.tools.clock.unix_micros().saturating_sub(keep_us);
        self.tools.store.forget_moves(self.term, moves.ended_kept, before_us).await?;
        self.forget_events().await
    }

    async fn forget_removals(&self) -> Result<(), Error> {
        let forgotten = self.tools.store.forget_removals(self.term, REMOVALS_KEPT).await;
        match forgotten {
            Ok(0) => Ok(()),
            Ok(count) => {
                tracing::debug!(count, "forgot old removals");
                Ok(())
            }
            Err(error) => {
                if error.is_stale_term() {
                    self.end();
                }
                Err(error)
            }
        }
    }

    fn complain(&self, error: &Error) {
        let term = self.term.0;
        let transient = error.is_transient();
        if self.has_ended() {
            tracing::info!(term, error = %chain(error), "this leader's term has ended");
        } else if transient {
            tracing::warn!(term, error = %chain(error), "the leader could not write, trying again");
        } else {
            tracing::error!(term, error = %chain(error), "the leader could not write, trying again");
        }
    }
}

fn is_first_heard_of(fleet: &Fleet, name: &ShardName) -> bool {
    fleet.shard(name.as_str()).is_some_and(|shard| shard.record.agent_seen_at_us.is_none())
}

/// Adds to an event those that have come already, as far as they fit into one transaction.
fn collect(event: Event, manifest: &mut mpsc::Receiver<Event>, pending: &mut VecDeque<Event>) {
    let size = |event: &Event| match event {
        Event::Snapshot { piece, .. } | Event::Change { piece, .. } => piece.len(),
        Event::Progress { .. } => 0,
    };
    let mut entries = size(&event);
    pending.push_back(event);
    while entries < BATCH_MAX && pending.len() < EVENTS_MAX {
        let Ok(event) = manifest.try_recv() else { return };
        entries += size(&event);
        pending.push_back(event);
    }
}
