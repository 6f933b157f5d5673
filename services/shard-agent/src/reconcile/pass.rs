//! One pass over a namespace: look, do the next step, look again, until nothing is left to do.

mod act;
mod look;

use std::{collections::HashSet, time::Duration};

use airfleet_domain::{
    ids::NamespaceName,
    moves::Seen,
    roles::{Desired, Presence, Role, Step, next_step},
};
use airfleet_proto::agent::v1 as wire;
use tokio::time::{Instant, sleep};

use self::look::Look;
use super::{
    Shard,
    moving::SeenOfMove,
    problem::{Problem, limited},
};
use crate::{
    airflow::{
        fence::{
            self, TriggerState,
            gate::{self, Place, Sight},
        },
        objects::Difference,
    },
    link::Order,
};

/// Most steps of one pass; more means that somebody undoes what is done.
const STEPS_MAX: usize = 16;

/// How long a pass waits for transactions that began before the fence closed.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

const SETTLE_PAUSE: Duration = Duration::from_millis(25);

/// Pause between two looks at how far a namespace is drained.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing is left to do.
    Settled,
    /// Something takes its time, or is in the way; look again after this.
    Waiting(Duration),
}

const FENCE_WAITS: &str = "a transaction of the metadata database that began before the fence was \
                           closed is still open and could unpause a DAG; look for idle transactions";

const NOT_CONVERGING: &str = "what the agent does is undone at once; is a second agent, or a tool, at \
                              work on this shard?";

/// What came of a pass.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// None where the shard could not be looked at.
    pub(super) sight: Option<Sight>,
    pub(super) obstacle: Option<Problem>,
    pub(super) drift: Vec<wire::Drift>,
    /// The role was reached in this pass, and so many DAGs run.
    pub(super) reached_now: Option<i64>,
    /// What was seen of the move that the order names.
    pub(super) seen_of_move: Option<SeenOfMove>,
    /// Code, message and whether somebody should look.
    pub(super) events: Vec<(&'static str, String, bool)>,
}

/// What is known from one pass to the next. Losing it loses nothing but words.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) release: Option<wire::Release>,
    /// Of the manifest that the shard was last brought to.
    pub(super) manifest_revision: i64,
    delivery_failed: bool,
    /// The first look since the fence was closed at which nothing of the namespace ran, as far as that
    /// was so since.
    pub(super) quiet: Option<airfleet_transfer::drain::Look>,
    /// When its source was last asked.
    brought_at: Option<Instant>,
    /// Ids of events that are noted of its move and were told.
    pub(super) told: HashSet<String>,
}

/// One pass.
pub(super) struct Pass<'a> {
    pub(super) shard: &'a Shard,
    pub(super) name: &'a NamespaceName,
    pub(super) order: &'a Order,
}

impl Pass<'_> {
    /// Brings the namespace as far as it goes. `is_let_go` says that its traces are to go too.
    pub(super) async fn run(&self, memory: &mut Memory, is_let_go: bool) -> Outcome {
        let mut outcome = Outcome {
            ending: Ending::Settled,
            sight: None,
            obstacle: None,
            drift: Vec::new(),
            reached_now: None,
            seen_of_move: None,
            events: Vec::new(),
        };
        if let Err(problem) = self.converge(memory, &mut outcome, is_let_go).await {
            outcome.obstacle = Some(problem);
            outcome.ending = Ending::Waiting(DRAIN_PAUSE);
        }
        match self.see(memory, &outcome).await {
            Ok(seen) => outcome.seen_of_move = seen,
            Err(problem) => {
                outcome.obstacle.get_or_insert(problem);
            }
        }
        outcome
    }

    async fn converge(
        &self,
        memory: &mut Memory,
        outcome: &mut Outcome,
        is_let_go: bool,
    ) -> Result<(), Problem> {
        let metadata = self.shard.metadata.as_ref().ok_or_else(|| {
            let message = "the agent has no airflow.metadata_url, so nothing can be fenced; set it";
            Problem::lasting("METADATA_OFF", message)
        })?;
        let desired = self.order.effective();
        let place = self.order.place();
        let (declared, unknown) = self.declared(desired.role).await;
        let (mut settings_excused, mut files_excused) = (false, false);
        let started = Instant::now();
        let mut fenced_anew = false;
        let mut rows_are_gone = false;
        let mut steps = 0;
        while steps < STEPS_MAX {
            let mut look = self.look(metadata, desired, &declared, memory).await?;
            if look.trigger != TriggerState::Works && !fenced_anew {
                fenced_anew = true;
                limited(fence::install(metadata, None)).await?;
                continue;
            }
            if settings_excused {
                look.found.settings = Presence::Right;
            }
            if files_excused {
                look.found.files = Presence::Right;
            }
            note(&look, outcome);
            let runs = look.sight.is_open() && desired.role == Role::Active;
            let step = next_step(desired, place, &look.found).map_err(|overtaken| {
                let message = format!(
                    "{overtaken}; what the router says is older (generation {}, revision {}): was \
                     its store restored from a backup?",
                    place.generation.0, place.revision.0
                );
                Problem::lasting("ORDER_OVERTAKEN", message)
            })?;
            tracing::debug!(namespace = %self.name, ?step, "next");
            steps += 1;
            match step {
                None => {
                    self.maintain(desired.role, &look, &unknown, memory, outcome).await;
                    if is_let_go {
                        self.forget(metadata).await?;
                    }
                    return Ok(());
                }
                Some(Step::Close) => {
                    if self.is_waiting_for_others(&look, place) {
                        if started.elapsed() > SETTLE_LIMIT {
                            return Err(Problem::passing("FENCE_WAITS", FENCE_WAITS));
                        }
                        // Waiting is no step; and closing again would begin the wait anew.
                        steps -= 1;
                        sleep(SETTLE_PAUSE).await;
                        continue;
                    }
                    self.close(metadata, desired, &look, outcome).await?;
                }
                Some(Step::Settle) => {
                    let settled = self.settle(metadata, desired.role, &declared, outcome).await;
                    match settled.and(unknown.first().cloned().map_or(Ok(()), Err)) {
                        Ok(()) => {}
                        // What runs goes on running.
                        Err(problem) if runs => {
                            settings_excused = true;
                            outcome.obstacle = Some(problem);
                        }
                        Err(problem) => return Err(problem),
                    }
                }
                Some(Step::Unsettle) => {
                    self.settle(metadata, desired.role, &declared, outcome).await?;
                }
                Some(Step::Bring) => match self.bring(memory, outcome).await {
                    Ok(()) => files_excused = true,
                    Err(problem) if runs => {
                        files_excused = true;
                        outcome.obstacle = Some(problem);
                    }
                    Err(problem) => return Err(problem),
                },
                Some(Step::Remove) => self.remove(memory, outcome).await?,
                Some(Step::Drain) => {
                    outcome.ending = Ending::Waiting(DRAIN_PAUSE);
                    return Ok(());
                }
                Some(Step::Open) => {
                    self.open(metadata, desired, &look).await?;
                }
                Some(Step::Reach) if desired.role == Role::Absent && !rows_are_gone => {
                    rows_are_gone = self.remove_rows(outcome).await?;
                    if !rows_are_gone {
                        outcome.ending = Ending::Waiting(DRAIN_PAUSE);
                        return Ok(());
                    }
                }
                Some(Step::Reach) => {
                    self.reach(metadata, desired).await?;
                    outcome.reached_now = Some(look.sight.listed.min(look.sight.unpaused));
                }
            }
        }
        Err(Problem::passing("NOT_CONVERGING", NOT_CONVERGING))
    }

    fn gate_order(&self, desired: Desired) -> gate::Order<'_> {
        gate::Order {
            namespace: self.name.as_str(),
            prefixes: &self.order.prefixes,
            role: desired.role,
            place: Place { generation: desired.generation.0, revision: self.order.revision.0 },
        }
    }

    /// Whether the fence is closed as it should be and only older transactions are to end.
    fn is_waiting_for_others(&self, look: &Look, place: Seen) -> bool {
        let is_placed = look.found.fence.is_some_and(|fence| fence.place == place);
        let sight = &look.sight;
        is_placed
            && !sight.is_settled
            && sight.unpaused == 0
            && sight.has(&self.order.prefixes, false)
    }
}

fn note(look: &Look, outcome: &mut Outcome) {
    let first = outcome.sight.is_none();
    outcome.sight = Some(look.sight.clone());
    // What was found at first, or is left as it is: what was repaired is told once.
    if first {
        let drift = look.differences.iter().map(wire_drift);
        outcome.drift = drift.take(100).collect();
    }
}

fn wire_drift(difference: &Difference) -> wire::Drift {
    wire::Drift {
        kind: difference.key.0.name().to_owned(),
        name: difference.key.1.clone(),
        code: difference.code.clone(),
        message: difference.message.clone(),
        tolerated: difference.tolerated,
    }
}
