//! What a namespace brings to its shard: files, pools, variables, connections, and rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NamespaceSpec;

/// What happens where a rule is broken or something on the shard is not as declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Refuse what breaks the rule; put right what is not as declared.
    #[default]
    Enforce,
    /// Only tell.
    Warn,
}

impl Enforcement {
    /// Both, with their names.
    pub const ALL: [(Enforcement, &'static str); 2] =
        [(Enforcement::Enforce, "enforce"), (Enforcement::Warn, "warn")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(one, _)| *one == self).expect("ALL names both").1
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules that the DAGs of a namespace keep to. What is empty does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Guardrails {
    /// What happens to a DAG that breaks a rule.
    #[serde(skip_serializing_if = "Enforcement::is_default")]
    pub mode: Enforcement,
    /// Modes of single rules, by their code, such as `AF107`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, Enforcement>,
    /// Celery queues that tasks may run in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// Pools that tasks may take slots of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Kubernetes namespaces that tasks may run in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_namespaces: Vec<String>,
    /// Kubernetes clusters that tasks may run in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_clusters: Vec<String>,
    /// Operators that tasks may be of.
    #[serde(skip_serializing_if = "is_default")]
    pub operators: OperatorRules,
    /// How long a task may run.
    #[serde(skip_serializing_if = "is_default")]
    pub execution_timeout: ExecutionTimeoutRule,
    /// How often a task may be tried again.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: RetriesRule,
    /// Runs that a DAG may have at a time.
    #[serde(skip_serializing_if = "is_default")]
    pub max_active_runs: MaxActiveRunsRule,
    /// Tags that every DAG has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_tags: Vec<String>,
    /// Owners of which every DAG has at least one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_owners: Vec<String>,
}

impl Guardrails {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Operators, by class name or import path; a trailing `*` stands for every continuation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OperatorRules {
    /// Only these; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// All but these; counts over `allow`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// How long a task may run. Seconds; 0 means not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExecutionTimeoutRule {
    /// Where the author set none.
    #[serde(skip_serializing_if = "is_default")]
    pub default_seconds: i64,
    /// At most.
    #[serde(skip_serializing_if = "is_default")]
    pub max_seconds: i64,
}

/// How often a task may be tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetriesRule {
    /// Where the author set none; nothing leaves it to Airflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<i64>,
    /// At most; nothing means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// Runs that a DAG may have at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxActiveRunsRule {
    /// At most. Count; 0 means no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max: i64,
}

/// Where DAG files come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// A folder path, or a URL: `file://`, `s3://`, `gs://`, `az://`, `git+https://`,
    /// `git+ssh://`, `git+file://`.
    pub uri: String,
    /// Branch, tag or commit; for git only. Empty means the default branch.
    #[serde(default, rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Folder inside the source that holds the DAG files; empty means all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A pool that the shard has for a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Name, unique over the fleet.
    pub name: String,
    /// Slots. Count; -1 means without limit.
    pub slots: i64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether deferred tasks take slots.
    #[serde(default, skip_serializing_if = "is_default")]
    pub include_deferred: bool,
}

/// A variable whose value lies in the agent's own secret files or the shard's secrets backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Key in Airflow.
    pub key: String,
    /// File under the agent's secrets folder for the namespace; empty where the shard's secrets
    /// backend has the variable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
}

/// A connection whose value lies in the agent's own secret files or the shard's secrets backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connection {
    /// Connection id in Airflow.
    pub id: String,
    /// File under the agent's secrets folder for the namespace, holding a URI or JSON; empty where
    /// the shard's secrets backend has the connection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
}

/// How long what happened is kept in the shard's metadata database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Runs that ended longer ago are removed. Days, at least 1.
    pub keep_days: i64,
    /// When it is done: a cron expression in UTC; empty means once a day, at a minute of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schedule: String,
}

/// What a namespace brings to its shard: the part of its manifest that the shard's agent needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Teams that own it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// Rules that its DAGs keep to.
    #[serde(skip_serializing_if = "is_default")]
    pub guardrails: Guardrails,
    /// Where its DAG files come from; nothing where somebody else brings them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// Connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connection>,
    /// How long what happened is kept; nothing means for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What happens where the shard is not as declared.
    #[serde(skip_serializing_if = "is_default")]
    pub drift: Enforcement,
}

impl NamespaceSpec {
    /// What it brings to its shard.
    pub fn workload(&self) -> Workload {
        Workload {
            owners: self.owners.clone(),
            guardrails: self.guardrails.clone(),
            source: self.source.clone(),
            pools: self.pools.clone(),
            variables: self.variables.clone(),
            connections: self.connections.clone(),
            retention: self.retention.clone(),
            drift: self.drift,
        }
    }
}
