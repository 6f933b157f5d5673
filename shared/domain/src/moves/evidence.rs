//! What is seen of a move.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Move, Part, preflight::Inspection};
use crate::{
    ids::{Generation, MoveId, Revision},
    roles::{Observed, Role},
};

/// All that is seen of a move when it is looked at.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// At the shard that gives the namespace up.
    pub source: End,
    /// At the shard that gets it.
    pub target: End,
    /// Moves that have to end before this one may begin. Count; 0 where it may.
    pub ahead: usize,
    /// Why the target would not be given the namespace by the placer.
    pub unfit: Vec<String>,
}

/// What is seen at one end.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Whether the agent is connected.
    pub connected: bool,
    /// What the agent says of this move.
    pub evidence: Option<Evidence>,
    /// What it found when it was asked.
    pub inspection: Option<Arc<Inspection>>,
}

/// What an agent says of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The move whose orders it had when it looked.
    pub move_id: MoveId,
    /// Revision of the order that it obeyed when it looked.
    pub revision: Revision,
    /// Attempt of that order.
    pub attempt: u32,
    /// The last role that was reached completely; none where there was none.
    pub observed: Option<Observed>,
    /// What keeps it from being what it is to be.
    pub obstacle: Option<Obstacle>,
    /// DAGs of the namespace that are not stale, sorted.
    pub dag_ids: Option<Arc<[Box<str>]>>,
    /// How far the source is drained.
    pub drain: Option<Drain>,
    /// Up to where each DAG came: at the source as it was sealed, at the target as it was imported.
    pub marks: Option<Arc<[Mark]>>,
    /// The transfer that was ordered.
    pub transfer: Option<Transfer>,
    /// When the shard was last able to make runs: the commit of the fence. Microseconds since
    /// 1970-01-01 UTC.
    pub stopped_at_us: Option<i64>,
    /// When it became able to: the commit that lifted the fence. Microseconds since 1970-01-01 UTC.
    pub started_at_us: Option<i64>,
    /// Up to where each DAG came as of that commit.
    pub start_marks: Option<Arc<[Mark]>>,
    /// Runs that were inserted in that commit since they had come due meanwhile: DAG and count.
    pub inserted: Arc<[(Box<str>, i64)]>,
}

impl Evidence {
    /// Whether the agent is in this role at this generation, by the orders of this move.
    pub(super) fn shows(&self, row: &Move, role: Role, generation: Generation) -> bool {
        self.is_of(row) && self.observed == Some(Observed { role, generation })
    }

    pub(super) fn is_of(&self, row: &Move) -> bool {
        self.move_id == row.id && self.revision >= row.began_revision
    }

    /// The transfer of a part, if it is of the attempt that is on.
    pub(super) fn transfer_of(&self, row: &Move, part: Part) -> Option<&Transfer> {
        let transfer = self.transfer.as_ref().filter(|_| self.is_of(row))?;
        (transfer.part == part && transfer.attempt == row.attempt).then_some(transfer)
    }
}

/// What keeps a shard from being what it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: String,
    /// One line for people: what is wrong and what to do.
    pub message: String,
}

/// How far a source is drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Task instances that run or restart. Count.
    pub running: i64,
    /// Task instances that a worker may start at any moment. Count.
    pub queued: i64,
    /// Task instances that wait in the triggerer. Count.
    pub deferred: i64,
    /// Whether nothing was found twice, and the scheduler beat in between: it may have been about
    /// to queue a task when it was first looked.
    pub confirmed: bool,
}

impl Drain {
    /// Whether nothing is active.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.queued == 0 && self.deferred == 0
    }
}

/// Up to where one DAG came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The DAG.
    pub dag_id: Box<str>,
    /// Logical date of its newest automated run: what its schedule goes on from. Microseconds since
    /// 1970-01-01 UTC; none where it has none.
    pub newest_logical_date_us: Option<i64>,
    /// Runs. Count.
    pub runs: i64,
    /// Runs that have not ended. Count.
    pub unfinished_runs: i64,
    /// Whether its users paused it.
    pub paused: bool,
}

/// How a transfer goes, as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which part.
    pub part: Part,
    /// Which attempt.
    pub attempt: u32,
    /// How far it is.
    pub state: TransferState,
    /// Every table of the namespace as this end has it; complete once `state` is done.
    pub tables: Arc<[TableSum]>,
    /// Bytes of all; 0 where that is not known.
    pub total_bytes: i64,
    /// How far each table is, while it is under way.
    pub running: Arc<[TableProgress]>,
}

/// How far a table is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableProgress {
    /// The table.
    pub table: Box<str>,
    /// Rows passed so far. Count.
    pub rows: i64,
    /// Of so many; 0 where that is not known.
    pub total_rows: i64,
    /// Bytes passed so far.
    pub bytes: i64,
}

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferState {
    /// Under way.
    Running {
        /// Passed so far. Bytes.
        bytes: i64,
    },
    /// Sent, or committed at the target.
    Done,
    /// This attempt is over.
    Failed(Obstacle),
}

/// What one end has of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSum {
    /// The table.
    pub table: Box<str>,
    /// Rows. Count.
    pub rows: i64,
    /// Over what the rows say, whatever their order and numbers are. Both ends compute it alike;
    /// nobody else reads it.
    pub checksum: Box<str>,
}

/// How two ends differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement(pub Vec<String>);

/// What is listed of a difference, at most.
const LISTED_MAX: usize = 5;

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(differences) = self;
        f.write_str(&differences[..differences.len().min(LISTED_MAX)].join("; "))?;
        match differences.len().saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Compares two sorted lists by a key.
fn differences<T: PartialEq, K: Ord>(
    source: &[T],
    target: &[T],
    key: impl Fn(&T) -> K,
    mut tell: impl FnMut(Option<&T>, Option<&T>) -> Option<String>,
) -> Result<(), Disagreement> {
    let (mut from, mut to) = (source.iter().peekable(), target.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (from.peek(), to.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(from), Some(to)) => key(from).cmp(&key(to)),
        };
        let (one, other) = match order {
            std::cmp::Ordering::Less => (from.next(), None),
            std::cmp::Ordering::Greater => (None, to.next()),
            std::cmp::Ordering::Equal => (from.next(), to.next()),
        };
        if one != other {
            found.extend(tell(one, other));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Disagreement(found)) }
}

/// Whether both ends parsed the same DAGs.
pub(super) fn same_dags(source: &[Box<str>], target: &[Box<str>]) -> Result<(), Disagreement> {
    differences(source, target, Clone::clone, |source, target| {
        source
            .map(|dag| format!("{dag} is not parsed on the target"))
            .or_else(|| target.map(|dag| format!("{dag} is only on the target")))
    })
}

/// Whether both ends have the same rows.
pub(super) fn same_tables(source: &[TableSum], target: &[TableSum]) -> Result<(), Disagreement> {
    differences(
        source,
        target,
        |sum| sum.table.clone(),
        |source, target| {
            let table = &source.or(target)?.table;
            let rows = |sum: Option<&TableSum>| sum.map_or(0, |sum| sum.rows);
            let (source, target) = (rows(source), rows(target));
            Some(if source == target {
                format!("{table}: {source} rows on each end, but they differ")
            } else {
                format!("{table}: {source} rows on the source, {target} on the target")
            })
        },
    )
}

/// Whether the target goes on from where the source stopped. Where not all runs go along, their
/// number says nothing.
pub(super) fn same_marks(
    source: &[Mark],
    target: &[Mark],
    all_runs: bool,
) -> Result<(), Disagreement> {
    let told = |mark: Option<&Mark>| {
        mark.map_or_else(
            || "none".to_owned(),
            |mark| match mark.newest_logical_date_us {
                Some(date) => format!("{} runs up to {date} us", mark.runs),
                None => format!("{} runs", mark.runs),
            },
        )
    };
    differences(
        source,
        target,
        |mark| mark.dag_id.clone(),
        |source, target| {
            let same = source.zip(target).is_some_and(|(source, target)| {
                source.newest_logical_date_us == target.newest_logical_date_us
                    && source.unfinished_runs == target.unfinished_runs
                    && source.paused == target.paused
                    && (!all_runs || source.runs == target.runs)
            });
            let dag = &source.or(target)?.dag_id;
            (!same)
                .then(|| format!("{dag}: source has {}, target has {}", told(source), told(target)))
        },
    )
}
