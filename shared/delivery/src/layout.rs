//! Where everything lies below the DAGs folder, and the one step that shows a release.
//!
//! ```text
//! <dags_folder>/
//!   .airflowignore            keeps Airflow out of .airfleet
//!   payments                  -> .airfleet/releases/payments/<release>
//!   .airfleet/
//!     releases/payments/<release>/…    files as Airflow reads them
//!     index/payments/<release>.jsonl   what each release holds
//!     state/payments.json              what was synced last, what was rolled back
//!     staging/payments/                the next release, invisible
//!     git/payments/                    objects of its repository
//!     locks/payments                   held by whoever works on it
//! ```
//!
//! Invariant: `<dags_folder>/<namespace>` is a symbolic link to a whole release, or is not there.
//! It changes only by a rename. What stands there without being ours is never touched.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_domain::ids::NamespaceName;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    error::{Code, Error},
    release::{Index, Release, ReleaseId},
    tree::{make_folder, remove_file, remove_folder},
};

/// The folder in the DAGs folder that is the agent's own.
pub const HOME: &str = ".airfleet";
/// Understood in both of Airflow's syntaxes, `glob` and `regexp`, to mean the same.
const IGNORED: &str = "[.]airfleet";
const IGNORE_COMMENT: &str =
    "# Releases of DAG files lie in .airfleet; Airflow sees them by the links beside it.";
/// How often a lock is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The DAGs folder of a shard or node.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dags: PathBuf,
    home: PathBuf,
}

/// What is remembered of a namespace beside its releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What was synced last: the base of what comes next.
    pub(crate) latest: Option<ReleaseId>,
    /// Rolled away from: not shown again until the source holds something else.
    pub(crate) rejected: Option<ReleaseId>,
    /// The release whose switch was finished, and when. Nanoseconds on the file system's clock.
    pub(crate) settled: Option<(ReleaseId, i64)>,
}

/// Held while working on a namespace; let go by dropping it, also by dying.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs::File,
}

impl Layout {
    pub(crate) fn new(dags: PathBuf) -> Self {
        let home = dags.join(HOME);
        Self { dags, home }
    }

    pub(crate) fn dags(&self) -> &Path {
        &self.dags
    }

    pub(crate) fn link(&self, namespace: &NamespaceName) -> PathBuf {
        self.dags.join(namespace.as_str())
    }

    pub(crate) fn releases(&self, namespace: &NamespaceName) -> PathBuf {
        self.home.join("releases").join(namespace.as_str())
    }

    pub(crate) fn release(&self, namespace: &NamespaceName, id: &ReleaseId) -> PathBuf {
        self.releases(namespace).join(id.as_str())
    }

    fn indexes(&self, namespace: &NamespaceName) -> PathBuf {
        self.home.join("index").join(namespace.as_str())
    }

    pub(crate) fn index(&self, namespace: &NamespaceName, id: &ReleaseId) -> PathBuf {
        self.indexes(namespace).join(format!("{id}.jsonl"))
    }

    pub(crate) fn staging(&self, namespace: &NamespaceName) -> PathBuf {
        self.home.join("staging").join(namespace.as_str())
    }

    pub(crate) fn git(&self, namespace: &NamespaceName) -> PathBuf {
        self.home.join("git").join(namespace.as_str())
    }

    fn state(&self, namespace: &NamespaceName) -> PathBuf {
        self.home.join("state").join(format!("{namespace}.json"))
    }

    /// Makes the folders of a namespace, and keeps Airflow out of them before there is anything in
    /// them: a release found on two ways would stop its whole search for DAG files.
    pub(crate) fn prepare(&self, namespace: &NamespaceName) -> Result<(), Error> {
        if !self.home.is_dir() {
            if !self.dags.is_dir() {
                let message = format!(
                    "{} is no folder; create it, or mount it, before DAG files are delivered",
                    self.dags.display()
                );
                return Err(Error::here(Code::LocalIo, message));
            }
            make_folder(&self.home)?;
        }
        for part in ["releases", "index", "state", "staging", "git", "locks"] {
            make_folder(&self.home.join(part))?;
        }
        make_folder(&self.releases(namespace))?;
        make_folder(&self.indexes(namespace))?;
        self.keep_airflow_out()
    }

    fn keep_airflow_out(&self) -> Result<(), Error> {
        let path = self.dags.join(".airflowignore");
        let read = || match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Error::local("read", &path)(error)),
        };
        let is_done = |text: &str| text.lines().any(|line| line.trim() == IGNORED);
        if is_done(&read()?) {
            return Ok(());
        }
        // Namespaces come at the same time, and from several processes.
        let lock = self.home.join("locks/.airflowignore");
        let file = fs::File::create(&lock).map_err(Error::local("write", &lock))?;
        file.lock().map_err(Error::local("lock", &lock))?;
        let mut text = read()?;
        if is_done(&text) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &[IGNORE_COMMENT, IGNORED, ""].join("\n");
        replace_file(&path, &self.home.join("airflowignore.new"), text.as_bytes())
    }

    /// Waits for the lock of a namespace, for at most `limit`.
    pub(crate) async fn lock(
        &self,
        namespace: &NamespaceName,
        limit: Duration,
    ) -> Result<Lock, Error> {
        let folder = self.home.join("locks");
        if !folder.is_dir() {
            // Nothing was ever delivered here.
            self.prepare(namespace)?;
        }
        let path = folder.join(namespace.as_str());
        let file = fs::File::create(&path).map_err(Error::local("write", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(Error::local("lock", &path)(error));
                }
                Err(fs::TryLockError::WouldBlock) if start.elapsed() >= limit => {
                    let message = format!(
                        "another process works on namespace {namespace}; try again, or find it \
                         by: fuser {}",
                        path.display()
                    );
                    return Err(Error::here(Code::Busy, message));
                }
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    /// The release that Airflow sees.
    pub(crate) fn current(&self, namespace: &NamespaceName) -> Result<Option<ReleaseId>, Error> {
        let link = self.link(namespace);
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(self.in_the_way(namespace));
            }
            Err(error) => return Err(Error::local("read", link)(error)),
        };
        let parent = Path::new(HOME).join("releases").join(namespace.as_str());
        let id = target
            .strip_prefix(&parent)
            .ok()
            .and_then(Path::to_str)
            .and_then(|name| name.parse().ok());
        id.map(Some).ok_or_else(|| self.in_the_way(namespace))
    }

    fn in_the_way(&self, namespace: &NamespaceName) -> Error {
        let message = format!(
            "{} was not put there by the agent, and is left alone; move it away to have the \
             namespace's DAG files delivered",
            self.link(namespace).display()
        );
        Error::here(Code::FolderInTheWay, message)
    }

    /// Shows a release: the switch, atomic and durable.
    pub(crate) fn point(&self, namespace: &NamespaceName, id: &ReleaseId) -> Result<(), Error> {
        let link = self.link(namespace);
        let new = self.staging(namespace).join("link");
        remove_file(&new)?;
        let target = Path::new(HOME).join("releases").join(namespace.as_str()).join(id.as_str());
        symlink(&target, &new).map_err(Error::local("create", &new))?;
        fs::rename(&new, &link).map_err(Error::local("switch", &link))?;
        sync_folder(&self.dags)
    }

    /// Takes a namespace out of Airflow's sight.
    pub(crate) fn hide(&self, namespace: &NamespaceName) -> Result<(), Error> {
        if self.current(namespace)?.is_some() {
            remove_file(&self.link(namespace))?;
            sync_folder(&self.dags)?;
        }
        Ok(())
    }

    /// Removes everything of a namespace that is not in sight.
    pub(crate) fn forget(&self, namespace: &NamespaceName) -> Result<(), Error> {
        // Indexes first: what has none is no release.
        remove_folder(&self.indexes(namespace))?;
        remove_file(&self.state(namespace))?;
        remove_folder(&self.staging(namespace))?;
        remove_folder(&self.releases(namespace))?;
        remove_folder(&self.git(namespace))
    }

    pub(crate) fn read_state(&self, namespace: &NamespaceName) -> Result<State, Error> {
        let path = self.state(namespace);
        match fs::read(&path) {
            // A state that cannot be read costs reading files again, nothing else.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(Error::local("read", path)(error)),
        }
    }

    pub(crate) fn write_state(
        &self,
        namespace: &NamespaceName,
        state: &State,
    ) -> Result<(), Error> {
        let path = self.state(namespace);
        let bytes = serde_json::to_vec(state).expect("a state has no maps with odd keys");
        replace_file(&path, &path.with_extension("new"), &bytes)
    }

    /// The time that files get which change now.
    pub(crate) fn now_ns(&self, namespace: &NamespaceName) -> Result<i64, Error> {
        let path = self.state(namespace).with_extension("clock");
        fs::write(&path, b"").map_err(Error::local("write", &path))?;
        let metadata = fs::metadata(&path).map_err(Error::local("read", &path))?;
        remove_file(&path)?;
        Ok(metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec())
    }

    pub(crate) fn read_index(
        &self,
        namespace: &NamespaceName,
        id: &ReleaseId,
    ) -> Result<Option<Index>, Error> {
        Index::read(&self.index(namespace, id))
    }

    pub(crate) fn write_index(&self, index: &Index) -> Result<(), Error> {
        let Release { namespace, id, .. } = &index.release;
        let path = self.index(namespace, id);
        let new = path.with_extension("new");
        remove_file(&new)?;
        index.write(&new)?;
        fs::rename(&new, &path).map_err(Error::local("write", &path))
    }

    /// Releases that are here, the one fetched last first.
    pub(crate) fn list(&self, namespace: &NamespaceName) -> Result<Vec<Release>, Error> {
        let folder = self.indexes(namespace);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::local("read", folder)(error)),
        };
        let mut releases = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::local("read", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let release = Index::read_release(&path);
                releases.extend(release.filter(|r| self.release(namespace, &r.id).is_dir()));
            }
        }
        releases.sort_by(|a, b| (b.fetched_at, &b.id).cmp(&(a.fetched_at, &a.id)));
        Ok(releases)
    }

    /// Removes a release that is not in sight.
    pub(crate) fn drop_release(
        &self,
        namespace: &NamespaceName,
        id: &ReleaseId,
    ) -> Result<(), Error> {
        remove_file(&self.index(namespace, id))?;
        remove_folder(&self.release(namespace, id))
    }

    /// Namespaces that Airflow sees.
    pub(crate) fn namespaces(&self) -> Result<Vec<NamespaceName>, Error> {
        let folder = self.home.join("releases");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::local("read", folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::local("read", &folder))?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<NamespaceName>().ok()));
        }
        names.retain(|name| self.current(name).is_ok_and(|id| id.is_some()));
        names.sort();
        Ok(names)
    }

    /// Makes all that was written so far survive a power cut. One call for the whole file system:
    /// a call for each of ten thousand files takes minutes on some disks.
    pub(crate) fn sync_all(&self) -> Result<(), Error> {
        let file = fs::File::open(&self.home).map_err(Error::local("open", &self.home))?;
        rustix::fs::syncfs(&file).map_err(Error::local("sync", &self.home))
    }

    /// Bytes that others may still write to the disk.
    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.home).map_err(Error::local("measure", &self.home))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn replace_file(path: &Path, new: &Path, bytes: &[u8]) -> Result<(), Error> {
    remove_file(new)?;
    fs::write(new, bytes).map_err(Error::local("write", new))?;
    fs::rename(new, path).map_err(Error::local("write", path))
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    let sync = || fs::File::open(folder)?.sync_all();
    sync().map_err(Error::local("sync", folder))
}
