//! The snapshot that everybody reads, and the recent changes that watchers follow.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{NamespaceName, Revision, ShardName},
    routing::{
        Change, Entry, Table,
        history::{History, Since},
    },
};
use airfleet_runtime::clock::SharedClock;
use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, futures::Notified, watch};

use super::{
    changes::{difference, record, remembered},
    counts::Counts,
};
use crate::store::{Contents, Removal};

/// Where a table came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing was read yet.
    Nowhere,
    /// The file, while the store was away.
    File,
    /// The store.
    Store,
}

/// Where shards are reached: name to base URL, empty where it is not stated.
pub(crate) type Directory = HashMap<ShardName, Arc<str>>;

/// All that a request is answered from.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The assignments.
    pub(crate) table: Table,
    /// Where shards are reached.
    pub(crate) shards: Arc<Directory>,
    /// Where it came from.
    pub(crate) origin: Origin,
    /// The manifest is taken into account up to here.
    pub(crate) manifest_revision: Revision,
    /// The store that it is of.
    pub(crate) store_id: Arc<str>,
}

/// What changed in the store between two looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Update {
    /// What happened, in order of revision; each namespace at its latest.
    pub(crate) changes: Vec<(Revision, Change)>,
    /// Shards that are new or changed.
    pub(crate) shards: Vec<(ShardName, Arc<str>)>,
    /// Shards that are gone.
    pub(crate) removed_shards: Vec<ShardName>,
    /// Everything up to here is in it.
    pub(crate) revision: Revision,
    /// The manifest is taken into account up to here.
    pub(crate) manifest_revision: Revision,
}

/// Where a watcher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Changes when the table is replaced by one that is not its successor.
    epoch: u64,
    /// What the watcher has taken in.
    pub(crate) revision: Revision,
}

#[derive(Debug)]
struct Recent {
    epoch: u64,
    history: History,
}

/// The present table. Reading it is one atomic load.
#[derive(Debug)]
pub(crate) struct Live {
    view: ArcSwap<View>,
    /// Held by whoever derives the next view from the present one.
    writing: Mutex<Counts>,
    recent: RwLock<Recent>,
    /// Counts up with every change, so that watchers wake.
    changed: watch::Sender<u64>,
    /// Wakes those who wait until the store was asked.
    looked: Notify,
    history_limit: usize,
    clock: SharedClock,
    started: Instant,
    /// Microseconds from `started` to the last moment at which the table was known to be current.
    current_at: AtomicI64,
    /// Revision at which some namespace's prefixes last changed, or everything was replaced.
    prefixes_revision: AtomicI64,
}

impl Live {
    /// An empty table that is not ready. Keeps at most `history_limit` changes for watchers.
    pub(crate) fn new(history_limit: usize, clock: SharedClock) -> Self {
        let view = View {
            table: Table::empty(),
            shards: Arc::default(),
            origin: Origin::Nowhere,
            manifest_revision: Revision(0),
            store_id: "".into(),
        };
        let started = clock.instant();
        Self {
            view: ArcSwap::from_pointee(view),
            writing: Mutex::default(),
            recent: RwLock::new(Recent {
                epoch: 0,
                history: History::new(Revision(0), history_limit),
            }),
            changed: watch::Sender::new(0),
            looked: Notify::new(),
            history_limit,
            clock,
            started,
            current_at: AtomicI64::new(0),
            prefixes_revision: AtomicI64::new(0),
        }
    }

    /// The present view, for a look that does not outlive the request's work.
    #[inline]
    pub(crate) fn peek(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The present view, to keep.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether there is a table to serve from.
    pub(crate) fn is_ready(&self) -> bool {
        self.peek().origin != Origin::Nowhere
    }

    /// Wakes at every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Revision at which it may last have changed whose a dag_id is: until then answers of an older
    /// table hold.
    pub(crate) fn prefixes_revision(&self) -> Revision {
        Revision(self.prefixes_revision.load(Ordering::Relaxed))
    }

    /// How long ago the table was last known to be current.
    #[inline]
    pub(crate) fn age(&self) -> Duration {
        let now = self.micros(self.clock.instant());
        let age = now - self.current_at.load(Ordering::Relaxed);
        Duration::from_micros(age.max(0).unsigned_abs())
    }

    /// Notes that the store had nothing newer at `at`.
    pub(crate) fn mark_current(&self, at: Instant) {
        self.current_at.fetch_max(self.micros(at), Ordering::Release);
        self.looked.notify_waiters();
    }

    /// Whether the store was asked after `moment`, and everything that it had is in the table.
    pub(crate) fn is_current_since(&self, moment: Instant) -> bool {
        self.current_at.load(Ordering::Acquire) > self.micros(moment)
            && self.peek().origin == Origin::Store
    }

    /// Wakes when the store was asked the next time, counted from this call on.
    pub(crate) fn looked(&self) -> Notified<'_> {
        self.looked.notified()
    }

    /// Notes that the table is as old as this.
    pub(crate) fn mark_age(&self, age: Duration) {
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let at = self.micros(self.clock.instant()).saturating_sub(micros);
        self.current_at.store(at, Ordering::Relaxed);
    }

    /// The moment, for [`Live::mark_current`] and [`Live::is_current_since`]; take it before asking.
    pub(crate) fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// Numbers of namespaces.
    pub(crate) fn counts(&self) -> Counts {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies what is newer than the present table. What is not is known already.
    pub(crate) fn apply(&self, update: Update) {
        let mut counts = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.view();
        let known = present.table.revision();
        if update.revision <= known {
            return;
        }
        let changes: Vec<_> =
            update.changes.into_iter().filter(|(revision, _)| *revision > known).collect();
        let next = View {
            table: present.table.apply(changes.iter().map(|(_, change)| change), update.revision),
            shards: directory_after(&present.shards, update.shards, update.removed_shards),
            manifest_revision: update.manifest_revision,
            ..View::clone(&present)
        };
        let mut prefixes_changed = false;
        for (_, change) in &changes {
            // One name may occur twice: removed, and there again.
            let before = present.table.resolve_namespace(change.namespace());
            let after = next.table.resolve_namespace(change.namespace());
            if let (Change::Delete(_), Some(_)) = (change, after) {
                continue;
            }
            prefixes_changed |= !same_prefixes(before, after);
            if let Some(entry) = before {
                counts.remove(entry);
            }
            if let Some(entry) = after {
                counts.add(entry);
            }
        }
        // History first: a watcher may look at it as soon as it has seen the view.
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            let history = &mut recent.history;
            record(history, changes, update.revision);
        }
        let revision = next.table.revision();
        self.view.store(Arc::new(next));
        if prefixes_changed {
            self.prefixes_revision.store(revision.0, Ordering::Relaxed);
        }
        drop(counts);
        self.wake();
    }

    /// Puts another table in place of the present one. Watchers are told what differs where the
    /// new one is a successor, else everything.
    pub(crate) fn replace(&self, contents: Contents<Entry>, origin: Origin) {
        let Contents { head, namespaces, shards, removals } = contents;
        let shards = shards.into_iter().map(|shard| {
            let url = Arc::from(shard.manifest.spec.url.as_str());
            (shard.name, url)
        });
        let view = View {
            table: Table::build(namespaces, head.revision),
            shards: Arc::new(shards.collect()),
            origin,
            manifest_revision: head.manifest_revision,
            store_id: head.store_id.into(),
        };
        let removals = removals.into_iter().filter_map(|(revision, removal)| match removal {
            Removal::Namespace(name) => Some((revision, name)),
            Removal::Shard(_) => None,
        });
        self.replace_view(view, head.removals_floor, removals.collect());
    }

    /// Like [`Live::replace`], with a finished view.
    pub(crate) fn replace_view(
        &self,
        view: View,
        removals_floor: Revision,
        removals: Vec<(Revision, NamespaceName)>,
    ) {
        let mut counts = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = Counts::of(&view.table);
        let present = self.view();
        let successor =
            present.store_id == view.store_id && present.table.revision() <= view.table.revision();
        let limit = self.history_limit;
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            if successor && present.table.revision() == view.table.revision() {
                // The same table from another source; who follows it goes on.
            } else if successor {
                let changes = difference(&present.table, &view.table);
                record(&mut recent.history, changes, view.table.revision());
            } else {
                recent.epoch += 1;
                recent.history = remembered(&view.table, removals_floor, removals, limit);
            }
        }
        let revision = view.table.revision();
        self.view.store(Arc::new(view));
        self.prefixes_revision.store(revision.0, Ordering::Relaxed);
        drop(counts);
        self.wake();
    }

    /// The position of one who has taken in `view` whole.
    pub(crate) fn position_of(&self, view: &View) -> Position {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        Position { epoch: recent.epoch, revision: view.table.revision() }
    }

    /// The position of one who says that it has taken in everything up to `revision`.
    pub(crate) fn position_at(&self, revision: Revision) -> Position {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        Position { epoch: recent.epoch, revision }
    }

    /// Whether one who stands at `position` has taken in more than there is here.
    pub(crate) fn is_behind(&self, position: Position) -> bool {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        position.revision > recent.history.revision()
    }

    /// What one who stands at `position` is to be told.
    pub(crate) fn since(&self, position: Position) -> Since {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if recent.epoch != position.epoch {
            return Since::Ahead;
        }
        recent.history.since(position.revision)
    }

    /// The present view, with the removals that are still remembered and the revision from which on
    /// they are.
    pub(crate) fn with_removals(&self) -> (Arc<View>, Revision, Vec<(Revision, NamespaceName)>) {
        // Whoever changes the table holds this, so that the three belong together.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let floor = recent.history.floor();
        let removals = match recent.history.since(floor) {
            // A folded set does not tell when each was removed. Told as of the latest revision, a
            // removal is repeated to some who know it, and missed by nobody.
            Since::Changed(set) => {
                set.deleted.into_iter().map(|name| (set.revision, name)).collect()
            }
            _ => Vec::new(),
        };
        (self.view(), floor, removals)
    }

    /// Notes that what came from the file is what the store has.
    pub(crate) fn confirm(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = View { origin: Origin::Store, ..View::clone(&self.peek()) };
        self.view.store(Arc::new(view));
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn micros(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.started).as_micros();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

fn same_prefixes(before: Option<&Entry>, after: Option<&Entry>) -> bool {
    // Who owns it counts as well: a DAG of a namespace that came here is no longer foreign.
    before.and_then(Entry::shard) == after.and_then(Entry::shard)
        && before
            .into_iter()
            .flat_map(Entry::prefixes)
            .eq(after.into_iter().flat_map(Entry::prefixes))
}

fn directory_after(
    present: &Arc<Directory>,
    shards: Vec<(ShardName, Arc<str>)>,
    removed: Vec<ShardName>,
) -> Arc<Directory> {
    if shards.is_empty() && removed.is_empty() {
        return present.clone();
    }
    let mut next = Directory::clone(present);
    for name in removed {
        next.remove(&name);
    }
    next.extend(shards);
    Arc::new(next)
}
