//! Gaining and losing the lead.
//!
//! One task looks at the lease, one leads as long as it is held. They share what is known
//! ([`Leadership`]), which every handler asks before it does a leader's work.

use std::{sync::Arc, time::Duration};

use airfleet_domain::ids::Term;
use airfleet_runtime::lifecycle::Shutdown;
use airfleet_sql::lease::Standing;
use arc_swap::ArcSwapOption;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{Leader, Tools};
use crate::{
    chain,
    config::PlansConfig,
    manifest::{Event, watch::Source},
};

/// Events that wait for the leader. One holds up to a message's worth of entries.
const EVENTS_WAITING: usize = 8;
/// Time to give the lead up at shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a leader that could not begin tries again.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Lead {
    /// Nobody, or nobody knows.
    #[default]
    Nobody,
    /// This replica holds the lease in this term and is not ready yet.
    Preparing(Term),
    /// This replica.
    Mine(Term),
    /// Another one.
    Other {
        /// Where it is reached.
        address: String,
        /// Its term.
        term: Term,
    },
}

/// Why a handler cannot do a leader's work here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLeading {
    /// Another replica leads.
    #[error("this replica does not lead; {0} does")]
    Other(String),
    /// Nobody leads.
    #[error("no replica leads at the moment")]
    Nobody,
    /// This one is about to.
    #[error("this replica was just elected and reads what it needs to know")]
    Preparing,
}

/// What is known of the lead, for everybody on this replica.
#[derive(Debug)]
pub(crate) struct Leadership {
    tools: Tools,
    current: ArcSwapOption<Leader>,
    lead: watch::Sender<Lead>,
}

impl Leadership {
    /// Nobody leads yet.
    pub(crate) fn new(tools: Tools) -> Self {
        Self { tools, current: ArcSwapOption::empty(), lead: watch::Sender::default() }
    }

    /// The leader, if it is this replica, by its own clock at this moment.
    pub(crate) fn leader(&self) -> Result<Arc<Leader>, NotLeading> {
        match self.tools.store.lease().standing() {
            Standing::Leader { term, .. } => self
                .current
                .load_full()
                .filter(|leader| leader.term == Term(term) && !leader.has_ended())
                .ok_or(NotLeading::Preparing),
            Standing::Follower { address, .. } => Err(NotLeading::Other(address)),
            Standing::Vacant => Err(NotLeading::Nobody),
        }
    }

    /// How plans are made.
    pub(crate) fn plans_config(&self) -> PlansConfig {
        self.tools.plans.clone()
    }

    /// Who leads, as last seen.
    pub(crate) fn lead(&self) -> Lead {
        self.lead.borrow().clone()
    }

    /// Makes this the leader, whatever the lease says of others.
    #[cfg(test)]
    pub(crate) fn install(&self, leader: Arc<Leader>) {
        self.current.store(Some(leader));
    }

    /// Tells when it changes who leads.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Lead> {
        self.lead.subscribe()
    }

    fn set(&self, lead: Lead) {
        self.lead.send_if_modified(|known| {
            let changed = *known != lead;
            if changed {
                tracing::info!(?lead, before = ?known, "the lead changed");
                *known = lead;
            }
            changed
        });
    }

    /// Looks at the lease until shutdown, and gives it up then.
    pub(crate) async fn elect(&self, every: Duration, shutdown: Shutdown) {
        let lease = self.tools.store.lease();
        let mut look = interval(every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.triggered() => break,
                _ = look.tick() => {}
            }
            let looked = tokio::select! {
                () = shutdown.triggered() => break,
                looked = lease.tick() => looked,
            };
            if let Err(error) = &looked {
                self.tools.metrics.store_failed("lease");
                if !away {
                    tracing::warn!(error = %chain(&error), "cannot look at the leader's lease");
                }
            }
            away = looked.is_err();
            self.note(&lease.standing());
        }
        if let Some(leader) = self.current.swap(None) {
            leader.end();
        }
        self.set(Lead::Nobody);
        // Only saves the others waiting; a store that is away must not hold up the end.
        match tokio::time::timeout(RELEASE_TIMEOUT, lease.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = %chain(&error),
                "could not give the lead up; another takes it when the lease ends"
            ),
            Err(_) => tracing::warn!(
                "the store did not answer; another takes the lead when the lease ends"
            ),
        }
    }

    fn note(&self, standing: &Standing) {
        match standing {
            Standing::Leader { term, .. } => {
                let term = Term(*term);
                let ready = self.leader().is_ok();
                self.set(if ready { Lead::Mine(term) } else { Lead::Preparing(term) });
            }
            Standing::Follower { address, term, .. } => {
                self.set(Lead::Other { address: address.clone(), term: Term(*term) });
            }
            Standing::Vacant => self.set(Lead::Nobody),
        }
    }

    /// Leads whenever the lease is held, until shutdown.
    pub(crate) async fn work(&self, source: Source, shutdown: Shutdown) {
        let mut lead = self.subscribe();
        let mut table = self.tools.live.subscribe();
        loop {
            let term = tokio::select! {
                () = shutdown.triggered() => return,
                term = mine(&mut lead) => term,
            };
            // Serving comes first: reading what a leader needs would only slow that down.
            if !self.tools.live.is_ready() {
                tokio::select! {
                    () = shutdown.triggered() => return,
                    _ = table.changed() => continue,
                }
            }
            let leader = match Leader::begin(self.tools.clone(), term).await {
                Ok(leader) => leader,
                Err(error) => {
                    self.tools.metrics.store_failed("begin");
                    tracing::warn!(term = term.0, error = %chain(&error), "the new leader could not read the store");
                    tokio::select! {
                        () = shutdown.triggered() => return,
                        () = tokio::time::sleep(BEGIN_AGAIN_AFTER) => continue,
                    }
                }
            };
            self.current.store(Some(leader.clone()));
            leader.absorb();
            self.note(&self.tools.store.lease().standing());
            self.tools.hub.mark_all();
            let (send, mut receive) = mpsc::channel::<Event>(EVENTS_WAITING);
            tokio::select! {
                () = shutdown.triggered() => {}
                () = lost(&mut lead, term) => {}
                () = leader.work(&mut receive) => {}
                () = leader.write_events() => {}
                () = source.forward(leader.manifest_revision(), send, &self.tools.metrics) => {}
            }
            leader.end();
            self.current.store(None);
            self.note(&self.tools.store.lease().standing());
            // One that ended although the lease is still held begins again, but not at once.
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(BEGIN_AGAIN_AFTER) => {}
            }
        }
    }
}

/// Waits until this replica holds the lease.
async fn mine(lead: &mut watch::Receiver<Lead>) -> Term {
    loop {
        if let Lead::Preparing(term) | Lead::Mine(term) = &*lead.borrow_and_update() {
            return *term;
        }
        if lead.changed().await.is_err() {
            // The sender lives as long as whoever waits here.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until this replica no longer holds the lease in `term`.
async fn lost(lead: &mut watch::Receiver<Lead>, term: Term) {
    let holds = |lead: &Lead| matches!(lead, Lead::Preparing(t) | Lead::Mine(t) if *t == term);
    if lead.wait_for(|lead| !holds(lead)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
