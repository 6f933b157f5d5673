//! How a process stops.
//!
//! First signal: readiness fails, listeners stop accepting, streams end, requests drain under a
//! deadline, tasks are joined. Second signal: everything is dropped at once. A task that must not
//! end and does stops the process with an error.
//!
//! Invariant: every task belongs to a [`Tasks`] and is joined or aborted before
//! [`Tasks::run_until_stopped`] returns. It must not know what the tasks do.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::status::chain;

/// Time to end after the second signal, before the process is ended from within.
const FORCED_GRACE: Duration = Duration::from_secs(2);

/// Exit code of a process that is ended from within: what a shell reports after SIGINT.
const FORCED_EXIT_CODE: i32 = 130;

/// Asks everything that holds a clone to stop: gently, then at once.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stopping: CancellationToken,
    forced: CancellationToken,
}

impl Shutdown {
    /// Nothing stops yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stage one: stop taking work, finish what was begun.
    pub fn trigger(&self) {
        self.stopping.cancel();
    }

    /// Stage two: drop everything.
    pub fn force(&self) {
        self.stopping.cancel();
        self.forced.cancel();
    }

    /// Whether stage one was reached.
    pub fn is_triggered(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits for stage one.
    pub async fn triggered(&self) {
        self.stopping.cancelled().await;
    }

    /// Waits for stage two.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// The token of stage one, for code that wants a [`CancellationToken`].
    pub fn token(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Something that stops with this, or on its own without stopping this: one node of several in
    /// a process.
    pub fn child(&self) -> Self {
        Self { stopping: self.stopping.child_token(), forced: self.forced.child_token() }
    }

    /// Lets SIGINT and SIGTERM trigger this, and a second one of either force it; the process ends
    /// two seconds after that at the latest. For `main`.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};

        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        // Lives as long as the process: it must hear the second signal while all else is joined.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = interrupt.recv() => "SIGINT",
                    Some(()) = terminate.recv() => "SIGTERM",
                    else => return,
                };
                if shutdown.is_triggered() {
                    tracing::warn!(signal = name, "stopping at once");
                    shutdown.force();
                    // Not a task: the runtime, as it is dropped, waits for calls that block.
                    std::thread::spawn(|| {
                        std::thread::sleep(FORCED_GRACE);
                        std::process::exit(FORCED_EXIT_CODE);
                    });
                    return;
                }
                tracing::info!(signal = name, "stopping; send it again to stop at once");
                shutdown.trigger();
            }
        });
        Ok(())
    }
}

/// Why a process stopped otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task that must not end did.
    #[error("the task {name:?} ended: {cause}")]
    TaskEnded {
        /// Name of the task.
        name: String,
        /// What it ended with.
        cause: String,
    },
    /// Tasks went on past the deadline and were aborted.
    #[error("stopped after {deadline:?} with tasks still at work: {}", names.join(", "))]
    DrainDeadline {
        /// How long they had.
        deadline: Duration,
        /// Names of the tasks.
        names: Vec<String>,
    },
    /// Stage two was reached.
    #[error("stopped at once, as asked by a second signal")]
    Forced,
}

/// The tasks of a node. Clones are the same set.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shutdown: Shutdown,
    tracker: TaskTracker,
    running: Mutex<Running>,
    ended: mpsc::UnboundedSender<Error>,
    failures: Mutex<Option<mpsc::UnboundedReceiver<Error>>>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    handles: BTreeMap<u64, (String, Option<AbortHandle>)>,
}

impl Tasks {
    /// No tasks yet. They stop with `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        // Bounded by the number of tasks: each sends at most once.
        let (ended, failures) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            shutdown,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            ended,
            failures: Mutex::new(Some(failures)),
        }))
    }

    /// What stops these tasks.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Runs a task that may end at any time, such as the work on one connection. It is joined at
    /// shutdown. A panic in it is logged.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        self.launch(name.into(), |guard| async move {
            task.await;
            guard.finish();
        });
    }

    /// Runs a task that must go on until shutdown. If it ends before, with or without an error or
    /// by a panic, the node stops with [`Error::TaskEnded`].
    pub fn spawn_critical<E>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let name = name.into();
        let inner = Arc::downgrade(&self.0);
        self.launch(name.clone(), |guard| async move {
            let guard = guard.critical();
            let outcome = task.await.map_err(Into::into);
            if let Some(inner) = inner.upgrade() {
                let cause = match outcome {
                    Err(error) => Some(chain(&*error)),
                    Ok(()) if !inner.shutdown.is_triggered() => {
                        Some("it returned although nobody asked it to stop".to_owned())
                    }
                    Ok(()) => None,
                };
                if let Some(cause) = cause {
                    inner.report(name, cause);
                }
            }
            guard.finish();
        });
    }

    fn launch<F>(&self, name: String, task: impl FnOnce(Guard) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = {
            let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.next += 1;
            let id = running.next;
            running.handles.insert(id, (name, None));
            id
        };
        let guard = Guard { inner: Arc::downgrade(&self.0), id, critical: false, finished: false };
        let handle = self.0.tracker.spawn(task(guard)).abort_handle();
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        // The task may have ended already and removed itself.
        if let Some(entry) = running.handles.get_mut(&id) {
            entry.1 = Some(handle);
        }
    }

    /// Waits until the node is asked to stop or a critical task ends; then waits for the tasks to
    /// end by themselves, at most `drain_deadline`, and aborts the rest. Call it once.
    pub async fn run_until_stopped(self, drain_deadline: Duration) -> Result<(), Error> {
        let failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut failures) = failures else {
            // A second caller only waits for the first one to be done.
            self.0.tracker.wait().await;
            return Ok(());
        };
        let failure = tokio::select! {
            () = self.0.shutdown.triggered() => None,
            failure = failures.recv() => failure,
        };
        if let Some(failure) = &failure {
            tracing::error!(error = %failure, "stopping because a task ended");
        }
        self.0.shutdown.trigger();
        self.0.tracker.close();

        let drained = tokio::select! {
            () = self.0.tracker.wait() => Ok(()),
            () = self.0.shutdown.forced() => Err(Error::Forced),
            () = tokio::time::sleep(drain_deadline) => {
                Err(Error::DrainDeadline { deadline: drain_deadline, names: self.names() })
            }
        };
        if drained.is_err() {
            self.abort_all();
            self.0.tracker.wait().await;
        }
        // A task may have failed while it was stopping; the first failure is the cause.
        match failure.or_else(|| failures.try_recv().ok()) {
            Some(failure) => Err(failure),
            None => drained,
        }
    }

    /// Names of the tasks that are at work, in the order in which they were started.
    pub fn names(&self) -> Vec<String> {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.handles.values().map(|(name, _)| name.clone()).collect()
    }

    fn abort_all(&self) {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, handle) in running.handles.values() {
            if let Some(handle) = handle {
                handle.abort();
            }
        }
    }
}

impl Inner {
    fn report(&self, name: String, cause: String) {
        // Fails only when nobody waits any more, and then nobody wants to know.
        let _ = self.ended.send(Error::TaskEnded { name, cause });
    }
}

/// Strikes a task from the list when it ends in whatever way. That it was not finished before
/// means that it panicked or was aborted.
struct Guard {
    inner: std::sync::Weak<Inner>,
    id: u64,
    critical: bool,
    finished: bool,
}

impl Guard {
    fn critical(mut self) -> Self {
        self.critical = true;
        self
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let entry = {
            let mut running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.handles.remove(&self.id)
        };
        let name = entry.map(|(name, _)| name).unwrap_or_default();
        if self.finished || !std::thread::panicking() {
            return;
        }
        if self.critical {
            inner.report(name, "it panicked".to_owned());
        } else {
            tracing::error!(task = name, "a task panicked");
        }
    }
}
