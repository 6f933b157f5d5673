//! Running probes side by side.
//!
//! Responsible for looking at one thing again and again in a task of its own, within a time limit,
//! and for keeping what was seen last. Invariant: a probe never overlaps with itself, and one that
//! hangs or fails delays nobody: whoever wants to know reads the last outcome. It must not know
//! what is looked at.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::health::Probe;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Looks at one thing. Dropping the future that it gives must do no harm: the next look starts
/// anew.
pub(crate) trait Look: Send + 'static {
    /// What there is to see.
    type Sight: Send + Sync + 'static;

    /// Looks once.
    fn look(&mut self) -> impl Future<Output = Result<Self::Sight, Failure>> + Send;
}

/// Why nothing was seen; in words without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No answer, or a bad one.
    Failed(String),
    /// An answer that this version does not understand.
    Unsupported(String),
}

/// How the last look went, and what the last successful one saw.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) probe: Probe,
    /// How long the last look took, unless it failed. Milliseconds.
    pub(crate) took_ms: Option<i64>,
    /// What was seen last, perhaps before `probe`.
    pub(crate) sight: Option<Arc<T>>,
    /// When it was seen.
    pub(crate) seen_at: Option<Instant>,
    /// The last request to look that was served.
    request: u64,
}

impl<T> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        Self { probe: self.probe.clone(), sight: self.sight.clone(), ..*self }
    }
}

impl<T> Outcome<T> {
    /// Nothing was looked at, and nothing will be.
    pub(crate) fn not_configured() -> Self {
        Self { probe: Probe::NotConfigured, took_ms: None, sight: None, seen_at: None, request: 0 }
    }

    fn after(&self, looked: Result<T, Failure>, began: Instant, request: u64) -> Self {
        let mut next = Self { request, took_ms: None, ..self.clone() };
        match looked {
            Ok(sight) => {
                let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
                // At least 1, so that it is not read as nothing.
                next.probe = Probe::Ok(took.max(1));
                next.took_ms = Some(took.max(1));
                next.sight = Some(Arc::new(sight));
                next.seen_at = Some(Instant::now());
            }
            Err(Failure::Failed(why)) => next.probe = Probe::Failed(why),
            Err(Failure::Unsupported(what)) => next.probe = Probe::Unsupported(what),
        }
        next
    }

    /// What was seen, if it was at the last look.
    pub(crate) fn current(&self) -> Option<&Arc<T>> {
        self.sight.as_ref().filter(|_| matches!(self.probe, Probe::Ok(_)))
    }
}

/// Called after each look with what came of it and how long it took.
pub(crate) type Observe = Arc<dyn Fn(&Probe, Duration) + Send + Sync>;

/// A probe at work. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Runner<T> {
    requests: watch::Sender<u64>,
    outcome: watch::Receiver<Outcome<T>>,
    /// None where there is nothing to look at.
    task: Option<AbortOnDropHandle<()>>,
}

impl<T: Send + Sync + 'static> Runner<T> {
    /// Nothing to look at.
    pub(crate) fn not_configured() -> Self {
        let (_, outcome) = watch::channel(Outcome::not_configured());
        Self { requests: watch::Sender::new(0), outcome, task: None }
    }

    /// Looks whenever it is [asked](Self::ask), for at most `limit`.
    pub(crate) fn start(mut look: impl Look<Sight = T>, limit: Duration, observe: Observe) -> Self {
        let requests = watch::Sender::new(0);
        let mut asked = requests.subscribe();
        let first = Outcome {
            probe: Probe::Failed("not looked yet".to_owned()),
            ..Outcome::not_configured()
        };
        let (outcomes, outcome) = watch::channel(first);
        let task = async move {
            // Ends when the runner is dropped. What is asked for meanwhile is served once.
            while asked.changed().await.is_ok() {
                let request = *asked.borrow_and_update();
                let began = Instant::now();
                let looked = look_within(&mut look, limit).await;
                // A request that came during the look is not for another one at once: what is slow
                // needs no more load. Before the outcome is told, see `ask`.
                asked.mark_unchanged();
                outcomes.send_modify(|outcome| *outcome = outcome.after(looked, began, request));
                observe(&outcomes.borrow().probe, began.elapsed());
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        Self { requests, outcome, task: Some(task) }
    }

    /// Asks for a look, unless one is under way.
    pub(crate) fn ask(&self) -> Ticket {
        // In this order: if the outcome of a look is not told yet, its end serves this request
        // even where the look itself began before.
        let before = self.outcome.borrow().request;
        self.requests.send_modify(|request| *request += 1);
        Ticket { before }
    }

    /// Waits until a look that ended after `ticket` was given.
    pub(crate) async fn served(&mut self, ticket: Ticket) {
        if self.task.is_some() {
            // An error means that the task is gone, and then there is nothing to wait for.
            let _ = self.outcome.wait_for(|outcome| outcome.request > ticket.before).await;
        }
    }

    /// How the last look went.
    pub(crate) fn outcome(&self) -> Outcome<T> {
        self.outcome.borrow().clone()
    }
}

/// A request to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    /// The request that was the last one served before.
    before: u64,
}

async fn look_within<L: Look>(look: &mut L, limit: Duration) -> Result<L::Sight, Failure> {
    let began = Instant::now();
    match tokio::time::timeout(limit, look.look()).await {
        // A client that has the same limit may give up first, with words of its own.
        Ok(Err(Failure::Failed(_))) if began.elapsed() >= limit => {}
        Ok(looked) => return looked,
        Err(_) => {}
    }
    Err(Failure::Failed(format!("no answer within {limit:?}")))
}
