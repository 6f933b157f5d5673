//! Folders whose processes never outlive their owner.
//!
//! A [`Sandbox`] is a folder, the processes started in it, and a guardian: a
//! shell in a session of its own that holds a pipe from this process. When the
//! pipe ends (the sandbox is closed or dropped, or this process dies, be it by
//! `kill -9`) the guardian kills what is left of the sandbox and removes its
//! folder. One mechanism serves the orderly end and the crash.
//!
//! Invariant: a process of a sandbox is recognisable from outside at every
//! moment, by the process group that it recorded before it became the program,
//! by the marker variable that it and its children inherit, or by descent.
//!
//! If the guardian itself was killed, the next sandbox created beside it sweeps
//! the stale folder by running the guardian once more, with its input at an end.
//!
//! Must not know what the processes are.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{Process, Spec};
use crate::wait;

const GUARDIAN: &str = include_str!("guardian.sh");
/// The file in each sandbox that its guardian holds locked.
const LOCK_FILE: &str = ".guard";
/// How long a crashed predecessor's guardian may take to leave a folder.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// How long the guardian may take once its input has ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(20);

/// What remains of a sandbox's folder when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Nothing; the folder is removed.
    #[default]
    Nothing,
    /// Only the `logs` folder.
    Logs,
    /// All files; a later sandbox on the same folder continues with them.
    Everything,
}

impl Keep {
    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Logs => "logs",
            Self::Everything => "all",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "all" => Self::Everything,
            "logs" => Self::Logs,
            _ => Self::Nothing,
        }
    }
}

/// A folder with processes that end with it; clones share it.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    id: String,
    guardian: Mutex<Option<Guardian>>,
}

#[derive(Debug)]
struct Guardian {
    process: Child,
    /// Its end is the guardian's signal; nothing is ever written.
    lifeline: ChildStdin,
}

impl Sandbox {
    /// Creates a sandbox in a new folder under the temporary directory, named
    /// `name` and a random suffix; nothing of it will be kept.
    pub async fn create(name: &str) -> Result<Self> {
        let root = temporary_root()?;
        let folder = root.join(format!("{name}-{:08x}", rand::random::<u32>()));
        Self::create_at(folder, Keep::Nothing).await
    }

    /// Creates a sandbox at `folder`: a new one, an empty one, or one where a
    /// sandbox was before.
    ///
    /// What a crashed owner left there, or in sandboxes beside it, is ended
    /// first. Its files are removed too, unless both it and this sandbox
    /// [keep everything](Keep::Everything).
    pub async fn create_at(folder: impl Into<PathBuf>, keep: Keep) -> Result<Self> {
        let folder = std::path::absolute(folder.into())
            .map_err(Error::file("resolve", "the sandbox's folder"))?;
        if let Some(parent) = folder.parent() {
            sweep_stale_neighbours(parent, &folder).await;
        }
        let mut lock = take_over(&folder, keep).await?;
        let id = format!("{:032x}", rand::random::<u128>());
        write_record(&mut lock, &id, keep).map_err(Error::file("write", folder.join(LOCK_FILE)))?;
        for part in ["pids", "logs"] {
            make_folder(&folder.join(part))?;
        }
        let guardian = spawn_guardian(&folder, &id, keep, Stdio::from(lock), Stdio::piped())?;
        Ok(Self(Arc::new(Inner { folder, id, guardian: Mutex::new(Some(guardian)) })))
    }

    /// The sandbox's folder.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The entry `NAME=value` that every process of this sandbox has in its
    /// environment.
    pub fn marker(&self) -> String {
        format!("{}={}", Process::MARKER, self.0.id)
    }

    /// Whether any process of this sandbox is found by its marker.
    pub fn has_processes(&self) -> bool {
        crate::process::any_with_environment(&self.marker())
    }

    /// Starts a process. It is killed when the returned handle is dropped, when
    /// this sandbox ends, or when the calling process dies.
    pub fn spawn(&self, spec: &Spec) -> Result<Process> {
        let open = self.guardian().is_some();
        if !open {
            return Err(Error::Closed { path: self.0.folder.clone() });
        }
        Process::spawn(&self.0.folder, &self.0.id, spec)
    }

    /// Runs a command to its end, at most for `limit`, and returns its output;
    /// an exit status other than zero is an error that carries its end.
    pub async fn run(&self, spec: &Spec, limit: Duration) -> Result<String> {
        let process = self.spawn(spec)?;
        match process.wait(limit).await {
            Some(status) if status.success() => Ok(process.output()),
            Some(status) => Err(process.ended(status)),
            None => {
                let error = process.timed_out("finished", limit);
                process.kill().await;
                Err(error)
            }
        }
    }

    /// Ends every process, removes the folder (unless it is to be kept) and
    /// returns when that is done. Closing twice is harmless.
    pub async fn close(&self) {
        let Some(Guardian { mut process, lifeline }) = self.guardian().take() else {
            return;
        };
        drop(lifeline);
        let ended = wait::until(CLOSE_LIMIT, Duration::from_millis(5), || {
            let ended = !matches!(process.try_wait(), Ok(None));
            async move { ended.then_some(()) }
        })
        .await;
        if ended.is_none() {
            tracing::warn!(folder = %self.0.folder.display(), "the sandbox is still being cleaned up");
        }
    }

    fn guardian(&self) -> std::sync::MutexGuard<'_, Option<Guardian>> {
        self.0.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let guardian = self.guardian.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Guardian { mut process, lifeline }) = guardian {
            // Waiting makes "dropped" mean "gone"; it takes a few dozen
            // milliseconds. The guardian goes on by itself past the limit.
            drop(lifeline);
            let start = Instant::now();
            while matches!(process.try_wait(), Ok(None)) && start.elapsed() < CLOSE_LIMIT {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// The folder under the temporary directory that holds this user's sandboxes.
fn temporary_root() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let root = std::env::temp_dir().join(format!("airfleet-{user}"));
    make_folder(&root)?;
    let metadata = fs::symlink_metadata(&root).map_err(Error::file("inspect", &root))?;
    // The name can be guessed, so somebody else may have been there first.
    if metadata.uid() != user || !metadata.is_dir() {
        return Err(Error::Invalid(format!(
            "{} belongs to somebody else: remove it, or set TMPDIR",
            root.display()
        )));
    }
    Ok(root)
}

/// Makes a folder, and its parents, that others may enter but not list:
/// PostgreSQL runs as another user where the owner is root.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(Error::file("create", path))
}

/// Returns the locked lock file of `folder`, in which no process of an earlier
/// sandbox is left.
async fn take_over(folder: &Path, keep: Keep) -> Result<File> {
    let start = Instant::now();
    while start.elapsed() < TAKEOVER_LIMIT {
        if let Some(mut lock) = try_take(folder)? {
            let Some((id, kept)) = read_record(&mut lock) else {
                return refuse_foreign_files(folder).map(|()| lock);
            };
            if keep == Keep::Everything && kept == Keep::Everything {
                sweep(folder, &id, Keep::Everything).await?;
                return Ok(lock);
            }
            // Removes the lock file as well, so another round makes a new one.
            sweep(folder, &id, Keep::Nothing).await?;
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Error::InUse { path: folder.to_owned() })
}

/// An error if `folder` has files though no sandbox was there: they would be
/// removed with the sandbox.
fn refuse_foreign_files(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::file("list", folder))?;
    let foreign = entries.flatten().any(|entry| entry.file_name() != LOCK_FILE);
    if !foreign {
        return Ok(());
    }
    let _ = fs::remove_file(folder.join(LOCK_FILE));
    Err(Error::Invalid(format!(
        "{} has files that belong to no sandbox: choose an empty folder",
        folder.display()
    )))
}

/// The lock on `folder`, unless somebody else has it or is just removing it.
fn try_take(folder: &Path) -> Result<Option<File>> {
    make_folder(folder)?;
    let path = folder.join(LOCK_FILE);
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", &path)(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(Error::file("lock", &path)(error)),
    }
    // A guardian may have removed the file between opening and locking it.
    let same = match (file.metadata(), fs::metadata(&path)) {
        (Ok(held), Ok(found)) => held.ino() == found.ino() && held.dev() == found.dev(),
        _ => false,
    };
    Ok(same.then_some(file))
}

fn write_record(lock: &mut File, id: &str, keep: Keep) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{id} {} {}", keep.as_str(), boot_id())
}

/// The id and policy of the sandbox that a lock file speaks of. Its id is empty
/// if the machine was started anew since, for then no process of it can live
/// and the recorded process ids belong to others.
fn read_record(lock: &mut File) -> Option<(String, Keep)> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    let id = words.next()?;
    let keep = Keep::parse(words.next().unwrap_or_default());
    let same_boot = words.next() == Some(boot_id().as_str());
    Some((if same_boot { id.to_owned() } else { String::new() }, keep))
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Sweeps the sandboxes in `root`, other than `except`, that lost both their
/// owner and their guardian. What cannot be swept is somebody else's.
async fn sweep_stale_neighbours(root: &Path, except: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if folder == except {
            continue;
        }
        let Ok(mut lock) = OpenOptions::new().read(true).open(folder.join(LOCK_FILE)) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        // An empty record: its owner is about to lock and fill it.
        let Some((id, keep)) = read_record(&mut lock) else {
            continue;
        };
        // A folder that is kept has its record for ever; without a process
        // record it has been swept already.
        if keep != Keep::Nothing && !folder.join("pids").exists() {
            continue;
        }
        if let Err(error) = sweep(&folder, &id, keep).await {
            tracing::warn!(folder = %folder.display(), %error, "cannot clean up a stale sandbox");
        }
    }
}

/// Runs the guardian with its input at an end.
async fn sweep(folder: &Path, id: &str, keep: Keep) -> Result<()> {
    if id.is_empty() {
        let pids = folder.join("pids");
        if pids.exists() {
            fs::remove_dir_all(&pids).map_err(Error::file("remove", &pids))?;
        }
    }
    let name = "the clean-up of a stale sandbox";
    let mut process = guardian_command(folder, id, keep)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|source| Error::Spawn { name: name.to_owned(), source })?;
    let status = wait::until(CLOSE_LIMIT, Duration::from_millis(5), || {
        let status = process.try_wait().transpose();
        async move { status }
    })
    .await;
    match status {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(status) => Err(Error::Ended {
            name: name.to_owned(),
            status: status.unwrap_or_else(|_| std::process::ExitStatus::from_raw(1 << 8)),
            log: folder.to_owned(),
            tail: String::new(),
        }),
        None => Err(Error::Timeout {
            name: name.to_owned(),
            state: "finished",
            waited: CLOSE_LIMIT,
            detail: String::new(),
        }),
    }
}

fn spawn_guardian(
    folder: &Path,
    id: &str,
    keep: Keep,
    lock: Stdio,
    stdin: Stdio,
) -> Result<Guardian> {
    let mut process = guardian_command(folder, id, keep)
        .stdin(stdin)
        // The lock belongs to the open file: the guardian keeps it to its end.
        .stdout(lock)
        .spawn()
        .map_err(|source| Error::Spawn {
            name: "the guardian of a sandbox (setsid, package util-linux)".to_owned(),
            source,
        })?;
    let lifeline = process.stdin.take().expect("standard input was asked to be a pipe");
    Ok(Guardian { process, lifeline })
}

fn guardian_command(folder: &Path, id: &str, keep: Keep) -> Command {
    let mut command = Command::new("setsid");
    command
        .args(["sh", "-c", GUARDIAN, "airfleet-guardian"])
        .arg(folder)
        // An id that no process carries, where there is none to look for.
        .arg(if id.is_empty() { "none" } else { id })
        .arg(keep.as_str())
        // A guardian may itself run below another sandbox, which must not kill it.
        .env_remove(Process::MARKER)
        .env("AIRFLEET_LOCAL_GUARDIAN", "1")
        .stderr(Stdio::null());
    command
}
