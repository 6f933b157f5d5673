//! Which report comes next.

use std::time::{Duration, Instant};

use airfleet_proto::agent::v1 as wire;

use super::{State, changes, full};

/// Remembers what the router was told.
#[derive(Debug)]
pub(crate) struct Tracker {
    /// Of the last report, over all streams.
    sequence: i64,
    /// What the router knows; `None` where it must be told everything.
    known: Option<State>,
    /// What the router last said that it needs.
    full_wanted: bool,
    full_interval: Duration,
    full_sent_at: Option<Instant>,
    /// Since when a report is not acknowledged, and the last sequence that is.
    waiting_since: Option<Instant>,
    acknowledged: i64,
}

impl Tracker {
    /// Nothing was sent yet. A full report goes out at least every `full_interval`.
    pub(crate) fn new(full_interval: Duration) -> Self {
        Self {
            sequence: 0,
            known: None,
            full_wanted: false,
            full_interval,
            full_sent_at: None,
            waiting_since: None,
            acknowledged: 0,
        }
    }

    /// A new stream begins: whoever is at its other end knows nothing.
    pub(crate) fn restart(&mut self, full_interval: Duration) {
        self.known = None;
        self.full_wanted = false;
        self.full_interval = full_interval;
        self.waiting_since = None;
        self.acknowledged = self.sequence;
    }

    /// The report that tells `state` to a router that got all the others. It counts as sent: the
    /// stream carries it in order or breaks.
    pub(crate) fn next(&mut self, state: &State, now: Instant) -> wire::Report {
        let full_due =
            self.full_sent_at.is_none_or(|sent| now.duration_since(sent) >= self.full_interval);
        let known = self.known.take().filter(|_| !full_due && !self.full_wanted);
        let (mut report, known) =
            known.and_then(|known| changes(&known, state)).unwrap_or_else(|| full(state));
        if report.full {
            self.full_wanted = false;
            self.full_sent_at = Some(now);
        }
        self.known = Some(known);
        self.sequence += 1;
        report.sequence = self.sequence;
        self.waiting_since.get_or_insert(now);
        report
    }

    /// The router took a report in.
    pub(crate) fn acknowledge(&mut self, ack: &wire::ReportAck, now: Instant) {
        self.full_wanted |= ack.send_full;
        self.acknowledged = self.acknowledged.max(ack.sequence.min(self.sequence));
        // What is still on its way has waited since it was sent, or a little less.
        self.waiting_since = (self.acknowledged < self.sequence).then_some(now);
    }

    /// How long the router has owed an acknowledgement.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}
