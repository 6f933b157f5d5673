//! Which shard a namespace goes to.
//!
//! [`Placer`] is the interface; [`LeastLoaded`] is the engine behind it today: it refuses every
//! shard that breaks a hard rule, each with a reason, and takes the one that is least loaded
//! afterwards. Pure and deterministic: the same fleet and request give the same answer, whatever
//! the order of the shards.
//!
//! It decides on what it is shown. Reserving room for the answer before the next question is the
//! caller's part.

mod engine;

#[cfg(test)]
mod tests;

use semver::{Version, VersionReq};

pub use self::engine::LeastLoaded;
use crate::{
    ids::ShardName,
    labels::{Labels, Requirement, Taint, Toleration},
    manifest,
    resources::Resources,
};

/// What a namespace asks of its shard, ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraints {
    /// Conditions on the shard's labels.
    pub selector: Vec<Requirement>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Airflow versions that it runs on.
    pub airflow_version: VersionReq,
    /// Region; empty means any.
    pub region: String,
    /// Namespaces of one group are spread over failure domains; empty means none.
    pub spread_group: String,
}

impl Default for Constraints {
    fn default() -> Self {
        Self {
            selector: Vec::new(),
            tolerations: Vec::new(),
            airflow_version: VersionReq::STAR,
            region: String::new(),
            spread_group: String::new(),
        }
    }
}

impl TryFrom<&manifest::Placement> for Constraints {
    type Error = String;

    /// Fails only on a version range that is none, which validation has refused before.
    fn try_from(placement: &manifest::Placement) -> Result<Self, String> {
        Ok(Self {
            selector: placement.selector.clone(),
            tolerations: placement.tolerations.clone(),
            airflow_version: manifest::parse_version_range(&placement.airflow_version)?,
            region: placement.region.clone(),
            spread_group: placement.spread_group.clone(),
        })
    }
}

/// A namespace that needs a shard.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// How much room it needs.
    pub demand: Resources,
    /// What it asks of the shard.
    pub constraints: &'a Constraints,
    /// The only shard that will do, where it is pinned.
    pub pinned: Option<&'a ShardName>,
}

/// A shard as placement sees it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name.
    pub name: ShardName,
    /// Its labels.
    pub labels: Labels,
    /// Marks that keep namespaces away.
    pub taints: Vec<Taint>,
    /// Its region.
    pub region: String,
    /// What fails together with it; empty where it stands alone.
    pub failure_domain: String,
    /// Its Airflow version, where it is known.
    pub airflow_version: Option<Version>,
    /// What it can take; zero is no limit.
    pub capacity: Resources,
    /// What its namespaces have reserved.
    pub reserved: Resources,
    /// Reasons for which it takes nothing now: cordon, health, being removed.
    pub closed: Vec<Refusal>,
    /// Namespaces of the request's spread group in its failure domain. Count.
    pub group_members: i64,
}

/// Why a shard will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: &'static str,
    /// The numbers, and what would change it.
    pub message: String,
}

impl Refusal {
    /// A refusal with a stable code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What was decided for a namespace, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The shard; `None` where none will do.
    pub shard: Option<ShardName>,
    /// Why, in one line.
    pub reason: String,
    /// Shards that will not do, by name, each with everything that speaks against it.
    pub refused: Vec<(ShardName, Vec<Refusal>)>,
}

/// Chooses shards.
pub trait Placer: Send + Sync {
    /// Chooses a shard for one namespace.
    fn place(&self, request: &Request<'_>, fleet: &[Candidate]) -> Decision;
}
