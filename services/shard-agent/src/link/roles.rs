//! What the router wants this shard to be for each namespace.
//!
//! Responsible for taking in desired roles in order, for refusing a router that was replaced, and
//! for remembering both over a restart. It must not know what roles lead to.
//!
//! # Invariants
//! - The term never goes back, not even by a restart where a folder to remember in was given; nor
//!   does the place of a namespace's order within a term.
//! - An order is on disk before anybody is given it to obey. Where the disk refuses, it is obeyed all
//!   the same: the fence in the metadata database remembers its place, and a namespace that must
//!   stop is not kept running by a full disk.
//! - A namespace that the router has no word for is quarantined, not forgotten: the router may be
//!   wrong, or set up anew. Only one that it said to be absent is let go.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use airfleet_domain::{
    ids::{Generation, NamespaceName, Prefix, Revision},
    manifest::Workload,
    moves::{Seen, Task},
    roles::{Desired, Role},
};
use airfleet_proto::{agent::v1 as wire, convert};
use airfleet_runtime::lifecycle::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{moves, owners::Owners};

/// Most namespaces of one shard. What goes beyond is left out, and said so.
const NAMESPACES_MAX: usize = 100_000;

/// What could not be written down is tried again after this time.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// How the file is written. One of another format is read for its term alone.
const FORMAT: u32 = 2;

/// Orders by namespace.
pub(crate) type Orders = BTreeMap<NamespaceName, Order>;

/// What the shard is to be for one namespace, and what it is to have for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The role that the router last named, and its generation.
    pub(crate) desired: Desired,
    /// Revision at which it was committed.
    pub(crate) revision: Revision,
    /// dag_id prefixes that are the namespace's own.
    pub(crate) prefixes: Vec<String>,
    /// What the manifest declares.
    pub(crate) workload: Workload,
    /// Revision of that manifest.
    pub(crate) manifest_revision: i64,
    /// What else to do, while the namespace is moved.
    #[serde(default)]
    pub(crate) task: Option<Task>,
    /// Whether the router has no word for it (any more).
    pub(crate) quarantined: bool,
}

impl Order {
    /// Its place among all orders of the namespace.
    pub(crate) fn place(&self) -> Seen {
        Seen { generation: self.desired.generation, revision: self.revision }
    }

    /// What to do in a move. In quarantine nothing.
    pub(crate) fn task(&self) -> Option<&Task> {
        self.task.as_ref().filter(|_| !self.quarantined)
    }

    /// What to be. In quarantine that is as little as can be without deleting anything.
    pub(crate) fn effective(&self) -> Desired {
        if self.quarantined && self.desired.role.has_workload() {
            return Desired { role: Role::Quiesced, generation: self.desired.generation };
        }
        self.desired
    }
}

/// The roles of one shard. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Roles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    owners: watch::Sender<Arc<Owners>>,
    /// What may be obeyed: it was written down.
    orders: watch::Sender<Arc<Orders>>,
    file: Option<PathBuf>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    book: Book,
    /// Of the last message on this stream; none before the first.
    sequence: Option<i64>,
    /// Namespaces that a full answer has named so far, while its last piece has not come.
    named: Option<BTreeSet<NamespaceName>>,
}

/// What is remembered over a restart.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    #[serde(default)]
    format: u32,
    /// The highest term seen.
    term: i64,
    #[serde(default)]
    namespaces: Arc<Orders>,
}

/// Why a message of the router was not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The router was replaced.
    #[error(
        "the router speaks for term {told}, but term {seen} was seen before: it no longer leads; \
         if the router's store was set up anew, remove the agent's state_dir"
    )]
    StaleTerm {
        /// What the router says.
        told: i64,
        /// The highest that was seen.
        seen: i64,
    },
    /// The message is older than one before it.
    #[error("desired roles number {told} came after number {seen}")]
    OutOfOrder {
        /// Number of the message.
        told: i64,
        /// Number of the one before.
        seen: i64,
    },
}

/// Why what was remembered cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read or its folder not be made.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what the agent wrote.
    #[error("{} is damaged; remove it and the router will tell everything anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Roles {
    /// Nothing known and nothing remembered.
    pub(crate) fn forgetful() -> Self {
        Self::from_book(Book::default(), None)
    }

    /// What `folder` remembers of `shard`.
    pub(crate) fn load(folder: &Path, shard: &str) -> Result<Self, LoadError> {
        let path = folder.join(format!("roles-{shard}.json"));
        let failed = |source| LoadError::File { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let book = match std::fs::read(&path) {
            Ok(text) => Book::read(&text)
                .map_err(|source| LoadError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self::from_book(book, Some(path)))
    }

    fn from_book(book: Book, file: Option<PathBuf>) -> Self {
        let owners = watch::Sender::new(Arc::new(book.owners()));
        let orders = watch::Sender::new(book.namespaces.clone());
        let inner = Mutex::new(Inner { book, sequence: None, named: None });
        Self(Arc::new(Shared { inner, owners, orders, file, changed: Notify::new() }))
    }

    /// Whose DAG is whose, as it changes.
    pub(crate) fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.0.owners.subscribe()
    }

    /// What is to be obeyed, as it changes.
    pub(crate) fn orders(&self) -> watch::Receiver<Arc<Orders>> {
        self.0.orders.subscribe()
    }

    /// Whether a namespace is on its way to or from the shard.
    pub(super) fn is_in_move(&self) -> bool {
        self.0.orders.borrow().values().any(|order| order.task().is_some())
    }

    /// A router took the agent in, for `term`.
    pub(super) fn begin(&self, term: i64) -> Result<(), Refused> {
        let mut inner = self.lock();
        inner.meet(term)?;
        inner.sequence = None;
        inner.named = None;
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes in one message.
    pub(super) fn take(&self, told: wire::DesiredRoles) -> Result<(), Refused> {
        let mut inner = self.lock();
        inner.meet(told.term)?;
        if let Some(seen) = inner.sequence.filter(|seen| told.sequence <= *seen) {
            return Err(Refused::OutOfOrder { told: told.sequence, seen });
        }
        inner.sequence = Some(told.sequence);
        if told.full {
            inner.named = Some(BTreeSet::new());
        }
        let before = inner.book.namespaces.clone();
        let orders = Arc::make_mut(&mut inner.book.namespaces);
        for name in told.removed.iter().filter_map(|name| name.parse().ok()) {
            let_go(orders, &name);
        }
        let mut named = Vec::with_capacity(told.roles.len());
        for role in told.roles {
            named.extend(insert(orders, role));
        }
        if let Some(all) = &mut inner.named {
            all.extend(named);
        }
        if !told.more
            && let Some(all) = inner.named.take()
        {
            let orders = Arc::make_mut(&mut inner.book.namespaces);
            let unnamed: Vec<_> =
                orders.keys().filter(|name| !all.contains(*name)).cloned().collect();
            for name in unnamed {
                let_go(orders, &name);
            }
        }
        if inner.book.namespaces != before {
            let owners = Arc::new(inner.book.owners());
            tracing::info!(namespaces = owners.names().len(), "the router named namespaces");
            self.0.owners.send_replace(owners);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Writes down what is to be remembered and then gives it out to be obeyed, again and again
    /// until shutdown.
    pub(crate) async fn keep_saving(self, shutdown: Shutdown) {
        let mut saved = None;
        while !shutdown.is_triggered() {
            let again = sleep(SAVE_RETRY);
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = again, if saved.is_none() => {}
                () = shutdown.triggered() => {}
            }
            let book = self.lock().book.clone();
            if saved.as_ref() == Some(&book) {
                continue;
            }
            let orders = book.namespaces.clone();
            saved = match self.save(book.clone()).await {
                Ok(()) => Some(book),
                Err(error) => {
                    tracing::error!("cannot remember roles: {error}");
                    None
                }
            };
            self.0.orders.send_if_modified(|given| {
                let changed = **given != *orders;
                *given = orders;
                changed
            });
        }
    }

    async fn save(&self, book: Book) -> io::Result<()> {
        let Some(file) = self.0.file.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || write(&file, &book)).await.map_err(io::Error::other)?
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn meet(&mut self, told: i64) -> Result<(), Refused> {
        if told < self.book.term {
            return Err(Refused::StaleTerm { told, seen: self.book.term });
        }
        if told > self.book.term {
            self.book.term = told;
            // Each term counts its messages anew, also on a stream that goes on.
            self.sequence = None;
        }
        Ok(())
    }
}

impl Book {
    /// What another version wrote is told anew by the router; its term counts.
    fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Outline {
            #[serde(default)]
            format: u32,
            term: i64,
        }
        let outline: Outline = serde_json::from_slice(text)?;
        if outline.format == FORMAT {
            return serde_json::from_slice(text);
        }
        Ok(Self { term: outline.term, ..Self::default() })
    }

    fn owners(&self) -> Owners {
        Owners::new(self.namespaces.iter().map(|(name, order)| (name, order.prefixes.as_slice())))
    }
}

/// The router has no word for a namespace.
fn let_go(orders: &mut Orders, name: &NamespaceName) {
    match orders.get_mut(name) {
        Some(order) if order.desired.role == Role::Absent => {
            orders.remove(name);
        }
        Some(order) if !order.quarantined => {
            tracing::warn!(%name, role = %order.desired.role, "the router does not name this namespace: quarantined");
            order.quarantined = true;
        }
        _ => {}
    }
}

/// Takes in an order, if it is one and none that came after it is known. Gives the name, also of one
/// that is refused: the router has a word for it.
fn insert(orders: &mut Orders, told: wire::DesiredRole) -> Option<NamespaceName> {
    let Ok(name) = told.namespace.parse::<NamespaceName>() else {
        tracing::warn!(name = ?short(&told.namespace), "passing over a malformed namespace name");
        return None;
    };
    if orders.len() >= NAMESPACES_MAX && !orders.contains_key(&name) {
        tracing::error!(%name, most = NAMESPACES_MAX, "passing over a namespace: too many");
        return None;
    }
    let Some(role) = convert::role(told.role()) else {
        tracing::warn!(%name, role = told.role, "passing over a role that this agent does not know");
        return Some(name);
    };
    let (prefixes, bad): (Vec<_>, Vec<_>) =
        told.prefixes.into_iter().partition(|prefix| prefix.parse::<Prefix>().is_ok());
    if let Some(bad) = bad.first() {
        tracing::warn!(%name, prefix = ?short(bad), "passing over a malformed prefix");
    }
    let task = told.r#move.as_ref().and_then(moves::wire::task);
    if told.r#move.is_some() && task.is_none() {
        tracing::warn!(%name, "passing over a part in a move that this agent does not know");
    }
    let order = Order {
        desired: Desired { role, generation: Generation(told.generation) },
        revision: Revision(told.revision),
        prefixes,
        workload: told.workload.map(Into::into).unwrap_or_default(),
        manifest_revision: told.manifest_revision,
        task,
        quarantined: false,
    };
    let known = orders.get(&name).map(Order::place);
    if let Some(seen) = known.filter(|seen| !seen.admits(order.place())) {
        tracing::warn!(
            %name, generation = order.desired.generation.0, revision = order.revision.0,
            seen_generation = seen.generation.0, seen_revision = seen.revision.0,
            "passing over an order that was overtaken"
        );
        return Some(name);
    }
    orders.insert(name.clone(), order);
    Some(name)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one.
fn write(file: &Path, book: &Book) -> io::Result<()> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    let replace = || {
        let beside = file.with_extension("json.new");
        let text = serde_json::to_vec(&Book { format: FORMAT, ..book.clone() })?;
        let mut written = std::fs::File::create(&beside)?;
        io::Write::write_all(&mut written, &text)?;
        written.sync_all()?;
        std::fs::rename(&beside, file)?;
        match file.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    replace().map_err(told)
}
