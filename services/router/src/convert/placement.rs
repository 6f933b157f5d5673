//! Plans, explanations and headroom on the wire.

use airfleet_domain::{
    placement::{
        execute::Stage,
        explain::{self, Answer, Explanation, Verdict},
        headroom::{Loss, Room},
        objective::{LEVEL_NAMES, LEVELS, Score, level_text},
        plan::{Plan, PlannedMove, Unsolved},
        search::Stop,
    },
    resources::{DIMENSIONS, Resources},
};
use airfleet_proto::placement::v1 as wire;

use super::timestamp;
use crate::{
    service::{Growing, Rebalancing},
    store::{Kept, PlanState},
};

/// Levels of which either has something, the cost of moves included where `all`.
fn levels(before: &Score, after: &Score, all: bool) -> Vec<wire::Level> {
    let shown = if all { LEVELS } else { LEVELS - 1 };
    (0..shown)
        .filter(|level| before.0[*level] != 0 || after.0[*level] != 0)
        .map(|level| {
            let (was, is) = (before.0[level], after.0[level]);
            wire::Level {
                name: LEVEL_NAMES[level].to_owned(),
                before: level_text(level, was),
                after: level_text(level, is),
                change: is.cmp(&was) as i32,
            }
        })
        .collect()
}

fn stop(stop: Stop) -> &'static str {
    match stop {
        Stop::Reached => "REACHED",
        Stop::Plateau => "PLATEAU",
        Stop::Cost => "COST",
        Stop::Steps | Stop::Time => "STEPS",
        Stop::NotWorthIt => "NOT_WORTH_IT",
    }
}

fn state(state: PlanState) -> wire::PlanState {
    match state {
        PlanState::Ready => wire::PlanState::Ready,
        PlanState::Applying => wire::PlanState::Applying,
        PlanState::Stopped => wire::PlanState::Stopped,
        PlanState::Done => wire::PlanState::Done,
        PlanState::Cancelled => wire::PlanState::Cancelled,
    }
}

fn planned((planned, stage): (PlannedMove, &Stage)) -> wire::PlannedMove {
    use wire::PlannedMoveState as State;
    let (state, detail) = match stage {
        Stage::Waiting => (State::Waiting, ""),
        Stage::Running => (State::Running, ""),
        Stage::Done => (State::Done, ""),
        Stage::Failed(why) => (State::Failed, why.as_str()),
        Stage::Skipped(why) => (State::Skipped, why.as_str()),
    };
    wire::PlannedMove {
        namespace: planned.namespace.into(),
        from: planned.from.map(Into::into).unwrap_or_default(),
        to: planned.to.into(),
        wave: i32::try_from(planned.wave).unwrap_or(i32::MAX),
        cost: planned.cost,
        reason: planned.reason,
        state: state.into(),
        detail: detail.to_owned(),
        demand: planned.demand,
    }
}

fn unsolved(unsolved: Unsolved) -> wire::Unsolved {
    wire::Unsolved { namespace: unsolved.namespace.into(), reason: unsolved.reason }
}

/// A plan, and how far its moves are; without its moves where there are no stages.
pub(crate) fn plan(kept: Kept, stages: &[Stage]) -> wire::Plan {
    let Kept { plan, moves, .. } = kept;
    let hypothetical = plan.is_hypothetical();
    let Plan { before, after, .. } = &plan;
    let count = |is: fn(&Stage) -> bool| stages.iter().filter(|stage| is(stage)).count() as i64;
    let lost_shards = match &plan.purpose {
        airfleet_domain::placement::plan::Purpose::WhatIfLose(shards) => {
            shards.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    wire::Plan {
        state: state(kept.state).into(),
        state_reason: kept.state_reason,
        purpose: plan.purpose.to_string(),
        hypothetical,
        revision: plan.revision,
        seed: plan.settings.seed,
        actor: kept.actor,
        create_time: Some(timestamp(kept.created_at_us)),
        levels: levels(&before.score, &after.score, true),
        peak_before: before.peak,
        peak_after: after.peak,
        peak_bound: plan.bounds.peak(),
        target: plan.target,
        stop: stop(plan.stop).to_owned(),
        move_count: moves as i64,
        wave_count: i64::from(plan.waves),
        cost: i64::try_from(after.score.0[7]).unwrap_or(i64::MAX),
        unsolved_count: plan.unsolved_count as i64,
        eta_ms: plan.eta_ms,
        done_count: count(|stage| *stage == Stage::Done),
        failed_count: count(|stage| matches!(stage, Stage::Failed(_))),
        lost_shards,
        name: plan.name,
        hash: plan.hash,
        moves: plan.moves.into_iter().zip(stages).map(planned).collect(),
        unsolved: plan.unsolved.into_iter().map(unsolved).collect(),
        dimensions: plan.dimensions,
    }
}

pub(crate) fn rebalancing(rebalancing: Rebalancing) -> wire::Rebalancing {
    let thrashed = i64::try_from(rebalancing.thrashed).unwrap_or(i64::MAX);
    match rebalancing.freeze {
        None => wire::Rebalancing { thrashed, ..wire::Rebalancing::default() },
        Some(freeze) => wire::Rebalancing {
            frozen: true,
            actor: freeze.actor,
            reason: freeze.reason,
            time: Some(timestamp(freeze.time_us)),
            thrashed,
        },
    }
}

pub(crate) fn explanation(told: Explanation, shards_max: usize) -> wire::Explanation {
    let text = told.text(shards_max);
    let eligible = told.eligible() as i64;
    let both = told.current.as_ref().zip(told.best.as_ref());
    let verdict = match told.verdict {
        Verdict::Unplaced => wire::PlacementVerdict::Unplaced,
        Verdict::Misplaced => wire::PlacementVerdict::Misplaced,
        Verdict::CouldMove => wire::PlacementVerdict::CouldMove,
        Verdict::WellPlaced => wire::PlacementVerdict::WellPlaced,
    };
    let (binding_code, binding_count) = told.binding.unwrap_or_default();
    wire::Explanation {
        verdict: verdict.into(),
        levels: both.map(|(own, best)| levels(&own.score, &best.score, false)).unwrap_or_default(),
        shard: told.current.map(|answer| answer.shard).unwrap_or_default(),
        best_shard: told.best.map(|answer| answer.shard).unwrap_or_default(),
        not_moved: told.not_moved,
        eligible,
        shard_count: told.shards.len() as i64,
        obstacles: told
            .histogram
            .into_iter()
            .map(|(code, shards)| wire::Obstacle {
                fix: explain::fix(&code).to_owned(),
                code,
                shards: shards as i64,
            })
            .collect(),
        binding_code,
        binding_count: binding_count as i64,
        counterfactuals: told
            .counterfactuals
            .into_iter()
            .map(|one| wire::Counterfactual { dropped: one.dropped, eligible: one.eligible as i64 })
            .collect(),
        shards: told.shards.into_iter().take(shards_max).map(shard_verdict).collect(),
        namespace: told.namespace,
        text,
    }
}

fn shard_verdict(answer: explain::ShardAnswer) -> wire::ShardVerdict {
    let verdict = match answer.answer {
        Answer::Yes => wire::ShardAnswer::Yes,
        Answer::Throttled => wire::ShardAnswer::Throttled,
        Answer::No => wire::ShardAnswer::No,
    };
    wire::ShardVerdict {
        shard: answer.shard,
        answer: verdict.into(),
        refusals: answer
            .refusals
            .into_iter()
            .map(|refusal| wire::ShardRefusal {
                code: refusal.code.into_owned(),
                message: refusal.message,
            })
            .collect(),
        peak: answer.peak,
        dimension: answer.dimension,
    }
}

pub(crate) fn capacity(growing: Growing) -> wire::Capacity {
    let certified = growing.headroom.is_certified();
    wire::Capacity {
        rooms: growing.headroom.rooms.into_iter().map(room).collect(),
        losses: growing.headroom.losses.into_iter().map(loss).collect(),
        certified,
        growth_days: growing.growth_days,
    }
}

fn room(room: Room) -> wire::Room {
    let amount =
        |value: Option<&i128>| value.map_or(0, |value| i64::try_from(*value).unwrap_or(i64::MAX));
    let resources =
        |of: &dyn Fn(usize) -> i64| Resources::from_values(std::array::from_fn(of)).into();
    let (fills_first, full_in_days) = match room.full_in {
        Some((dimension, days)) => (DIMENSIONS[dimension].to_owned(), days),
        None => (String::new(), 0),
    };
    wire::Room {
        asks: room.asks,
        shards: room.shards as i64,
        namespaces: room.namespaces as i64,
        capacity: Some(resources(&|d| amount(room.capacity[d].as_ref()))),
        load: Some(resources(&|d| amount(room.load.get(d)))),
        typical: Some(resources(&|d| room.typical[d])),
        fits: i64::try_from(room.fits).unwrap_or(i64::MAX),
        fills_first,
        full_in_days,
    }
}

fn loss(loss: Loss) -> wire::DomainLoss {
    wire::DomainLoss {
        failure_domain: loss.domain,
        shards: loss.shards as i64,
        namespaces: loss.namespaces as i64,
        misfits: loss.misfits as i64,
        examples: loss
            .examples
            .into_iter()
            .map(|(namespace, reason)| wire::Unsolved { namespace, reason })
            .collect(),
    }
}
