//! One watcher's stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use airfleet_domain::ids::Revision;
use airfleet_runtime::client::Backoff;
use airfleet_runtime::status::Failure;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CHANGES_MAX, Tail};
use crate::service::{ANSWER_MAX_BYTES, store_failure};
use crate::store::{Change, Key, Resume, Revised, Snapshot, Stored};

/// Longest time that a watcher may take over one piece of a snapshot. A snapshot holds a
/// connection of the store.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a snapshot's turn.
const TURN_TIMEOUT: Duration = Duration::from_mins(1);

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of the whole manifest.
    Piece {
        /// The manifest is of this revision once the last piece is there.
        revision: Revision,
        /// Some of its entries.
        entries: Vec<Stored>,
        /// Replaces all that was told before.
        is_first: bool,
        /// Completes it.
        is_last: bool,
    },
    /// What changed, each entry at its latest.
    Change {
        /// After this revision.
        previous: Revision,
        /// Up to this one.
        revision: Revision,
        /// What is new or changed.
        upserts: Vec<Arc<Stored>>,
        /// What was removed.
        deleted: Vec<Key>,
    },
    /// Nothing changed up to this revision.
    Progress {
        /// The revision.
        revision: Revision,
    },
}

/// Where a stream goes to. Two messages wait there at most.
type Out = mpsc::Sender<Result<Event, Failure>>;

/// The watcher went away, or cannot be served further.
struct Ended;

/// How a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    position: Revision,
    resume: Resume,
}

impl Tail {
    /// Finds out how a stream that resumes at `position` (0 for none) begins. Fails while the
    /// store is away, because nothing can be told then.
    pub(crate) async fn start(&self, position: Revision) -> Result<Start, Failure> {
        let remembered = position > Revision(0) && {
            let is_read = self.head.borrow().is_some();
            is_read && self.ring().after(position, 1, 1).is_some()
        };
        let resume = if remembered {
            Resume::Changes
        } else {
            let resume = self.store.resume(position, self.config.history).await;
            resume.map_err(store_failure)?
        };
        Ok(Start { position, resume })
    }

    /// Sends everything from `start` on until the watcher goes away.
    pub(crate) async fn follow(self: Arc<Self>, start: Start, out: Out) {
        self.metrics.watchers.inc();
        let _ended = self.tell(start, &out).await;
        self.metrics.watchers.dec();
    }

    async fn tell(&self, start: Start, out: &Out) -> Result<(), Ended> {
        let mut head = self.head.subscribe();
        let mut position = match start.resume {
            Resume::Changes => start.position,
            Resume::Everything => self.send_everything(out).await?,
        };
        let mut told_at = Instant::now();
        loop {
            let end = head.borrow_and_update().unwrap_or(position);
            if end > position {
                position = self.advance(position, out).await?;
                told_at = Instant::now();
                continue;
            }
            if end < position && self.is_lost(position, out).await? {
                position = self.send_everything(out).await?;
                told_at = Instant::now();
            }
            tokio::select! {
                () = out.closed() => return Err(Ended),
                changed = head.changed() => changed.map_err(|_| Ended)?,
                () = tokio::time::sleep_until(told_at + self.config.progress_interval) => {
                    let is_sure = self.age().is_some_and(|age| age < self.config.progress_interval);
                    if is_sure && *head.borrow() == Some(position) {
                        send(out, Event::Progress { revision: position }).await?;
                    }
                    told_at = Instant::now();
                }
            }
        }
    }

    /// Whether the store is behind `position`, because it goes on from a backup. The tail alone is
    /// behind for a moment after a snapshot.
    async fn is_lost(&self, position: Revision, out: &Out) -> Result<bool, Ended> {
        let mut backoff = backoff();
        loop {
            match self.store.resume(position, self.config.history).await {
                Ok(resume) => return Ok(resume == Resume::Everything),
                Err(error) => pause(&mut backoff, error, out).await?,
            }
        }
    }

    /// One step from `position` towards the present. Answers the new position.
    async fn advance(&self, position: Revision, out: &Out) -> Result<Revision, Ended> {
        let remembered = self.ring().after(position, CHANGES_MAX, ANSWER_MAX_BYTES);
        let revised = match remembered {
            Some(revised) => revised,
            None => match self.read_changes(position, out).await? {
                Some(revised) => revised.into_iter().map(Arc::new).collect(),
                None => return self.send_everything(out).await,
            },
        };
        let Some(last) = revised.last() else { return Ok(position) };
        let revision = last.revision;
        let (upserts, deleted) = fold(revised.iter().flat_map(|revised| &revised.changes));
        send(out, Event::Change { previous: position, revision, upserts, deleted }).await?;
        Ok(revision)
    }

    /// Changes that are no longer in memory; `None` where they are not to be had. Waits while the
    /// store is away.
    async fn read_changes(
        &self,
        position: Revision,
        out: &Out,
    ) -> Result<Option<Vec<Revised>>, Ended> {
        let mut backoff = backoff();
        loop {
            let read = async {
                if self.store.resume(position, self.config.history).await? == Resume::Everything {
                    return Ok(None);
                }
                let changes = self.store.changes_after(position, CHANGES_MAX, ANSWER_MAX_BYTES);
                changes.await.map(Some)
            };
            match read.await {
                Ok(changes) => return Ok(changes),
                Err(error) => pause(&mut backoff, error, out).await?,
            }
        }
    }

    /// Sends the whole manifest and answers its revision. Begins again where the store fails
    /// halfway.
    async fn send_everything(&self, out: &Out) -> Result<Revision, Ended> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.snapshots.acquire());
        let turn = tokio::select! {
            () = out.closed() => return Err(Ended),
            turn = turn => turn,
        };
        let Ok(Ok(_turn)) = turn else {
            let busy = "too many watchers want the whole manifest at once; try again";
            let failure = Failure::unavailable(busy, Duration::from_secs(5));
            return give_up(out, failure).await;
        };
        self.metrics.snapshots.inc();
        let mut backoff = backoff();
        loop {
            let read = async {
                let mut snapshot = self.store.snapshot().await?;
                self.send_pieces(&mut snapshot, out).await
            };
            match read.await {
                Ok(result) => return result,
                Err(error) => pause(&mut backoff, error, out).await?,
            }
        }
    }

    async fn send_pieces(
        &self,
        snapshot: &mut Snapshot,
        out: &Out,
    ) -> Result<Result<Revision, Ended>, crate::store::Error> {
        let revision = snapshot.revision();
        let mut is_first = true;
        loop {
            let (entries, is_last) = snapshot.piece(CHANGES_MAX, ANSWER_MAX_BYTES).await?;
            let piece = Event::Piece { revision, entries, is_first, is_last };
            match tokio::time::timeout(PIECE_TIMEOUT, send(out, piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(Ended)) => return Ok(Err(Ended)),
                Err(_) => {
                    let slow = "the snapshot was taken in too slowly; watch again";
                    let failure = Failure::unavailable(slow, Duration::from_secs(5));
                    return Ok(give_up(out, failure).await);
                }
            }
            if is_last {
                return Ok(Ok(revision));
            }
            is_first = false;
        }
    }
}

/// The latest of each entry: those that are there, and those that are not.
fn fold<'a>(changes: impl Iterator<Item = &'a Change>) -> (Vec<Arc<Stored>>, Vec<Key>) {
    let mut latest: HashMap<&Key, &Change> = HashMap::new();
    let mut order = Vec::new();
    for change in changes {
        if latest.insert(&change.key, change).is_none() {
            order.push(&change.key);
        }
    }
    let (mut upserts, mut deleted) = (Vec::new(), Vec::new());
    for key in order {
        match &latest[key].after {
            Some(after) => upserts.push(Arc::clone(after)),
            None => deleted.push(key.clone()),
        }
    }
    (upserts, deleted)
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// Waits before the store is asked again. A fault that waiting does not mend ends the stream.
async fn pause(backoff: &mut Backoff, error: crate::store::Error, out: &Out) -> Result<(), Ended> {
    let failure = store_failure(error);
    if failure.retry_after().is_none() {
        return give_up(out, failure).await;
    }
    tokio::select! {
        () = out.closed() => Err(Ended),
        () = backoff.wait(None) => Ok(()),
    }
}

async fn send(out: &Out, event: Event) -> Result<(), Ended> {
    out.send(Ok(event)).await.map_err(|_| Ended)
}

/// Ends the stream with an error, if the watcher still takes one.
async fn give_up<T>(out: &Out, failure: Failure) -> Result<T, Ended> {
    // The channel may be full because the watcher takes nothing.
    let _ = tokio::time::timeout(PIECE_TIMEOUT, out.send(Err(failure))).await;
    Err(Ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    #[test]
    fn only_the_latest_of_each_entry_is_told() {
        let key = |name: &str| Key { kind: Kind::Shard, name: name.to_owned() };
        let stored = |name: &str, revision| {
            let metadata =
                airfleet_domain::manifest::Metadata { name: name.to_owned(), ..Default::default() };
            let shard = airfleet_domain::manifest::Shard { metadata, ..Default::default() };
            Arc::new(Stored {
                entry: airfleet_domain::manifest::Entry::Shard(shard),
                uid: String::new(),
                revision: Revision(revision),
                created_at: 0,
                updated_at: 0,
            })
        };
        let change = |name: &str, after| Change { key: key(name), after };
        let changes = [
            change("back", None),
            change("twice", Some(stored("twice", 1))),
            change("gone", Some(stored("gone", 2))),
            change("twice", Some(stored("twice", 3))),
            change("gone", None),
            change("back", Some(stored("back", 4))),
        ];
        let (upserts, deleted) = fold(changes.iter());
        let upserts: Vec<_> = upserts.iter().map(|s| (s.entry.name(), s.revision.0)).collect();
        assert_eq!(upserts, [("back", 4), ("twice", 3)]);
        assert_eq!(deleted, [key("gone")]);
    }
}
