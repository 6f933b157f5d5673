//! Steps 1 and 2: what must go, and what hot shards give up, is dealt out.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    super::{amount::Ratio, random::Random, state::NONE},
    Mode, Scope,
    work::{ENDLESS, Work},
};

/// Rounds of giving up and dealing out.
const ROUNDS: usize = 8;

/// Shards that a namespace is offered to, of many that would do.
const OFFERS: usize = 16;

/// Up to so many namespaces that must go are compared on every shard by the whole objective; more
/// are dealt out first.
const COMPARED_MAX: usize = 4_096;

/// Namespaces for which no shard has room that are tried with moving others out of their way.
const CROWDED_OUT_MAX: usize = 256;

/// Others that are tried for one of them.
const MADE_ROOM_MAX: usize = 64;

/// Demands that found no place, remembered for each rule.
const REMEMBERED: usize = 8;

impl Work<'_> {
    /// Places what has no shard, sits on a forbidden one, or on one that is being drained. What one
    /// leaves may be what another waits for, so it is gone through until nothing more is placed.
    pub(super) fn place_forced(&mut self) {
        let mut forced = self.forced();
        if forced.len() > COMPARED_MAX {
            self.deal(std::mem::take(&mut forced));
            forced = self.forced();
        }
        for _ in 0..ROUNDS {
            self.sort_to_deal(&mut forced);
            let mut hopeless = Hopeless::default();
            let mut left = Vec::new();
            let mut crowded_out = 0;
            for namespace in &forced {
                if !self.affords(*namespace) || hopeless.has(self, *namespace) {
                    left.push(*namespace);
                    continue;
                }
                let best = self.best(*namespace, true).or_else(|| self.best(*namespace, false));
                if best.is_some_and(|to| self.try_moves(&[(*namespace, to)])) {
                    continue;
                }
                // At once, before what is less bound takes the room that would be made.
                crowded_out += 1;
                if crowded_out > CROWDED_OUT_MAX || !self.make_room(*namespace) {
                    hopeless.add(self, *namespace);
                    left.push(*namespace);
                }
            }
            let helped = left.len() < forced.len();
            forced = self.forced();
            if forced.is_empty() || !helped {
                return;
            }
        }
    }

    /// Places a namespace for which no shard has room, by moving another one on or by trading
    /// places with it.
    fn make_room(&mut self, namespace: u32) -> bool {
        let rule = self.problem.rule[namespace as usize];
        let own = self.shard[namespace as usize];
        let shards: Vec<u32> = self.shape.candidates(rule).filter(|shard| *shard != own).collect();
        let mut looked_at = 0;
        for shard in shards {
            let short = self.short(namespace, shard);
            let mut others: Vec<(i64, u32)> = self.members[shard as usize]
                .iter()
                .filter(|other| {
                    let given = self.problem.demand_of(**other);
                    given.iter().zip(&short).all(|(own, short)| i128::from(*own) >= *short)
                })
                .map(|other| (self.problem.cost_of(*other), *other))
                .collect();
            others.sort_unstable();
            for (_, other) in others {
                looked_at += 1;
                if looked_at > MADE_ROOM_MAX {
                    return false;
                }
                let to = self.best(other, true).or_else(|| self.best(other, false));
                if to.is_some_and(|to| self.try_moves(&[(other, to), (namespace, shard)])) {
                    return true;
                }
                let fair = own != NONE && self.is_open_for(other, own);
                if fair && self.try_moves(&[(other, own), (namespace, shard)]) {
                    return true;
                }
            }
        }
        false
    }

    /// How much room a shard lacks for a namespace, by dimension.
    fn short(&self, namespace: u32, shard: u32) -> Vec<i128> {
        let (load, capacity) = (self.state.load_of(shard), self.shape.capacity_of(shard));
        let demand = self.problem.demand_of(namespace).iter().enumerate();
        demand
            .map(|(d, own)| match (*own, capacity[d]) {
                (0, _) | (_, 0) => 0,
                (own, capacity) => load[d] + i128::from(own) - i128::from(capacity),
            })
            .collect()
    }

    fn is_open_for(&self, namespace: u32, shard: u32) -> bool {
        let rule = self.problem.rule[namespace as usize];
        self.shape.open().has(shard) && self.shape.admitted(rule).has(shard)
    }

    fn forced(&self) -> Vec<u32> {
        let drains = self.settings.mode == Mode::Periodic || self.settings.scope == Scope::Drain;
        let must_go = |namespace: &u32| {
            let at = *namespace as usize;
            let shard = self.shard[at];
            if shard == NONE {
                return true;
            }
            self.problem.may_move(*namespace)
                && (!self.shape.admitted(self.problem.rule[at]).has(shard)
                    || (drains && self.shape.is_draining(shard)))
        };
        (0..self.problem.len() as u32).filter(must_go).collect()
    }

    /// Hot shards give up what makes them hot, as long as that finds a place.
    pub(super) fn deal_out(&mut self) {
        let mut tried = vec![false; self.problem.len()];
        for _ in 0..ROUNDS {
            let hot = self.hot();
            if hot.is_empty() {
                return;
            }
            let pool = self.victims(&hot, &tried);
            let offered = pool.clone();
            if self.deal(pool) == 0 {
                return;
            }
            for namespace in offered {
                // What found no place is not offered again.
                tried[namespace as usize] = true;
            }
        }
    }

    /// What the hot shards give up. Each shard decides by itself, so threads share them out.
    fn victims(&self, hot: &[u32], tried: &[bool]) -> Vec<u32> {
        let give_up = |shard: &u32| self.gives_up(*shard, tried);
        if self.threads == 1 || hot.len() < 16 {
            return hot.iter().flat_map(give_up).collect();
        }
        let chunks: Vec<&[u32]> = hot.chunks(hot.len().div_ceil(self.threads)).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = chunks
                .into_iter()
                .map(|chunk| {
                    scope.spawn(move || chunk.iter().flat_map(give_up).collect::<Vec<u32>>())
                })
                .collect();
            let done = threads.into_iter().flat_map(|thread| match thread.join() {
                Ok(victims) => victims,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            done.collect()
        })
    }

    /// The fewest namespaces that bring a shard below its ceiling: the largest useful ones, until
    /// one alone is enough, and then the smallest that is.
    fn gives_up(&self, shard: u32, tried: &[bool]) -> Vec<u32> {
        let mut need = self.need(shard);
        let mut by_use: Vec<(i64, u32)> = self.members[shard as usize]
            .iter()
            .filter(|namespace| !tried[**namespace as usize] && self.is_plain(**namespace))
            .map(|namespace| (-self.usefulness(*namespace, shard, &need), *namespace))
            .filter(|(usefulness, _)| *usefulness < 0)
            .collect();
        by_use.sort_unstable();
        let covers = |need: &[i128], namespace: u32| {
            let demand = self.problem.demand_of(namespace);
            need.iter().zip(demand).all(|(need, own)| *need <= i128::from(*own))
        };
        let mut victims = Vec::new();
        for (position, (_, namespace)) in by_use.iter().enumerate() {
            let is_enough = covers(&need, *namespace);
            let victim = if is_enough {
                let rest = by_use[position..].iter().rev();
                let smallest = rest.map(|(_, n)| *n).find(|n| covers(&need, *n));
                smallest.expect("at least this one is enough")
            } else {
                *namespace
            };
            let demand = self.problem.demand_of(victim);
            let useful = need.iter().zip(demand).any(|(need, own)| *need > 0 && *own > 0);
            if !useful {
                continue;
            }
            victims.push(victim);
            need.iter_mut().zip(demand).for_each(|(need, own)| *need -= i128::from(*own));
            if need.iter().all(|need| *need <= 0) {
                break;
            }
        }
        victims
    }

    /// By how much a shard is above its ceiling in each dimension.
    pub(super) fn need(&self, shard: u32) -> Vec<i128> {
        let load = self.state.load_of(shard).iter();
        load.zip(self.ceiling_of(shard)).map(|(load, ceiling)| load - ceiling).collect()
    }

    /// How much of what is needed a namespace gives, for what moving it costs.
    pub(super) fn usefulness(&self, namespace: u32, shard: u32, need: &[i128]) -> i64 {
        let mut given = 0;
        let demand = self.problem.demand_of(namespace);
        for (dimension, ratio) in self.shape.ratio_of(shard).iter().enumerate() {
            if need[dimension] > 0 {
                given += ratio.millionths(need[dimension].min(i128::from(demand[dimension])));
            }
        }
        // Costs of one size do not change the order.
        given.saturating_mul(1 << 20) / self.problem.cost_of(namespace).max(1)
    }

    /// Largest first within those that as few shards will do for.
    fn sort_to_deal(&self, pool: &mut [u32]) {
        let width = self.problem.width;
        let shards = self.shape.all().count().max(1) as i128;
        let typical: Vec<Ratio> = (0..width)
            .map(|dimension| {
                let total = self.shape.total(dimension).unwrap_or(0) / shards;
                Ratio::of(i64::try_from(total).unwrap_or(i64::MAX))
            })
            .collect();
        let freedom: Vec<u8> = (0..self.shape.rules() as u32)
            .map(|rule| (self.shape.admitted(rule).len() as i128 * 8 / shards) as u8)
            .collect();
        let key = |namespace: &u32| {
            let demand = self.problem.demand_of(*namespace).iter();
            let sizes = typical.iter().zip(demand).map(|(r, own)| r.millionths(i128::from(*own)));
            let rule = self.problem.rule[*namespace as usize];
            (freedom[rule as usize], -sizes.max().unwrap_or(0), *namespace)
        };
        pool.sort_by_cached_key(key);
    }

    /// Offers each namespace to some of the shards that would stay below their ceilings with it.
    /// Answers how many found a place.
    fn deal(&mut self, mut pool: Vec<u32>) -> usize {
        self.sort_to_deal(&mut pool);
        let mut open: HashMap<u32, Vec<u32>, FixedState> = HashMap::default();
        let mut hopeless = Hopeless::default();
        let quick = self.target <= self.problem.board.policy.soft() && self.is_ample();
        let mut placed = 0;
        for namespace in pool {
            if !self.affords(namespace) || hopeless.has(self, namespace) {
                continue;
            }
            let rule = self.problem.rule[namespace as usize];
            let shards = open.entry(rule).or_insert_with(|| {
                let all = self.shape.candidates(rule);
                all.filter(|shard| self.has_slack(*shard)).collect()
            });
            let to = if self.is_plain(namespace) {
                self.offer(namespace, shards)
            } else {
                self.best(namespace, true)
            };
            let Some(to) = to else {
                hopeless.add(self, namespace);
                continue;
            };
            if quick && self.is_plain(namespace) {
                self.put(namespace, to);
                placed += 1;
            } else {
                placed += usize::from(self.try_moves(&[(namespace, to)]));
            }
        }
        placed
    }

    fn has_slack(&self, shard: u32) -> bool {
        let load = self.state.load_of(shard).iter();
        load.zip(self.ceiling_of(shard))
            .all(|(load, ceiling)| load < ceiling || *ceiling == ENDLESS)
    }

    /// Of some of the shards, the one where the squares of the loads grow least.
    fn offer(&self, namespace: u32, shards: &[u32]) -> Option<u32> {
        let item = self.problem.item(namespace);
        let scorer = self.scorer();
        let own = self.shard[namespace as usize];
        let mut best: Option<(i64, u32)> = None;
        let consider = |shard: u32, best: &mut Option<(i64, u32)>| {
            if shard != own && self.is_cool_with(namespace, shard) {
                let key = (scorer.rise(item, shard), shard);
                if best.is_none_or(|least| key < least) {
                    *best = Some(key);
                }
            }
        };
        if shards.len() > 2 * OFFERS {
            let mut random = Random::of(self.settings.seed, u64::from(namespace));
            for _ in 0..OFFERS {
                consider(shards[random.position(shards.len())], &mut best);
            }
            if let Some((_, shard)) = best {
                return Some(shard);
            }
        }
        for shard in shards {
            consider(*shard, &mut best);
        }
        best.map(|(_, shard)| shard)
    }
}

/// Demands that found no place: room only shrinks while things are dealt out, so that what asks the
/// same and needs no less finds none either.
#[derive(Default)]
struct Hopeless(HashMap<u32, Vec<u32>, FixedState>);

impl Hopeless {
    fn has(&self, work: &Work<'_>, namespace: u32) -> bool {
        let Some(known) = self.0.get(&work.problem.rule[namespace as usize]) else { return false };
        let demand = work.problem.demand_of(namespace);
        work.is_plain(namespace)
            && known.iter().any(|failed| {
                let failed = work.problem.demand_of(*failed);
                demand.iter().zip(failed).all(|(own, failed)| own >= failed)
            })
    }

    fn add(&mut self, work: &Work<'_>, namespace: u32) {
        if work.is_plain(namespace) {
            let known = self.0.entry(work.problem.rule[namespace as usize]).or_default();
            if known.len() < REMEMBERED {
                known.push(namespace);
            }
        }
    }
}
