//! What is broken during a move, and when.

use std::fmt;

use airfleet_proto::moves::v1::MovePhase;

/// An end of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The shard that has the namespace.
    Source,
    /// The shard that gets it.
    Target,
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The router that leads is killed, and started again.
    Router,
    /// The router that leads is killed, and another one that was there takes over.
    Leader,
    /// An agent is killed, and started again.
    Agent(End),
    /// The server of a metadata database is killed, and started again.
    Database(End),
    /// A scheduler is killed, and started again.
    Scheduler(End),
    /// Nothing passes between an agent and the router for a while; what was sent arrives late.
    Link(End),
}

/// Whether a phase has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// As soon as the phase is seen.
    Before,
    /// As soon as a metadata database shows what the phase is for.
    After,
}

/// What breaks, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What breaks.
    pub victim: Victim,
    /// In which phase.
    pub phase: MovePhase,
    /// Before or after its effect.
    pub moment: Moment,
}

/// Phases in which something can break.
pub const PHASES: [MovePhase; 7] = [
    MovePhase::Staging,
    MovePhase::Quiescing,
    MovePhase::Sealing,
    MovePhase::Copying,
    MovePhase::Flipped,
    MovePhase::Activating,
    MovePhase::Retiring,
];

/// Everything that can break.
pub const VICTIMS: [Victim; 10] = [
    Victim::Router,
    Victim::Leader,
    Victim::Agent(End::Source),
    Victim::Agent(End::Target),
    Victim::Database(End::Source),
    Victim::Database(End::Target),
    Victim::Scheduler(End::Source),
    Victim::Scheduler(End::Target),
    Victim::Link(End::Source),
    Victim::Link(End::Target),
];

impl Fault {
    /// Each victim in each phase, before and after its effect.
    pub fn all() -> Vec<Self> {
        let mut all = vec![];
        for victim in VICTIMS {
            for phase in PHASES {
                for moment in [Moment::Before, Moment::After] {
                    all.push(Self { victim, phase, moment });
                }
            }
        }
        all
    }

    /// Whether Airflow itself may execute a task again because of it.
    pub fn may_repeat(&self) -> bool {
        matches!(self.victim, Victim::Database(_) | Victim::Scheduler(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("router killed"),
            Self::Leader => f.write_str("leader killed, another one there"),
            Self::Agent(end) => write!(f, "{end}'s agent killed"),
            Self::Database(end) => write!(f, "{end}'s database killed"),
            Self::Scheduler(end) => write!(f, "{end}'s scheduler killed"),
            Self::Link(end) => write!(f, "{end}'s agent cut off"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        let phase = self.phase.as_str_name().trim_start_matches("MOVE_PHASE_");
        write!(f, "{} {moment} the effect of {phase}", self.victim)
    }
}
