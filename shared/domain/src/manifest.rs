//! The manifest: the declared namespaces and shards, as users write them.
//!
//! These are the shapes of the YAML files (`apiVersion: airfleet.dev/v1`), of `-o json` and of
//! what the registry stores. They hold plain text; [`Namespace::validate`] and
//! [`Shard::validate`] find everything that is wrong with them at once. Whether prefixes of two
//! namespaces overlap is the registry's to know: nothing here sees more than one entry.

mod validate;
mod workload;
mod yaml;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    validate::{Violation, parse_version_range},
    workload::{
        Connection, Enforcement, ExecutionTimeoutRule, Guardrails, MaxActiveRunsRule,
        OperatorRules, Pool, Retention, RetriesRule, Source, Variable, Workload,
    },
    yaml::{Located, Problem, parse, to_yaml},
};
use crate::{
    labels::{Labels, Requirement, Taint, Toleration},
    resources::Resources,
};

/// The only version of the manifest's form.
pub const API_VERSION: &str = "airfleet.dev/v1";

/// Most documents that one file may hold.
pub const DOCUMENTS_MAX: usize = 100_000;

/// What both kinds have beside their spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name, unique within the kind; never changes.
    pub name: String,
    /// Labels to find and select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A tenant's share of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Name, labels, description.
    pub metadata: Metadata,
    /// What it owns, needs and may.
    pub spec: NamespaceSpec,
}

/// What a namespace owns, needs and may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSpec {
    /// Teams that own it.
    pub owners: Vec<String>,
    /// Starts of the dag_ids that it owns.
    pub prefixes: Vec<String>,
    /// What it is expected to use, until it is measured.
    #[serde(default, skip_serializing_if = "Resources::is_zero")]
    pub demand: Resources,
    /// Where it may be placed.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Rules that its DAGs keep to.
    #[serde(default, skip_serializing_if = "Guardrails::is_empty")]
    pub guardrails: Guardrails,
    /// Where its DAG files come from; nothing where Airfleet does not deliver them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Pools that its shard has for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Variables that its shard has for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// Connections that its shard has for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connection>,
    /// How long what happened is kept on the shard; nothing means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What happens where pools, variables or connections on the shard are not as declared.
    #[serde(default, skip_serializing_if = "Enforcement::is_default")]
    pub drift: Enforcement,
}

/// Where a namespace may be placed. Everything given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Placement {
    /// Conditions on the shard's labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selector: Vec<Requirement>,
    /// Taints that it tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Range of Airflow versions that it runs on, such as `>=3.0, <4`; empty means any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub airflow_version: String,
    /// Region of the shard; empty means any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Namespaces of one group are spread over failure domains; empty means none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spread_group: String,
}

impl Placement {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One Airflow cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Name, labels, description.
    pub metadata: Metadata,
    /// What it offers.
    #[serde(default)]
    pub spec: ShardSpec,
}

/// What a shard offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ShardSpec {
    /// Region; empty where there is only one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// What fails together with it, such as a zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failure_domain: String,
    /// Marks that keep namespaces away which do not tolerate them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Airflow version that is expected; empty until the agent says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub airflow_version: String,
    /// Capacity class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Capacity where it differs from the class; zero keeps the class's number.
    #[serde(skip_serializing_if = "Resources::is_zero")]
    pub capacity: Resources,
    /// Where its web server and REST API are reached.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

impl ShardSpec {
    /// What the shard can take: its own numbers, else those of its class (medium where none is
    /// given). A dimension that neither states is zero, which placement reads as no limit.
    pub fn capacity(&self) -> Resources {
        self.capacity.or(self.size.unwrap_or_default().capacity())
    }
}

/// Capacity classes, after those that managed Airflow services publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// 50 DAGs, 5 concurrent tasks.
    #[serde(rename = "small")]
    Small,
    /// 200 DAGs, 10 concurrent tasks.
    #[default]
    #[serde(rename = "medium")]
    Medium,
    /// 1000 DAGs, 20 concurrent tasks.
    #[serde(rename = "large")]
    Large,
    /// 2000 DAGs, 40 concurrent tasks.
    #[serde(rename = "xlarge")]
    XLarge,
    /// 4000 DAGs, 80 concurrent tasks.
    #[serde(rename = "2xlarge")]
    XXLarge,
}

impl Size {
    /// Every class with its name, smallest first.
    pub const ALL: [(Size, &'static str); 5] = [
        (Size::Small, "small"),
        (Size::Medium, "medium"),
        (Size::Large, "large"),
        (Size::XLarge, "xlarge"),
        (Size::XXLarge, "2xlarge"),
    ];

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Size> {
        Self::ALL.into_iter().find_map(|(size, own)| (own == name).then_some(size))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(size, _)| *size == self).expect("ALL names every class").1
    }

    /// What a shard of the class can take. Only the two published dimensions are limited.
    pub fn capacity(self) -> Resources {
        let (dags, running_slots) = match self {
            Size::Small => (50, 5),
            Size::Medium => (200, 10),
            Size::Large => (1000, 20),
            Size::XLarge => (2000, 40),
            Size::XXLarge => (4000, 80),
        };
        Resources { dags, running_slots, ..Resources::ZERO }
    }
}

/// One entry of the manifest.
#[allow(clippy::large_enum_variant, reason = "nearly every entry is a namespace")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A namespace.
    Namespace(Namespace),
    /// A shard.
    Shard(Shard),
}

impl Entry {
    /// "namespace" or "shard".
    pub fn kind(&self) -> &'static str {
        match self {
            Entry::Namespace(_) => "namespace",
            Entry::Shard(_) => "shard",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Entry::Namespace(namespace) => &namespace.metadata.name,
            Entry::Shard(shard) => &shard.metadata.name,
        }
    }

    /// Everything that is wrong with it; empty where nothing is.
    pub fn validate(&self) -> Vec<Violation> {
        match self {
            Entry::Namespace(namespace) => namespace.validate(),
            Entry::Shard(shard) => shard.validate(),
        }
    }
}
