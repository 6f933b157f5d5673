//! Where a move stands.

use serde::{Deserialize, Serialize};

/// Where a move stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asked for; waits for its turn and for both ends to be inspected.
    Planned,
    /// The target gets files and rows, paused and fenced; the source runs.
    Staging,
    /// The source starts nothing new; what runs, finishes.
    Quiescing,
    /// The source puts its fence up and says up to where it came.
    Sealing,
    /// Rows travel to the target.
    Copying,
    /// The target owns the namespace. From here on only forward.
    Flipped,
    /// The target starts to run it.
    Activating,
    /// The source puts its files away.
    Retiring,
    /// The target runs it, the source keeps rows until their retention.
    Done,
    /// The source gets it back.
    Aborting,
    /// The source runs it as before.
    Aborted,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 11] = [
        Phase::Planned,
        Phase::Staging,
        Phase::Quiescing,
        Phase::Sealing,
        Phase::Copying,
        Phase::Flipped,
        Phase::Activating,
        Phase::Retiring,
        Phase::Done,
        Phase::Aborting,
        Phase::Aborted,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Staging => "staging",
            Phase::Quiescing => "quiescing",
            Phase::Sealing => "sealing",
            Phase::Copying => "copying",
            Phase::Flipped => "flipped",
            Phase::Activating => "activating",
            Phase::Retiring => "retiring",
            Phase::Done => "done",
            Phase::Aborting => "aborting",
            Phase::Aborted => "aborted",
        }
    }

    /// The phase of that name.
    pub fn from_name(name: &str) -> Option<Phase> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Whether the move can still be given up.
    pub fn is_abortable(self) -> bool {
        matches!(
            self,
            Phase::Planned | Phase::Staging | Phase::Quiescing | Phase::Sealing | Phase::Copying
        )
    }

    /// Whether the target owns the namespace.
    pub fn is_past_flip(self) -> bool {
        matches!(self, Phase::Flipped | Phase::Activating | Phase::Retiring | Phase::Done)
    }

    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Done | Phase::Aborted)
    }

    /// Whether no shard starts runs of the namespace.
    pub fn is_between_shards(self) -> bool {
        matches!(
            self,
            Phase::Quiescing
                | Phase::Sealing
                | Phase::Copying
                | Phase::Flipped
                | Phase::Activating
                | Phase::Aborting
        )
    }

    /// Whether one move may follow another like this, the same included.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::{
            Aborted, Aborting, Activating, Copying, Done, Flipped, Planned, Quiescing, Retiring,
            Sealing, Staging,
        };
        self == next
            || (self.is_abortable() && next == Aborting)
            || matches!(
                (self, next),
                (Planned, Staging)
                    // Of a source that is lost there is nothing to stop and nothing to copy.
                    | (Staging, Quiescing | Flipped)
                    | (Quiescing, Sealing)
                    | (Sealing, Copying)
                    | (Copying, Flipped)
                    | (Flipped, Activating)
                    | (Activating, Retiring)
                    | (Retiring, Done)
                    | (Aborting, Aborted)
            )
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
