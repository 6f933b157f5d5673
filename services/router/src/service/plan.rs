//! Plans, explanations and headroom.
//!
//! Looking for moves takes a snapshot of the fleet and works on that, on threads of its own, so that
//! deciding and serving go on meanwhile. What comes of it is a plan; nothing is changed until
//! somebody applies it, and then it is checked against the fleet as it is by then.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    ids::ShardName,
    placement::{
        dump::{self, Dump, decide},
        execute::Stage,
        explain::Explanation,
        headroom::Headroom,
        plan::{self, Order, Pace, Plan},
        search::{Mode, Scope, Settings},
    },
    resources::Resources,
};
use airfleet_runtime::status::FieldViolation;

use super::{Error, Service, Who};
use crate::{
    fleet::Snapshot,
    leader::Leader,
    store::{Batch, Cordon, Freeze, Kept, PlanState, ShardRecord},
};

/// What a plan is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    Rebalance,
    Emergency,
    Drain(ShardName),
    Fill(ShardName),
    Lose { shards: Vec<ShardName>, failure_domains: Vec<String> },
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct CreatePlan {
    /// Its name; made up where empty.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Most that all moves may cost; 0 is no limit.
    pub(crate) cost_max: i64,
    /// Most moves; 0 is no limit.
    pub(crate) moves_max: usize,
    /// Decides between what is equally good.
    pub(crate) seed: u64,
    /// Longest time to look for moves; none for the setting.
    pub(crate) time_limit: Option<Duration>,
    /// Who asks.
    pub(crate) actor: String,
}

/// A plan that is not kept yet, and what it was made of.
struct Made {
    leader: Arc<Leader>,
    snapshot: Snapshot,
    order: Order,
    plan: Plan,
    actor: String,
    now_us: i64,
}

/// How rebalancing stands.
#[derive(Debug, Clone)]
pub(crate) struct Rebalancing {
    pub(crate) freeze: Option<Freeze>,
    pub(crate) thrashed: u64,
}

/// How much room is left, and what the growth is told from.
#[derive(Debug, Clone)]
pub(crate) struct Growing {
    pub(crate) headroom: Headroom,
    pub(crate) growth_days: f64,
}

impl Service {
    /// Looks for moves and keeps what it finds as a plan.
    pub(crate) async fn create_plan(&self, ask: CreatePlan) -> Result<(Kept, Vec<Stage>), Error> {
        let made = self.look_for_moves(ask).await?;
        self.keep(made).await
    }

    /// The same, unless there is nothing to move. Answers the plan's name where there was.
    pub(crate) async fn propose_plan(&self, ask: CreatePlan) -> Result<Option<String>, Error> {
        let made = self.look_for_moves(ask).await?;
        if made.plan.moves.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.keep(made).await?.0.plan.name))
    }

    async fn look_for_moves(&self, ask: CreatePlan) -> Result<Made, Error> {
        let leader = self.leader()?;
        let settings = &leader.tools.plans;
        let now_us = leader.tools.clock.unix_micros();
        let name = if ask.name.is_empty() { made_up(now_us) } else { ask.name.clone() };
        if leader.tools.store.plan(&name).await?.is_some() {
            return Err(Error::PlanExists(name));
        }
        let lost = lost(&leader, &ask.purpose)?;
        let drain = match &ask.purpose {
            Purpose::Drain(shard) => Some(shard.clone()),
            _ => None,
        };
        let revision = self.live.view().table.revision().0;
        let (gain_min, limits) = (settings.gain_min, settings.limits());
        let threads = settings.threads();
        let time_limit = ask.time_limit.unwrap_or(settings.time_limit);
        let task = {
            let leader = leader.clone();
            let (purpose, ask) = (ask.purpose.clone(), ask.clone());
            move || {
                let snapshot = leader.fleet().snapshot(now_us, &|shard| {
                    shard.lost |= lost.contains(&shard.name);
                    shard.draining |= drain.as_ref() == Some(&shard.name);
                });
                let mut search = Settings {
                    seed: if ask.seed == 0 { 1 } else { ask.seed },
                    cost_max: ask.cost_max,
                    moves_max: ask.moves_max,
                    gain_min,
                    ..Settings::default()
                };
                let purpose = match purpose {
                    Purpose::Rebalance => plan::Purpose::Rebalance,
                    Purpose::Emergency => {
                        search.mode = Mode::Emergency;
                        plan::Purpose::Emergency
                    }
                    Purpose::Drain(shard) => {
                        search.scope = Scope::Drain;
                        plan::Purpose::Drain(shard)
                    }
                    Purpose::Fill(shard) => {
                        let shape = snapshot.problem.board().shape();
                        search.scope =
                            Scope::Fill(shape.number(shard.as_str()).into_iter().collect());
                        plan::Purpose::Fill(shard)
                    }
                    Purpose::Lose { .. } => {
                        search.mode = Mode::Emergency;
                        plan::Purpose::WhatIfLose(lost)
                    }
                };
                let order = Order {
                    name,
                    purpose,
                    revision,
                    settings: search,
                    limits,
                    pace: Pace::default(),
                    tenants: Vec::new(),
                };
                let begun = std::time::Instant::now();
                let stop = move || begun.elapsed() > time_limit;
                let generation = |at: u32| snapshot.generations[at as usize];
                let plan = decide(&snapshot.problem, &order, threads, &stop, &generation);
                (snapshot, Order { settings: plan.settings.clone(), ..order }, plan)
            }
        };
        let (snapshot, order, plan) = blocking(task).await;
        Ok(Made { leader, snapshot, order, plan, actor: ask.actor, now_us })
    }

    async fn keep(&self, made: Made) -> Result<(Kept, Vec<Stage>), Error> {
        let Made { leader, snapshot, order, plan, actor, now_us } = made;
        let store = &leader.tools.store;
        if !store.add_plan(leader.term, &plan, &actor, now_us).await? {
            return Err(Error::PlanExists(plan.name));
        }
        tracing::info!(
            plan = plan.name,
            purpose = %plan.purpose,
            moves = plan.moves.len(),
            peak_before = plan.before.peak,
            peak_after = plan.after.peak,
            "a plan was made"
        );
        leader.keep_dump(snapshot, order);
        let stages = vec![Stage::Waiting; plan.moves.len()];
        let kept = Kept {
            moves: plan.moves.len(),
            plan,
            state: PlanState::Ready,
            state_reason: String::new(),
            actor,
            created_at_us: now_us,
        };
        Ok((kept, stages))
    }

    /// A plan, and how far its moves are.
    pub(crate) async fn plan(&self, name: &str) -> Result<(Kept, Vec<Stage>), Error> {
        let leader = self.leader()?;
        let found = leader.tools.store.plan(name).await?;
        found.ok_or_else(|| Error::NoPlan(name.to_owned()))
    }

    /// The latest plans, without their moves.
    pub(crate) async fn plans(&self, limit: u32) -> Result<Vec<Kept>, Error> {
        Ok(self.leader()?.tools.store.plans(limit).await?)
    }

    /// What changed since a plan was made so that it cannot be applied.
    pub(crate) async fn check_plan(&self, name: &str) -> Result<Vec<String>, Error> {
        let leader = self.leader()?;
        let (kept, stages) = self.plan(name).await?;
        Ok(changes(&leader, kept.plan, stages).await)
    }

    /// Carries a plan out.
    pub(crate) async fn apply_plan(
        &self,
        name: &str,
        expected_hash: &str,
        validate_only: bool,
        actor: &str,
    ) -> Result<(Kept, Vec<Stage>), Error> {
        let leader = self.leader()?;
        let (kept, stages) = self.plan(name).await?;
        let refuse = |code, why: String| Error::PlanState { name: name.to_owned(), code, why };
        if !expected_hash.is_empty() && expected_hash != kept.plan.hash {
            return Err(Error::PlanHash {
                name: name.to_owned(),
                asked: expected_hash.to_owned(),
                current: kept.plan.hash,
            });
        }
        if kept.plan.is_hypothetical() {
            let why = "it only says what would happen; make one without --what-if-lose";
            return Err(refuse("PLAN_HYPOTHETICAL", why.into()));
        }
        match kept.state {
            PlanState::Ready | PlanState::Stopped => {}
            PlanState::Applying => return Ok((kept, stages)),
            PlanState::Done => return Err(refuse("PLAN_DONE", "it was carried out".into())),
            PlanState::Cancelled => {
                return Err(refuse("PLAN_CANCELLED", "it was cancelled; make a new one".into()));
            }
        }
        if let Some(freeze) = leader.frozen() {
            let why = format!(
                "rebalancing was frozen by {}: {}; airfleet rebalance unfreeze",
                freeze.actor, freeze.reason
            );
            return Err(refuse("REBALANCING_FROZEN", why));
        }
        let changed = changes(&leader, kept.plan.clone(), stages).await;
        if !changed.is_empty() {
            return Err(Error::PlanStale { name: name.to_owned(), changes: changed });
        }
        if !validate_only {
            if let plan::Purpose::Drain(shard) = &kept.plan.purpose {
                self.cordon_for_drain(&leader, shard, name, actor).await?;
            }
            let now_us = leader.tools.clock.unix_micros();
            let from = [PlanState::Ready, PlanState::Stopped];
            let store = &leader.tools.store;
            let begun = store
                .set_plan_state(leader.term, name, &from, PlanState::Applying, "", now_us)
                .await?;
            if !begun {
                let why = "another plan is being carried out; wait for it or cancel it";
                return Err(refuse("PLAN_IN_PROGRESS", why.into()));
            }
            tracing::info!(plan = name, actor, "a plan is being carried out");
            leader.look_for_plan();
        }
        self.plan(name).await
    }

    /// A shard that is being drained must take nothing new.
    async fn cordon_for_drain(
        &self,
        leader: &Arc<Leader>,
        shard: &ShardName,
        plan: &str,
        actor: &str,
    ) -> Result<(), Error> {
        let mut turn = leader.turn().await?;
        let stamp = turn.stamp();
        let known = leader.fleet().shard(shard.as_str()).map(|shard| shard.record.clone());
        let known = known.ok_or_else(|| Error::NoShard(shard.to_string()))?;
        if known.cordon.is_none() {
            let cordon = Some(Cordon {
                actor: actor.to_owned(),
                reason: format!("plan {plan} drains it"),
                time_us: stamp.now_us,
            });
            let record = ShardRecord { cordon, revision: stamp.revision, ..known };
            turn.commit(Batch { shards: vec![record], ..Batch::default() }).await?;
        }
        Ok(())
    }

    /// Stops or drops a plan.
    pub(crate) async fn cancel_plan(
        &self,
        name: &str,
        who: &Who,
    ) -> Result<(Kept, Vec<Stage>), Error> {
        let leader = self.leader()?;
        let (kept, stages) = self.plan(name).await?;
        if kept.state == PlanState::Cancelled {
            return Ok((kept, stages));
        }
        let now_us = leader.tools.clock.unix_micros();
        let from = [PlanState::Ready, PlanState::Stopped, PlanState::Applying];
        let why = format!("cancelled {}", who.by());
        let store = &leader.tools.store;
        let done = store
            .set_plan_state(leader.term, name, &from, PlanState::Cancelled, &why, now_us)
            .await?;
        if !done {
            return Err(Error::PlanState {
                name: name.to_owned(),
                code: "PLAN_DONE",
                why: "it was carried out; there is nothing to cancel".into(),
            });
        }
        leader.forget_running(name).await;
        self.plan(name).await
    }

    /// What a plan was made of, as a JSON document.
    pub(crate) async fn dump_plan(&self, name: &str) -> Result<Vec<u8>, Error> {
        let leader = self.leader()?;
        let (kept, _) = self.plan(name).await?;
        let dump = leader.dump(name).ok_or_else(|| Error::NoDump(name.to_owned()))?;
        let write = move || {
            let (snapshot, order) = &*dump;
            let generation = |at: u32| snapshot.generations[at as usize];
            let written = dump::Snapshot::of(&snapshot.problem, order.revision, &generation);
            let dump = Dump::new(written, order.clone(), &kept.plan);
            serde_json::to_vec(&dump).expect("dumps have string keys and no floats")
        };
        Ok(blocking(write).await)
    }

    /// Freezes rebalancing, or lifts that.
    pub(crate) async fn set_freeze(&self, who: Option<Who>) -> Result<Rebalancing, Error> {
        let leader = self.leader()?;
        let freeze = who.map(|who| Freeze {
            actor: who.actor,
            reason: who.reason,
            time_us: leader.tools.clock.unix_micros(),
        });
        if freeze.as_ref().is_some_and(|freeze| freeze.reason.is_empty()) {
            let why = "say why, for whoever finds it frozen";
            return Err(Error::Invalid(vec![FieldViolation::new("reason", "REQUIRED", why)]));
        }
        leader.tools.store.set_freeze(leader.term, freeze.as_ref()).await?;
        leader.set_frozen(freeze);
        self.rebalancing()
    }

    /// How rebalancing stands.
    pub(crate) fn rebalancing(&self) -> Result<Rebalancing, Error> {
        let leader = self.leader()?;
        let thrashed = leader.fleet().history.thrashed();
        Ok(Rebalancing { freeze: leader.frozen(), thrashed })
    }

    /// Why a namespace is where it is.
    pub(crate) fn explain(&self, namespace: &str) -> Result<Explanation, Error> {
        let leader = self.leader()?;
        let frozen = leader.frozen().map(|f| format!("by {}: {}", f.actor, f.reason));
        let now_us = leader.tools.clock.unix_micros();
        let explained = leader.fleet().explain(namespace, now_us, frozen.as_deref());
        explained.ok_or_else(|| Error::NoNamespace(namespace.to_owned()))
    }

    /// How much room is left.
    pub(crate) async fn headroom(&self) -> Result<Growing, Error> {
        let leader = self.leader()?;
        let now_us = leader.tools.clock.unix_micros();
        let (growth, growth_days): (Resources, f64) = leader.growth();
        let look = move || {
            let snapshot: Snapshot = leader.fleet().snapshot(now_us, &|_| {});
            Headroom::of(&snapshot.problem, &growth.values())
        };
        Ok(Growing { headroom: blocking(look).await, growth_days })
    }
}

/// A name that sorts by time, and that nobody else makes up.
fn made_up(now_us: i64) -> String {
    let other = uuid::Uuid::new_v4().as_u128() & 0xffff;
    format!("plan-{}-{other:04x}", now_us / 1_000_000)
}

/// The shards that are taken to be lost.
fn lost(leader: &Leader, purpose: &Purpose) -> Result<Vec<ShardName>, Error> {
    let fleet = leader.fleet();
    let known = |name: &ShardName| {
        let found = fleet.shard(name.as_str()).is_some();
        if found { Ok(()) } else { Err(Error::NoShard(name.to_string())) }
    };
    match purpose {
        Purpose::Drain(shard) | Purpose::Fill(shard) => known(shard).map(|()| Vec::new()),
        Purpose::Lose { shards, failure_domains } => {
            shards.iter().try_for_each(known)?;
            let mut lost = shards.clone();
            for domain in failure_domains {
                let of_domain = |spec: &str, name: &ShardName| {
                    if spec.is_empty() { name.as_str() == domain } else { spec == domain }
                };
                let before = lost.len();
                lost.extend(fleet.shards().filter_map(|shard| {
                    let spec = &shard.record.manifest.spec.failure_domain;
                    let name = &shard.record.name;
                    of_domain(spec, name).then(|| name.clone())
                }));
                if lost.len() == before {
                    let message = format!("no shard has the failure domain {domain:?}");
                    let field = "lose.failure_domains";
                    let violation = FieldViolation::new(field, "UNKNOWN_VALUE", message);
                    return Err(Error::Invalid(vec![violation]));
                }
            }
            lost.sort();
            lost.dedup();
            Ok(lost)
        }
        Purpose::Rebalance | Purpose::Emergency => Ok(Vec::new()),
    }
}

/// What changed since a plan was made, looked at on the fleet as it is.
async fn changes(leader: &Arc<Leader>, plan: Plan, stages: Vec<Stage>) -> Vec<String> {
    let now_us = leader.tools.clock.unix_micros();
    let leader = leader.clone();
    let look = move || {
        let drains = match &plan.purpose {
            plan::Purpose::Drain(shard) => Some(shard.clone()),
            _ => None,
        };
        let snapshot = leader.fleet().snapshot(now_us, &|shard| {
            shard.draining |= drains.as_ref() == Some(&shard.name);
        });
        let over: std::collections::HashSet<(String, u32)> = plan
            .moves
            .iter()
            .zip(&stages)
            .filter(|(_, stage)| **stage == Stage::Done)
            .map(|(planned, _)| (planned.namespace.to_string(), planned.wave))
            .collect();
        let generation = |at: u32| snapshot.generations[at as usize];
        let done = |planned: &plan::PlannedMove| {
            over.contains(&(planned.namespace.to_string(), planned.wave))
        };
        plan.check(&snapshot.problem, &generation, &done)
    };
    blocking(look).await
}

/// Runs what takes long where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("a blocking task that has begun is never cancelled"),
    }
}
