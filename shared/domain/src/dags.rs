//! Changes that users ask for to DAGs and their runs, and what comes of them.
//!
//! A change is carried out by the agent of the shard that owns the DAG, at one generation of the
//! assignment, and only while the shard is ACTIVE at it. Whoever is told that it is done can rely on
//! it: what was made before a namespace is given up goes along with it, and after that nothing is
//! made where it was.

use crate::ids::{Generation, NamespaceName};

/// What to change, and where it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The namespace that owns the DAG.
    pub namespace: NamespaceName,
    /// Generation of its assignment.
    pub generation: Generation,
    /// The DAG.
    pub dag_id: String,
    /// What to do.
    pub change: Change,
}

/// A change to a DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A run is made.
    Trigger(Trigger),
    /// Tasks of a run run again.
    Clear(Clear),
    /// It is paused, or no longer.
    Pause(bool),
}

impl Change {
    /// What it is called in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Trigger(_) => "trigger",
            Self::Clear(_) => "clear",
            Self::Pause(true) => "pause",
            Self::Pause(false) => "unpause",
        }
    }
}

/// A run to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trigger {
    /// Its id. Where there is one of that id, that is the run.
    pub run_id: String,
    /// What it is given: a JSON object, or empty.
    pub conf_json: String,
    /// Its logical date. Microseconds since 1970-01-01 UTC.
    pub logical_date_us: Option<i64>,
    /// Kept with it.
    pub note: String,
}

/// Tasks that are to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clear {
    /// The run.
    pub run_id: String,
    /// Only those that failed.
    pub only_failed: bool,
    /// Only these; all where it is empty.
    pub task_ids: Vec<String>,
}

/// A change that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// State of the run, as Airflow says it; of a trigger only.
    pub run_state: String,
    /// Whether there was such a run before; of a trigger only.
    pub existed: bool,
    /// Task instances that were cleared; of a clear only. Count.
    pub cleared: i64,
}

/// A change that is not done, or in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind.
    pub trouble: Trouble,
    /// One line for people: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into() }
    }
}

/// Kinds of failure. In all but [`Trouble::InDoubt`] nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The shard is not ACTIVE for the namespace at that generation (any more, or yet).
    NotActive,
    /// Too many changes are under way there.
    Busy,
    /// Airflow, or its metadata database, does not answer.
    Away,
    /// The agent is not set up to change anything, or its login is refused.
    NotSetUp,
    /// Airflow knows no such DAG, run or task.
    NotFound,
    /// Airflow does not take it.
    Refused,
    /// It is not known whether it was done.
    InDoubt,
}

impl Trouble {
    /// What it is called in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotActive => "not_active",
            Self::Busy => "busy",
            Self::Away => "away",
            Self::NotSetUp => "not_set_up",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// What came of a change.
pub type Outcome = Result<Done, Failure>;
