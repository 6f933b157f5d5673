//! Between the wire of moves, on both sides of the router, and the domain's values.

use std::{collections::BTreeMap, sync::Arc};

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    moves::{
        Drain, Evidence, History, Line, Mark, Obstacle, Options, Part, Phase, Proof, RunningTasks,
        Side, TableProgress, TableSum, Task, Transfer, TransferState, TransferTask, Waiting,
        preflight::{Finding, Inspection, Severity},
    },
    roles::Observed,
};
use airfleet_proto::{
    agent::v1 as agent,
    common::v1 as common,
    convert::{micros, role},
    moves::v1 as wire,
};
use airfleet_runtime::status::FieldViolation;
use prost_types::Timestamp;

use super::{set_timestamp, timestamp};
use crate::{agents::Question, service::Shown};

/// DAGs that an agent may tell of. Count.
const DAGS_MAX: usize = 20_000;
/// Runs that an agent may have inserted. Count.
const RUNS_MAX: usize = 10_000;
/// Tables that an agent may tell of. Count.
const TABLES_MAX: usize = 1_000;
/// Items of a list of an inspection.
const LIST_MAX: usize = 1_000;
/// Most characters kept of a text for people.
const TEXT_MAX: usize = 500;

fn cut(text: String) -> String {
    if text.len() <= TEXT_MAX { text } else { text.chars().take(TEXT_MAX).collect() }
}

fn some_micros(time: Option<Timestamp>) -> Option<i64> {
    time.as_ref().map(micros)
}

fn some_timestamp(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(timestamp)
}

fn obstacle(wire: agent::Obstacle) -> Obstacle {
    Obstacle { code: cut(wire.code), message: cut(wire.message) }
}

/// What a shard does in a move beside being in its role.
pub(super) fn task(task: Task) -> agent::MoveTask {
    let Task { move_id, side: end, peer, attempt, transfer } = task;
    agent::MoveTask {
        move_id: move_id.to_string(),
        side: side(end).into(),
        peer: peer.to_string(),
        attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
        transfer: transfer.map(|TransferTask { part: which, history: how }| agent::TransferTask {
            part: part(which).into(),
            history: history(how).into(),
        }),
    }
}

/// Which transfer a stream is for, and the namespace.
pub(crate) fn opened(
    wire: &agent::TransferOpen,
) -> Option<(NamespaceName, crate::leader::Transfer)> {
    let side = match wire.side() {
        agent::MoveSide::Source => Side::Source,
        agent::MoveSide::Target => Side::Target,
        agent::MoveSide::Unspecified => return None,
    };
    let part = some_part(wire.part())?;
    let attempt = u32::try_from(wire.attempt).ok()?;
    let move_id = wire.move_id.parse().ok()?;
    let transfer = crate::leader::Transfer { move_id, side, part, attempt };
    Some((wire.namespace.parse().ok()?, transfer))
}

fn some_part(part: agent::TransferPart) -> Option<Part> {
    match part {
        agent::TransferPart::Ahead => Some(Part::Ahead),
        agent::TransferPart::Rest => Some(Part::Rest),
        agent::TransferPart::Unspecified => None,
    }
}

fn side(side: Side) -> agent::MoveSide {
    match side {
        Side::Source => agent::MoveSide::Source,
        Side::Target => agent::MoveSide::Target,
    }
}

fn part(part: Part) -> agent::TransferPart {
    match part {
        Part::Ahead => agent::TransferPart::Ahead,
        Part::Rest => agent::TransferPart::Rest,
    }
}

fn history(history: History) -> common::MoveHistory {
    match history {
        History::Full => common::MoveHistory::Full,
        History::Minimal => common::MoveHistory::Minimal,
    }
}

/// What an agent is asked.
pub(crate) fn inspect(question: Question) -> agent::Inspect {
    let Question { number, namespace, prefixes, side: end } = question;
    agent::Inspect { number, namespace: namespace.to_string(), prefixes, side: side(end).into() }
}

/// What an agent found: the namespace, the number of the question, and the answer.
pub(crate) fn inspection(wire: agent::Inspection) -> Option<(NamespaceName, i64, Inspection)> {
    let list = |items: Vec<String>| items.into_iter().take(LIST_MAX).map(cut).collect();
    let found = Inspection {
        at_us: 0,
        airflow_version: cut(wire.airflow_version),
        schema_revision: cut(wire.schema_revision),
        schema_digest: cut(wire.schema_digest),
        not_understood: list(wire.not_understood),
        database: cut(wire.database),
        dags_folder: cut(wire.dags_folder),
        providers: wire.providers.into_iter().take(LIST_MAX).collect(),
        pools: wire.pools.into_iter().take(LIST_MAX).collect(),
        fernet_digest: cut(wire.fernet_digest),
        secrets_backend: cut(wire.secrets_backend),
        dags: wire.dags,
        runs: wire.runs,
        task_instances: wire.task_instances,
        running: wire.running,
        deferred: wire.deferred,
        open_backfills: list(wire.open_backfills),
        asset_crossings: list(wire.asset_crossings),
        obstacles: list(wire.obstacles),
    };
    Some((wire.namespace.parse().ok()?, wire.number, found))
}

/// What an agent says of a move; none where it names none, or says more than it may.
pub(crate) fn evidence(wire: agent::MoveEvidence) -> Option<(NamespaceName, Evidence)> {
    let observed = role(common::Role::try_from(wire.role).unwrap_or_default())
        .map(|role| Observed { role, generation: Generation(wire.generation) });
    let dag_ids = match wire.dag_ids {
        Some(ids) if ids.dag_ids.len() > DAGS_MAX => return None,
        Some(ids) => {
            let mut ids: Vec<Box<str>> = ids.dag_ids.into_iter().map(Into::into).collect();
            ids.sort_unstable();
            Some(Arc::from(ids))
        }
        None => None,
    };
    let too_many =
        |marks: &Option<agent::Marks>| marks.as_ref().is_some_and(|m| m.marks.len() > DAGS_MAX);
    if too_many(&wire.marks) || too_many(&wire.start_marks) || wire.inserted_runs.len() > RUNS_MAX {
        return None;
    }
    let (marks, start_marks) = (wire.marks.map(marks), wire.start_marks.map(marks));
    let drain = wire.drain.map(|drain| Drain {
        running: drain.running,
        queued: drain.queued,
        deferred: drain.deferred,
        confirmed: drain.confirmed,
    });
    let transfer = match wire.transfer {
        Some(progress) => Some(transfer(progress)?),
        None => None,
    };
    let evidence = Evidence {
        move_id: wire.move_id.parse().ok()?,
        revision: Revision(wire.revision),
        attempt: u32::try_from(wire.attempt).ok()?,
        observed,
        obstacle: wire.obstacle.map(obstacle),
        dag_ids,
        drain,
        marks,
        transfer,
        stopped_at_us: some_micros(wire.stop_time),
        started_at_us: some_micros(wire.start_time),
        start_marks,
        inserted: inserted(wire.inserted_runs),
    };
    Some((wire.namespace.parse().ok()?, evidence))
}

fn marks(wire: agent::Marks) -> Arc<[Mark]> {
    let mut marks: Vec<Mark> = wire.marks.into_iter().map(mark).collect();
    marks.sort_unstable();
    marks.into()
}

/// How many of each DAG.
fn inserted(runs: Vec<agent::InsertedRun>) -> Arc<[(Box<str>, i64)]> {
    let mut counts: BTreeMap<Box<str>, i64> = BTreeMap::new();
    for run in runs {
        *counts.entry(run.dag_id.into()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn mark(wire: agent::Mark) -> Mark {
    Mark {
        dag_id: wire.dag_id.into(),
        newest_logical_date_us: some_micros(wire.newest_logical_date),
        runs: wire.runs,
        unfinished_runs: wire.unfinished_runs,
        paused: wire.paused,
    }
}

fn transfer(wire: agent::TransferProgress) -> Option<Transfer> {
    let part = some_part(wire.part())?;
    let state = match wire.state() {
        agent::TransferState::Running => TransferState::Running { bytes: wire.bytes },
        agent::TransferState::Done => TransferState::Done,
        agent::TransferState::Failed => {
            TransferState::Failed(obstacle(wire.obstacle.unwrap_or_default()))
        }
        agent::TransferState::Unspecified => return None,
    };
    if wire.tables.len() > TABLES_MAX {
        return None;
    }
    let sum = |sum: agent::TableSum| TableSum {
        table: sum.table.into(),
        rows: sum.rows,
        checksum: sum.checksum.into(),
    };
    let mut tables: Vec<TableSum> = wire.tables.into_iter().map(sum).collect();
    tables.sort_unstable();
    let attempt = u32::try_from(wire.attempt).ok()?;
    let running = wire.running.into_iter().take(TABLES_MAX).map(|table| TableProgress {
        table: table.table.into(),
        rows: table.rows,
        total_rows: table.total_rows,
        bytes: table.bytes,
    });
    let (tables, running) = (tables.into(), running.collect());
    Some(Transfer { part, attempt, state, tables, total_bytes: wire.total_bytes, running })
}

/// How a move is to be done.
pub(crate) fn options(
    wire: Option<wire::MoveOptions>,
    violations: &mut Vec<FieldViolation>,
) -> Options {
    let wire = wire.unwrap_or_default();
    let history = match wire.history() {
        common::MoveHistory::Minimal => History::Minimal,
        common::MoveHistory::Full | common::MoveHistory::Unspecified => History::Full,
    };
    let running_tasks = match wire.drain_timeout {
        None => RunningTasks::default(),
        Some(timeout) => match std::time::Duration::try_from(timeout) {
            Ok(std::time::Duration::ZERO) => RunningTasks::Abort,
            Ok(at_most) => RunningTasks::Wait { at_most },
            Err(_) => {
                let field = "options.drain_timeout";
                let why = "must not be negative; 0 aborts where anything runs";
                violations.push(FieldViolation::new(field, "OUT_OF_RANGE", why));
                RunningTasks::default()
            }
        },
    };
    Options {
        history,
        running_tasks,
        allow_asset_crossings: wire.allow_asset_crossings,
        source_is_lost: wire.force_lost_source,
    }
}

fn shown_options(options: Options) -> wire::MoveOptions {
    let timeout = match options.running_tasks {
        RunningTasks::Wait { at_most } => at_most,
        RunningTasks::Abort => std::time::Duration::ZERO,
    };
    wire::MoveOptions {
        history: history(options.history).into(),
        drain_timeout: prost_types::Duration::try_from(timeout).ok(),
        allow_asset_crossings: options.allow_asset_crossings,
        force_lost_source: options.source_is_lost,
    }
}

fn phase(phase: Phase) -> wire::MovePhase {
    match phase {
        Phase::Planned => wire::MovePhase::Planned,
        Phase::Staging => wire::MovePhase::Staging,
        Phase::Quiescing => wire::MovePhase::Quiescing,
        Phase::Sealing => wire::MovePhase::Sealing,
        Phase::Copying => wire::MovePhase::Copying,
        Phase::Flipped => wire::MovePhase::Flipped,
        Phase::Activating => wire::MovePhase::Activating,
        Phase::Retiring => wire::MovePhase::Retiring,
        Phase::Done => wire::MovePhase::Done,
        Phase::Aborting => wire::MovePhase::Aborting,
        Phase::Aborted => wire::MovePhase::Aborted,
    }
}

/// A move as it is shown.
pub(crate) fn shown(shown: Shown) -> wire::Move {
    let Shown { row, durable, waiting, alarming, ahead, source, target, .. } = shown;
    let (transfer_end_us, blackout_us) = (shown.transfer_end_us, shown.blackout_us);
    let drain = source.evidence.as_ref().and_then(|seen| seen.drain).unwrap_or_default();
    let transfer = target.evidence.as_ref().and_then(|seen| seen.transfer.as_ref());
    let (copied_bytes, total_bytes) = match transfer {
        Some(Transfer { state: TransferState::Running { bytes }, total_bytes, .. }) => {
            (*bytes, *total_bytes)
        }
        _ => (0, 0),
    };
    let tables = transfer.into_iter().flat_map(|transfer| transfer.running.iter());
    let tables = tables.map(|table| wire::MoveTable {
        table: table.table.to_string(),
        rows: table.rows,
        total_rows: table.total_rows,
        bytes: table.bytes,
    });
    let progress = wire::MoveProgress {
        running: drain.running,
        queued: drain.queued,
        deferred: drain.deferred,
        copied_bytes,
        total_bytes,
        estimated_end_time: some_timestamp(transfer_end_us),
        source_connected: source.connected,
        target_connected: target.connected,
        ahead: i64::try_from(ahead).unwrap_or(i64::MAX),
        tables: tables.collect(),
    };
    let ended = row.phase.is_final();
    let blackout_ms = blackout_us.unwrap_or(0) / 1000;
    wire::Move {
        id: if durable { row.id.to_string() } else { String::new() },
        namespace: row.namespace.to_string(),
        source_shard: row.source.to_string(),
        target_shard: row.target.to_string(),
        generation: row.generation.0,
        phase: phase(row.phase).into(),
        phase_time: set_timestamp(row.phase_began_at_us),
        deadline_time: some_timestamp(row.deadline_at_us),
        attempt: i32::try_from(row.attempt).unwrap_or(i32::MAX),
        next_attempt_time: some_timestamp(row.next_attempt_at_us),
        last_error: row.last_error.map(|error| wire::MoveFailure {
            code: error.code,
            message: error.message,
            phase: phase(error.phase).into(),
            time: set_timestamp(error.at_us),
        }),
        waiting: waiting.as_ref().map(Waiting::to_string).unwrap_or_default(),
        options: Some(shown_options(row.options)),
        requested_by: row.requested_by,
        reason: row.reason,
        cancel: row.cancel.map(|cancel| wire::MoveCancel {
            actor: cancel.actor,
            reason: cancel.reason,
            time: set_timestamp(cancel.at_us),
        }),
        create_time: set_timestamp(row.created_at_us),
        quiesce_time: some_timestamp(row.quiesced_at_us),
        flip_time: some_timestamp(row.flipped_at_us),
        finish_time: some_timestamp(row.finished_at_us),
        progress: (!ended).then_some(progress),
        alarming,
        proof: row.proof.as_deref().map(|proof| proof_of(proof, blackout_ms)),
        revision: row.revision.0,
        blackout_ms,
    }
}

/// The same, for a list: without what is long.
pub(crate) fn listed(shown: Shown) -> wire::Move {
    wire::Move { proof: None, ..self::shown(shown) }
}

fn proof_of(proof: &Proof, blackout_ms: i64) -> wire::MoveProof {
    let line = |line: &Line| wire::MoveProofLine {
        dag_id: line.dag_id.to_string(),
        runs_expected: line.runs_expected,
        runs_found: line.runs_found,
        newest_expected: some_timestamp(line.newest_expected_us),
        newest_found: some_timestamp(line.newest_found_us),
        runs_inserted: line.runs_inserted,
        differs: line.differs,
    };
    wire::MoveProof {
        dags: proof.dags,
        runs_expected: proof.runs_expected,
        runs_found: proof.runs_found,
        runs_inserted: proof.runs_inserted,
        blackout_ms,
        lines: proof.lines.iter().map(line).collect(),
        differing: proof.differing,
    }
}

/// What was found before a move.
pub(crate) fn finding(finding: Finding) -> wire::MoveFinding {
    let severity = match finding.severity() {
        Severity::Blocks => wire::MoveSeverity::Blocks,
        Severity::Delays => wire::MoveSeverity::Delays,
        Severity::Warns => wire::MoveSeverity::Warns,
    };
    wire::MoveFinding {
        code: finding.code.name().to_owned(),
        severity: severity.into(),
        remedy: finding.code.remedy().to_owned(),
        message: finding.message,
    }
}
