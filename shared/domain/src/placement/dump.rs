//! A decision, written down so that it can be made again.
//!
//! A dump holds everything that goes into a rebalancing and what came out. Replaying it builds the
//! same problem, runs the same engine and compares byte for byte.

use serde::{Deserialize, Serialize};

use super::{
    objective::Policy,
    plan::{Metrics, Order, Plan},
    problem::{Hold, Problem, Row},
    rules::Constraints,
    search::Stop,
    shape::Shard,
    state::NONE,
};
use crate::ids::{NamespaceName, ShardName};

/// A question: rules and pin, shared by many namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// What is asked of the shard.
    #[serde(default)]
    pub constraints: Constraints,
    /// The only shard that will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<ShardName>,
    /// Affinity group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub affinity: String,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DumpedNamespace {
    /// Its name.
    pub name: NamespaceName,
    /// How much it takes in each dimension.
    pub demand: Vec<i64>,
    /// What it asks for, as a position in the list of questions.
    #[serde(default, skip_serializing_if = "is_first")]
    pub asks: u32,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardName>,
    /// Where it is on its way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ShardName>,
    /// What moving it costs.
    pub cost: i64,
    /// Why it may not be moved.
    #[serde(default = "free", skip_serializing_if = "is_free")]
    pub hold: Hold,
    /// Generation of its assignment.
    #[serde(default)]
    pub generation: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_first(asks: &u32) -> bool {
    *asks == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_free(hold: &Hold) -> bool {
    *hold == Hold::None
}

fn free() -> Hold {
    Hold::None
}

/// A fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// The table's revision.
    pub revision: i64,
    /// Names of the dimensions.
    pub dimensions: Vec<String>,
    /// What is asked of the fleet.
    pub policy: Policy,
    /// The shards, by name.
    pub shards: Vec<Shard>,
    /// What namespaces ask for.
    pub asked: Vec<Asked>,
    /// The namespaces, by name.
    pub namespaces: Vec<DumpedNamespace>,
}

/// Why a dump cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A namespace asks what is not in the list.
    #[error("namespace {namespace} asks for number {asks}, of {count}")]
    Asks {
        /// The namespace.
        namespace: NamespaceName,
        /// What it asks for.
        asks: u32,
        /// How many there are.
        count: usize,
    },
    /// Namespaces are out of order, or one is there twice.
    #[error("namespace {0} is out of order; they have to be in order of name, each once")]
    Order(NamespaceName),
}

impl Snapshot {
    /// Writes a fleet down. `generation` tells the generation of a namespace's assignment.
    pub fn of(problem: &Problem, revision: i64, generation: &dyn Fn(u32) -> i64) -> Self {
        let shape = problem.board().shape();
        let name = |at: u32| shape.shard(at).map(|shard| shard.name.clone());
        let mut asked: Vec<Asked> = Vec::new();
        let mut known = std::collections::HashMap::new();
        let mut namespaces = Vec::with_capacity(problem.len());
        for at in 0..problem.len() as u32 {
            let item = problem.item(at);
            let asks = *known.entry((item.rule, item.group, item.affinity)).or_insert_with(|| {
                let rule = shape.rule_of(item.rule);
                let mut constraints = rule.constraints.clone();
                problem.board().group_name(item.group).clone_into(&mut constraints.spread_group);
                let affinity = problem.board().affinity_name(item.affinity).to_owned();
                asked.push(Asked { constraints, pinned: rule.pinned.clone(), affinity });
                asked.len() as u32 - 1
            });
            namespaces.push(DumpedNamespace {
                name: problem.name(at).clone(),
                demand: problem.demand_of(at).to_vec(),
                asks,
                shard: name(problem.placement()[at as usize]),
                to: name(problem.to[at as usize]),
                cost: problem.cost_of(at),
                hold: problem.hold_of(at),
                generation: generation(at),
            });
        }
        let mut shards: Vec<Shard> = shape.all().map(|(_, shard)| shard.clone()).collect();
        shards.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            revision,
            dimensions: shape.dimensions().to_vec(),
            policy: *problem.board().policy(),
            shards,
            asked,
            namespaces,
        }
    }

    /// The fleet that was written down.
    pub fn problem(&self) -> Result<Problem, Error> {
        let mut problem = Problem::new(&self.dimensions, self.policy, self.shards.clone());
        // In order of use, as whoever put it together first met them.
        let mut needs = vec![None; self.asked.len()];
        let mut last: Option<&NamespaceName> = None;
        for one in &self.namespaces {
            if last.is_some_and(|last| *last >= one.name) {
                return Err(Error::Order(one.name.clone()));
            }
            last = Some(&one.name);
            let count = self.asked.len();
            let (namespace, asks) = (one.name.clone(), one.asks);
            let asked = self.asked.get(asks as usize);
            let asked = asked.ok_or(Error::Asks { namespace, asks, count })?;
            let own = *needs[asks as usize].get_or_insert_with(|| {
                problem.ask(&asked.constraints, asked.pinned.as_ref(), &asked.affinity)
            });
            let number = |name: &Option<ShardName>| {
                name.as_ref().and_then(|name| problem.board().shape().number(name.as_str()))
            };
            problem.push_row(&Row {
                name: one.name.clone(),
                demand: &one.demand,
                asked: &own,
                shard: number(&one.shard),
                to: number(&one.to),
                cost: one.cost,
                hold: one.hold,
            });
        }
        Ok(problem)
    }
}

/// A decision and everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dump {
    /// The fleet.
    pub snapshot: Snapshot,
    /// How it was looked for, what for, and in which order it is carried out.
    pub order: Order,
    /// How the fleet stood.
    pub before: Metrics,
    /// The plan's hash.
    pub hash: String,
}

impl Dump {
    /// Writes a plan and what led to it down.
    pub fn new(snapshot: Snapshot, order: Order, plan: &Plan) -> Self {
        let order = Order { settings: plan.settings.clone(), ..order };
        Self { snapshot, order, before: plan.before.clone(), hash: plan.hash.clone() }
    }

    /// Makes the decision again.
    pub fn replay(&self, threads: usize) -> Result<Plan, Error> {
        let problem = self.snapshot.problem()?;
        Ok(decide(&problem, &self.order, threads, &|| false, &|at| {
            self.snapshot.namespaces[at as usize].generation
        }))
    }
}

/// Rebalances and makes a plan of it. A search that ran out of time is written down as one that
/// ran out of steps, so that it can be made again.
pub fn decide(
    problem: &Problem,
    order: &Order,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
    generation: &dyn Fn(u32) -> i64,
) -> Plan {
    let mut outcome = problem.rebalance(&order.settings, threads, stop);
    let mut order = order.clone();
    if outcome.stop == Stop::Time {
        outcome.stop = Stop::Steps;
        order.settings.steps_max = outcome.steps_done;
    }
    let tenants = std::mem::take(&mut order.tenants);
    let tenant = |at: u32| tenants.get(at as usize).copied().unwrap_or(NONE);
    Plan::new(order, problem, &outcome, generation, &tenant)
}
