//! What an agent says of moves, and what it is asked before one begins.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::NamespaceName,
    moves::{End, Evidence, Side, preflight::Inspection},
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
    numbers: i64,
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

    /// A move has ended: nothing of it is kept.
    pub(crate) fn forget_move(&self, shard: &str, namespace: &str) {
        let Some(agent) = self.find(shard) else { return };
        let mut state = lock(&agent.state);
        state.moves.evidence.remove(namespace);
        state.moves.inspections.remove(namespace);
    }
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
        let mut state = lock(&self.agent.state);
        let current = state.session.as_ref().is_some_and(|(id, _)| *id == self.id);
        let known = &mut state.moves.evidence;
        if current && (known.contains_key(&namespace) || known.len() < KEPT_MAX) {
            known.insert(namespace, evidence);
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
