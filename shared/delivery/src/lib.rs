//! Delivery of DAG files: from a namespace's source into the folder that an Airflow reads.
//!
//! [`Roller::sync`] brings a namespace to what its source holds: it fetches what changed, checks it,
//! and switches in one step. What Airflow sees is one whole release or the next one, never a mix,
//! whatever fails and whenever the process is killed. Earlier releases stay for a rollback.
//!
//! Responsible for everything below `<dags_folder>/.airfleet` but the snapshots that others keep
//! there, and for the links beside it. Must not know Airflow's database, the router, or which
//! namespaces belong here.
//!
//! # What never happens
//! 1. A partial, corrupt or refused bundle becomes visible.
//! 2. Anything outside the DAGs folder is written, or anything outside a source read, by what a
//!    bundle holds.
//! 3. What others put into the DAGs folder is removed.
//! 4. A credential is taken from a manifest or appears in an error or a log.
//!
//! How it is done, and why so: `docs/adr/0008-dag-delivery.md`.

mod assemble;
mod bundle;
mod error;
mod incoming;
mod layout;
mod path;
mod release;
mod run;
mod source;
mod tree;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use airfleet_domain::{ids::NamespaceName, manifest};
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Semaphore;

pub use self::{
    bundle::{Changes, Limits},
    error::{Blame, Code, Error, Refusal},
    layout::HOME,
    release::{Release, ReleaseId},
};
use self::{layout::Layout, run::Run, source::Sources};

/// How DAG files are delivered on this machine.
#[derive(Clone)]
pub struct Settings {
    /// What a bundle may take.
    pub limits: Limits,
    /// Releases that are kept of a namespace, with the one that runs.
    pub keep: usize,
    /// Namespaces that are worked on at once.
    pub namespaces_at_once: usize,
    /// Files that are fetched at once from an object store, of one namespace.
    pub fetches_at_once: usize,
    /// Time for one sync.
    pub deadline: Duration,
    /// Time to wait for another process that works on the same namespace.
    pub lock_wait: Duration,
    /// Folders of this machine below which a source (a folder, or `git+file`) may lie; `None` for
    /// anywhere. Whoever writes the manifest can have any file below them delivered.
    pub source_folders: Option<Vec<PathBuf>>,
    /// Options of object stores, such as `endpoint` and `region`, by scheme (`s3`) or bucket
    /// (`s3://dags`). They win over the environment. May hold secrets.
    pub stores: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keep: 3,
            namespaces_at_once: 4,
            fetches_at_once: 16,
            deadline: Duration::from_mins(15),
            lock_wait: Duration::from_secs(10),
            source_folders: Some(Vec::new()),
            stores: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("limits", &self.limits)
            .field("keep", &self.keep)
            .field("namespaces_at_once", &self.namespaces_at_once)
            .field("fetches_at_once", &self.fetches_at_once)
            .field("deadline", &self.deadline)
            .field("lock_wait", &self.lock_wait)
            .field("source_folders", &self.source_folders)
            .field("stores", &self.stores.keys())
            .finish()
    }
}

/// What a sync came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Synced {
    /// The release that Airflow sees now.
    pub release: Release,
    /// The one that it saw before.
    pub previous: Option<ReleaseId>,
    /// What differs from it.
    pub changes: Changes,
    /// Whether another release is seen than before.
    pub switched: bool,
    /// Whether the source's release is held back, for it was rolled back.
    pub held: bool,
    /// Files that somebody had changed, and that were put right.
    pub repaired: usize,
    /// Bytes that were read from the source.
    pub fetched_bytes: u64,
}

/// How far a sync has come, for whoever watches. Told from threads of the sync, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// What is here was read.
    Begun,
    /// The source answered.
    Asked,
    /// Files are being fetched.
    Fetching {
        /// How many.
        files: usize,
    },
    /// All files of the release are here.
    Fetched {
        /// Files of the release.
        files: usize,
        /// Bytes that were read.
        bytes: u64,
    },
    /// There is a folder to make the release in.
    Staged,
    /// The release is complete, and not yet known.
    Assembled,
    /// The release is known and survives a power cut.
    Sealed,
    /// Airflow sees the release.
    Switched,
    /// Files are dated so that Airflow looks at them.
    Freshened,
    /// What is not kept is gone.
    Pruned,
    /// All is done.
    Settled,
}

/// Is told the steps of a sync.
pub type Watch = Arc<dyn Fn(&Step) + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) sources: Sources,
    permits: Semaphore,
}

/// Delivers DAG files into one DAGs folder. Clones share it.
#[derive(Clone)]
pub struct Roller {
    inner: Arc<Inner>,
}

impl fmt::Debug for Roller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Roller")
            .field("dags_folder", &self.inner.layout.dags())
            .finish_non_exhaustive()
    }
}

impl Roller {
    /// A roller for the folder that an Airflow reads (`core.dags_folder`). Nothing is touched yet.
    pub fn new(dags_folder: impl Into<PathBuf>, settings: Settings) -> Self {
        let sources = Sources::new(
            settings.source_folders.clone(),
            settings.stores.clone(),
            settings.fetches_at_once.max(1),
        );
        let permits = Semaphore::new(settings.namespaces_at_once.max(1));
        let layout = Layout::new(dags_folder.into());
        Self { inner: Arc::new(Inner { layout, settings, sources, permits }) }
    }

    /// Brings `namespace` to what `source` holds, and tells what changed. Where it fails, what
    /// Airflow sees stays as it is. Repeating it is harmless and cheap: a source that did not change
    /// is listed, or asked for its commit, and nothing else.
    ///
    /// Dropping the future stops at the next step.
    pub async fn sync(
        &self,
        namespace: &NamespaceName,
        source: &manifest::Source,
    ) -> Result<Synced, Error> {
        self.sync_watched(namespace, source, Arc::new(|_| {})).await
    }

    /// As [`Roller::sync`], telling each step.
    pub async fn sync_watched(
        &self,
        namespace: &NamespaceName,
        source: &manifest::Source,
        watch: Watch,
    ) -> Result<Synced, Error> {
        let _permit = self.inner.permits.acquire().await.expect("is never closed");
        let deadline = self.inner.settings.deadline;
        // Large, and awaited from tasks: checked here to be one that may go from thread to thread.
        let work: BoxFuture<'_, _> =
            Box::pin(async { self.run(namespace, watch).await?.sync(source).await });
        tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            let message = format!(
                "namespace {namespace} was not delivered within {} s; the next attempt goes on \
                 from there",
                deadline.as_secs()
            );
            Err(Error::here(Code::Timeout, message))
        })
    }

    /// The release that Airflow sees.
    pub async fn current(&self, namespace: &NamespaceName) -> Result<Option<Release>, Error> {
        let (inner, namespace) = (self.inner.clone(), namespace.clone());
        run::blocking(move || {
            let Some(id) = inner.layout.current(&namespace)? else { return Ok(None) };
            Ok(inner.layout.list(&namespace)?.into_iter().find(|release| release.id == id))
        })
        .await
    }

    /// Releases that can be switched to, the one fetched last first.
    pub async fn releases(&self, namespace: &NamespaceName) -> Result<Vec<Release>, Error> {
        let (inner, namespace) = (self.inner.clone(), namespace.clone());
        run::blocking(move || inner.layout.list(&namespace)).await
    }

    /// Namespaces whose files Airflow sees, in order.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceName>, Error> {
        let inner = self.inner.clone();
        run::blocking(move || inner.layout.namespaces()).await
    }

    /// Shows a release that is here, at once and without the source. The release that was synced
    /// last is then held back: further syncs change nothing until the source holds another one, or
    /// [`Roller::follow`] is called.
    pub async fn switch(
        &self,
        namespace: &NamespaceName,
        release: &ReleaseId,
    ) -> Result<Synced, Error> {
        let run = self.run(namespace, Arc::new(|_| {})).await?;
        let release = release.clone();
        run::blocking(move || run.switch(&release)).await
    }

    /// Lets the source lead again after a [`Roller::switch`].
    pub async fn follow(&self, namespace: &NamespaceName) -> Result<(), Error> {
        let run = self.run(namespace, Arc::new(|_| {})).await?;
        run::blocking(move || run.follow()).await
    }

    /// Takes a namespace out of Airflow's sight, and removes all its releases.
    pub async fn remove(&self, namespace: &NamespaceName) -> Result<(), Error> {
        self.remove_watched(namespace, Arc::new(|_| {})).await
    }

    /// As [`Roller::remove`], telling each step.
    pub async fn remove_watched(
        &self,
        namespace: &NamespaceName,
        watch: Watch,
    ) -> Result<(), Error> {
        let run = self.run(namespace, watch).await?;
        run::blocking(move || run.remove()).await
    }

    async fn run(&self, namespace: &NamespaceName, watch: Watch) -> Result<Run, Error> {
        let lock = self.inner.layout.lock(namespace, self.inner.settings.lock_wait).await?;
        Ok(Run {
            inner: self.inner.clone(),
            namespace: namespace.clone(),
            watch,
            _lock: Arc::new(lock),
        })
    }
}
