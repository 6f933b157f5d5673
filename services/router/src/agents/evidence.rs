//! What an agent's reports prove about a namespace: whether it is drained.

use airfleet_domain::{ids::Generation, roles::Role};

use super::{
    hub::{Hub, State},
    report::NamespaceUsage,
    roles::SeenRole,
};

/// What is known of a namespace on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Its agent is connected, reported lately, knows of the namespace, and found nothing that runs
    /// or will start to.
    Drained,
    /// This still runs or will start to.
    Busy(NamespaceUsage),
    /// Nothing is proved. In words, saying what to do.
    Unknown(String),
    /// No agent of the shard was ever heard of, by this router since it started.
    NeverConnected,
}

impl Hub {
    /// What the agent of `shard` proves about a namespace that the shard owns at `generation`.
    pub(crate) fn evidence(
        &self,
        shard: &str,
        namespace: &str,
        generation: Generation,
    ) -> Evidence {
        self.with(shard, |state| match state.filter(|state| state.was_heard_of()) {
            None => Evidence::NeverConnected,
            Some(state) => self.judge(state, shard, namespace, generation),
        })
    }

    fn judge(
        &self,
        state: &State,
        shard: &str,
        namespace: &str,
        generation: Generation,
    ) -> Evidence {
        let now = self.now();
        if !state.is_connected() {
            return Evidence::Unknown(format!("the agent of {shard} is not connected; start it"));
        }
        let (Some(merged), Some(reported_at)) = (&state.merged, state.reported_at) else {
            return Evidence::Unknown(format!(
                "the agent of {shard} has not sent a full report yet; try again in a moment"
            ));
        };
        let age = now.saturating_duration_since(reported_at);
        if age > self.limits().stale_after {
            return Evidence::Unknown(format!(
                "the agent of {shard} last reported {} s ago; look at it",
                age.as_secs()
            ));
        }
        // A shard that is sealed, or gave it up, starts nothing of it, whatever it counts. What it
        // was at an older generation says nothing: it was told to run it since.
        let gave_up = |role: &SeenRole| {
            role.observed.is_some_and(|observed| {
                observed.generation >= generation
                    && matches!(observed.role, Role::Sealed | Role::Retired | Role::Absent)
            })
        };
        if merged.roles.get(namespace).is_some_and(gave_up) {
            return Evidence::Drained;
        }
        if let Some(usage) = merged.namespaces.get(namespace) {
            return if usage.is_drained() { Evidence::Drained } else { Evidence::Busy(*usage) };
        }
        if merged.dropped > 0 {
            return Evidence::Unknown(format!(
                "the agent of {shard} reports more namespaces than are kept; raise \
                 agents.max_namespaces"
            ));
        }
        // That it is not in the report means that nothing of it is there only if the agent knew
        // what to look for when it looked.
        let told = state
            .told_lately
            .iter()
            .rev()
            .find(|(_, name)| name.as_str() == namespace)
            .map(|(at, _)| *at)
            .max(state.told_all_at);
        match told {
            Some(told)
                if state.told_all_at.is_some()
                    && reported_at >= told + self.limits().settle_after =>
            {
                Evidence::Drained
            }
            _ => Evidence::Unknown(format!(
                "the agent of {shard} was told of {namespace} only now; try again in a moment"
            )),
        }
    }
}
