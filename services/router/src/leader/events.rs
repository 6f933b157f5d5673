//! The log of events, as the leader writes it.
//!
//! What a commit decides is written with it. What agents tell comes from many at once: it is put
//! into one queue and written together, and an agent is told that it was taken only once it is
//! durable. The queue is bounded: where it is full, the agent is asked to send it again later.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use airfleet_domain::ids::NamespaceName;
use tokio::sync::{Notify, oneshot};

use super::Leader;
use crate::store::{Error, Event};

/// Events that wait to be written. More are not taken.
const WAITING_MAX: usize = 10_000;
/// Events in one transaction.
const WRITTEN_MAX: usize = 1000;
/// Namespaces whose old events are forgotten in one transaction.
const FORGOTTEN_MAX: usize = 500;
/// Namespaces with new events that are remembered until then; of others old ones go by age.
const TOUCHED_MAX: usize = 100_000;

/// Events on their way to the store.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    count: usize,
    /// Namespaces that got events since old ones were last forgotten.
    touched: HashSet<NamespaceName>,
}

#[derive(Debug)]
struct Waiting {
    events: Vec<Event>,
    written: oneshot::Sender<()>,
}

impl EventLog {
    /// These namespaces got events.
    pub(super) fn wrote<'a>(&self, namespaces: impl Iterator<Item = &'a NamespaceName>) {
        let mut inner = self.lock();
        for namespace in namespaces {
            if inner.touched.len() < TOUCHED_MAX {
                inner.touched.insert(namespace.clone());
            }
        }
    }

    fn put(&self, events: Vec<Event>) -> Option<oneshot::Receiver<()>> {
        let (written, is_written) = oneshot::channel();
        let mut inner = self.lock();
        if inner.count + events.len() > WAITING_MAX {
            return None;
        }
        inner.count += events.len();
        inner.waiting.push_back(Waiting { events, written });
        drop(inner);
        self.wake.notify_one();
        Some(is_written)
    }

    fn take(&self) -> Vec<Waiting> {
        let mut inner = self.lock();
        let mut taken = Vec::new();
        let mut count = 0;
        while let Some(next) = inner.waiting.front() {
            if count > 0 && count + next.events.len() > WRITTEN_MAX {
                break;
            }
            count += next.events.len();
            taken.extend(inner.waiting.pop_front());
        }
        inner.count -= count;
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leader {
    /// Writes events that belong to no commit, together with those of others. False where that was
    /// not done within `patience`; it may still happen then.
    pub(crate) async fn record(&self, events: Vec<Event>, patience: Duration) -> bool {
        if events.is_empty() {
            return true;
        }
        let Some(written) = self.log.put(events) else { return false };
        matches!(tokio::time::timeout(patience, written).await, Ok(Ok(())))
    }

    /// Writes what waits, as it comes, until this leader ends.
    pub(super) async fn write_events(&self) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.log.wake.notified() => {}
            }
            loop {
                let taken = self.log.take();
                if taken.is_empty() {
                    break;
                }
                // Whoever waits sends it again where this fails.
                if let Err(error) = self.write_together(taken).await {
                    self.tools.metrics.store_failed("events");
                    tracing::warn!(error = %crate::chain(&error), "events could not be written");
                    if error.is_stale_term() {
                        self.end();
                    }
                    break;
                }
            }
        }
    }

    async fn write_together(&self, taken: Vec<Waiting>) -> Result<(), Error> {
        let events: Vec<Event> = taken.iter().flat_map(|one| one.events.iter().cloned()).collect();
        {
            // Both this and a commit number events; one after the other they need not try twice.
            let _turn = self.turn.lock().await;
            let now_us = self.tools.clock.unix_micros();
            self.tools.store.record_events(self.term, &events, now_us).await?;
        }
        self.log.wrote(events.iter().map(|event| &event.namespace));
        for one in taken {
            // Nobody waits any more where the agent is gone.
            let _ = one.written.send(());
        }
        Ok(())
    }

    /// Forgets events beyond those that are kept of each namespace, and those that are too old.
    pub(super) async fn forget_events(&self) -> Result<(), Error> {
        let keep = &self.tools.events;
        let age_us = i64::try_from(keep.keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = self.tools.clock.unix_micros().saturating_sub(age_us);
        loop {
            let touched: Vec<NamespaceName> = {
                let mut inner = self.log.lock();
                let some: Vec<_> = inner.touched.iter().take(FORGOTTEN_MAX).cloned().collect();
                for name in &some {
                    inner.touched.remove(name);
                }
                some
            };
            let is_last = touched.len() < FORGOTTEN_MAX;
            let forgotten = {
                let _turn = self.turn.lock().await;
                let store = &self.tools.store;
                store.forget_events(self.term, &touched, keep.per_namespace, before_us).await
            };
            if let Err(error) = forgotten {
                self.log.wrote(touched.iter());
                if error.is_stale_term() {
                    self.end();
                }
                return Err(error);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
