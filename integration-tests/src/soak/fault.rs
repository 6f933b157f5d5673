//! What is broken during a move, and when.

use std::fmt;

use airfleet_domain::moves::Side;
use airfleet_proto::moves::v1::MovePhase;

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The router that leads is killed, and started again.
    Router,
    /// The router that leads is killed, and another one that was there takes over.
    Leader,
    /// An agent is killed, and started again.
    Agent(Side),
    /// The server of a metadata database is killed, and started again.
    Database(Side),
    /// A scheduler is killed, and started again.
    Scheduler(Side),
    /// Nothing passes between an agent and the router for a while; what was sent arrives late.
    Link(Side),
}

/// Whether a phase has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    Victim::Agent(Side::Source),
    Victim::Agent(Side::Target),
    Victim::Database(Side::Source),
    Victim::Database(Side::Target),
    Victim::Scheduler(Side::Source),
    Victim::Scheduler(Side::Target),
    Victim::Link(Side::Source),
    Victim::Link(Side::Target),
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

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("router killed"),
            Self::Leader => f.write_str("leader killed, another one there"),
            Self::Agent(side) => write!(f, "{}'s agent killed", side.name()),
            Self::Database(side) => write!(f, "{}'s database killed", side.name()),
            Self::Scheduler(side) => write!(f, "{}'s scheduler killed", side.name()),
            Self::Link(side) => write!(f, "{}'s agent cut off", side.name()),
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
