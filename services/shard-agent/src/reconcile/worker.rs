//! The worker of one namespace: when it looks, and what it tells.

use std::{
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use airfleet_domain::{
    ids::{Generation, NamespaceName},
    roles::{Observed, Role},
};
use airfleet_proto::{agent::v1 as wire, common::v1 as common};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Shard,
    pass::{Ending, Memory, Outcome, Pass},
    problem::Problem,
    retention::Keeper,
    spread,
};
use crate::{
    backoff::Backoff,
    link::Order,
    moves::{Happened, Key, Transfer},
    report::timestamp,
    words::counted,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(20);

/// How often a namespace is looked at, at least, while it is moved.
const MOVE_PAUSE: Duration = Duration::from_millis(500);

/// An obstacle as it is told: with how long and how often it was met.
#[derive(Debug)]
struct Met {
    problem: Problem,
    attempts: i64,
    since: Timestamp,
}

/// Works on one namespace until it is let go.
pub(super) struct Worker {
    shard: Arc<Shard>,
    name: NamespaceName,
    orders: watch::Receiver<Option<Arc<Order>>>,
    memory: Memory,
    met: Option<Met>,
    backoff: Backoff,
    retention: Keeper,
    /// When the present order came, until its role is reached.
    ordered_at: Option<Clock>,
    /// Rows on their way, in a move.
    transfer: Option<Transfer>,
    /// Whether its end was seen.
    saw_end: bool,
    /// Whether nothing is kept of moves that are over.
    is_tidy: bool,
}

impl Worker {
    pub(super) fn new(
        shard: Arc<Shard>,
        name: NamespaceName,
        orders: watch::Receiver<Option<Arc<Order>>>,
    ) -> Self {
        Self {
            shard,
            name,
            orders,
            memory: Memory::default(),
            met: None,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MOST),
            retention: Keeper::default(),
            ordered_at: Some(Clock::now()),
            transfer: None,
            saw_end: false,
            is_tidy: false,
        }
    }

    /// Gives the namespace back once it was let go.
    pub(super) async fn run(mut self) -> NamespaceName {
        let first = self.orders.borrow().clone();
        let mut last = None;
        let shard = self.shard.clone();
        loop {
            let current = self.orders.borrow_and_update().clone();
            let is_let_go = current.is_none();
            let order = match current.or_else(|| last.clone()).or_else(|| first.clone()) {
                // It was ABSENT, else it would be quarantined; and no move holds it any more.
                Some(order) if is_let_go => Arc::new(Order { task: None, ..(*order).clone() }),
                Some(order) => order,
                None => return self.name,
            };
            if last.as_ref() != Some(&order) && !is_let_go {
                self.renewed(last.as_deref(), &order);
                last = Some(order.clone());
            }
            let pass = Pass { shard: &shard, name: &self.name, order: &order };
            let permit = shard.passes.acquire();
            let outcome = async {
                let _permit = permit.await;
                pass.run(&mut self.memory, is_let_go).await
            };
            let outcome = tokio::select! {
                outcome = outcome => Some(outcome),
                // Whatever was begun for the order before is left where it is.
                Ok(()) = self.orders.changed() => None,
            };
            let Some(outcome) = outcome else { continue };
            if is_let_go && outcome.ending == Ending::Settled {
                shard.board.let_go(&self.name);
                shard.board.is_not_moved(&self.name);
                return self.name;
            }
            self.transfer(&order, &outcome);
            let mut due = self.tell(&order, &outcome).await;
            if order.task().is_some() {
                due = due.min(Instant::now() + MOVE_PAUSE);
            }
            let is_at_rest =
                outcome.ending == Ending::Settled && !is_let_go && order.task().is_none();
            let sees_end = self.transfer.is_some() && !self.saw_end;
            let transfer = self.transfer.as_mut();
            let ended = async {
                match transfer {
                    Some(transfer) if sees_end => transfer.ended().await,
                    _ => std::future::pending().await,
                }
            };
            self.retention.keep(&shard, &self.name, &order, is_at_rest);
            tokio::select! {
                () = sleep_until(due) => {}
                Ok(()) = self.orders.changed() => {}
                () = ended => self.saw_end = true,
            }
        }
    }

    /// Begins what the order says to send or take in, once the role for it is reached; ends what it
    /// no longer says.
    fn transfer(&mut self, order: &Order, outcome: &Outcome) {
        let wanted = key_of(order);
        if self.transfer.as_ref().map(Transfer::key) != wanted.as_ref() {
            self.transfer = None;
            self.saw_end = false;
        }
        if let Some(transfer) = &self.transfer {
            transfer.ordered(order.place());
            return;
        }
        let (Some(key), Some(mover)) = (wanted, &self.shard.mover) else { return };
        let reached = outcome.sight.as_ref().and_then(|sight| sight.reached);
        let is_reached = outcome.ending == Ending::Settled
            && reached.is_some_and(|(role, generation, _)| {
                Observed { role, generation: Generation(generation) }.is(order.effective())
            });
        let pass = Pass { shard: &self.shard, name: &self.name, order };
        if let (true, Ok(scope)) = (is_reached, pass.scope()) {
            self.transfer = Some(Transfer::begin(mover, scope, key, order.place()));
        }
    }

    /// Another order came.
    fn renewed(&mut self, before: Option<&Order>, now: &Order) {
        self.backoff.reset();
        // Before the pass that obeys it: from then on rows by an order before it are refused.
        if let Some(transfer) = &self.transfer
            && key_of(now).as_ref() == Some(transfer.key())
        {
            transfer.ordered(now.place());
        }
        if before.is_none_or(|before| before.effective() != now.effective()) {
            self.ordered_at = Some(Clock::now());
        }
        if now.quarantined && before.is_none_or(|before| !before.quarantined) {
            let message = format!(
                "the router no longer names this namespace for the shard, which was to be {}: its \
                 DAGs are paused, and nothing is deleted",
                now.desired.role
            );
            self.shard.board.happened(self.name.as_str(), "QUARANTINED", message, true);
        }
    }

    /// Tells what came of a pass, and says when the next one is due.
    async fn tell(&mut self, order: &Order, outcome: &Outcome) -> Instant {
        let desired = order.effective();
        let board = self.shard.board.clone();
        let name = self.name.clone();
        let name = name.as_str();
        let result = match (&outcome.obstacle, outcome.ending) {
            (Some(problem), _) => problem.code.as_str(),
            (None, Ending::Settled) => "settled",
            (None, Ending::Waiting(_)) => "waiting",
        };
        self.shard.metrics.passes.with_label_values(&[result]).inc();
        if let Some(running) = outcome.reached_now {
            let seconds = self.ordered_at.take().map(|at| at.elapsed().as_secs_f64());
            if let Some(seconds) = seconds {
                let of_role =
                    self.shard.metrics.role_seconds.with_label_values(&[desired.role.name()]);
                of_role.observe(seconds);
            }
            let took = seconds.map(|s| format!(" after {s:.1} s")).unwrap_or_default();
            let dags = match desired.role {
                Role::Active => format!("; {} not paused", counted(running, "DAG")),
                _ => String::new(),
            };
            let message =
                format!("{} at generation {}{took}{dags}", desired.role, desired.generation.0);
            board.happened(name, "ROLE_REACHED", message, false);
        }
        for (code, message, warning) in &outcome.events {
            board.happened(name, code, message.clone(), *warning);
        }
        if let Some(seen) = &outcome.seen_of_move {
            self.tell_noted(seen.happened());
        }
        let due = match (&outcome.obstacle, outcome.ending) {
            (Some(problem), _) => {
                if problem.is_lasting {
                    self.backoff.slow_down();
                }
                Instant::now() + self.backoff.next_wait().max(Duration::from_millis(100))
            }
            (None, Ending::Waiting(pause)) => Instant::now() + pause,
            (None, Ending::Settled) => {
                self.backoff.reset();
                spread(self.shard.pause())
            }
        };
        self.meet(outcome.obstacle.clone());
        let pass = Pass { shard: &self.shard, name: &self.name, order };
        let obstacle = self.met.as_ref().map(Met::wire);
        if order.task().is_some() {
            self.is_tidy = false;
            if let Some(seen) = pass.evidence(outcome, obstacle, self.transfer.as_ref()) {
                board.sees(seen);
            }
        } else {
            board.is_not_moved(&self.name);
            if !self.is_tidy && outcome.ending == Ending::Settled {
                match pass.tidy().await {
                    Ok(happened) => {
                        self.is_tidy = true;
                        self.tell_noted(&happened);
                        self.memory.told.clear();
                    }
                    Err(problem) => tracing::debug!(namespace = name, "{}", problem.message),
                }
            }
        }
        if let Some(sight) = &outcome.sight {
            let (role, generation, at) = match sight.reached {
                Some((role, generation, at)) => (common::Role::from(role), generation, Some(at)),
                None => (common::Role::Unspecified, 0, None),
            };
            let findings = self.shard.findings.of(name).await;
            let has_dags = desired.role.has_workload();
            board.is(
                &self.name,
                wire::ObservedRole {
                    namespace: name.to_owned(),
                    role: role.into(),
                    generation,
                    target_role: common::Role::from(desired.role).into(),
                    target_generation: desired.generation.0,
                    obstacle: self.met.as_ref().map(Met::wire),
                    release: self.memory.release.clone(),
                    drift: outcome.drift.clone(),
                    violations: if has_dags { findings.violations.clone() } else { Vec::new() },
                    violation_count: if has_dags { findings.count } else { 0 },
                    fenced_dags: if sight.is_open() { 0 } else { sight.listed },
                    role_time: at
                        .and_then(|at| Timestamp::from_microsecond(at).ok())
                        .map(timestamp),
                    manifest_revision: self.memory.manifest_revision,
                },
            );
        } else if let (Some(met), Some(told)) = (&self.met, board.told(&self.name)) {
            // The shard cannot be looked at: what it was stands, and why it is not seen.
            let obstacle = Some(met.wire());
            board.is(&self.name, wire::ObservedRole { obstacle, ..(*told).clone() });
        } else if let Some(met) = &self.met {
            board.is(
                &self.name,
                wire::ObservedRole {
                    namespace: name.to_owned(),
                    target_role: common::Role::from(desired.role).into(),
                    target_generation: desired.generation.0,
                    obstacle: Some(met.wire()),
                    ..wire::ObservedRole::default()
                },
            );
        }
        due
    }

    /// Tells what is noted of a move, once. An agent that starts anew tells it again, and the router
    /// keeps it once; it is lost only where an agent dies between the end of the move, with which
    /// notes are dropped, and its next report.
    fn tell_noted(&mut self, happened: &[Happened]) {
        for one in happened {
            if self.memory.told.insert(one.id.clone()) {
                self.shard.board.noted(self.name.as_str(), one);
            }
        }
    }

    /// Notes what is in the way. The router makes an event of what it sees for the first time.
    fn meet(&mut self, problem: Option<Problem>) {
        let namespace = self.name.as_str();
        match (problem, &mut self.met) {
            (Some(problem), Some(met)) if met.problem.code == problem.code => {
                met.attempts += 1;
                met.problem = problem;
            }
            (Some(problem), met) => {
                tracing::warn!(namespace, code = problem.code, "{}", problem.message);
                *met = Some(Met { problem, attempts: 1, since: Timestamp::now() });
            }
            (None, met) => {
                if let Some(before) = met.take() {
                    let message = format!("{} is over", before.problem.code);
                    self.shard.board.happened(namespace, "RECOVERED", message, false);
                }
            }
        }
    }
}

/// The transfer that an order names.
fn key_of(order: &Order) -> Option<Key> {
    let task = order.task()?;
    let transfer = task.transfer?;
    let (move_id, side, attempt) = (task.move_id.clone(), task.side, task.attempt);
    Some(Key { move_id, side, attempt, task: transfer })
}

impl Met {
    fn wire(&self) -> wire::Obstacle {
        wire::Obstacle {
            code: self.problem.code.clone(),
            message: self.problem.message.clone(),
            attempts: self.attempts,
            since_time: Some(timestamp(self.since)),
        }
    }
}
