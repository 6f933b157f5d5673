//! Plans, how far they are, and whether rebalancing is frozen.
//!
//! Invariants: a plan's text never changes; its state goes the way of [`State`]; at most one is
//! being carried out. All of it is written by the leader, in its term.

use std::collections::HashMap;

use airfleet_domain::{
    ids::Term,
    placement::{execute::Stage, plan::Plan},
};
use airfleet_sql::{Row, Tx, params, write_tx};

use super::{Result, Store};

/// Plans that are kept; the oldest that nobody carries out are forgotten first.
pub(crate) const PLANS_MAX: u32 = 100;

/// How far a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It can be applied.
    Ready,
    /// It is being carried out.
    Applying,
    /// It stopped before its end, and may be applied again.
    Stopped,
    /// It was carried out.
    Done,
    /// It was cancelled.
    Cancelled,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Applying => "applying",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(row: &Row<'_>, column: usize) -> airfleet_sql::Result<Self> {
        let all = [Self::Ready, Self::Applying, Self::Stopped, Self::Done, Self::Cancelled];
        let text = row.text(column)?;
        let found = all.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| row.corrupt(column, format_args!("{text:?} is no state of a plan")))
    }
}

/// A plan as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The plan; without its moves in a list.
    pub(crate) plan: Plan,
    /// How many moves it has.
    pub(crate) moves: usize,
    /// How far it is.
    pub(crate) state: State,
    /// Why it stopped or was cancelled.
    pub(crate) state_reason: String,
    /// Who made it.
    pub(crate) actor: String,
    /// When. Microseconds since 1970-01-01 UTC.
    pub(crate) created_at_us: i64,
}

/// Why rebalancing is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freeze {
    /// Who froze it.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: String,
    /// Since when. Microseconds since 1970-01-01 UTC.
    pub(crate) time_us: i64,
}

fn kept(row: &Row<'_>) -> airfleet_sql::Result<Kept> {
    Ok(Kept {
        plan: row.json(0)?,
        moves: usize::try_from(row.get::<i64>(1)?).unwrap_or(0),
        state: State::parse(row, 2)?,
        state_reason: row.get(3)?,
        actor: row.get(4)?,
        created_at_us: row.get(5)?,
    })
}

fn json(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("plans have string keys and no floats")
}

fn stage(name: &str, detail: String) -> Option<Stage> {
    Some(match name {
        "waiting" => Stage::Waiting,
        "running" => Stage::Running,
        "done" => Stage::Done,
        "failed" => Stage::Failed(detail),
        "skipped" => Stage::Skipped(detail),
        _ => return None,
    })
}

fn stage_values(stage: &Stage) -> (&'static str, &str) {
    match stage {
        Stage::Waiting => ("waiting", ""),
        Stage::Running => ("running", ""),
        Stage::Done => ("done", ""),
        Stage::Failed(why) => ("failed", why),
        Stage::Skipped(why) => ("skipped", why),
    }
}

impl Store {
    /// Keeps a new plan. Answers false where there is one of that name.
    pub(crate) async fn add_plan(
        &self,
        term: Term,
        plan: &Plan,
        actor: &str,
        now_us: i64,
    ) -> Result<bool> {
        let (text, moves) = (json(plan), plan.moves.len() as i64);
        let summary = json(&Plan { moves: Vec::new(), ..plan.clone() });
        write_tx!(self.db, |tx| -> Result<bool> {
            self.lease.check_term(tx, term.0).await?;
            let added = tx
                .execute(
                    "INSERT INTO router_plans (name, hash, state, state_reason, created_by, \
                     created_at, updated_at, plan, summary, moves)
                     VALUES ($1, $2, 'ready', '', $3, $4, $4, $5, $6, $7)
                     ON CONFLICT (name) DO NOTHING",
                    params![&plan.name, &plan.hash, actor, now_us, &text, &summary, moves],
                )
                .await?;
            forget(tx).await?;
            Ok(added == 1)
        })
    }

    /// A plan, and how far each of its moves is.
    pub(crate) async fn plan(&self, name: &str) -> Result<Option<(Kept, Vec<Stage>)>> {
        let mut tx = self.db.read().await?;
        let found = tx
            .fetch_optional(
                "SELECT plan, moves, state, state_reason, created_by, created_at
                 FROM router_plans WHERE name = $1",
                params![name],
                kept,
            )
            .await?;
        let Some(found) = found else { return Ok(None) };
        let rows = tx
            .fetch_all(
                "SELECT position, stage, detail FROM router_plan_moves WHERE plan = $1",
                params![name],
                |row| {
                    let stage = stage(row.text(1)?, row.get(2)?);
                    let stage = stage.ok_or_else(|| row.corrupt(1, "no stage of a move"))?;
                    Ok((row.get::<i64>(0)?, stage))
                },
            )
            .await?;
        let mut stages = vec![Stage::Waiting; found.plan.moves.len()];
        for (position, stage) in rows {
            if let Some(own) = usize::try_from(position).ok().and_then(|at| stages.get_mut(at)) {
                *own = stage;
            }
        }
        Ok(Some((found, stages)))
    }

    /// The latest plans without their moves, the newest first.
    pub(crate) async fn plans(&self, limit: u32) -> Result<Vec<Kept>> {
        let mut tx = self.db.read().await?;
        let plans = tx
            .fetch_all(
                "SELECT summary, moves, state, state_reason, created_by, created_at
                 FROM router_plans ORDER BY created_at DESC, name LIMIT $1",
                params![limit],
                kept,
            )
            .await?;
        Ok(plans)
    }

    /// The name of the plan that is being carried out.
    pub(crate) async fn applying(&self) -> Result<Option<String>> {
        let mut tx = self.db.read().await?;
        let name = tx
            .fetch_optional(
                "SELECT name FROM router_plans WHERE state = 'applying' ORDER BY name LIMIT 1",
                params![],
                |row| row.get(0),
            )
            .await?;
        Ok(name)
    }

    /// Takes a plan from one of some states to another. Answers false where it is in none of them,
    /// or another one is being carried out already.
    pub(crate) async fn set_plan_state(
        &self,
        term: Term,
        name: &str,
        from: &[State],
        to: State,
        reason: &str,
        now_us: i64,
    ) -> Result<bool> {
        write_tx!(self.db, |tx| -> Result<bool> {
            self.lease.check_term(tx, term.0).await?;
            let state = tx
                .fetch_optional(
                    "SELECT state FROM router_plans WHERE name = $1",
                    params![name],
                    |row| State::parse(row, 0),
                )
                .await?;
            if !state.is_some_and(|state| from.contains(&state)) {
                return Ok(false);
            }
            let changed = tx
                .execute(
                    "UPDATE router_plans SET state = $1, state_reason = $2, updated_at = $3
                     WHERE name = $4 AND ($1 <> 'applying' OR NOT EXISTS (
                         SELECT 1 FROM router_plans WHERE state = 'applying' AND name <> $4))",
                    params![to.name(), reason, now_us, name],
                )
                .await?;
            if changed == 1 && to == State::Applying {
                // What failed or was skipped is tried again; how often it was begun stays known.
                tx.execute(
                    "UPDATE router_plan_moves SET stage = 'waiting', detail = ''
                     WHERE plan = $1 AND stage IN ('failed', 'skipped')",
                    params![name],
                )
                .await?;
            }
            Ok(changed == 1)
        })
    }

    /// How often moves of a plan were begun, by position; those that never were are not in it.
    pub(crate) async fn plan_attempts(&self, name: &str) -> Result<HashMap<usize, i64>> {
        let mut tx = self.db.read().await?;
        let rows = tx
            .fetch_all(
                "SELECT position, attempt FROM router_plan_moves WHERE plan = $1",
                params![name],
                |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)),
            )
            .await?;
        let all = rows.into_iter();
        Ok(all.filter_map(|(at, attempt)| Some((usize::try_from(at).ok()?, attempt))).collect())
    }

    /// Notes how far moves of a plan are, each with how often it was begun.
    pub(crate) async fn set_stages(
        &self,
        term: Term,
        plan: &str,
        stages: &[(usize, Stage, i64)],
        now_us: i64,
    ) -> Result<()> {
        let rows: Vec<_> = stages
            .iter()
            .map(|(position, stage, attempt)| {
                let (name, detail) = stage_values(stage);
                params![plan, *position as i64, name, detail, now_us, *attempt]
            })
            .collect();
        write_tx!(self.db, |tx| -> Result<()> {
            self.lease.check_term(tx, term.0).await?;
            tx.insert_many(
                "INSERT INTO router_plan_moves (plan, position, stage, detail, updated_at, attempt)",
                "ON CONFLICT (plan, position) DO UPDATE SET
                     stage = excluded.stage, detail = excluded.detail,
                     updated_at = excluded.updated_at, attempt = excluded.attempt",
                rows.clone(),
            )
            .await?;
            Ok(())
        })
    }

    /// Why rebalancing is frozen, where it is.
    pub(crate) async fn freeze(&self) -> Result<Option<Freeze>> {
        let mut tx = self.db.read().await?;
        let freeze = tx
            .fetch_optional(
                "SELECT actor, reason, frozen_at FROM router_freeze WHERE id = 1",
                params![],
                |row| Ok(Freeze { actor: row.get(0)?, reason: row.get(1)?, time_us: row.get(2)? }),
            )
            .await?;
        Ok(freeze)
    }

    /// Freezes rebalancing, or lifts that.
    pub(crate) async fn set_freeze(&self, term: Term, freeze: Option<&Freeze>) -> Result<()> {
        write_tx!(self.db, |tx| -> Result<()> {
            self.lease.check_term(tx, term.0).await?;
            match freeze {
                None => tx.execute("DELETE FROM router_freeze WHERE id = 1", params![]).await?,
                Some(Freeze { actor, reason, time_us }) => {
                    tx.execute(
                        "INSERT INTO router_freeze (id, actor, reason, frozen_at)
                         VALUES (1, $1, $2, $3)
                         ON CONFLICT (id) DO UPDATE SET
                             actor = excluded.actor, reason = excluded.reason,
                             frozen_at = excluded.frozen_at",
                        params![actor, reason, *time_us],
                    )
                    .await?
                }
            };
            Ok(())
        })
    }
}

/// Forgets the oldest plans beyond those that are kept.
async fn forget(tx: &mut Tx) -> Result<()> {
    let old = tx
        .fetch_all(
            "SELECT name FROM router_plans WHERE state <> 'applying'
             ORDER BY created_at DESC, name LIMIT 1000 OFFSET $1",
            params![PLANS_MAX],
            |row| row.get::<String>(0),
        )
        .await?;
    for name in old {
        tx.execute("DELETE FROM router_plan_moves WHERE plan = $1", params![&name]).await?;
        tx.execute("DELETE FROM router_plans WHERE name = $1", params![&name]).await?;
    }
    Ok(())
}
