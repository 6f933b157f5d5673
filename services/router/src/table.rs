//! What this replica serves: the routing table, how fresh it is, and who follows it.
//!
//! Responsible for the one snapshot that every reader takes ([`Live`]), for keeping it in step with
//! the store ([`follow`]), and for the file from which a replica starts without a store ([`file`]).
//!
//! Invariants: readers never wait and never see half a revision; revisions told to watchers are
//! contiguous; the age is that of the last moment at which the store was known to have nothing
//! newer. It must not know who decides, nor what a shard's agent says.

mod changes;
mod counts;
pub(crate) mod file;
pub(crate) mod follow;
mod live;

#[cfg(test)]
mod tests;

pub(crate) use self::live::{Directory, Live, Origin, Position, Update, View};
