//! Whether a node is ready to serve, and why not.
//!
//! Ready means "I have something to serve from", not "the process runs". Whoever knows a reason
//! against it holds a [`Condition`]; the node is ready when every condition holds and nobody asked
//! it to stop. `/readyz` and the gRPC health service tell.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// The readiness of one node. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// For each condition, why it does not hold.
    conditions: Mutex<BTreeMap<String, Option<String>>>,
    ready: watch::Sender<bool>,
}

/// One thing that must hold before a node is ready. Dropping it withdraws the condition.
#[derive(Debug)]
pub struct Condition {
    readiness: Readiness,
    name: String,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Without conditions, and so ready.
    pub fn new() -> Self {
        let ready = watch::Sender::new(true);
        Self(Arc::new(Inner { conditions: Mutex::default(), ready }))
    }

    /// Adds a condition that does not hold yet. A second condition of the same name takes the
    /// place of the first.
    pub fn condition(&self, name: impl Into<String>) -> Condition {
        let name = name.into();
        self.set(&name, Some("not reached yet".to_owned()));
        Condition { readiness: self.clone(), name }
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Why it is not ready: `name: reason` for each condition that does not hold.
    pub fn reasons(&self) -> Vec<String> {
        let conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions
            .iter()
            .filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?)))
            .collect()
    }

    /// Tells when readiness changes.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// Waits until it is ready.
    pub async fn wait(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.subscribe().wait_for(|ready| *ready).await;
    }

    /// Fails for good, because the node is stopping.
    pub(crate) fn stop(&self) {
        self.set("shutdown", Some("the node is stopping".to_owned()));
    }

    /// Notes why the condition `name` does not hold, or that it does.
    fn set(&self, name: &str, reason: Option<String>) {
        self.change(|conditions| {
            conditions.insert(name.to_owned(), reason);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Option<String>>)) {
        let mut conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut conditions);
        let ready = conditions.values().all(Option::is_none);
        // Under the lock, so that the last change is the one that is told last.
        self.0.ready.send_if_modified(|seen| std::mem::replace(seen, ready) != ready);
    }
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        self.readiness.set(&self.name, None);
    }

    /// It does not hold, because of `reason`.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.readiness.set(&self.name, Some(reason.into()));
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.readiness.change(|conditions| {
            conditions.remove(&self.name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_conditions_must_hold() {
        let readiness = Readiness::new();
        let table = readiness.condition("table");
        let store = readiness.condition("store");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), ["store: not reached yet", "table: not reached yet"]);
        table.met();
        store.unmet("connection refused");
        assert_eq!(readiness.reasons(), ["store: connection refused"]);

        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        store.met();
        waiting.await.unwrap();
        assert!(readiness.is_ready());

        table.unmet("too old");
        drop(table);
        assert!(readiness.is_ready());
        readiness.stop();
        assert_eq!(readiness.reasons(), ["shutdown: the node is stopping"]);
    }
}
