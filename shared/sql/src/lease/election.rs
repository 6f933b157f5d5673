//! Who leads, decided from one look at the lease and this replica's own monotonic clock.
//!
//! Invariant, for clocks that run at the same rate within [`Timing::margin`]: a leader counts
//! itself out before any candidate takes over. A leader's time starts before its renewal is
//! written; a candidate's starts after it has read that renewal, and lasts longer by the margin.
//! Times are durations since the start of the process; nothing here reads a clock.

use std::time::Duration;

/// How long a lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a candidate watches a lease that does not beat before it takes over.
    pub ttl: Duration,
    /// How much earlier the leader counts itself out; covers clocks that run unevenly.
    pub margin: Duration,
    /// How often each replica looks.
    pub interval: Duration,
}

impl Default for Timing {
    /// A leader that dies is replaced in 6 to 7 s; one whose database hesitates for up to 5 s
    /// stays.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(6),
            margin: Duration::from_secs(1),
            interval: Duration::from_secs(1),
        }
    }
}

impl Timing {
    fn leader_lasts(&self) -> Duration {
        self.ttl.saturating_sub(self.margin)
    }
}

/// The row of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the leader; empty after it gave up.
    pub holder: String,
    /// Where it is reached.
    pub address: String,
    /// Grows with each leader.
    pub term: i64,
    /// Grows with each renewal.
    pub beat: i64,
}

/// This replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub holder: String,
    /// Where it is reached.
    pub address: String,
}

/// What to do with the row, in the transaction that read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Leave it.
    Watch,
    /// Make it this replica's, in this new term.
    TakeOver {
        /// The new term.
        term: i64,
    },
    /// Beat once more.
    Renew {
        /// The new beat.
        beat: i64,
    },
}

/// What this replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It leads until `until`, unless it renews before.
    Leader {
        /// Its term; goes into [`check_term`](super::Lease::check_term).
        term: i64,
        /// For how much longer, without a renewal.
        left: Duration,
    },
    /// Another leads.
    Follower {
        /// The leader's name.
        holder: String,
        /// Where it is reached.
        address: String,
        /// Its term.
        term: i64,
    },
    /// Nobody is known to lead.
    Vacant,
}

/// What this replica remembers between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Term it leads, and when it asked for the last renewal that worked.
    leading: Option<(i64, Duration)>,
    /// The row as last seen, and since when it has been seen with this term and beat.
    watched: Option<(Entry, Duration)>,
}

/// Decides what to do with `entry`, which was read before `now`.
pub fn decide(
    memory: &Memory,
    me: &Candidate,
    timing: &Timing,
    entry: Option<&Entry>,
    now: Duration,
) -> Step {
    let Some(entry) = entry else {
        return Step::TakeOver { term: 1 };
    };
    let next = Step::TakeOver { term: entry.term + 1 };
    if let Some((term, renewed)) = memory.leading
        && term == entry.term
        && entry.holder == me.holder
    {
        // Renewing late is allowed as long as nobody else took over, but as a new term: what was
        // refused meanwhile for want of a leader must not be written under the old one.
        return if now < renewed + timing.leader_lasts() {
            Step::Renew { beat: entry.beat + 1 }
        } else {
            next
        };
    }
    let given_up = entry.holder.is_empty();
    let own_from_before = entry.holder == me.holder && entry.address == me.address;
    let silent = memory.watched.as_ref().is_some_and(|(seen, since)| {
        seen.term == entry.term && seen.beat == entry.beat && now >= *since + timing.ttl
    });
    if given_up || own_from_before || silent { next } else { Step::Watch }
}

impl Memory {
    /// Takes in a look whose transaction committed: asked for at `asked`, read before `seen`.
    pub fn record(
        &mut self,
        me: &Candidate,
        step: &Step,
        entry: Option<&Entry>,
        asked: Duration,
        seen: Duration,
    ) {
        match step {
            Step::TakeOver { term } => {
                self.leading = Some((*term, asked));
                self.watched = None;
            }
            Step::Renew { .. } => {
                self.leading = self.leading.map(|(term, _)| (term, asked));
            }
            Step::Watch => {
                // Watching somebody else's lease means that this replica lost its own.
                self.leading = None;
                let Some(entry) = entry else { return };
                debug_assert!(entry.holder != me.holder || entry.address != me.address);
                let same = self
                    .watched
                    .as_ref()
                    .is_some_and(|(known, _)| known.term == entry.term && known.beat == entry.beat);
                if !same {
                    self.watched = Some((entry.clone(), seen));
                }
            }
        }
    }

    /// What this replica is at `now`.
    pub fn standing(&self, timing: &Timing, now: Duration) -> Standing {
        if let Some((term, renewed)) = self.leading {
            let until = renewed + timing.leader_lasts();
            return if now < until {
                Standing::Leader { term, left: until.saturating_sub(now) }
            } else {
                Standing::Vacant
            };
        }
        match &self.watched {
            Some((entry, _)) if !entry.holder.is_empty() => Standing::Follower {
                holder: entry.holder.clone(),
                address: entry.address.clone(),
                term: entry.term,
            },
            _ => Standing::Vacant,
        }
    }

    /// Stops leading at once and answers the term that was led.
    pub fn forget_leadership(&mut self) -> Option<i64> {
        self.leading.take().map(|(term, _)| term)
    }
}

#[cfg(test)]
mod tests;
