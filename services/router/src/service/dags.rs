//! Changing DAGs and their runs on whichever shard owns them.
//!
//! While a namespace is between two shards nothing is handed on. What is handed on goes to the agent
//! of the owner with the generation that the owner had then; the agent makes it only while the shard
//! is active at that generation, and nothing else of the namespace happens meanwhile. So it does not
//! matter that a move may begin, or the leader change, between the two.

use std::time::Duration;

use airfleet_domain::{
    dags::{Ask, Change, Done, Failure, Outcome, Trouble},
    ids::Generation,
    routing::State,
};
use tokio::time::timeout;

use super::{Error, Service};
use crate::agents::Unasked;

/// How long an agent is given to answer: for its turn, a lock and a slow web server.
pub(crate) const CHANGE_PATIENCE: Duration = Duration::from_secs(25);

/// Who owns a DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The namespace.
    pub(crate) namespace: String,
    /// Its shard.
    pub(crate) shard: String,
    /// Generation of the assignment.
    pub(crate) generation: Generation,
    state: State,
}

/// What was done, and where.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Where.
    pub(crate) place: Place,
    /// What.
    pub(crate) done: Done,
}

impl Service {
    /// Who owns a DAG, as the leader knows it.
    pub(crate) fn place_of(&self, dag_id: &str) -> Result<Place, Error> {
        self.leader()?;
        let view = self.live.view();
        let entry = view.table.resolve_dag(dag_id);
        let entry = entry.ok_or_else(|| Error::NoOwner(dag_id.to_owned()))?;
        let namespace = entry.namespace().to_owned();
        let Some(shard) = entry.shard() else { return Err(Error::NotAssigned(namespace)) };
        Ok(Place {
            shard: shard.to_owned(),
            generation: entry.generation(),
            state: entry.state(),
            namespace,
        })
    }

    /// Has a change made where the DAG is.
    pub(crate) async fn change(
        &self,
        place: Place,
        dag_id: &str,
        change: Change,
    ) -> Result<Changed, Error> {
        let name = change.name();
        let result = self.try_to_change(&place, dag_id, change).await;
        self.metrics.changed(name, word(&result));
        result.map(|done| Changed { place, done })
    }

    async fn try_to_change(
        &self,
        place: &Place,
        dag_id: &str,
        change: Change,
    ) -> Result<Done, Error> {
        match place.state {
            State::Assigned => {}
            State::Moving => return Err(Error::Moving(place.namespace.clone())),
            State::Unplaced | State::Released => {
                return Err(Error::NotAssigned(place.namespace.clone()));
            }
        }
        let ask = Ask {
            namespace: place
                .namespace
                .parse()
                .map_err(|_| Error::NoNamespace(place.namespace.clone()))?,
            generation: place.generation,
            dag_id: dag_id.to_owned(),
            change,
        };
        let answered = self.hub.change(&place.shard, ask).map_err(|unasked| match unasked {
            Unasked::Away => Error::AgentAway(place.shard.clone()),
            Unasked::Busy => Error::AgentBusy(place.shard.clone()),
        })?;
        let outcome: Outcome = match timeout(CHANGE_PATIENCE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                let why = format!("no answer within {} s", CHANGE_PATIENCE.as_secs());
                Err(Failure::new(Trouble::InDoubt, why))
            }
        };
        outcome.map_err(|failure| Error::Unchanged {
            dag_id: dag_id.to_owned(),
            shard: place.shard.clone(),
            failure,
        })
    }
}

/// What came of it, for metrics.
fn word(result: &Result<Done, Error>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Error::Moving(_)) => "moving",
        Err(Error::AgentAway(_)) => "agent_away",
        Err(Error::AgentBusy(_)) => Trouble::Busy.name(),
        Err(Error::Unchanged { failure, .. }) => failure.trouble.name(),
        Err(_) => "not_assigned",
    }
}
