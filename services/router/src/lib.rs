//! The router: decides and remembers which shard owns which namespace, and tells everybody.
//!
//! # What never happens
//!
//! 1. *Two shards own a namespace.* An assignment is one row with one owner and a generation; the
//!    generation grows by one exactly when the owner changes, and the statement that writes the row
//!    refuses anything else. A new owner is named only when the present one was seen to be drained,
//!    or an operator said so and why ([`service`]).
//! 2. *A stale leader writes.* Every write is one transaction that first takes the leader's term
//!    and the revision that the leader believes to be the latest, and fails on either ([`store`]).
//! 3. *An assignment is lost because the registry forgot a namespace.* What the manifest no longer
//!    has stays with its shard, marked as an orphan and counted, until it is released.
//! 4. *Serving waits for the store, the registry or the leader.* Every replica answers from an
//!    immutable table in memory; it starts from a file where the store is away, and says how long
//!    ago the table was known to be current ([`table`]).
//! 5. *A follower of the table misses a change.* Revisions are contiguous on every stream; whoever
//!    falls behind gets the table whole.
//! 6. *Something grows without bound*: removals, history, agents, watchers, reports, batches and
//!    retries have limits, and reaching one is told in an error, a reason or a metric.
//!
//! # How it works
//!
//! ```text
//!  registry ──watch──► manifest ──► leader ──one transaction──► store
//!                                    │  ▲                         │ poll
//!                         fleet ◄────┘  │ reports                 ▼
//!                   (ledger, placer)  agents ◄──roles──────── table ──► resolve, watch
//! ```
//!
//! All replicas do the right half: [`table`] follows the store by revision and serves. One of them
//! leads and does the left half: [`manifest`] brings what is declared, [`agents`] what is observed,
//! [`fleet`] holds both as a ledger of room and asks the placer, [`leader`] turns the answers into
//! transactions. A commit is published to the leader's own table at once, and by the next poll to
//! the others. [`service`] holds what people and the registry ask for, [`grpc`] the wire.
//!
//! # What fails, and what then
//!
//! - *The store is away.* Tables age, resolves and watches go on; the lease runs out, writes fail
//!   as UNAVAILABLE with RetryInfo; agents stay connected. When it is back, whoever takes the lease
//!   leads in a new term and reads what it needs again.
//! - *A commit's outcome is unknown* (connection lost). The leader does not guess: before its next
//!   write it reads every row after the revision that it is sure of. There is no other recovery.
//! - *The leader dies.* Another replica waits out the lease, reads the store and goes on from the
//!   recorded revision of the manifest. What was half done was one transaction, so it is not there.
//! - *A leader pauses and wakes up late.* Its transactions fail on the term; it steps down.
//! - *The registry is away.* Nothing changes; the watch resumes at the recorded revision.
//! - *The registry goes on from a backup.* Its snapshot replaces what is declared; what is no
//!   longer in it and owned becomes an orphan.
//! - *An agent is silent.* Its shard's health is unknown: it keeps what it has and takes nothing.
//! - *A new leader has heard of no agent yet.* The same: nothing is placed on guesses.
//! - *The store was restored from a backup*, so that revisions go backwards or another store
//!   answers: the table is replaced whole, and so is every watcher's.
//! - *The snapshot file is torn or foreign.* A checksum tells; it is not used.
//! - *A handler's caller goes away* in the middle of a write. Its outcome is then not known, see
//!   above.
//!
//! # What was weighed
//!
//! - *A log table with a row per change* doubles the writes of a million namespaces and keeps what
//!   nobody asks for any more. The rows carry the revision that wrote them, which gives every
//!   follower the changes since its own, each at its latest; only removals are logged.
//! - *A revision per row* instead of per transaction makes a batch of a thousand a thousand stops
//!   for every watcher, and lets one see half a batch.
//! - *Leases on assignments* would make an outage of the control plane one of the fleet. Ownership
//!   is sticky; only leadership of the routers is leased.
//! - *Deciding in SQL*, so that any replica could write, needs every constraint and every report in
//!   the database, and a transaction per report. One writer with a ledger in memory decides in
//!   microseconds; the lease and the compare-and-set on the revision make it safe, not the memory.
//! - *Consensus among the routers* is what the database does already.
//! - *Streaming changes from the leader to the followers* is quicker than polling and one more
//!   path that may lose something; the poll would be needed to make up for it.
//! - *Pushing roles to agents through a queue* needs a bound and a rule for when it is reached. A
//!   session keeps the set of names to tell about, and looks up what is true when it tells.

mod agents;
pub mod config;
mod convert;
mod fleet;
mod grpc;
mod leader;
mod manifest;
mod metrics;
mod mover;
mod node;
#[cfg(test)]
mod scale;
mod service;
mod store;
mod table;
#[cfg(test)]
mod testing;

pub use self::{
    config::{Config, DEFAULT_PORT},
    node::{Error, ManifestSource, run, run_with},
};

/// An error and everything that led to it, on one line, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
