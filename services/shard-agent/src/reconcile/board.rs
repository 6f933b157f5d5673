//! What is told of namespaces: the role of each and what happened.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use airfleet_domain::ids::NamespaceName;
use airfleet_proto::agent::v1 as wire;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    link::Outbox,
    metrics::AgentMetrics,
    moves::Happened,
    owners::Owners,
    report::{ObservedRoles, timestamp},
};

/// Most characters of a message.
const MESSAGE_MAX: usize = 500;

/// Written by workers, read by reports. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    roles: Mutex<Arc<ObservedRoles>>,
    outbox: Outbox,
    owners: tokio::sync::watch::Receiver<Arc<Owners>>,
    metrics: AgentMetrics,
}

impl Board {
    pub(crate) fn new(
        outbox: Outbox,
        owners: tokio::sync::watch::Receiver<Arc<Owners>>,
        metrics: AgentMetrics,
    ) -> Self {
        Self(Arc::new(Shared { roles: Mutex::default(), outbox, owners, metrics }))
    }

    /// What the shard is for a namespace now.
    pub(super) fn is(&self, name: &NamespaceName, role: wire::ObservedRole) {
        self.change(|roles| {
            let same = roles.get(name).is_some_and(|before| **before == role);
            if same {
                return false;
            }
            Arc::make_mut(roles).insert(name.clone(), Arc::new(role));
            true
        });
    }

    /// What was last told of a namespace.
    pub(super) fn told(&self, name: &NamespaceName) -> Option<Arc<wire::ObservedRole>> {
        self.0.roles.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What is seen of a move of a namespace.
    pub(super) fn sees(&self, seen: wire::MoveEvidence) {
        self.0.outbox.put_evidence(seen);
    }

    /// A namespace is not moved any more.
    pub(super) fn is_not_moved(&self, name: &NamespaceName) {
        self.0.outbox.drop_evidence(name.as_str());
    }

    /// The shard no longer has a role for it.
    pub(super) fn let_go(&self, name: &NamespaceName) {
        self.change(|roles| Arc::make_mut(roles).remove(name).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut Arc<ObservedRoles>) -> bool) {
        let mut roles = self.0.roles.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut roles) {
            return;
        }
        let mut states = BTreeMap::from([("settled", 0), ("on_the_way", 0), ("blocked", 0)]);
        for role in roles.values() {
            let has_arrived =
                role.role == role.target_role && role.generation == role.target_generation;
            let state = match (&role.obstacle, has_arrived) {
                (Some(_), _) => "blocked",
                (None, true) => "settled",
                (None, false) => "on_the_way",
            };
            *states.entry(state).or_default() += 1;
        }
        for (state, count) in states {
            self.0.metrics.namespaces.with_label_values(&[state]).set(count);
        }
        // Under the lock, so that the outbox has them in order.
        self.0.outbox.put_roles(roles.clone());
    }

    /// Something happened to a namespace.
    pub(super) fn happened(&self, namespace: &str, code: &str, message: String, warning: bool) {
        self.tell(Uuid::now_v7().to_string(), namespace, code, message, warning);
    }

    /// Something is noted of a namespace's move that somebody should look at.
    pub(super) fn noted(&self, namespace: &str, noted: &Happened) {
        let Happened { id, code, message } = noted;
        self.tell(id.clone(), namespace, code, message.clone(), true);
    }

    fn tell(&self, id: String, namespace: &str, code: &str, message: String, warning: bool) {
        if warning {
            tracing::warn!(namespace, code, "{message}");
        } else {
            tracing::info!(namespace, code, "{message}");
        }
        self.0.outbox.put_event(wire::Event {
            namespace: namespace.to_owned(),
            time: Some(timestamp(Timestamp::now())),
            code: code.to_owned(),
            message: cut(message),
            warning,
            id,
        });
    }

    /// DAGs that were fenced were found to run.
    pub(super) fn leaked(&self, dag_ids: &[String]) {
        let owners = self.0.owners.borrow().clone();
        let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for dag_id in dag_ids {
            if let Some(index) = owners.owner_of(dag_id) {
                of.entry(owners.names()[index].as_str()).or_default().push(dag_id);
            }
        }
        for (namespace, dags) in of {
            let message = format!(
                "DAGs were not paused although they are fenced; they were paused again: {}",
                dags.join(", ")
            );
            self.happened(namespace, "FENCE_LEAK", message, true);
        }
    }
}

fn cut(text: String) -> String {
    if text.len() <= MESSAGE_MAX { text } else { text.chars().take(MESSAGE_MAX).collect() }
}
