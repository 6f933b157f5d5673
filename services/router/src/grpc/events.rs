//! Events of a namespace, a page at a time or as they happen.
//!
//! Both are read from the store, so that any replica answers, also for what a leader before this
//! one saw. A watch asks the store every so often what came after the last event that it told; it is
//! a position and nothing else.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use airfleet_domain::ids::NamespaceName;
use airfleet_proto::router::v1 as wire;
use airfleet_runtime::status::{Failure, reason};
use futures::{Stream, stream};
use tonic::Status;

use crate::{
    convert,
    service::{Error, Service},
    store::{Recorded, Store},
};

/// How often a watch looks for news.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events read at a time.
const READ_MAX: u32 = 200;
/// Failed looks in a row after which a watch ends.
const FAILURES_MAX: u32 = 60;

pub(crate) type EventStream =
    Pin<Box<dyn Stream<Item = Result<wire::NamespaceEvent, Status>> + Send>>;

/// What watches of events share.
#[derive(Debug, Clone)]
pub(crate) struct EventWatches {
    store: Arc<Store>,
    open: Arc<AtomicUsize>,
    max: usize,
}

impl EventWatches {
    /// At most `max` watches of this store.
    pub(crate) fn new(store: Arc<Store>, max: usize) -> Self {
        Self { store, open: Arc::default(), max }
    }

    /// A page of a namespace's events, newest first: those before number `before`.
    pub(super) async fn list(
        &self,
        service: &Service,
        namespace: &NamespaceName,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<Recorded>, i64), Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // First, so that a watch from here on misses none.
        let last = self.store.last_event().await?;
        let events = self.store.events_before(namespace, before, limit).await?;
        let is_known = service.live.view().table.resolve_namespace(namespace.as_str()).is_some();
        if events.is_empty() && before.is_none() && !is_known {
            return Err(Error::NoNamespace(namespace.to_string()));
        }
        Ok((events, last))
    }

    /// Opens a watch that goes on after `from`; 0 for the latest.
    pub(super) async fn open(
        &self,
        namespace: NamespaceName,
        from: i64,
    ) -> Result<EventStream, Failure> {
        let place = self.take_place()?;
        let after = match from {
            0 => self.store.last_event().await.map_err(Error::from)?,
            from => from,
        };
        let watcher = Watcher { namespace, after, told: VecDeque::new(), failures: 0, place };
        Ok(Box::pin(stream::unfold(Some(watcher), async |watcher| {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(Failure::from(error).into()), None)),
            }
        })))
    }

    fn take_place(&self) -> Result<Place, Failure> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that it is given back in any case.
        let place = Place(self.clone());
        if before < self.max {
            return Ok(place);
        }
        let limit = format!("{} watches of events; use another replica or try later", self.max);
        Err(Failure::exhausted("node", limit)
            .with_reason(reason::TOO_MANY_STREAMS)
            .with_retry_after(Duration::from_secs(5)))
    }
}

/// The right to watch; given back when it is dropped.
#[derive(Debug)]
struct Place(EventWatches);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Watcher {
    namespace: NamespaceName,
    after: i64,
    told: VecDeque<Recorded>,
    failures: u32,
    place: Place,
}

impl Watcher {
    /// The next event; waits until there is one.
    async fn next(&mut self) -> Result<wire::NamespaceEvent, Error> {
        loop {
            if let Some(event) = self.told.pop_front() {
                self.after = event.sequence;
                return Ok(convert::event(event));
            }
            let store = &self.place.0.store;
            match store.events_after(&self.namespace, self.after, READ_MAX).await {
                Ok(events) => {
                    self.failures = 0;
                    self.told.extend(events);
                }
                // A store that is away for a moment is no reason to end.
                Err(error) if error.is_transient() && self.failures < FAILURES_MAX => {
                    self.failures += 1;
                }
                Err(error) => return Err(error.into()),
            }
            if self.told.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}
