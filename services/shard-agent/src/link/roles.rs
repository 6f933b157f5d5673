//! What the router wants this shard to be for each namespace.
//!
//! Responsible for taking in desired roles in order, for refusing a router that was replaced, and
//! for remembering both over a restart. Invariant: the term never goes back, not even by a restart
//! where a folder to remember in was given. It must not know what roles lead to.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use airfleet_domain::ids::{NamespaceName, Prefix};
use airfleet_proto::agent::v1 as wire;
use airfleet_runtime::lifecycle::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::owners::Owners;

/// Most namespaces of one shard. What goes beyond is left out, and said so.
const NAMESPACES_MAX: usize = 100_000;

/// What is remembered is written at most this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The roles of one shard. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Roles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    owners: watch::Sender<Arc<Owners>>,
    file: Option<PathBuf>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    book: Book,
    /// Of the last message on this stream; none before the first.
    sequence: Option<i64>,
}

/// What is remembered over a restart.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    /// The highest term seen.
    term: i64,
    namespaces: BTreeMap<NamespaceName, Desired>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Desired {
    prefixes: Vec<String>,
    /// As on the wire: `airfleet.common.v1.Role`.
    role: i32,
    generation: i64,
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
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| LoadError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self::from_book(book, Some(path)))
    }

    fn from_book(book: Book, file: Option<PathBuf>) -> Self {
        let owners = watch::Sender::new(Arc::new(book.owners()));
        let inner = Mutex::new(Inner { book, sequence: None });
        Self(Arc::new(Shared { inner, owners, file, changed: Notify::new() }))
    }

    /// Whose DAG is whose, as it changes.
    pub(crate) fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.0.owners.subscribe()
    }

    /// A router took the agent in, for `term`.
    pub(super) fn begin(&self, term: i64) -> Result<(), Refused> {
        let mut inner = self.lock();
        inner.meet(term)?;
        inner.sequence = None;
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
        // What was remembered is good until somebody speaks; then only what is said counts.
        let anew = told.full || inner.sequence.is_none();
        inner.sequence = Some(told.sequence);
        let before = inner.book.namespaces.clone();
        if anew {
            inner.book.namespaces.clear();
        }
        for name in told.removed {
            if let Ok(name) = name.parse::<NamespaceName>() {
                inner.book.namespaces.remove(&name);
            }
        }
        for role in told.roles {
            inner.book.insert(role);
        }
        if inner.book.namespaces != before {
            let owners = Arc::new(inner.book.owners());
            tracing::info!(namespaces = owners.names().len(), "the router named namespaces");
            self.0.owners.send_replace(owners);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Writes what is to be remembered, again and again until shutdown, and a last time then.
    pub(crate) async fn keep_saving(self, shutdown: Shutdown) {
        let Some(file) = &self.0.file else { return };
        let mut saved = None;
        while !shutdown.is_triggered() {
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = shutdown.triggered() => {}
            }
            let book = self.lock().book.clone();
            if saved.as_ref() != Some(&book) {
                match save(file.clone(), book.clone()).await {
                    Ok(()) => saved = Some(book),
                    Err(error) => {
                        tracing::error!(%error, file = %file.display(), "cannot remember roles");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(SAVE_INTERVAL) => {}
                () = shutdown.triggered() => {}
            }
        }
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
    fn insert(&mut self, role: wire::DesiredRole) {
        let Ok(name) = role.namespace.parse::<NamespaceName>() else {
            tracing::warn!(name = ?short(&role.namespace), "passing over a malformed namespace name");
            return;
        };
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(&name) {
            tracing::error!(%name, most = NAMESPACES_MAX, "passing over a namespace: too many");
            return;
        }
        let (good, bad): (Vec<_>, Vec<_>) =
            role.prefixes.into_iter().partition(|prefix| prefix.parse::<Prefix>().is_ok());
        if let Some(bad) = bad.first() {
            tracing::warn!(%name, prefix = ?short(bad), "passing over a malformed prefix");
        }
        let desired = Desired { prefixes: good, role: role.role, generation: role.generation };
        self.namespaces.insert(name, desired);
    }

    fn owners(&self) -> Owners {
        Owners::new(
            self.namespaces.iter().map(|(name, desired)| (name, desired.prefixes.as_slice())),
        )
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one.
async fn save(file: PathBuf, book: Book) -> io::Result<()> {
    let write = move || {
        let beside = file.with_extension("json.new");
        let text = serde_json::to_vec(&book)?;
        let mut written = std::fs::File::create(&beside)?;
        io::Write::write_all(&mut written, &text)?;
        written.sync_all()?;
        std::fs::rename(&beside, &file)
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}
