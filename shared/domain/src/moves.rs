//! Moving a namespace from one shard to another while both go on working for everybody else.
//!
//! Responsible for what a move is ([`Move`], one durable row), for what is seen of it
//! ([`Observations`]), for the one function that says what happens next ([`step`]), and for what
//! both shards are told meanwhile ([`orders`]). Everything is a function of what was committed and
//! what was seen: no caller's context drives a move, so whoever leads goes on where the last one
//! stopped, and doing anything twice is doing it once.
//!
//! # The course
//!
//! ```text
//! PLANNED → STAGING → QUIESCING → SEALING → COPYING → FLIPPED → ACTIVATING → RETIRING → DONE
//!    └──────────┴─────────┴──────────┴─────────┴→ ABORTING → ABORTED
//! ```
//!
//! | phase | source | target | leaves when |
//! |---|---|---|---|
//! | PLANNED | ACTIVE(g) | – | both ends were inspected and nothing speaks against it |
//! | STAGING | ACTIVE(g), exports ahead | STAGED(g), imports | the target parsed the same DAGs |
//! | QUIESCING | QUIESCED(g) | STAGED(g) | seen drained twice, a scheduler heartbeat between |
//! | SEALING | SEALED(g), exports | STAGED(g), imports | the source said that it is sealed, with its marks |
//! | COPYING | SEALED(g), exports | STAGED(g), imports | rows and checksums agree at both ends |
//! | FLIPPED, ACTIVATING | SEALED(g+1) | ACTIVE(g+1) | the target runs it |
//! | RETIRING | RETIRED(g+1) | ACTIVE(g+1) | the source has put its files away |
//! | ABORTING | ACTIVE(g+1) | ABSENT(g+1) | the source runs it again |
//!
//! # What holds
//!
//! 1. *One owner.* The target is told to be active only by the transaction that makes it the
//!    owner, and that is written only after the source said, of this move, that it is durably
//!    sealed. Or after an operator took it on that the source is lost.
//! 2. *Order.* Every order carries the generation and the revision at which it was committed. Both
//!    only grow, and an agent obeys nothing that is behind what it has seen ([`Order::follows`]).
//!    The generation alone would not do: after an aborted move an order to clear the target away
//!    and the next move's order to stage on it have the same one, and the former, late, would
//!    remove what the latter's import had already been praised for.
//! 3. *One way.* Within a generation the owner goes from active over quiesced to sealed and never
//!    back. Giving a namespace back to its shard takes a new generation, so a late word of the old
//!    one can neither stop nor start it.
//! 4. *Evidence is of this move.* What an agent saw counts only if it had this move's orders when
//!    it looked, and of a transfer only for the attempt that is on.
//! 5. *Ends.* Before the flip each phase has a deadline, and passing it leads to ABORTING. After
//!    it, and while aborting, the order stays until it is obeyed, tried again at growing
//!    intervals, and an alarm is raised.
//!
//! # Rejected
//!
//! *A workflow engine* (steps as code with saved positions): its state is where the code stands,
//! not what is true, so a new version of the code cannot take over a move of the old one. *Leases
//! of ownership*: an owner would stop when the control plane is away. *Two generations a move* (one
//! at the start, one at the flip) orders as well as the revision does, but then the generation no
//! longer tells how often the owner changed.

pub mod cursor;
mod evidence;
mod order;
mod phase;
mod policy;
pub mod preflight;
mod proof;
mod residue;
mod row;
mod step;

#[cfg(test)]
mod tests;

pub use self::{
    evidence::{
        Disagreement, Drain, End, Evidence, Mark, Observations, Obstacle, TableProgress, TableSum,
        Transfer, TransferState,
    },
    order::{
        Assigned, Grounds, Order, Owner, Part, Seen, Side, Task, TransferTask, order_for, orders,
        unfenced,
    },
    phase::Phase,
    policy::Policy,
    proof::{Line, Proof},
    residue::{Residue, ResidueStep},
    row::{Cancel, Failure, History, Move, Options, RunningTasks},
    step::{Change, Effect, Left, Ownership, Step, Waiting, step},
};
