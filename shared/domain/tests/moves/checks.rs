//! What must hold. DESIGN calls these the invariants; docs/moves.md names them for users.

use std::fmt;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// At most one shard can start runs of the namespace at any time.
    OneActive,
    /// The generation never goes back, and grows by one at a time.
    GenerationGrows,
    /// The orders that a shard has obeyed only grow.
    OrderGrows,
    /// A sealed shard gets no run and starts no task.
    SealHolds,
    /// No run's task is executed twice.
    RunsOnce,
    /// Every tick of every schedule has its run, and it was executed.
    NothingLost,
    /// Every move ends once faults do.
    Ends,
    /// The owner runs the namespace, and each DAG is paused as its users left it.
    AsUsersLeftIt,
}

/// What did not hold.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) check: Check,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} does not hold: {}", self.check, self.detail)
    }
}

pub(crate) fn violated<T>(check: Check, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { check, detail: detail.into() })
}
