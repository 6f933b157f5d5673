//! Changes that an agent is asked to make, and who waits for the answer.
//!
//! Invariant: whoever asks is told in any case, also where the agent goes: that nothing was done,
//! where the change had not been sent, else that it is in doubt.

use std::collections::{BTreeMap, BTreeSet};

use airfleet_domain::dags::{Ask, Failure, Outcome, Trouble};
use tokio::sync::oneshot;

use super::{
    hub::{Hub, lock},
    session::Session,
};

/// Changes of one shard that wait for an answer. An agent takes as many.
const WAITING_MAX: usize = 100;

/// Why an agent is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// It is not connected.
    Away,
    /// It has enough to do.
    Busy,
}

/// Changes of one shard.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: BTreeMap<i64, Waiting>,
    unsent: BTreeSet<i64>,
    numbers: i64,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    answer: oneshot::Sender<Outcome>,
}

impl Changes {
    fn add(&mut self, ask: Ask) -> Result<oneshot::Receiver<Outcome>, Unasked> {
        // Whoever asked may have gone.
        self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            return Err(Unasked::Busy);
        }
        let (answer, answered) = oneshot::channel();
        // Never used again, also by a later session: an answer is to one question.
        self.numbers += 1;
        self.waiting.insert(self.numbers, Waiting { ask, answer });
        self.unsent.insert(self.numbers);
        Ok(answered)
    }

    /// The agent's stream ended.
    pub(super) fn end(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        for (number, Waiting { answer, .. }) in std::mem::take(&mut self.waiting) {
            let (trouble, why) = if unsent.contains(&number) {
                (Trouble::Away, "the shard's agent left before it was asked")
            } else {
                (Trouble::InDoubt, "the shard's agent left before it answered")
            };
            // Nobody may be there to hear it.
            let _ = answer.send(Err(Failure::new(trouble, why)));
        }
    }
}

impl Hub {
    /// Has a shard's agent asked for a change. What comes of it is received; nothing comes where the
    /// agent never answers.
    pub(crate) fn change(
        &self,
        shard: &str,
        ask: Ask,
    ) -> Result<oneshot::Receiver<Outcome>, Unasked> {
        let agent = self.find(shard).ok_or(Unasked::Away)?;
        let answered = {
            let mut state = lock(&agent.state);
            if !state.is_connected() {
                return Err(Unasked::Away);
            }
            state.changes.add(ask)?
        };
        agent.wake.notify_one();
        Ok(answered)
    }
}

impl Session {
    /// Changes that the agent was not asked for yet, with their numbers. What nobody waits for any
    /// more is left out.
    pub(crate) fn take_changes(&self) -> Vec<(i64, Ask)> {
        let mut state = lock(&self.agent.state);
        if !self.is_current(&state) {
            return Vec::new();
        }
        let changes = &mut state.changes;
        let unsent = std::mem::take(&mut changes.unsent);
        changes.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        let new = changes.waiting.iter().filter(|(number, _)| unsent.contains(number));
        new.map(|(number, waiting)| (*number, waiting.ask.clone())).collect()
    }

    /// The agent says what came of a change.
    pub(crate) fn changed(&self, number: i64, outcome: Outcome) {
        let mut state = lock(&self.agent.state);
        if self.is_current(&state)
            && let Some(waiting) = state.changes.waiting.remove(&number)
        {
            // Whoever asked may have gone.
            let _ = waiting.answer.send(outcome);
        }
    }
}
