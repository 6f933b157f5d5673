//! Supervised child processes.
//!
//! A [`Process`] is started through a [`Sandbox`](crate::Sandbox), in a process
//! group of its own, at a lowered priority, with a clean environment, its
//! output in a log file of the sandbox.
//!
//! Invariant: the process records its group before it becomes the program that
//! was asked for, so there is no moment in which it runs unrecorded; and its
//! process id is not released before its group is empty, so no signal can reach
//! a stranger who was given the same id.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::error::{Error, Result};
use crate::{procfs, wait};

/// Records group and start time, then becomes the program:
/// `sh -c LAUNCHER RECORD PROGRAM ARGS…`. Field 22 of `stat` is the start time;
/// 19 fields after the state, which follows the parenthesised command name.
const LAUNCHER: &str = "read -r stat </proc/$$/stat || exit 126
begun() { shift 19; echo \"$$ $1\"; }
begun ${stat##*) } >\"$0\" || exit 126
exec nice -n 5 \"$@\"";
const PAUSE: Duration = Duration::from_millis(10);
/// How long a killed process may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How much of a log an error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 64 * 1024;

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    stop_signal: Signal,
}

impl Spec {
    /// `program` (a path, or looked up in `PATH`), to be known as `name` in its
    /// sandbox: its log is `logs/<name>.log`.
    pub fn new(name: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.into(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
            stop_signal: Signal::TERM,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. The process inherits none but `PATH`.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets environment variables.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        variables.into_iter().fold(self, |spec, (name, value)| spec.env(name, value))
    }

    /// Runs in `folder` instead of the sandbox's own folder.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Stops on SIGINT instead of SIGTERM.
    /// Writes a program that does the same with further arguments, readable for its owner alone.
    pub(crate) fn write_script(&self, path: &Path) -> Result<()> {
        use std::io::Write as _;

        let mut text = b"#!/bin/sh\n".to_vec();
        let quoted = |value: &OsStr| {
            let value = value.to_string_lossy().replace('\'', "'\\''");
            format!("'{value}'")
        };
        for (name, value) in &self.env {
            let line = format!("export {}={}\n", name.to_string_lossy(), quoted(value));
            text.extend(line.bytes());
        }
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| quoted(word));
        text.extend(format!("exec {} \"$@\"\n", words.collect::<Vec<_>>().join(" ")).bytes());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o700).open(path);
        file.and_then(|mut file| file.write_all(&text)).map_err(Error::file("write", path))
    }

    pub(crate) fn stops_on_interrupt(mut self) -> Self {
        self.stop_signal = Signal::INT;
        self
    }
}

/// A running (or ended) child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    state: Mutex<State>,
    pid: Pid,
    stop_signal: Signal,
    record: PathBuf,
    log: PathBuf,
    /// Where this process's part of the log begins.
    log_start: u64,
    started_at: jiff::Timestamp,
}

#[derive(Debug)]
struct State {
    child: Child,
    /// Set once it was reaped: from then on its id may be somebody else's.
    status: Option<ExitStatus>,
}

impl Process {
    /// The variable whose value tells which sandbox a process belongs to.
    pub const MARKER: &str = "AIRFLEET_LOCAL_ID";

    pub(crate) fn spawn(sandbox: &Path, id: &str, spec: &Spec) -> Result<Self> {
        let log = sandbox.join("logs").join(format!("{}.log", spec.name));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&log)
            .map_err(Error::file("open", &log))?;
        let log_start = output.metadata().map_err(Error::file("inspect", &log))?.len();
        let errors = output.try_clone().map_err(Error::file("open", &log))?;
        let record = sandbox.join("pids").join(&spec.name);
        let path = std::env::var_os("PATH")
            .unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
        let started_at = jiff::Timestamp::now();
        let child = Command::new("sh")
            .args(["-c", LAUNCHER])
            .arg(&record)
            .arg(&spec.program)
            .args(&spec.args)
            .env_clear()
            .env("PATH", path)
            .env("HOME", sandbox)
            .env("LANG", "C.UTF-8")
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .env(Self::MARKER, id)
            .current_dir(spec.folder.as_deref().unwrap_or(sandbox))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|source| Error::Spawn { name: spec.name.clone(), source })?;
        let pid = Pid::from_child(&child);
        tracing::debug!(name = spec.name, pid = child.id(), "process started");
        Ok(Self {
            name: spec.name.clone(),
            state: Mutex::new(State { child, status: None }),
            pid,
            stop_signal: spec.stop_signal,
            record,
            log,
            log_start,
            started_at,
        })
    }

    /// Its process id, which is also that of its group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its log file, shared with earlier processes of the same name.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What this process wrote to its log so far (lossy, at most the last 64 KiB).
    pub fn output(&self) -> String {
        read_end(&self.log, self.log_start).unwrap_or_default()
    }

    /// The first 64 KiB that this process wrote to its log (lossy).
    pub(crate) fn beginning(&self) -> String {
        read_part(&self.log, self.log_start).unwrap_or_default()
    }

    /// When it was started.
    pub(crate) fn started_at(&self) -> jiff::Timestamp {
        self.started_at
    }

    /// How it ended; `None` while it runs.
    ///
    /// When the process itself has ended, what is left of its group is killed.
    pub fn status(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        if state.status.is_none() && has_ended(self.pid) {
            // Not reaped yet, so its id and its group are still its own.
            kill_family(self.pid);
            let _ = fs::remove_file(&self.record);
            state.status = state.child.try_wait().ok().flatten();
        }
        state.status
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.status().is_none()
    }

    /// Waits for its end, at most for `limit`.
    pub async fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        wait::until(limit, PAUSE, || async { self.status() }).await
    }

    /// Asks it to end, kills it (with its descendants) if it has not after
    /// `grace`, and returns when it is gone.
    pub async fn stop(&self, grace: Duration) {
        if self.is_running() {
            let _ = rustix::process::kill_process(self.pid, self.stop_signal);
            if self.wait(grace).await.is_none() {
                tracing::debug!(name = self.name, ?grace, "process did not stop: killing it");
                self.kill().await;
            }
        }
    }

    /// Kills it and all its descendants with SIGKILL and returns when it is gone.
    pub async fn kill(&self) {
        if self.is_running() {
            kill_family(self.pid);
            let _ = self.wait(KILL_LIMIT).await;
        }
    }

    /// The error that tells that this process ended.
    pub(crate) fn ended(&self, status: ExitStatus) -> Error {
        Error::Ended { name: self.name.clone(), status, log: self.log.clone(), tail: self.tail() }
    }

    /// The error that tells that this process did not reach a state in time.
    pub(crate) fn timed_out(&self, state: &'static str, waited: Duration) -> Error {
        Error::Timeout {
            name: self.name.clone(),
            state,
            waited,
            detail: format!("; the last lines of {} are:\n{}", self.log.display(), self.tail()),
        }
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            kill_family(self.pid);
            let start = Instant::now();
            while self.is_running() && start.elapsed() < KILL_LIMIT {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Whether the child has ended, without releasing its id.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

/// Kills the group of `leader` and all descendants of its members.
fn kill_family(leader: Pid) {
    let family = procfs::family(leader.as_raw_nonzero().get());
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    for pid in family.into_iter().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Whether a living process was started with `entry` in its environment.
pub(crate) fn any_with_environment(entry: &str) -> bool {
    procfs::processes().iter().any(|process| procfs::has_environment(process.pid, entry))
}

/// The text of `path` from `start`, at most its last [`TAIL_BYTES`].
fn read_end(path: &Path, start: u64) -> std::io::Result<String> {
    let length = fs::metadata(path)?.len();
    read_part(path, start.max(length.saturating_sub(TAIL_BYTES)))
}

/// The text of `path` from `start`, at most [`TAIL_BYTES`].
fn read_part(path: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
