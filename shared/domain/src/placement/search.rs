//! Rebalancing: the moves that are worth it.
//!
//! Local search from where everything is, since what stays costs nothing. The lower bound on the
//! peak ([`Bounds`]) gives a *target*; a shard above it is hot, and each shard's *ceiling* is what
//! it may carry without being hot. Then, the cheapest way first:
//!
//! 1. what must go (no shard, a forbidden one, a draining or overfull one) is placed;
//! 2. every hot shard gives up the fewest namespaces that bring it below its ceiling, the largest
//!    useful first, and all that was given up is dealt out, the most bound and the largest first,
//!    to where the squares of the loads grow least; what finds no place goes back;
//! 3. shards that are still hot are looked at one by one, hottest first: single moves, whole
//!    affinity groups, swaps, and chains of two moves that make room;
//! 4. where even that does not reach the target, the same with ceilings between the target and the
//!    peak, as long as the sum of squares above the target falls;
//! 5. scattered affinity groups are gathered where that costs nothing on a higher level;
//! 6. every move whose undoing makes nothing worse is undone.
//!
//! Each step takes only what improves the objective and worsens no higher level; the result is
//! compared with the start once more as a whole, and dropped if it is not better.
//!
//! Step 2 works on shards independently and is shared out over threads; what each does depends on
//! nothing that another does, so that the answer is the same on any number of them.

mod deal;
mod finish;
mod tail;
mod work;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{
    bounds::{Bounds, peak_of},
    objective::{Score, Scorer, target},
    problem::{Hold, Problem},
    state::NONE,
};
use work::Work;

/// What a rebalancing is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Only what has no shard, sits on a forbidden one, or overloads its shard. May worsen
    /// everything below level 1.
    Emergency,
    /// Everything, if it is worth its cost.
    #[default]
    Periodic,
}

/// Which part of the fleet a rebalancing is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// All of it.
    #[default]
    All,
    /// Only what is on shards that are marked as draining.
    Drain,
    /// Only moves to these shards, by number.
    Fill(Vec<u32>),
}

/// How a rebalancing goes about it. Part of what makes its answer the same each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// What it is for.
    pub mode: Mode,
    /// Which part of the fleet it is about.
    pub scope: Scope,
    /// Decides between what is equally good.
    pub seed: u64,
    /// Most that all moves may cost together; zero is no limit.
    pub cost_max: i64,
    /// Most moves; zero is no limit.
    pub moves_max: usize,
    /// What a periodic rebalancing has to gain: millionths by which the excess over the target,
    /// summed over shards and dimensions, falls for each cost unit of 100. Zero takes any gain.
    pub gain_min: i64,
    /// Effort: how many hot shards may be looked at one by one.
    pub steps_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Periodic,
            scope: Scope::All,
            seed: 1,
            cost_max: 0,
            moves_max: 0,
            gain_min: 0,
            steps_max: 200_000,
        }
    }
}

/// Why a rebalancing stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stop {
    /// Nothing is left to improve.
    Reached,
    /// Nothing more was found that improves it.
    Plateau,
    /// The moves cost as much as they may.
    Cost,
    /// It was looked for as long as it may.
    Steps,
    /// The caller's time ran out.
    Time,
    /// What was found is not worth its cost.
    NotWorthIt,
}

/// One namespace changes shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Step {
    /// The namespace, by number.
    pub namespace: u32,
    /// Where it is; [`NONE`] where it has no shard.
    pub from: u32,
    /// Where it goes.
    pub to: u32,
}

/// What a rebalancing found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Moves, by namespace.
    pub steps: Vec<Step>,
    /// The score as it was.
    pub before: Score,
    /// The score after all moves.
    pub after: Score,
    /// The peak as it was. Millionths.
    pub peak_before: i64,
    /// The peak after all moves. Millionths.
    pub peak_after: i64,
    /// Lower bounds on the peak.
    pub bounds: Bounds,
    /// Above this a shard counts as hot. Millionths.
    pub target: i64,
    /// Why it stopped.
    pub stop: Stop,
    /// Hot shards that were looked at one by one.
    pub steps_done: u64,
}

impl Problem {
    /// Finds the moves that are worth it, on as many threads. `stop` is asked now and then whether
    /// the caller has no more time; only that makes an answer depend on more than what goes in.
    pub fn rebalance(
        &self,
        settings: &Settings,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Outcome {
        let bounds = Bounds::of(self);
        let policy = &self.board.policy;
        let target = target(bounds.peak(), policy);
        let mut work = Work::new(self, settings, target, threads.max(1), stop);
        let before = work.score();
        let peak_before = work.peak();
        let mut reason = work.run();
        let mut after = work.score();
        let worth = settings.mode == Mode::Emergency || work.is_worth(&before, &after);
        if !is_better(settings.mode, &before, &after) || !worth {
            if !work.moved.is_empty() {
                reason = if worth { Stop::Plateau } else { Stop::NotWorthIt };
            }
            work = Work::new(self, settings, target, threads.max(1), stop);
            after = before;
        }
        let mut steps: Vec<Step> = (0..self.len() as u32)
            .filter(|at| work.shard[*at as usize] != self.shard[*at as usize])
            .map(|at| Step {
                namespace: at,
                from: self.shard[at as usize],
                to: work.shard[at as usize],
            })
            .collect();
        steps.retain(|step| step.to != NONE);
        Outcome {
            steps,
            before,
            after,
            peak_before,
            peak_after: peak_of(self, |shard| work.state.load_of(shard)),
            bounds,
            target,
            stop: reason,
            steps_done: work.steps_done,
        }
    }

    /// The score of the fleet as it is.
    pub fn score_now(&self) -> Score {
        self.score_of(&self.shard)
    }

    /// The score after all namespaces are where `placement` says. Level 5 counts from the target
    /// that the fleet as it is has.
    pub fn score_of(&self, placement: &[u32]) -> Score {
        let target = target(Bounds::of(self).peak(), &self.board.policy);
        let mut state = self.board.state.clone();
        let shape = &self.board.shape;
        for at in 0..self.len() as u32 {
            let (was, now) = (self.shard[at as usize], placement[at as usize]);
            if was == now {
                continue;
            }
            if was != NONE {
                state.remove(shape, self.item(at), was);
            }
            if now != NONE {
                state.add(shape, self.item(at), now);
            }
        }
        if self.board.policy.resilience {
            state.watch_resilience(shape);
        }
        let soft_limit = self.board.policy.soft();
        self.score(&Scorer { shape, state: &state, soft_limit, target }, placement)
    }

    /// Whether a namespace may be moved at all.
    pub(super) fn may_move(&self, at: u32) -> bool {
        self.hold[at as usize] == Hold::None
    }
}

fn is_better(mode: Mode, before: &Score, after: &Score) -> bool {
    match mode {
        Mode::Emergency => after.0[..2] < before.0[..2],
        Mode::Periodic => after.0[..7] < before.0[..7],
    }
}
