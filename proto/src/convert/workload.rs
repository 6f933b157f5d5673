//! What a namespace brings to its shard, and what a shard is for a namespace.

use airfleet_domain::{
    manifest::{
        Connection, Enforcement, ExecutionTimeoutRule, Guardrails, MaxActiveRunsRule,
        OperatorRules, Pool, Retention, RetriesRule, Source, Variable, Workload,
    },
    roles::Role,
};

use crate::{agent::v1 as agent, common::v1 as common};

impl From<common::Enforcement> for Enforcement {
    /// What is not specified is the default.
    fn from(wire: common::Enforcement) -> Self {
        match wire {
            common::Enforcement::Warn => Self::Warn,
            common::Enforcement::Enforce | common::Enforcement::Unspecified => Self::Enforce,
        }
    }
}

impl From<Enforcement> for common::Enforcement {
    fn from(enforcement: Enforcement) -> Self {
        match enforcement {
            Enforcement::Enforce => Self::Enforce,
            Enforcement::Warn => Self::Warn,
        }
    }
}

/// The mode of something of which the default is left out on the wire.
pub(super) fn sparse(enforcement: Enforcement) -> i32 {
    match enforcement {
        Enforcement::Enforce => common::Enforcement::Unspecified.into(),
        Enforcement::Warn => common::Enforcement::Warn.into(),
    }
}

impl From<common::Guardrails> for Guardrails {
    fn from(wire: common::Guardrails) -> Self {
        let modes = wire.modes.iter().map(|(code, mode)| {
            let mode = common::Enforcement::try_from(*mode).unwrap_or_default();
            (code.clone(), mode.into())
        });
        let operators = wire.operators.clone().unwrap_or_default();
        let timeout = wire.execution_timeout.unwrap_or_default();
        let retries = wire.retries.unwrap_or_default();
        Self {
            mode: wire.mode().into(),
            modes: modes.collect(),
            queues: wire.queues,
            pools: wire.pools,
            kubernetes_namespaces: wire.kubernetes_namespaces,
            kubernetes_clusters: wire.kubernetes_clusters,
            operators: OperatorRules { allow: operators.allow, deny: operators.deny },
            execution_timeout: ExecutionTimeoutRule {
                default_seconds: timeout.default_seconds,
                max_seconds: timeout.max_seconds,
            },
            retries: RetriesRule { default: retries.default, max: retries.max },
            max_active_runs: MaxActiveRunsRule {
                max: wire.max_active_runs.unwrap_or_default().max,
            },
            required_tags: wire.required_tags,
            allowed_owners: wire.allowed_owners,
        }
    }
}

/// Leaves out what is empty.
fn some<T: Default + PartialEq, W>(value: T, wire: impl FnOnce(T) -> W) -> Option<W> {
    (value != T::default()).then(|| wire(value))
}

impl From<Guardrails> for common::Guardrails {
    fn from(rules: Guardrails) -> Self {
        let modes = rules.modes.into_iter();
        Self {
            mode: sparse(rules.mode),
            modes: modes
                .map(|(code, mode)| (code, common::Enforcement::from(mode).into()))
                .collect(),
            queues: rules.queues,
            pools: rules.pools,
            kubernetes_namespaces: rules.kubernetes_namespaces,
            kubernetes_clusters: rules.kubernetes_clusters,
            operators: some(rules.operators, |o| common::OperatorRules {
                allow: o.allow,
                deny: o.deny,
            }),
            execution_timeout: some(rules.execution_timeout, |t| common::ExecutionTimeoutRule {
                default_seconds: t.default_seconds,
                max_seconds: t.max_seconds,
            }),
            retries: some(rules.retries, |r| common::RetriesRule {
                default: r.default,
                max: r.max,
            }),
            max_active_runs: some(rules.max_active_runs, |m| common::MaxActiveRunsRule {
                max: m.max,
            }),
            required_tags: rules.required_tags,
            allowed_owners: rules.allowed_owners,
        }
    }
}

impl From<common::DagSource> for Source {
    fn from(wire: common::DagSource) -> Self {
        Self { uri: wire.uri, reference: wire.r#ref, path: wire.path }
    }
}

impl From<Source> for common::DagSource {
    fn from(source: Source) -> Self {
        Self { uri: source.uri, r#ref: source.reference, path: source.path }
    }
}

impl From<common::Pool> for Pool {
    fn from(wire: common::Pool) -> Self {
        Self {
            name: wire.name,
            slots: wire.slots,
            description: wire.description,
            include_deferred: wire.include_deferred,
        }
    }
}

impl From<Pool> for common::Pool {
    fn from(pool: Pool) -> Self {
        Self {
            name: pool.name,
            slots: pool.slots,
            description: pool.description,
            include_deferred: pool.include_deferred,
        }
    }
}

impl From<common::Variable> for Variable {
    fn from(wire: common::Variable) -> Self {
        Self { key: wire.key, secret: wire.secret }
    }
}

impl From<Variable> for common::Variable {
    fn from(variable: Variable) -> Self {
        Self { key: variable.key, secret: variable.secret }
    }
}

impl From<common::Connection> for Connection {
    fn from(wire: common::Connection) -> Self {
        Self { id: wire.id, secret: wire.secret }
    }
}

impl From<Connection> for common::Connection {
    fn from(connection: Connection) -> Self {
        Self { id: connection.id, secret: connection.secret }
    }
}

impl From<common::Retention> for Retention {
    fn from(wire: common::Retention) -> Self {
        Self { keep_days: wire.keep_days, schedule: wire.schedule }
    }
}

impl From<Retention> for common::Retention {
    fn from(retention: Retention) -> Self {
        Self { keep_days: retention.keep_days, schedule: retention.schedule }
    }
}

pub(super) fn all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

impl From<agent::Workload> for Workload {
    fn from(wire: agent::Workload) -> Self {
        Self {
            drift: wire.drift().into(),
            owners: wire.owners,
            guardrails: wire.guardrails.map(Into::into).unwrap_or_default(),
            source: wire.source.map(Into::into),
            pools: all(wire.pools),
            variables: all(wire.variables),
            connections: all(wire.connections),
            retention: wire.retention.map(Into::into),
        }
    }
}

impl From<Workload> for agent::Workload {
    fn from(workload: Workload) -> Self {
        Self {
            owners: workload.owners,
            guardrails: some(workload.guardrails, Into::into),
            source: workload.source.map(Into::into),
            pools: all(workload.pools),
            variables: all(workload.variables),
            connections: all(workload.connections),
            retention: workload.retention.map(Into::into),
            drift: sparse(workload.drift),
        }
    }
}

impl From<Role> for common::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Absent => Self::Absent,
            Role::Staged => Self::Staged,
            Role::Active => Self::Active,
            Role::Quiesced => Self::Quiesced,
            Role::Sealed => Self::Sealed,
            Role::Retired => Self::Retired,
        }
    }
}

/// The role on the wire; none where it is unspecified or of a later version.
pub fn role(wire: common::Role) -> Option<Role> {
    Some(match wire {
        common::Role::Unspecified => return None,
        common::Role::Absent => Role::Absent,
        common::Role::Staged => Role::Staged,
        common::Role::Active => Role::Active,
        common::Role::Quiesced => Role::Quiesced,
        common::Role::Sealed => Role::Sealed,
        common::Role::Retired => Role::Retired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_back_as_they_went() {
        for one in Role::ALL {
            assert_eq!(role(common::Role::from(one)), Some(one));
        }
        assert_eq!(role(common::Role::Unspecified), None);
    }
}
