//! What people, the registry and dashboards ask of the router: the use-cases behind the RPCs.
//!
//! Reads are answered from the table of this replica; what changes something is one turn of the
//! leader. Invariant: a shard gives a namespace up only where its agent was seen to have drained it,
//! or an operator took that on, with a reason that is kept.
//!
//! It must not know the wire, nor SQL.

mod cordon;
mod dags;
mod error;
mod foreign;
mod moves;
mod pin;
mod plan;
pub(crate) mod propose;
mod release;
mod roles;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    dags::{CHANGE_PATIENCE, Changed, Place},
    error::Error,
    foreign::{Foreign, foreign},
    moves::{Shown, StartMove},
    pin::Pin,
    plan::{CreatePlan, Growing, Purpose, Rebalancing},
    release::{ReleaseNamespace, ReleaseShard},
    roles::{NamespaceStatus, RoleSummary, RoleTotals, ShardRole},
    status::{RouterStatus, ShardStatus},
};

use std::sync::Arc;

use airfleet_domain::routing::Entry;

use crate::{
    agents::{Evidence, Hub},
    fleet::Fleet,
    leader::{Leader, election::Leadership},
    metrics::Metrics,
    table::Live,
};

/// The use-cases of one replica.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) live: Arc<Live>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) metrics: Arc<Metrics>,
    /// Name of this replica.
    pub(crate) replica: String,
    /// Its address, as others reach it.
    pub(crate) address: String,
}

impl Service {
    fn leader(&self) -> Result<Arc<Leader>, Error> {
        Ok(self.leadership.leader()?)
    }

    fn plans_config(&self) -> crate::config::PlansConfig {
        self.leadership.plans_config()
    }
}

/// Who asks, and why; what is kept of an override.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// Subject of the token or certificate.
    pub(crate) actor: String,
    /// Why; may be empty.
    pub(crate) reason: String,
}

impl Who {
    /// `by alice: too slow`.
    fn by(&self) -> String {
        let Self { actor, reason } = self;
        if reason.is_empty() { format!("by {actor}") } else { format!("by {actor}: {reason}") }
    }
}

impl Leader {
    /// What is known of whether the owner of a namespace has drained it. Not to be called with the
    /// fleet in hand.
    fn drained(&self, entry: &Entry) -> Result<(), Error> {
        let Some(owner) = entry.shard() else { return Ok(()) };
        let namespace = entry.namespace();
        match self.tools.hub.evidence(owner, namespace, entry.generation()) {
            Evidence::Drained => Ok(()),
            Evidence::Busy(usage) => {
                Err(Error::Busy { namespace: namespace.to_owned(), shard: owner.to_owned(), usage })
            }
            Evidence::Unknown(why) => Err(Error::NotSeen { namespace: namespace.to_owned(), why }),
            Evidence::NeverConnected => {
                let no_agent_ever = |fleet: &Fleet| {
                    fleet.shard(owner).is_none_or(|shard| shard.record.agent_seen_at_us.is_none())
                };
                // Shards without agents are only used where that was asked for, and nobody can say
                // what runs there.
                if !self.tools.hub.limits().require_report && no_agent_ever(&self.fleet()) {
                    return Ok(());
                }
                Err(Error::NotSeen {
                    namespace: namespace.to_owned(),
                    why: format!("no agent of {owner} has connected to this router; start it"),
                })
            }
        }
    }
}
