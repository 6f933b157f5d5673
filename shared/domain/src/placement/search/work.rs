//! The fleet while it is being improved.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    super::{
        amount::FULL,
        board::fits,
        objective::{Change, Score, Scorer},
        problem::Problem,
        resilience::Resilience,
        shape::Shape,
        state::{NONE, State},
    },
    Mode, Scope, Settings, Stop,
};

/// No ceiling.
pub(super) const ENDLESS: i128 = i128::MAX / 4;

pub(super) struct Work<'a> {
    pub(super) problem: &'a Problem,
    pub(super) settings: &'a Settings,
    pub(super) shape: &'a Shape,
    pub(super) state: State,
    /// Where each namespace is now.
    pub(super) shard: Vec<u32>,
    /// The namespaces on each shard that may be moved, in any order, and where each stands.
    pub(super) members: Vec<Vec<u32>>,
    at: Vec<u32>,
    /// What each shard may carry, by dimension.
    pub(super) ceiling: Vec<i128>,
    pub(super) target: i64,
    /// What all moves cost so far, and how many there are.
    spent: i64,
    count: usize,
    /// Namespaces that were moved at any time, each once.
    pub(super) moved: Vec<u32>,
    was_moved: Vec<bool>,
    /// Some move was not made because of what it costs.
    out_of_budget: AtomicBool,
    pub(super) threads: usize,
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
    pub(super) steps_done: u64,
    /// Changes with every move, by shard.
    pub(super) stamp: Vec<u32>,
    /// The largest demand of any namespace, by dimension.
    largest: Vec<i64>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        settings: &'a Settings,
        target: i64,
        threads: usize,
        stop: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        let shape = &problem.board.shape;
        let mut state = problem.board.state.clone();
        if problem.board.policy.resilience {
            state.watch_resilience(shape);
        }
        let mut counts = vec![0; shape.slots()];
        for shard in problem.shard.iter().filter(|shard| **shard != NONE) {
            counts[*shard as usize] += 1;
        }
        let mut members: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
        let mut at = vec![0; problem.len()];
        for (namespace, shard) in problem.shard.iter().enumerate() {
            if *shard != NONE && problem.may_move(namespace as u32) {
                at[namespace] = members[*shard as usize].len() as u32;
                members[*shard as usize].push(namespace as u32);
            }
        }
        let mut largest = vec![0; problem.width];
        for demand in problem.demand.chunks_exact(problem.width.max(1)) {
            largest.iter_mut().zip(demand).for_each(|(most, own)| *most = (*own).max(*most));
        }
        let mut work = Self {
            problem,
            settings,
            shape,
            state,
            shard: problem.shard.clone(),
            members,
            at,
            ceiling: Vec::new(),
            target,
            spent: 0,
            count: 0,
            moved: Vec::new(),
            was_moved: vec![false; problem.len()],
            out_of_budget: AtomicBool::new(false),
            threads,
            stop,
            steps_done: 0,
            stamp: vec![0; shape.slots()],
            largest,
        };
        work.set_ceiling(match settings.mode {
            Mode::Emergency => problem.board.policy.soft(),
            Mode::Periodic => target,
        });
        work
    }

    /// Sets what each shard may carry: `limit` millionths of its capacity, and never more than it
    /// can take.
    pub(super) fn set_ceiling(&mut self, limit: i64) {
        let limit = i128::from(limit.clamp(0, FULL));
        let shape = self.shape;
        self.ceiling = (0..shape.slots() as u32)
            .flat_map(|shard| shape.capacity_of(shard))
            .map(|own| {
                // The most that is told as no more than the limit.
                let own = i128::from(*own);
                let most = ((limit + 1) * own - 1) / i128::from(FULL);
                if own == 0 { ENDLESS } else { most.min(own) }
            })
            .collect();
    }

    pub(super) fn ceiling_of(&self, shard: u32) -> &[i128] {
        &self.ceiling[shard as usize * self.problem.width..][..self.problem.width]
    }

    pub(super) fn scorer(&self) -> Scorer<'_> {
        Scorer {
            shape: self.shape,
            state: &self.state,
            soft_limit: self.problem.board.policy.soft(),
            target: self.target,
        }
    }

    pub(super) fn score(&self) -> Score {
        self.problem.score(&self.scorer(), &self.shard)
    }

    pub(super) fn peak(&self) -> i64 {
        super::peak_of(self.problem, |shard| self.state.load_of(shard))
    }

    /// By how much a shard is above its ceiling, in millionths, in its worst dimension.
    pub(super) fn excess(&self, shard: u32) -> i64 {
        let ratios = self.shape.ratio_of(shard).iter().zip(self.state.load_of(shard));
        let over = ratios.zip(self.ceiling_of(shard)).map(|((ratio, load), ceiling)| {
            if load > ceiling { (ratio.millionths(load - ceiling)).max(1) } else { 0 }
        });
        over.max().unwrap_or(0)
    }

    /// Hot shards that are there, hottest first.
    pub(super) fn hot(&self) -> Vec<u32> {
        let excess = self.shape.all().filter(|(_, shard)| !shard.lost);
        let mut hot: Vec<(i64, u32)> =
            excess.map(|(shard, _)| (-self.excess(shard), shard)).filter(|(e, _)| *e < 0).collect();
        hot.sort_unstable();
        hot.into_iter().map(|(_, shard)| shard).collect()
    }

    /// Whether a shard is open, admits the namespace and stays below its ceiling with it.
    pub(super) fn is_cool_with(&self, namespace: u32, shard: u32) -> bool {
        let demand = self.problem.demand_of(namespace);
        let load = self.state.load_of(shard);
        let ceiling = self.ceiling_of(shard);
        let cool = demand
            .iter()
            .enumerate()
            .all(|(d, own)| *own == 0 || load[d] + i128::from(*own) <= ceiling[d]);
        cool && self.takes(namespace, shard)
    }

    /// Whether a shard is open, admits the namespace and has room for it.
    pub(super) fn takes(&self, namespace: u32, shard: u32) -> bool {
        let item = self.problem.item(namespace);
        self.shape.open().has(shard)
            && self.shape.admitted(item.rule).has(shard)
            && self.is_in_scope(shard)
            && fits(self.shape, &self.state, &self.problem.board.policy, item, shard)
    }

    fn is_in_scope(&self, shard: u32) -> bool {
        match &self.settings.scope {
            Scope::All | Scope::Drain => true,
            Scope::Fill(shards) => shards.contains(&shard),
        }
    }

    /// Whether one more move of this namespace is within the budget.
    pub(super) fn affords(&self, namespace: u32) -> bool {
        let Settings { cost_max, moves_max, .. } = self.settings;
        let origin = self.problem.shard[namespace as usize];
        if origin == NONE || self.shard[namespace as usize] != origin {
            return true;
        }
        let cost = self.problem.cost[namespace as usize];
        let affords = (*cost_max == 0 || self.spent.saturating_add(cost) <= *cost_max)
            && (*moves_max == 0 || self.count < *moves_max);
        if !affords {
            self.out_of_budget.store(true, Ordering::Relaxed);
        }
        affords
    }

    /// Moves a namespace, whatever that does; `NONE` takes it off.
    pub(super) fn put(&mut self, namespace: u32, to: u32) {
        let at = namespace as usize;
        let from = std::mem::replace(&mut self.shard[at], to);
        if from == to {
            return;
        }
        let (problem, shape) = (self.problem, self.shape);
        let item = problem.item(namespace);
        if from != NONE {
            self.state.remove(shape, item, from);
            let members = &mut self.members[from as usize];
            members.swap_remove(self.at[at] as usize);
            if let Some(other) = members.get(self.at[at] as usize) {
                self.at[*other as usize] = self.at[at];
            }
            self.stamp[from as usize] += 1;
        }
        if to != NONE {
            self.state.add(shape, item, to);
            self.at[at] = self.members[to as usize].len() as u32;
            self.members[to as usize].push(namespace);
            self.stamp[to as usize] += 1;
        }
        let origin = problem.shard[at];
        if origin != NONE {
            let (was, is) = (from != origin, to != origin);
            let change = i64::from(is) - i64::from(was);
            self.spent = self.spent.saturating_add(problem.cost[at].saturating_mul(change));
            self.count = self.count.saturating_add_signed(change as isize);
        }
        if !self.was_moved[at] {
            self.was_moved[at] = true;
            self.moved.push(namespace);
        }
    }

    /// Makes several moves one after another and keeps them if that improves the score; answers
    /// whether it did. The exact check, for whatever the ceilings alone do not vouch for.
    pub(super) fn try_moves(&mut self, moves: &[(u32, u32)]) -> bool {
        let emergency = self.settings.mode == Mode::Emergency;
        let missing = self.missing();
        let mut change = Score::default();
        let mut back = Vec::with_capacity(moves.len());
        for (namespace, to) in moves {
            let from = self.shard[*namespace as usize];
            if !self.affords(*namespace) || !self.is_in_scope(*to) {
                change = Score([1; 8]);
                break;
            }
            back.push((*namespace, from));
            if from == NONE {
                change.0[0] -= i128::from(FULL);
            } else {
                change = change.plus(self.scorer().leaving(self.problem.item(*namespace), from));
            }
            self.put(*namespace, NONE);
            let coming: Score = self.scorer().coming(self.problem.item(*namespace), *to).into();
            change = change.plus(coming);
            self.put(*namespace, *to);
        }
        change.0[4] = self.missing() - missing;
        let refused =
            |(namespace, to): &(u32, u32)| self.is_crowded(*to) || self.is_bunched(*namespace, *to);
        let better = if moves.iter().any(refused) || self.overfills(&back) {
            false
        } else if emergency {
            change.0[..2].iter().find(|c| **c != 0).is_some_and(|c| *c < 0)
        } else {
            change.improves()
        };
        if !better {
            for (namespace, from) in back.into_iter().rev() {
                self.put(namespace, from);
            }
        }
        better
    }

    /// Whether moves that were made, each with where it came from, bring a shard beyond what it can
    /// take, or further beyond.
    fn overfills(&self, made: &[(u32, u32)]) -> bool {
        made.iter().any(|(namespace, _)| {
            let to = self.shard[*namespace as usize];
            let (load, capacity) = (self.state.load_of(to), self.shape.capacity_of(to));
            (0..capacity.len()).any(|d| {
                if capacity[d] == 0 || load[d] <= i128::from(capacity[d]) {
                    return false;
                }
                let came: i128 = made
                    .iter()
                    .map(|(other, from)| {
                        let demand = i128::from(self.problem.demand_of(*other)[d]);
                        let comes = i128::from(self.shard[*other as usize] == to);
                        demand * (comes - i128::from(*from == to))
                    })
                    .sum();
                came > 0
            })
        })
    }

    /// Whether a shard has more namespaces than it may.
    fn is_crowded(&self, shard: u32) -> bool {
        self.state.count_of(shard) > self.shape.namespaces_max(shard)
    }

    /// Whether a namespace's failure domain has more of its spread group than it may.
    pub(super) fn is_bunched(&self, namespace: u32, shard: u32) -> bool {
        let most = self.problem.board.policy.group_max_per_domain;
        let group = self.problem.group[namespace as usize];
        let domain = self.shape.domain_of(shard);
        most > 0 && group != NONE && self.state.group_members(group, domain) > most
    }

    /// Level 4 as it is.
    pub(super) fn missing(&self) -> i128 {
        self.state.resilience().map_or(0, Resilience::level)
    }

    /// Whether level 4 cannot change, whatever goes wherever.
    pub(super) fn is_ample(&self) -> bool {
        self.state.resilience().is_none_or(|resilience| resilience.is_ample(&self.largest))
    }

    /// Whether staying below the ceilings says all that there is to say of moving a namespace.
    pub(super) fn is_plain(&self, namespace: u32) -> bool {
        let item = self.problem.item(namespace);
        item.group == NONE && item.affinity == NONE
    }

    /// The best of all shards that take a namespace, by the whole objective; only those below their
    /// ceilings where `cool`.
    pub(super) fn best(&self, namespace: u32, cool: bool) -> Option<u32> {
        let item = self.problem.item(namespace);
        let scorer = self.scorer();
        let emergency = self.settings.mode == Mode::Emergency;
        let mut best: Option<(Change, u32, u32)> = None;
        for shard in self.shape.candidates(item.rule) {
            let will_do = if cool {
                self.is_cool_with(namespace, shard)
            } else {
                self.takes(namespace, shard)
            };
            if !will_do || shard == self.shard[namespace as usize] {
                continue;
            }
            let mut change = scorer.coming(item, shard);
            if emergency {
                // Below level 1 only so far as it costs nothing to look at.
                change.imbalance = 0;
            }
            let key = (change, self.state.count_of(shard), shard);
            if best.as_ref().is_none_or(|least| key < *least) {
                best = Some(key);
            }
        }
        best.map(|(_, _, shard)| shard)
    }

    /// One after the other, all steps.
    pub(super) fn run(&mut self) -> Stop {
        self.place_forced();
        let scope_all = self.settings.scope != Scope::Drain;
        if !scope_all {
            self.undo();
            return self.stop_reason();
        }
        self.deal_out();
        self.cool_down();
        if self.settings.mode == Mode::Periodic && self.settings.scope == Scope::All {
            self.lower_peak();
            self.gather();
        }
        self.undo();
        self.stop_reason()
    }

    fn stop_reason(&self) -> Stop {
        let broken = || {
            let mut all = self.shard.iter().enumerate();
            all.any(|(at, shard)| {
                *shard == NONE
                    || !self.shape.admitted(self.problem.rule[at]).has(*shard)
                    || self.shape.is_draining(*shard)
            })
        };
        let cool = self.settings.scope == Scope::Drain || self.hot().is_empty();
        if cool && !broken() {
            Stop::Reached
        } else if (self.stop)() {
            Stop::Time
        } else if self.steps_done >= self.settings.steps_max {
            Stop::Steps
        } else if self.out_of_budget.load(Ordering::Relaxed) {
            Stop::Cost
        } else {
            Stop::Plateau
        }
    }

    /// Whether what was gained is worth what it cost. What is better above level 5 always is.
    pub(super) fn is_worth(&self, before: &Score, after: &Score) -> bool {
        if self.settings.gain_min == 0 || before.0[..5] != after.0[..5] {
            return true;
        }
        let excess = |loads: &State| -> i128 {
            let shards = self.shape.all().filter(|(_, shard)| !shard.lost);
            shards
                .flat_map(|(shard, _)| self.shape.ratio_of(shard).iter().zip(loads.load_of(shard)))
                .map(|(ratio, load)| i128::from((ratio.millionths(*load) - self.target).max(0)))
                .sum()
        };
        let gain = excess(&self.problem.board.state) - excess(&self.state);
        gain * 100 >= i128::from(self.settings.gain_min) * i128::from(self.spent)
    }
}
