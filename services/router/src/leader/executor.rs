//! Carrying a plan out.
//!
//! What happens next is worked out by [`execute::next`] from the plan and the durable stages of its
//! moves; this does the rest: looks how far moves are, writes it down, begins what is next. Killed
//! anywhere it goes on from what is written: a move is noted as running before it is begun, and one
//! that is noted and that the mover does not know is begun again, which is harmless.

use std::collections::HashMap;

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    placement::execute::{self, Next, Sight, Stage},
    routing::State as Assigned,
};

use super::Leader;
use crate::{
    mover::{Look, Mover, Order},
    store::{Batch, Error, Kept, PlanState, Record, Store},
};

/// A plan that is being carried out.
#[derive(Debug)]
pub(crate) struct Running {
    kept: Kept,
    stages: Vec<Stage>,
    /// How often each was begun; those that never were are not in it.
    attempts: HashMap<usize, i64>,
    /// Whose each namespace is: the first of its owners.
    tenants: HashMap<NamespaceName, String>,
}

impl Running {
    async fn load(store: &Store, name: &str) -> Result<Option<Self>, Error> {
        let Some((kept, stages)) = store.plan(name).await? else { return Ok(None) };
        let open = kept.plan.moves.iter().zip(&stages).filter(|(_, stage)| !stage.is_over());
        let names: Vec<_> = open.map(|(planned, _)| planned.namespace.clone()).collect();
        let workloads = store.workloads(&names).await?.into_iter();
        let tenants = workloads
            .filter_map(|(name, (workload, _))| Some((name, workload.owners.into_iter().next()?)));
        let attempts = store.plan_attempts(name).await?;
        Ok(Some(Self { tenants: tenants.collect(), kept, stages, attempts }))
    }

    /// What the mover knows a move by. Each time that it is begun it has another: one that came to
    /// nothing has no part in the next.
    fn key(&self, position: usize) -> String {
        let name = &self.kept.plan.name;
        match self.attempts.get(&position) {
            None | Some(..=1) => format!("{name}/{position}"),
            Some(attempt) => format!("{name}/{position}/{attempt}"),
        }
    }

    fn order(&self, position: usize) -> Order {
        let planned = &self.kept.plan.moves[position];
        Order {
            key: self.key(position),
            namespace: planned.namespace.clone(),
            from: planned.from.clone(),
            to: planned.to.clone(),
            reason: format!("plan {}: {}", self.name(), planned.reason),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.kept.plan.name
    }
}

impl Leader {
    /// Takes the next step of the plan that is being carried out, if one is.
    pub(crate) async fn drive_plan(&self) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        if running.is_none() && !self.looked_for_plan() {
            if let Some(name) = self.tools.store.applying().await? {
                *running = Running::load(&self.tools.store, &name).await?;
            }
            self.note_looked_for_plan();
        }
        let Some(run) = running.as_mut() else { return Ok(()) };
        let other = self.tools.mover.clone();
        let mover: &dyn Mover = other.as_deref().unwrap_or(self);
        self.look_at_moves(run, mover).await?;
        let sight = self.sight(run, mover);
        let settings = &self.tools.plans;
        let plan = &run.kept.plan;
        let next = execute::next(
            plan,
            &run.stages,
            &sight,
            &settings.limits(),
            settings.failures_max,
            &|namespace| run.tenants.get(namespace).map(String::as_str),
        );
        match next {
            Next::Wait => Ok(()),
            Next::Begin(positions) => self.begin_moves(run, positions, mover).await,
            Next::Done => {
                self.end_plan(run.name(), PlanState::Done, "").await?;
                *running = None;
                Ok(())
            }
            Next::Stop(why) => {
                tracing::warn!(plan = run.name(), why, "a plan stopped before its end");
                self.end_plan(run.name(), PlanState::Stopped, &why).await?;
                *running = None;
                Ok(())
            }
        }
    }

    /// No longer carries a plan out.
    pub(crate) async fn forget_running(&self, plan: &str) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_some_and(|run| run.name() == plan) {
            *running = None;
        }
    }

    async fn end_plan(&self, name: &str, state: PlanState, why: &str) -> Result<(), Error> {
        let now_us = self.tools.clock.unix_micros();
        let store = &self.tools.store;
        store.set_plan_state(self.term, name, &[PlanState::Applying], state, why, now_us).await?;
        Ok(())
    }

    /// Notes what became of the moves under way.
    async fn look_at_moves(&self, run: &mut Running, mover: &dyn Mover) -> Result<(), Error> {
        let mut changed = Vec::new();
        for (position, stage) in run.stages.iter().enumerate() {
            if *stage != Stage::Running {
                continue;
            }
            let planned = &run.kept.plan.moves[position];
            if planned.from.is_none() {
                // Placed in one transaction: either it is there, or it has to be done.
                changed.push((position, self.place_planned(run, position).await?));
                continue;
            }
            match mover.look(&run.key(position)).await {
                Look::Running => {}
                Look::Done => changed.push((position, Stage::Done)),
                Look::Failed(why) => changed.push((position, Stage::Failed(why))),
                Look::Unknown => {
                    if let Err(why) = mover.begin(run.order(position)).await {
                        changed.push((position, Stage::Failed(why)));
                    }
                }
            }
        }
        self.note(run, changed).await
    }

    async fn begin_moves(
        &self,
        run: &mut Running,
        positions: Vec<usize>,
        mover: &dyn Mover,
    ) -> Result<(), Error> {
        let running = positions.iter().map(|position| (*position, Stage::Running)).collect();
        self.note(run, running).await?;
        let mut changed = Vec::new();
        for position in positions {
            let planned = &run.kept.plan.moves[position];
            if planned.from.is_none() {
                changed.push((position, self.place_planned(run, position).await?));
            } else if let Some(why) = self.speaks_against(run, position) {
                changed.push((position, Stage::Skipped(why)));
            } else if let Err(why) = mover.begin(run.order(position)).await {
                changed.push((position, Stage::Failed(why)));
            }
        }
        self.note(run, changed).await
    }

    async fn note(&self, run: &mut Running, changed: Vec<(usize, Stage)>) -> Result<(), Error> {
        if changed.is_empty() {
            return Ok(());
        }
        let now_us = self.tools.clock.unix_micros();
        let name = run.name().to_owned();
        let rows = changed.into_iter().map(|(position, stage)| {
            let before = run.attempts.get(&position).copied().unwrap_or(0);
            let begins = stage == Stage::Running;
            (position, stage, before.max(0) + i64::from(begins))
        });
        let rows: Vec<_> = rows.collect();
        self.tools.store.set_stages(self.term, &name, &rows, now_us).await?;
        for (position, stage, attempt) in rows {
            run.stages[position] = stage;
            run.attempts.insert(position, attempt);
        }
        Ok(())
    }

    /// Why a move is not begun now, though it was planned.
    fn speaks_against(&self, run: &Running, position: usize) -> Option<String> {
        let planned = &run.kept.plan.moves[position];
        let mut fleet = self.fleet();
        let Some(member) = fleet.member(planned.namespace.as_str()) else {
            return Some("it is no longer registered".into());
        };
        let owner = member.record.entry.shard();
        if owner != planned.from.as_ref().map(ShardName::as_str) {
            return Some(format!("it is on {} by now", owner.unwrap_or("no shard")));
        }
        let (needs, reserved) = (member.record.needs.clone(), member.reserved());
        let refusals = fleet.objections(&needs, reserved, &planned.to);
        let first = refusals.into_iter().next()?;
        Some(format!("{} does not take it: {}: {}", planned.to, first.code, first.message))
    }

    /// Gives a namespace that has no shard the one that was planned for it.
    async fn place_planned(&self, run: &Running, position: usize) -> Result<Stage, Error> {
        let planned = &run.kept.plan.moves[position];
        let mut turn = self.turn().await?;
        let member = self.fleet().member(planned.namespace.as_str()).map(|m| m.record.clone());
        let Some(known) = member else {
            return Ok(Stage::Skipped("it is no longer registered".into()));
        };
        match known.entry.shard() {
            Some(owner) if owner == planned.to.as_str() => return Ok(Stage::Done),
            Some(owner) => return Ok(Stage::Skipped(format!("it is on {owner} by now"))),
            None if known.entry.state() != Assigned::Unplaced => {
                return Ok(Stage::Skipped("it was released".into()));
            }
            None => {}
        }
        if let Some(why) = self.speaks_against(run, position) {
            return Ok(Stage::Skipped(why));
        }
        let stamp = turn.stamp();
        let mut assignment = known.entry.assignment();
        let why = format!("placed by plan {}", run.name());
        stamp.give(&mut assignment, Some(planned.to.clone()), why);
        let record = Record { entry: (&assignment).into(), ..known };
        turn.commit(Batch { records: vec![record], ..Batch::default() }).await?;
        Ok(Stage::Done)
    }

    /// What there is to see beside the moves themselves.
    fn sight(&self, run: &Running, mover: &dyn Mover) -> Sight {
        let fleet = self.fleet();
        let mut trouble = HashMap::new();
        let open = run.kept.plan.moves.iter().zip(&run.stages).filter(|(_, s)| !s.is_over());
        let shards = open.flat_map(|(planned, _)| planned.from.iter().chain([&planned.to]));
        for shard in shards {
            if trouble.contains_key(shard) {
                continue;
            }
            match fleet.shard(shard.as_str()) {
                None => drop(trouble.insert(shard.clone(), "it is gone".to_owned())),
                Some(known) => {
                    // A cordon keeps namespaces away on purpose; it does not mean trouble.
                    let down = ["SHARD_UNHEALTHY", "SHARD_HEALTH_UNKNOWN", "NOT_REGISTERED"];
                    let closures = fleet.closures(known);
                    if let Some(why) = closures.iter().find(|why| down.contains(&&*why.code)) {
                        trouble.insert(shard.clone(), format!("{}: {}", why.code, why.message));
                    }
                }
            }
        }
        let own: Vec<_> = run
            .kept
            .plan
            .moves
            .iter()
            .zip(&run.stages)
            .filter(|(_, stage)| **stage == Stage::Running)
            .filter_map(|(planned, _)| Some((planned.from.clone()?, planned.to.clone())))
            .collect();
        // Those of this plan are counted by it already.
        let mut others = mover.under_way();
        for pair in own {
            if let Some(at) = others.iter().position(|other| *other == pair) {
                others.swap_remove(at);
            }
        }
        Sight { trouble, frozen: self.frozen().map(|freeze| freeze.reason), others }
    }
}
