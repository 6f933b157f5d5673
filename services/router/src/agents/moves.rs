//! What an agent says of moves, and what it is asked before one begins.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::NamespaceName,
    moves::{End, Evidence, Part, Side, Transfer, TransferState, preflight::Inspection},
};

use super::{
    hub::{Hub, lock},
    session::Session,
};

/// Namespaces of one shard that something of a move is kept of.
const KEPT_MAX: usize = 1000;

/// An agent that has not answered for so long is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is known of moves at one shard. Gone with the agent's stream: it says it again.
#[derive(Debug, Default)]
pub(super) struct MovesSeen {
    evidence: HashMap<NamespaceName, Evidence>,
    inspections: HashMap<NamespaceName, (Side, Arc<Inspection>)>,
    asked: HashMap<NamespaceName, Asked>,
    /// Since when each transfer was followed, and how many bytes had passed by then.
    paces: HashMap<NamespaceName, Pace>,
    numbers: i64,
}

/// From where on a transfer is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    part: Part,
    attempt: u32,
    since: Instant,
    bytes: i64,
}

impl MovesSeen {
    /// Follows the transfer that is on, from when it was first seen.
    fn follow(&mut self, namespace: &NamespaceName, evidence: &Evidence, now: Instant) {
        let Some(Transfer { part, attempt, state: TransferState::Running { bytes }, .. }) =
            evidence.transfer
        else {
            self.paces.remove(namespace);
            return;
        };
        let same =
            |pace: &Pace| (pace.part, pace.attempt) == (part, attempt) && pace.bytes <= bytes;
        if !self.paces.get(namespace).is_some_and(same) {
            self.paces.insert(namespace.clone(), Pace { part, attempt, since: now, bytes });
        }
    }
}

#[derive(Debug)]
struct Asked {
    question: Question,
    at: Instant,
    sent: bool,
}

/// What an agent is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Comes back in the answer.
    pub(crate) number: i64,
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// Starts of its dag_ids.
    pub(crate) prefixes: Vec<String>,
    /// Which end the shard would be.
    pub(crate) side: Side,
}

impl Hub {
    /// Has an agent asked what it finds, unless it is being asked that already.
    pub(crate) fn inspect(
        &self,
        shard: &str,
        namespace: &NamespaceName,
        side: Side,
        prefixes: &[String],
    ) {
        let Some(agent) = self.find(shard) else { return };
        let now = self.now();
        {
            let mut state = lock(&agent.state);
            if !state.is_connected() {
                return;
            }
            let moves = &mut state.moves;
            let waits = |asked: &Asked| {
                asked.question.side == side
                    && now.saturating_duration_since(asked.at) < ASK_AGAIN_AFTER
            };
            if moves.asked.get(namespace).is_some_and(waits) {
                return;
            }
            moves
                .asked
                .retain(|_, asked| now.saturating_duration_since(asked.at) < ASK_AGAIN_AFTER);
            if moves.asked.len() >= KEPT_MAX {
                return;
            }
            moves.numbers += 1;
            let (number, prefixes) = (moves.numbers, prefixes.to_vec());
            let question = Question { number, namespace: namespace.clone(), prefixes, side };
            moves.asked.insert(namespace.clone(), Asked { question, at: now, sent: false });
        }
        agent.wake.notify_one();
    }

    /// What is seen of a move at one end.
    pub(crate) fn end_of_move(&self, shard: &str, namespace: &str) -> End {
        self.with(shard, |state| {
            let Some(state) = state else { return End::default() };
            let inspection = state.moves.inspections.get(namespace);
            End {
                connected: state.is_connected(),
                evidence: state.moves.evidence.get(namespace).cloned(),
                inspection: inspection.map(|(_, inspection)| inspection.clone()),
            }
        })
    }

    /// When the transfer that a shard takes in will be over at the speed that was measured; none
    /// where that is not known. Microseconds since 1970-01-01 UTC.
    pub(crate) fn transfer_end_us(&self, shard: &str, namespace: &str) -> Option<i64> {
        let (now, now_us) = (self.now(), self.now_us());
        self.with(shard, |state| {
            let moves = &state?.moves;
            let pace = moves.paces.get(namespace)?;
            let transfer = moves.evidence.get(namespace)?.transfer.as_ref()?;
            let TransferState::Running { bytes } = transfer.state else { return None };
            let spent = now.saturating_duration_since(pace.since);
            remaining(bytes - pace.bytes, spent, transfer.total_bytes - bytes).map(|left| {
                now_us.saturating_add(i64::try_from(left.as_micros()).unwrap_or(i64::MAX))
            })
        })
    }

    /// Rows that a shard has of a namespace after the transfer that it took in last. Count.
    pub(crate) fn taken_rows(&self, shard: &str, namespace: &str) -> u64 {
        self.with(shard, |state| {
            let evidence = state.and_then(|state| state.moves.evidence.get(namespace));
            let transfer = evidence.and_then(|evidence| evidence.transfer.as_ref());
            let done = transfer.filter(|transfer| transfer.state == TransferState::Done);
            let rows = done.map_or(0, |done| done.tables.iter().map(|sum| sum.rows).sum());
            u64::try_from(rows).unwrap_or(0)
        })
    }

    /// A move has ended: nothing of it is kept.
    pub(crate) fn forget_move(&self, shard: &str, namespace: &str) {
        let Some(agent) = self.find(shard) else { return };
        let mut state = lock(&agent.state);
        state.moves.evidence.remove(namespace);
        state.moves.inspections.remove(namespace);
        state.moves.paces.remove(namespace);
    }
}

/// How long `left` bytes will take where `passed` took `spent`; none before anything is measured.
fn remaining(passed: i64, spent: Duration, left: i64) -> Option<Duration> {
    if passed <= 0 || left < 0 || spent < Duration::from_secs(1) {
        return None;
    }
    Duration::try_from_secs_f64(spent.as_secs_f64() * left as f64 / passed as f64).ok()
}

impl Session {
    /// Questions that were not put to the agent yet.
    pub(crate) fn take_questions(&self) -> Vec<Question> {
        let mut state = lock(&self.agent.state);
        let new = state.moves.asked.values_mut().filter(|asked| !asked.sent);
        let new = new.map(|asked| {
            asked.sent = true;
            asked.question.clone()
        });
        new.collect()
    }

    /// Takes in what the agent says of a move that its shard is an end of.
    pub(crate) fn evidence(&self, namespace: NamespaceName, evidence: Evidence) {
        let now = self.hub.now();
        let mut state = lock(&self.agent.state);
        let current = self.is_current(&state);
        let moves = &mut state.moves;
        let known = &mut moves.evidence;
        if current && (known.contains_key(&namespace) || known.len() < KEPT_MAX) {
            moves.follow(&namespace, &evidence, now);
            moves.evidence.insert(namespace, evidence);
        }
    }

    /// Takes in what the agent found. Answers whether it was asked.
    pub(crate) fn inspected(
        &self,
        namespace: NamespaceName,
        number: i64,
        found: Inspection,
    ) -> bool {
        let at_us = self.hub.now_us();
        let mut state = lock(&self.agent.state);
        let moves = &mut state.moves;
        let asked = moves.asked.get(&namespace).map(|asked| &asked.question);
        let Some(side) = asked.filter(|asked| asked.number == number).map(|asked| asked.side)
        else {
            return false;
        };
        moves.asked.remove(&namespace);
        if moves.inspections.len() >= KEPT_MAX
            && let Some(oldest) =
                moves.inspections.iter().min_by_key(|(_, one)| one.1.at_us).map(|(k, _)| k.clone())
        {
            moves.inspections.remove(&oldest);
        }
        moves.inspections.insert(namespace, (side, Arc::new(Inspection { at_us, ..found })));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_passed() {
        let second = Duration::from_secs(1);
        assert_eq!(remaining(1_000, 10 * second, 3_000), Some(30 * second));
        assert_eq!(remaining(1_000, 10 * second, 0), Some(Duration::ZERO));
        assert_eq!(remaining(0, 10 * second, 3_000), None, "nothing was measured");
        assert_eq!(remaining(1_000, second / 10, 3_000), None, "too short to tell");
        assert_eq!(remaining(1_000, second, -1_000), None, "the total is not known");
    }
}
