//! Watching the table.
//!
//! A watcher is a position and nothing else: what it is to be told is looked up when its connection
//! can take more, so a slow one costs no memory and is told less often, each namespace at its
//! latest. One that fell behind what is kept is told everything, in pieces of the table as it then
//! was.
//!
//! One that resumes may know more than this replica, which began from its file or is a moment behind
//! the leader. Telling it an older table would take back what it knows, so it waits until the store
//! was asked. Only a store that really is behind, since it goes on from a backup, begins it anew.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{NamespaceName, Revision},
    routing::{
        Entry,
        history::{ChangeSet, Since},
    },
};
use airfleet_proto::router::v1::{
    self as wire, WatchAssignmentsResponse, watch_assignments_response::Event,
};
use airfleet_runtime::status::{Failure, reason};
use futures::{Stream, stream};
use prost::Message as _;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    convert,
    metrics::Metrics,
    table::{Live, Position, View},
};

#[cfg(test)]
mod tests;

/// Entries in one message.
const PIECE_MAX: usize = 1000;
/// Bytes of entries from which on no further one is put into a message. Clients take 4 MiB.
const PIECE_BYTES: usize = 1 << 20;

/// What watchers of one replica share.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    open: Arc<AtomicUsize>,
    max: usize,
    progress_interval: Duration,
}

pub(crate) type WatchStream =
    Pin<Box<dyn Stream<Item = Result<WatchAssignmentsResponse, Status>> + Send>>;

impl Watches {
    /// At most `max` watchers of this table.
    pub(crate) fn new(
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        max: usize,
        progress_interval: Duration,
    ) -> Self {
        Self { live, metrics, open: Arc::default(), max, progress_interval }
    }

    /// Opens a watch that goes on after `from`, or begins with a snapshot.
    pub(super) fn open(&self, from: Revision) -> Result<WatchStream, Failure> {
        let place = self.take_place()?;
        let watcher = Watcher {
            changed: self.live.subscribe(),
            live: self.live.clone(),
            position: self.live.position_at(from),
            telling: if from == Revision(0) {
                Telling::everything(&self.live)
            } else {
                Telling::Resuming { since: self.live.now() }
            },
            progress_interval: self.progress_interval,
            _place: place,
        };
        Ok(Box::pin(stream::unfold(watcher, async |mut watcher: Watcher| {
            let response = watcher.next().await;
            Some((Ok(response), watcher))
        })))
    }

    fn take_place(&self) -> Result<Place, Failure> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        self.metrics.watchers.inc();
        // Made before the check, so that it is given back in any case.
        let place = Place(self.clone());
        if before < self.max {
            return Ok(place);
        }
        let limit = format!("{} watches are open; use another replica or try later", self.max);
        Err(Failure::exhausted("node", limit)
            .with_reason(reason::TOO_MANY_STREAMS)
            .with_retry_after(Duration::from_secs(5)))
    }
}

/// The right to watch; given back when it is dropped.
#[derive(Debug)]
struct Place(Watches);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.watchers.dec();
    }
}

/// What a watcher is being told.
enum Telling {
    /// Nothing until it is known that the table is as new as what the watcher has taken in.
    Resuming { since: Instant },
    /// What comes next.
    News,
    /// Everything, as of one view.
    Everything { view: Arc<View>, after: String, first: bool },
    /// A change that takes several messages.
    Change { set: ChangeSet, upserts: usize, deleted: usize },
}

impl Telling {
    fn everything(live: &Live) -> Self {
        Self::Everything { view: live.view(), after: String::new(), first: true }
    }
}

struct Watcher {
    live: Arc<Live>,
    position: Position,
    telling: Telling,
    changed: watch::Receiver<u64>,
    progress_interval: Duration,
    _place: Place,
}

impl Watcher {
    /// What to tell next; waits until there is something.
    async fn next(&mut self) -> WatchAssignmentsResponse {
        loop {
            match self.telling {
                Telling::Resuming { since } => {
                    if self.resume(since).await {
                        continue;
                    }
                    return self.nothing_new();
                }
                Telling::Everything { .. } => return self.piece_of_everything(),
                Telling::Change { .. } => return self.piece_of_change(),
                Telling::News => {}
            }
            // Before looking: a change after this look wakes.
            self.changed.mark_unchanged();
            match self.live.since(self.position) {
                Since::Changed(set) => {
                    self.telling = Telling::Change { set, upserts: 0, deleted: 0 };
                }
                Since::Behind | Since::Ahead => self.telling = Telling::everything(&self.live),
                Since::Current => {
                    let changed = self.changed.changed();
                    if tokio::time::timeout(self.progress_interval, changed).await.is_err() {
                        return self.nothing_new();
                    }
                }
            }
        }
    }

    /// Finds out how one goes on that came at `since` and says where it stands. False where that is
    /// not known in time for a sign of life.
    async fn resume(&mut self, since: Instant) -> bool {
        let told_by = tokio::time::Instant::now() + self.progress_interval;
        loop {
            // Before looking: what happens after this look wakes.
            let looked = self.live.looked();
            self.changed.mark_unchanged();
            // Also before: a table that was current then has what the store had.
            let is_current = self.live.is_current_since(since);
            self.position = self.live.position_at(self.position.revision);
            if is_current || !self.live.is_behind(self.position) {
                self.telling = Telling::News;
                return true;
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                () = looked => {}
                () = tokio::time::sleep_until(told_by) => return false,
            }
        }
    }

    fn nothing_new(&self) -> WatchAssignmentsResponse {
        response(self.position.revision, Event::Progress(wire::ProgressMark {}))
    }

    fn piece_of_everything(&mut self) -> WatchAssignmentsResponse {
        let Telling::Everything { view, after, first } = &mut self.telling else {
            unreachable!("called only while everything is told")
        };
        let mut entries = view.table.iter_after(after);
        let assignments = fill(entries.by_ref());
        let is_last = entries.next().is_none();
        if let Some(last) = assignments.last() {
            after.clone_from(&last.namespace);
        }
        let first = std::mem::replace(first, false);
        let revision = view.table.revision();
        if is_last {
            self.position = self.live.position_of(view);
            self.telling = Telling::News;
        }
        let snapshot = wire::AssignmentSnapshot { assignments, first, last: is_last };
        response(revision, Event::Snapshot(snapshot))
    }

    fn piece_of_change(&mut self) -> WatchAssignmentsResponse {
        let Telling::Change { set, upserts, deleted } = &mut self.telling else {
            unreachable!("called only while a change is told")
        };
        let told = fill(set.upserts[*upserts..].iter());
        *upserts += told.len();
        let room = PIECE_MAX - told.len();
        let gone: Vec<String> =
            set.deleted[*deleted..].iter().take(room).map(NamespaceName::to_string).collect();
        *deleted += gone.len();
        let is_last = *upserts == set.upserts.len() && *deleted == set.deleted.len();
        let previous_revision = set.previous_revision.0;
        let revision = if is_last { set.revision } else { set.previous_revision };
        if is_last {
            self.position.revision = revision;
            self.telling = Telling::News;
        }
        let change = wire::AssignmentChange { previous_revision, upserts: told, deleted: gone };
        response(revision, Event::Change(change))
    }
}

fn response(revision: Revision, event: Event) -> WatchAssignmentsResponse {
    WatchAssignmentsResponse { revision: revision.0, event: Some(event) }
}

/// As many entries as fit into a message, at least one if there is one.
fn fill<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<wire::Assignment> {
    let mut filled = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let assignment = convert::assignment(entry);
        bytes += assignment.encoded_len();
        filled.push(assignment);
        if filled.len() == PIECE_MAX || bytes >= PIECE_BYTES {
            break;
        }
    }
    filled
}
