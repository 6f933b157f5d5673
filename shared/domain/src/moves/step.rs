//! What happens next.

use super::{
    Evidence, Failure, Move, Observations, Obstacle, Part, Phase, Policy, Proof, Residue,
    RunningTasks, Side, TransferState,
    evidence::{Disagreement, same_dags, same_marks, same_tables},
    policy::micros,
    preflight::{self, Severity},
    residue::unknown_obstacle,
};
use crate::{ids::Generation, roles::Role};

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something is to be done that leaves no trace in the row.
    Effect(Effect),
    /// The move goes into its next phase.
    Advance(Box<Change>),
    /// A try failed, or the next one begins.
    Retry(Box<Change>),
    /// Nothing, until something else is seen or the time comes.
    Wait {
        /// What for.
        waiting: Waiting,
        /// When to look again although nothing was seen. Microseconds since 1970-01-01 UTC.
        until_us: Option<i64>,
    },
    /// The move is given up.
    Abort(Box<Change>),
    /// The move ends.
    Finish(Box<Change>),
    /// It has ended.
    Ended,
}

impl Step {
    /// What is to be written, if anything is.
    pub fn into_change(self) -> Option<Change> {
        match self {
            Step::Advance(change)
            | Step::Retry(change)
            | Step::Abort(change)
            | Step::Finish(change) => Some(*change),
            Step::Effect(_) | Step::Wait { .. } | Step::Ended => None,
        }
    }
}

/// Something that leaves no trace in the row. Doing it again is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The agents are to be asked what they find.
    Inspect {
        /// That of the source.
        source: bool,
        /// That of the target.
        target: bool,
    },
}

/// What one transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The row.
    pub row: Move,
    /// What becomes of the assignment.
    pub ownership: Ownership,
    /// What becomes of what moves left behind.
    pub left: Left,
}

/// What becomes of what moves left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// Nothing changes.
    AsIs,
    /// This move leaves something, in place of whatever was left there before.
    Behind(Residue),
    /// What an earlier move left at the target is this move's from now on: the target is told to
    /// stage, and whatever comes of it, this move leaves.
    TakenOver,
}

/// What becomes of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It stays, and is told anew.
    Keep,
    /// The same owner, at a new generation.
    Renew,
    /// The target owns it, at a new generation.
    Give,
}

/// What a move waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Other moves.
    Turn {
        /// How many.
        ahead: usize,
    },
    /// Something that was found has to be gone.
    Finding(String),
    /// An agent that is away.
    Agent(Side),
    /// An agent that answers what it finds.
    Inspection,
    /// A shard to be in a role.
    Role {
        /// Which end.
        side: Side,
        /// The role.
        role: Role,
        /// What keeps it.
        obstacle: Option<Obstacle>,
    },
    /// The target to parse the same DAGs.
    Dags(Disagreement),
    /// Tasks that run.
    Drain {
        /// Running, count.
        running: i64,
        /// Queued, count.
        queued: i64,
        /// Deferred, count.
        deferred: i64,
    },
    /// A transfer.
    Transfer {
        /// Which part.
        part: Part,
        /// Taken in by the target. Bytes.
        bytes: i64,
    },
    /// The next try.
    Backoff,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiting::Turn { ahead } => write!(f, "waits for {ahead} other moves"),
            Waiting::Finding(finding) => write!(f, "waits until this is gone: {finding}"),
            Waiting::Agent(side) => write!(f, "waits for the agent of the {}", side.name()),
            Waiting::Inspection => f.write_str("waits for the agents to inspect their shards"),
            Waiting::Role { side, role, obstacle } => {
                write!(f, "waits for the {} to be {role}", side.name())?;
                match obstacle {
                    Some(Obstacle { code, message }) => write!(f, ": {code}: {message}"),
                    None => Ok(()),
                }
            }
            Waiting::Dags(differences) => write!(f, "waits for the same DAGs: {differences}"),
            Waiting::Drain { running, queued, deferred } => write!(
                f,
                "waits for tasks to finish: {running} running, {queued} queued, {deferred} deferred"
            ),
            Waiting::Transfer { part, bytes } => {
                write!(f, "copies ({} part), {bytes} bytes so far", part.name())
            }
            Waiting::Backoff => f.write_str("waits before it tries again"),
        }
    }
}

/// What one look at a phase comes to.
enum Verdict {
    /// It is over; this follows.
    Next(Phase),
    /// Not yet.
    Not(Waiting),
    /// The agents are to be asked.
    Ask(Effect),
    /// This try failed.
    Failed(Obstacle),
    /// The move cannot succeed.
    Hopeless(Obstacle),
}

/// What happens next to a move, as it was committed, with what is seen of it.
///
/// `seed` decides how long pauses are, and nothing else.
pub fn step(row: &Move, seen: &Observations, policy: &Policy, now_us: i64, seed: u64) -> Step {
    if row.phase.is_final() {
        return Step::Ended;
    }
    if let Some(cancel) = row.cancel.as_ref().filter(|_| row.phase.is_abortable()) {
        let by = if cancel.reason.is_empty() {
            format!("by {}", cancel.actor)
        } else {
            format!("by {}: {}", cancel.actor, cancel.reason)
        };
        return abort(row, policy, now_us, obstacle("ABORT_REQUESTED", format!("aborted {by}")));
    }
    let waiting = match look(row, seen, policy, now_us) {
        // What is reached late is reached: the deadline is for what is not.
        Verdict::Next(phase) => return advance(row, seen, policy, phase, now_us),
        Verdict::Hopeless(why) if row.phase.is_abortable() => {
            return abort(row, policy, now_us, why);
        }
        _ if row.deadline_at_us.is_some_and(|at_us| now_us >= at_us)
            && row.phase.is_abortable() =>
        {
            return abort(row, policy, now_us, overdue(row, seen, policy, now_us));
        }
        Verdict::Hopeless(why) | Verdict::Failed(why) => {
            return match row.next_attempt_at_us {
                None => note_failure(row, policy, now_us, seed, why),
                Some(at_us) if now_us >= at_us => try_again(row),
                Some(at_us) => wait(row, Waiting::Backoff, Some(at_us)),
            };
        }
        Verdict::Ask(effect) => return Step::Effect(effect),
        Verdict::Not(waiting) => waiting,
    };
    // Whatever had failed, somebody else has mended it, or the next try is due.
    match row.next_attempt_at_us {
        Some(at_us) if now_us >= at_us => try_again(row),
        until_us => wait(row, waiting, until_us),
    }
}

fn look(row: &Move, seen: &Observations, policy: &Policy, now_us: i64) -> Verdict {
    match row.phase {
        Phase::Planned => plan(row, seen, policy, now_us),
        Phase::Staging => stage(row, seen),
        Phase::Quiescing => quiesce(row, seen),
        Phase::Sealing => seal(row, seen),
        Phase::Copying => copy(row, seen),
        Phase::Flipped => Verdict::Next(Phase::Activating),
        Phase::Activating => reach(row, seen, Side::Target, Role::Active, Phase::Retiring),
        Phase::Retiring if row.options.source_is_lost => Verdict::Next(Phase::Done),
        Phase::Retiring => reach(row, seen, Side::Source, Role::Retired, Phase::Done),
        // A source that was never told to stop has nothing to resume; one that is lost will not.
        Phase::Aborting if !row.stopped_source() => Verdict::Next(Phase::Aborted),
        Phase::Aborting => reach(row, seen, Side::Source, Role::Active, Phase::Aborted),
        Phase::Done | Phase::Aborted => unreachable!("a move that has ended is not looked at"),
    }
}

fn plan(row: &Move, seen: &Observations, policy: &Policy, now_us: i64) -> Verdict {
    let stale = |end: &super::End| {
        end.inspection.as_ref().is_none_or(|inspection| {
            now_us.saturating_sub(inspection.at_us) > micros(policy.inspection_age_max)
        })
    };
    if seen.ahead > 0 {
        return Verdict::Not(Waiting::Turn { ahead: seen.ahead });
    }
    let needs_source = !row.options.source_is_lost;
    let ask = Effect::Inspect {
        source: needs_source && seen.source.connected && stale(&seen.source),
        target: seen.target.connected && stale(&seen.target),
    };
    if ask != (Effect::Inspect { source: false, target: false }) {
        return Verdict::Ask(ask);
    }
    for (side, end, needed) in
        [(Side::Source, &seen.source, needs_source), (Side::Target, &seen.target, true)]
    {
        if needed && (!end.connected || stale(end)) {
            return Verdict::Not(Waiting::Agent(side));
        }
    }
    let findings = preflight::findings(row, seen);
    match findings.first() {
        Some(first) if first.severity() == Severity::Blocks => {
            let blocking = findings.iter().filter(|f| f.severity() == Severity::Blocks).count();
            let more = match blocking - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let message = format!("{}{more}; {}", first.message, first.code.remedy());
            Verdict::Hopeless(obstacle(first.code.name(), message))
        }
        Some(first) if first.severity() == Severity::Delays => {
            Verdict::Not(Waiting::Finding(format!("{}: {}", first.code.name(), first.message)))
        }
        _ => Verdict::Next(Phase::Staging),
    }
}

fn stage(row: &Move, seen: &Observations) -> Verdict {
    if row.options.source_is_lost && seen.source.connected {
        // It is back: its rows can be brought along, and must not be left behind.
        let code = preflight::Code::SourceAlive;
        let message = format!("the agent of {} is connected; {}", row.source, code.remedy());
        return Verdict::Hopeless(obstacle(code.name(), message));
    }
    let Some(target) = of(row, seen, Side::Target) else { return away(seen, Side::Target) };
    if !target.shows(row, Role::Staged, row.generation) {
        return not_in_role(row, target, Side::Target, Role::Staged);
    }
    if row.options.source_is_lost {
        return Verdict::Next(Phase::Flipped);
    }
    let Some(source) = of(row, seen, Side::Source) else { return away(seen, Side::Source) };
    if let Some(not_yet) = transferred(row, (source, target), Part::Ahead) {
        return not_yet;
    }
    let nothing = [].as_slice();
    let (from, to) = (source.dag_ids.as_deref(), target.dag_ids.as_deref());
    match same_dags(from.unwrap_or(nothing), to.unwrap_or(nothing)) {
        Ok(()) if from.is_some() && to.is_some() => Verdict::Next(Phase::Quiescing),
        Ok(()) => Verdict::Not(Waiting::Inspection),
        Err(differences) => Verdict::Not(Waiting::Dags(differences)),
    }
}

fn quiesce(row: &Move, seen: &Observations) -> Verdict {
    let Some(source) = of(row, seen, Side::Source) else { return away(seen, Side::Source) };
    if !source.shows(row, Role::Quiesced, row.generation) {
        return not_in_role(row, source, Side::Source, Role::Quiesced);
    }
    let drain = source.drain.unwrap_or_default();
    if drain.is_idle() && drain.confirmed {
        return Verdict::Next(Phase::Sealing);
    }
    if row.options.running_tasks == RunningTasks::Abort && !drain.is_idle() {
        let message = format!(
            "{} running, {} queued, {} deferred task instances; let them finish, or wait for them",
            drain.running, drain.queued, drain.deferred
        );
        return Verdict::Hopeless(obstacle("RUNNING_TASKS", message));
    }
    Verdict::Not(Waiting::Drain {
        running: drain.running,
        queued: drain.queued,
        deferred: drain.deferred,
    })
}

fn seal(row: &Move, seen: &Observations) -> Verdict {
    let Some(source) = of(row, seen, Side::Source) else { return away(seen, Side::Source) };
    if source.shows(row, Role::Sealed, row.generation) && source.marks.is_some() {
        return Verdict::Next(Phase::Copying);
    }
    not_in_role(row, source, Side::Source, Role::Sealed)
}

fn copy(row: &Move, seen: &Observations) -> Verdict {
    let Some(source) = of(row, seen, Side::Source) else { return away(seen, Side::Source) };
    let Some(target) = of(row, seen, Side::Target) else { return away(seen, Side::Target) };
    // Both must still be what they were when they were praised.
    if !source.shows(row, Role::Sealed, row.generation) {
        return not_in_role(row, source, Side::Source, Role::Sealed);
    }
    if !target.shows(row, Role::Staged, row.generation) {
        return not_in_role(row, target, Side::Target, Role::Staged);
    }
    if let Some(not_yet) = transferred(row, (source, target), Part::Rest) {
        return not_yet;
    }
    let sealed = row.sealed.as_deref().unwrap_or_default();
    let all_runs = row.options.history == super::History::Full;
    match same_marks(sealed, target.marks.as_deref().unwrap_or_default(), all_runs) {
        Ok(()) => Verdict::Next(Phase::Flipped),
        Err(differences) => Verdict::Failed(obstacle("MARKS_DIFFER", differences.to_string())),
    }
}

/// Why a transfer is not over; none where both ends have the same.
fn transferred(
    row: &Move,
    (source, target): (&Evidence, &Evidence),
    part: Part,
) -> Option<Verdict> {
    let (from, to) = (source.transfer_of(row, part), target.transfer_of(row, part));
    for end in [from, to].into_iter().flatten() {
        if let TransferState::Failed(why) = &end.state {
            return Some(Verdict::Failed(why.clone()));
        }
    }
    match (from, to) {
        (Some(from), Some(to))
            if from.state == TransferState::Done && to.state == TransferState::Done =>
        {
            same_tables(&from.tables, &to.tables).err().map(|differences| {
                Verdict::Failed(obstacle("COPY_DIFFERS", differences.to_string()))
            })
        }
        (_, to) => {
            let bytes = match to.map(|to| &to.state) {
                Some(TransferState::Running { bytes }) => *bytes,
                _ => 0,
            };
            Some(Verdict::Not(Waiting::Transfer { part, bytes }))
        }
    }
}

/// Waits for one end to be in a role at the assignment's present generation, past the decision.
fn reach(row: &Move, seen: &Observations, side: Side, role: Role, next: Phase) -> Verdict {
    let Some(end) = of(row, seen, side) else { return away(seen, side) };
    if end.shows(row, role, decided(row)) {
        Verdict::Next(next)
    } else {
        not_in_role(row, end, side, role)
    }
}

/// Generation of the assignment once the move was decided, either way.
fn decided(row: &Move) -> Generation {
    row.generation.next()
}

fn of<'a>(row: &Move, seen: &'a Observations, side: Side) -> Option<&'a Evidence> {
    let end = if side == Side::Source { &seen.source } else { &seen.target };
    end.evidence.as_ref().filter(|evidence| evidence.is_of(row))
}

fn away(seen: &Observations, side: Side) -> Verdict {
    let end = if side == Side::Source { &seen.source } else { &seen.target };
    if end.connected {
        Verdict::Not(Waiting::Inspection)
    } else {
        Verdict::Not(Waiting::Agent(side))
    }
}

/// An obstacle of the try that is on ends it; one of an earlier try says nothing.
fn not_in_role(row: &Move, evidence: &Evidence, side: Side, role: Role) -> Verdict {
    match &evidence.obstacle {
        Some(obstacle) if evidence.attempt == row.attempt => Verdict::Failed(obstacle.clone()),
        obstacle => Verdict::Not(Waiting::Role { side, role, obstacle: obstacle.clone() }),
    }
}

fn obstacle(code: &str, message: impl Into<String>) -> Obstacle {
    Obstacle { code: code.into(), message: message.into() }
}

/// Why a phase is not over by its deadline.
fn overdue(row: &Move, seen: &Observations, policy: &Policy, now_us: i64) -> Obstacle {
    let (code, what) = match look(row, seen, policy, now_us) {
        Verdict::Not(Waiting::Agent(side)) => {
            ("AGENT_AWAY", format!("the agent of the {} is away", side.name()))
        }
        Verdict::Not(waiting @ Waiting::Drain { .. }) => ("NOT_DRAINED", waiting.to_string()),
        Verdict::Not(waiting @ Waiting::Dags(_)) => ("DAGS_DIFFER", waiting.to_string()),
        Verdict::Not(waiting) => ("DEADLINE", waiting.to_string()),
        Verdict::Failed(why) | Verdict::Hopeless(why) => return why,
        Verdict::Ask(_) => ("AGENT_AWAY", "the agents do not answer".to_owned()),
        Verdict::Next(_) => {
            let Obstacle { code, message } = unknown_obstacle();
            return obstacle(&code, message);
        }
    };
    obstacle(code, format!("{} took too long: {what}", row.phase))
}

fn failure(row: &Move, now_us: i64, why: Obstacle) -> Failure {
    Failure { code: why.code, message: why.message, phase: row.phase, at_us: now_us }
}

fn keep(row: Move) -> Box<Change> {
    Box::new(Change { row, ownership: Ownership::Keep, left: Left::AsIs })
}

fn advance(row: &Move, seen: &Observations, policy: &Policy, next: Phase, now_us: i64) -> Step {
    let mut after = row.enter(next, policy, now_us);
    if next == Phase::Copying {
        let source = of(row, seen, Side::Source);
        after.sealed = source.and_then(|source| source.marks.clone());
        after.dark_from_us = source.and_then(|source| source.stopped_at_us);
    }
    if next == Phase::Retiring {
        let target = of(row, seen, Side::Target);
        after.dark_until_us = target.and_then(|target| target.started_at_us);
        after.proof = target.and_then(|target| Proof::of(row, target)).map(Into::into);
    }
    if next.is_final() {
        let fenced = next == Phase::Aborted
            || of(row, seen, Side::Source)
                .is_some_and(|source| source.shows(row, Role::Retired, decided(row)));
        let left = after.residue(policy, fenced, now_us).map_or(Left::AsIs, Left::Behind);
        return Step::Finish(Box::new(Change { row: after, ownership: Ownership::Keep, left }));
    }
    let ownership = if next == Phase::Flipped { Ownership::Give } else { Ownership::Keep };
    let left = if next == Phase::Staging { Left::TakenOver } else { Left::AsIs };
    Step::Advance(Box::new(Change { row: after, ownership, left }))
}

fn abort(row: &Move, policy: &Policy, now_us: i64, why: Obstacle) -> Step {
    let last_error = Some(failure(row, now_us, why));
    let after = Move { last_error, ..row.enter(Phase::Aborting, policy, now_us) };
    Step::Abort(Box::new(Change { row: after, ownership: Ownership::Renew, left: Left::AsIs }))
}

fn note_failure(row: &Move, policy: &Policy, now_us: i64, seed: u64, why: Obstacle) -> Step {
    let pause = policy.backoff(row.attempt, seed);
    Step::Retry(keep(Move {
        last_error: Some(failure(row, now_us, why)),
        next_attempt_at_us: Some(now_us.saturating_add(micros(pause))),
        ..row.clone()
    }))
}

fn try_again(row: &Move) -> Step {
    Step::Retry(keep(Move {
        attempt: row.attempt.saturating_add(1),
        next_attempt_at_us: None,
        ..row.clone()
    }))
}

fn wait(row: &Move, waiting: Waiting, until_us: Option<i64>) -> Step {
    let until_us = match (until_us, row.deadline_at_us) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    Step::Wait { waiting, until_us }
}
