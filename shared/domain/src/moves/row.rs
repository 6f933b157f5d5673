//! What is durable of a move.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Mark, Phase, Policy, Proof, policy::micros};
use crate::ids::{Generation, MoveId, NamespaceName, Revision, ShardName};

/// A move. What is not in it, and not in the assignment, has no part in what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Tells it from all others.
    pub id: MoveId,
    /// What is moved.
    pub namespace: NamespaceName,
    /// The shard that owned it when the move began.
    pub source: ShardName,
    /// The shard that is to own it.
    pub target: ShardName,
    /// Generation of the assignment when the move began.
    pub generation: Generation,
    /// Revision at which the move began. What was seen under older orders proves nothing for it.
    pub began_revision: Revision,
    /// Where it stands.
    pub phase: Phase,
    /// When that began. Microseconds since 1970-01-01 UTC.
    pub phase_began_at_us: i64,
    /// When the phase has to be over. Microseconds since 1970-01-01 UTC; none where it may take
    /// for ever.
    pub deadline_at_us: Option<i64>,
    /// Which try of the phase is on, from 1. SEALING and COPYING count together: the transfer that
    /// the former orders is the one that the latter waits for.
    pub attempt: u32,
    /// When the next try begins, where the present one failed. Microseconds since 1970-01-01 UTC.
    pub next_attempt_at_us: Option<i64>,
    /// What went wrong last, in any phase.
    pub last_error: Option<Failure>,
    /// Set once somebody asked to give it up.
    pub cancel: Option<Cancel>,
    /// How it is to be done.
    pub options: Options,
    /// Who asked for it.
    pub requested_by: String,
    /// Why.
    pub reason: String,
    /// When it was asked for. Microseconds since 1970-01-01 UTC.
    pub created_at_us: i64,
    /// When the target was first told to stage. Microseconds since 1970-01-01 UTC.
    pub staged_at_us: Option<i64>,
    /// When the source was first told to stop. Microseconds since 1970-01-01 UTC.
    pub quiesced_at_us: Option<i64>,
    /// When the target became the owner. Microseconds since 1970-01-01 UTC.
    pub flipped_at_us: Option<i64>,
    /// When it ended. Microseconds since 1970-01-01 UTC.
    pub finished_at_us: Option<i64>,
    /// Up to where the source came, as it said when it was sealed.
    pub sealed: Option<Arc<[Mark]>>,
    /// When the source was last able to make runs, by its agent. Microseconds since 1970-01-01 UTC.
    pub dark_from_us: Option<i64>,
    /// When the target became able to, by its agent. Microseconds since 1970-01-01 UTC.
    pub dark_until_us: Option<i64>,
    /// What was found on the target, once it runs the namespace.
    pub proof: Option<Arc<Proof>>,
    /// Revision at which the row last changed.
    pub revision: Revision,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// How much of what happened goes along.
    pub history: History,
    /// What to do about tasks that run.
    pub running_tasks: RunningTasks,
    /// Whether DAGs of it may be scheduled by, or schedule, assets of DAGs that stay.
    pub allow_asset_crossings: bool,
    /// The source is gone for good: nothing of it is waited for, and nothing comes along.
    pub source_is_lost: bool,
}

/// How much of what happened goes along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// All runs.
    #[default]
    Full,
    /// Of each DAG the newest automated run, and every run that has not ended.
    Minimal,
}

/// What to do about tasks that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunningTasks {
    /// Let them finish, then go on; give the move up where they have not.
    Wait {
        /// For so long.
        at_most: Duration,
    },
    /// Give the move up.
    Abort,
}

impl Default for RunningTasks {
    fn default() -> Self {
        Self::Wait { at_most: Duration::from_mins(30) }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: String,
    /// One line for people: what went wrong and what to do.
    pub message: String,
    /// The phase that it went wrong in.
    pub phase: Phase,
    /// When. Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
}

/// Somebody asked to give a move up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// When. Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
}

impl Move {
    /// Whether the target was told to stage, so that something may be left on it.
    pub fn staged_target(&self) -> bool {
        self.staged_at_us.is_some()
    }

    /// Whether the source was told to stop. What was not is not to be resumed.
    pub fn stopped_source(&self) -> bool {
        self.quiesced_at_us.is_some()
    }

    /// For how long no shard could make runs, or for how long none has been able to. Microseconds;
    /// none where that is not known.
    pub fn blackout_us(&self, now_us: i64) -> Option<i64> {
        let until_us = match self.dark_until_us {
            None if self.phase.is_between_shards() => now_us,
            until_us => until_us?,
        };
        Some(until_us.saturating_sub(self.dark_from_us?).max(0))
    }

    /// The same move in another phase.
    pub(super) fn enter(&self, phase: Phase, policy: &Policy, now_us: i64) -> Self {
        debug_assert!(self.phase.may_become(phase), "{} to {phase}", self.phase);
        let goes_on = (self.phase, phase) == (Phase::Sealing, Phase::Copying);
        let stamp = |reached| (phase == reached).then_some(now_us);
        let deadline = policy.deadline(phase, self.options.running_tasks);
        Self {
            phase,
            phase_began_at_us: now_us,
            deadline_at_us: deadline.map(|after| now_us.saturating_add(micros(after))),
            attempt: if goes_on { self.attempt } else { 1 },
            next_attempt_at_us: if goes_on { self.next_attempt_at_us } else { None },
            staged_at_us: self.staged_at_us.or(stamp(Phase::Staging)),
            quiesced_at_us: self.quiesced_at_us.or(stamp(Phase::Quiescing)),
            flipped_at_us: self.flipped_at_us.or(stamp(Phase::Flipped)),
            finished_at_us: phase.is_final().then_some(now_us),
            ..self.clone()
        }
    }

    /// A move that begins.
    #[allow(clippy::too_many_arguments, reason = "each is a field that only the caller knows")]
    pub fn begin(
        id: MoveId,
        namespace: NamespaceName,
        (source, target): (ShardName, ShardName),
        generation: Generation,
        revision: Revision,
        options: Options,
        (requested_by, reason): (String, String),
        policy: &Policy,
        now_us: i64,
    ) -> Self {
        Self {
            id,
            namespace,
            source,
            target,
            generation,
            began_revision: revision,
            phase: Phase::Planned,
            phase_began_at_us: now_us,
            deadline_at_us: Some(now_us.saturating_add(micros(policy.planned))),
            attempt: 1,
            next_attempt_at_us: None,
            last_error: None,
            cancel: None,
            options,
            requested_by,
            reason,
            created_at_us: now_us,
            staged_at_us: None,
            quiesced_at_us: None,
            flipped_at_us: None,
            finished_at_us: None,
            sealed: None,
            dark_from_us: None,
            dark_until_us: None,
            proof: None,
            revision,
        }
    }
}
