//! Between the wire and what is known of moves.

use airfleet_domain::moves::{History, Mark, Part, Side, TableSum, Task, TransferTask};
use airfleet_proto::{agent::v1 as wire, common::v1 as common, convert::micros};
use airfleet_transfer::{RunName, TableSize, copy::Position};
use jiff::Timestamp;

use crate::report::timestamp;

/// What an order says of a move; none where it says what this agent does not know.
pub(crate) fn task(told: &wire::MoveTask) -> Option<Task> {
    let transfer = match &told.transfer {
        None => None,
        Some(ordered) => Some(TransferTask {
            part: match ordered.part() {
                wire::TransferPart::Ahead => Part::Ahead,
                wire::TransferPart::Rest => Part::Rest,
                wire::TransferPart::Unspecified => return None,
            },
            history: match ordered.history() {
                common::MoveHistory::Minimal => History::Minimal,
                common::MoveHistory::Full | common::MoveHistory::Unspecified => History::Full,
            },
        }),
    };
    Some(Task {
        move_id: told.move_id.parse().ok()?,
        side: match told.side() {
            wire::MoveSide::Source => Side::Source,
            wire::MoveSide::Target => Side::Target,
            wire::MoveSide::Unspecified => return None,
        },
        peer: told.peer.parse().ok()?,
        attempt: u32::try_from(told.attempt).ok()?,
        transfer,
    })
}

pub(super) fn side(side: Side) -> wire::MoveSide {
    match side {
        Side::Source => wire::MoveSide::Source,
        Side::Target => wire::MoveSide::Target,
    }
}

pub(super) fn part(part: Part) -> wire::TransferPart {
    match part {
        Part::Ahead => wire::TransferPart::Ahead,
        Part::Rest => wire::TransferPart::Rest,
    }
}

/// A time in microseconds since 1970-01-01 UTC.
pub(crate) fn time(micros: i64) -> Option<prost_types::Timestamp> {
    Timestamp::from_microsecond(micros).ok().map(timestamp)
}

pub(crate) fn marks(marks: &[Mark]) -> Vec<wire::Mark> {
    let mark = |mark: &Mark| wire::Mark {
        dag_id: mark.dag_id.to_string(),
        newest_logical_date: mark.newest_logical_date_us.and_then(time),
        runs: mark.runs,
        unfinished_runs: mark.unfinished_runs,
        paused: mark.paused,
    };
    marks.iter().map(mark).collect()
}

pub(super) fn marks_of(marks: Vec<wire::Mark>) -> Vec<Mark> {
    let mark = |mark: wire::Mark| Mark {
        dag_id: mark.dag_id.into(),
        newest_logical_date_us: mark.newest_logical_date.as_ref().map(micros),
        runs: mark.runs,
        unfinished_runs: mark.unfinished_runs,
        paused: mark.paused,
    };
    marks.into_iter().map(mark).collect()
}

pub(crate) fn sums(sums: &[TableSum]) -> Vec<wire::TableSum> {
    let sum = |sum: &TableSum| wire::TableSum {
        table: sum.table.to_string(),
        rows: sum.rows,
        checksum: sum.checksum.to_string(),
    };
    sums.iter().map(sum).collect()
}

pub(super) fn sums_of(sums: Vec<wire::TableSum>) -> Vec<TableSum> {
    let sum = |sum: wire::TableSum| TableSum {
        table: sum.table.into(),
        rows: sum.rows,
        checksum: sum.checksum.into(),
    };
    sums.into_iter().map(sum).collect()
}

pub(super) fn runs(runs: Vec<RunName>) -> Vec<wire::TransferRun> {
    let run = |RunName { dag_id, run_id }| wire::TransferRun { dag_id, run_id };
    runs.into_iter().map(run).collect()
}

pub(super) fn runs_of(runs: Vec<wire::TransferRun>) -> Vec<RunName> {
    let run = |wire::TransferRun { dag_id, run_id }| RunName { dag_id, run_id };
    runs.into_iter().map(run).collect()
}

pub(super) fn estimate(sizes: &[TableSize]) -> Vec<wire::TableEstimate> {
    let size = |size: &TableSize| wire::TableEstimate {
        table: size.table.clone(),
        rows: size.rows,
        bytes: size.bytes,
    };
    sizes.iter().map(size).collect()
}

pub(super) fn estimate_of(sizes: Vec<wire::TableEstimate>) -> Vec<TableSize> {
    let size = |size: wire::TableEstimate| TableSize {
        table: size.table,
        rows: size.rows.max(0),
        bytes: size.bytes.max(0),
    };
    sizes.into_iter().map(size).collect()
}

pub(super) fn position(position: Position) -> wire::TransferPosition {
    wire::TransferPosition { sequence: position.sequence, digest: position.digest }
}

pub(super) fn position_of(position: wire::TransferPosition) -> Position {
    Position { sequence: position.sequence, digest: position.digest }
}
