//! Plans: a reviewed set of moves, in waves, that can be checked against the fleet before it is
//! applied.
//!
//! A plan is a value. Its hash covers everything that it says, so that what is applied is what was
//! looked at; it carries what made it (revision, seed, settings, policy), so that the same snapshot
//! makes the same plan again. It goes stale when something that it stands on changes, and
//! [`Plan::check`] says what.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    amount::percent,
    bounds::Bounds,
    objective::{LEVEL_NAMES, Policy, Score},
    problem::{Hold, Problem},
    search::{Outcome, Settings, Step, Stop},
    state::NONE,
    waves::{Limits, Waves},
};
use crate::ids::{NamespaceName, ShardName};

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// To make the fleet better.
    Rebalance,
    /// To mend what is broken or overloaded, and nothing else.
    Emergency,
    /// To empty a shard.
    Drain(ShardName),
    /// To put something onto a shard.
    Fill(ShardName),
    /// To find out what would happen if shards were lost. Never applied.
    WhatIfLose(Vec<ShardName>),
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rebalance => f.write_str("rebalance"),
            Self::Emergency => f.write_str("emergency"),
            Self::Drain(shard) => write!(f, "drain {shard}"),
            Self::Fill(shard) => write!(f, "fill {shard}"),
            Self::WhatIfLose(shards) => write!(f, "what if {} shards were lost", shards.len()),
        }
    }
}

/// How a fleet stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Level by level.
    pub score: Score,
    /// How full the fullest dimension of the fullest shard is. Millionths.
    pub peak: i64,
}

/// One move of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMove {
    /// The namespace.
    pub namespace: NamespaceName,
    /// Generation of its assignment when the plan was made.
    pub generation: i64,
    /// Where it is; none where it has no shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ShardName>,
    /// Where it goes.
    pub to: ShardName,
    /// How much it takes in each dimension.
    pub demand: Vec<i64>,
    /// What moving it costs.
    pub cost: i64,
    /// The wave that it belongs to, from 1.
    pub wave: u32,
    /// Why, in one line.
    pub reason: String,
}

/// What could not be helped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsolved {
    /// The namespace.
    pub namespace: NamespaceName,
    /// Why it stays as it is.
    pub reason: String,
}

/// How long moves take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pace {
    /// Any move. Milliseconds.
    pub move_ms: i64,
    /// For each unit of cost on top: a MiB of history, or a tenth of a task to wait for.
    /// Milliseconds.
    pub cost_ms: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { move_ms: 15_000, cost_ms: 20 }
    }
}

/// A reviewed set of moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The table's revision that it stands on.
    pub revision: i64,
    /// Names of the dimensions.
    pub dimensions: Vec<String>,
    /// What was asked of the fleet.
    pub policy: Policy,
    /// How it was looked for, with the seed.
    pub settings: Settings,
    /// How many moves there may be at once.
    pub limits: Limits,
    /// The fleet as it was.
    pub before: Metrics,
    /// The fleet after all moves.
    pub after: Metrics,
    /// Lower bounds on the peak.
    pub bounds: Bounds,
    /// Above this a shard counts as hot. Millionths.
    pub target: i64,
    /// Why the search stopped.
    pub stop: Stop,
    /// The moves, by wave, then by namespace.
    pub moves: Vec<PlannedMove>,
    /// Waves. Count.
    pub waves: u32,
    /// What could not be helped; at most [`UNSOLVED_MAX`].
    pub unsolved: Vec<Unsolved>,
    /// How many could not be helped.
    pub unsolved_count: usize,
    /// How long it will take. Milliseconds.
    pub eta_ms: i64,
    /// SHA-256 of everything above, in hexadecimal.
    #[serde(default)]
    pub hash: String,
}

/// Namespaces of which a plan tells that it cannot help them.
pub const UNSOLVED_MAX: usize = 100;

/// What a plan is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The table's revision.
    pub revision: i64,
    /// How it was looked for.
    pub settings: Settings,
    /// How many moves there may be at once.
    pub limits: Limits,
    /// How long moves take.
    pub pace: Pace,
    /// Whose each namespace is, as a number, by its own number; empty where nobody's matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<u32>,
}

impl Plan {
    /// Makes a plan of what a rebalancing found. `generation` tells the generation of a
    /// namespace's assignment, `tenant` whose it is or [`NONE`].
    pub fn new(
        order: Order,
        problem: &Problem,
        outcome: &Outcome,
        generation: &dyn Fn(u32) -> i64,
        tenant: &dyn Fn(u32) -> u32,
    ) -> Self {
        let shape = problem.board().shape();
        let waves = Waves::of(problem, &outcome.steps, &order.limits, tenant);
        let shard = |at: u32| shape.shard(at).map(|shard| shard.name.clone());
        let mut moves = Vec::with_capacity(outcome.steps.len());
        let mut eta_ms = 0_i64;
        for (wave, steps) in waves.waves.iter().enumerate() {
            let mut longest = 0;
            for step in steps {
                let cost = problem.cost_of(step.namespace);
                let pace = order.pace;
                longest =
                    longest.max(pace.move_ms.saturating_add(pace.cost_ms.saturating_mul(cost)));
                moves.push(PlannedMove {
                    namespace: problem.name(step.namespace).clone(),
                    generation: generation(step.namespace),
                    from: shard(step.from),
                    to: shard(step.to).expect("a move goes to a shard that is there"),
                    demand: problem.demand_of(step.namespace).to_vec(),
                    cost,
                    wave: wave as u32 + 1,
                    reason: reason(problem, outcome, *step),
                });
            }
            eta_ms = eta_ms.saturating_add(longest);
        }
        let (unsolved, unsolved_count) = unsolved(problem, outcome, &waves);
        let mut plan = Self {
            name: order.name,
            purpose: order.purpose,
            revision: order.revision,
            dimensions: shape.dimensions().to_vec(),
            policy: *problem.board().policy(),
            settings: order.settings,
            limits: order.limits,
            before: Metrics { score: outcome.before, peak: outcome.peak_before },
            after: Metrics { score: outcome.after, peak: outcome.peak_after },
            bounds: outcome.bounds,
            target: outcome.target,
            stop: outcome.stop,
            moves,
            waves: waves.waves.len() as u32,
            unsolved,
            unsolved_count,
            eta_ms,
            hash: String::new(),
        };
        plan.hash = plan.digest();
        plan
    }

    /// SHA-256 of everything but the hash itself, in hexadecimal.
    pub fn digest(&self) -> String {
        let bare = Self { hash: String::new(), ..self.clone() };
        let bytes = serde_json::to_vec(&bare).expect("plans have string keys and no floats");
        Sha256::digest(&bytes).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        })
    }

    /// Whether it may be applied at all.
    pub fn is_hypothetical(&self) -> bool {
        matches!(self.purpose, Purpose::WhatIfLose(_))
    }

    /// What changed since it was made so that it cannot be applied any more; empty where nothing
    /// did. `problem` is the fleet as it is now; `generation` as in [`Plan::new`]. Moves before
    /// `done` waves are taken to have been made.
    pub fn check(
        &self,
        problem: &Problem,
        generation: &dyn Fn(u32) -> i64,
        done: &dyn Fn(&PlannedMove) -> bool,
    ) -> Vec<String> {
        let shape = problem.board().shape();
        let mut changes = Vec::new();
        if self.digest() != self.hash {
            changes.push(format!("plan {} does not have the hash that it carries", self.name));
        }
        let mut seen_detour = std::collections::BTreeSet::new();
        for planned in self.moves.iter().filter(|planned| !done(planned)) {
            let name = &planned.namespace;
            let Some(at) = problem.number(name.as_str()) else {
                changes.push(format!("{name} is no longer registered"));
                continue;
            };
            // Only the first of two moves of one namespace starts from where it is now.
            if !seen_detour.insert(name.clone()) {
                continue;
            }
            let now = problem.placement()[at as usize];
            let from = planned.from.as_ref().map_or("", ShardName::as_str);
            let now_name = if now == NONE { "" } else { shape.name(now) };
            if now_name != from || generation(at) != planned.generation {
                let place = |shard: &str| {
                    if shard.is_empty() { "no shard".to_owned() } else { shard.to_owned() }
                };
                changes.push(format!(
                    "{name} was on {} at generation {}, is on {} at generation {}",
                    place(from),
                    planned.generation,
                    place(now_name),
                    generation(at),
                ));
                continue;
            }
            if problem.hold_of(at) == Hold::InFlight {
                changes.push(format!("{name} is being moved already"));
            }
            let demand = problem.demand_of(at);
            for (dimension, (now, was)) in demand.iter().zip(&planned.demand).enumerate() {
                if i128::from(*now) * 4 > i128::from(*was) * 5 + 4 {
                    changes.push(format!(
                        "{name} takes {now} {} now, {was} when it was planned",
                        self.dimensions[dimension]
                    ));
                }
            }
            match shape.number(planned.to.as_str()) {
                None => changes.push(format!("shard {} is gone", planned.to)),
                Some(to) => {
                    let known = shape.shard(to).expect("a number belongs to a shard");
                    let needs = problem.needs_of(at);
                    let refusals = known.closures().into_iter();
                    let rule = shape.rule_of(needs.rule).refusals(known);
                    changes.extend(refusals.chain(rule).map(|refusal| {
                        format!(
                            "shard {} no longer takes {name}: {}: {}",
                            planned.to, refusal.code, refusal.message
                        )
                    }));
                }
            }
        }
        changes.sort();
        changes.dedup();
        changes
    }

    /// What another plan does differently: namespaces with where each sends them.
    pub fn diff<'a>(&'a self, other: &'a Plan) -> Vec<Difference<'a>> {
        let last = |plan: &'a Plan| {
            let moves = plan.moves.iter().map(|planned| (&planned.namespace, &planned.to));
            moves.collect::<std::collections::BTreeMap<_, _>>()
        };
        let (own, theirs) = (last(self), last(other));
        let names: std::collections::BTreeSet<_> = own.keys().chain(theirs.keys()).collect();
        names
            .into_iter()
            .map(|name| Difference {
                namespace: name,
                here: own.get(*name).copied(),
                there: theirs.get(*name).copied(),
            })
            .filter(|difference| difference.here != difference.there)
            .collect()
    }
}

/// Where two plans differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The namespace.
    pub namespace: &'a NamespaceName,
    /// Where the one plan sends it; none where it does not move it.
    pub here: Option<&'a ShardName>,
    /// Where the other sends it.
    pub there: Option<&'a ShardName>,
}

fn reason(problem: &Problem, outcome: &Outcome, step: Step) -> String {
    let board = problem.board();
    let shape = board.shape();
    let item = problem.item(step.namespace);
    let Some(from) = shape.shard(step.from) else { return "it has no shard".into() };
    if !shape.admitted(item.rule).has(step.from) {
        let refusals = shape.rule_of(item.rule).refusals(from);
        let why = refusals.first().map(|r| format!("{}: {}", r.code, r.message));
        return format!("{} breaks its rule: {}", from.name, why.unwrap_or_default());
    }
    if from.draining {
        return format!("{} is being drained", from.name);
    }
    let loads = shape.ratio_of(step.from).iter().zip(board.state().load_of(step.from));
    let full = loads.map(|(ratio, load)| ratio.millionths(*load)).enumerate();
    let (dimension, peak) =
        full.max_by_key(|(at, full)| (*full, std::cmp::Reverse(*at))).unwrap_or((0, 0));
    let name = shape.dimensions().get(dimension).map_or("", String::as_str);
    let limit = if peak > board.policy().soft() { board.policy().soft() } else { outcome.target };
    if peak > limit {
        format!("{} is at {} of {name}, more than {}", from.name, percent(peak), percent(limit))
    } else {
        let level = outcome.after.first_difference(&outcome.before).unwrap_or(5);
        format!("makes room, or mends {}", LEVEL_NAMES[level])
    }
}

fn unsolved(problem: &Problem, outcome: &Outcome, waves: &Waves) -> (Vec<Unsolved>, usize) {
    // Why something stays is told by how the fleet stands after all moves.
    let mut board = problem.board().clone();
    for step in &outcome.steps {
        let needs = problem.needs_of(step.namespace);
        if step.from != NONE {
            board.remove(&needs, step.from);
        }
        board.add(&needs, step.to);
    }
    let shape = board.shape();
    let moved: std::collections::HashSet<u32> =
        outcome.steps.iter().map(|step| step.namespace).collect();
    let mut all = Vec::new();
    let mut count = 0;
    let mut tell = |at: u32, reason: &dyn Fn() -> String| {
        count += 1;
        if all.len() < UNSOLVED_MAX {
            all.push(Unsolved { namespace: problem.name(at).clone(), reason: reason() });
        }
    };
    for (at, shard) in problem.placement().iter().enumerate() {
        let at = at as u32;
        if moved.contains(&at) {
            continue;
        }
        let item = problem.item(at);
        if *shard == NONE {
            tell(at, &|| board.unplaced(&problem.needs_of(at)));
        } else if !shape.admitted(item.rule).has(*shard) || shape.is_draining(*shard) {
            tell(at, &|| match problem.hold_of(at) {
                Hold::None => format!(
                    "stays on {}: {}",
                    shape.name(*shard),
                    board.unplaced(&problem.needs_of(at))
                ),
                Hold::InFlight => format!("is being moved off {} already", shape.name(*shard)),
                Hold::Cooldown => format!("was moved to {} a short while ago", shape.name(*shard)),
                Hold::Orphaned => "the manifest no longer has it".to_owned(),
            });
        }
    }
    for step in &waves.left_out {
        tell(step.namespace, &|| {
            "its move waits for room that only its own leaving would free, and no shard has room \
             for a detour"
                .to_owned()
        });
    }
    (all, count)
}
