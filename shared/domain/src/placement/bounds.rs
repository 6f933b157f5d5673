//! How good a placement can be at best.
//!
//! Three bounds on the peak (the fullest dimension of the fullest shard), each of them valid for
//! any placement that breaks no rule; the largest counts:
//!
//! - *mean*: all demand over all capacity. Shards that take nothing now count with what they have,
//!   where that is below the mean: nothing can be evened out onto them.
//! - *largest*: the largest namespace on the best shard that its rule admits.
//! - *rule*: the demand of all that must stay within a rule's shards, over their capacity.

use super::{
    amount::{DIMENSIONS_MAX, Ratio, millionths},
    problem::Problem,
};

/// Lower bounds on the peak, in millionths of capacity, rounded up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// All demand over all capacity.
    pub mean: i64,
    /// The largest namespace on its best shard.
    pub largest: i64,
    /// What must stay within some rule's shards, over their capacity.
    pub rule: i64,
}

impl Bounds {
    /// The largest of them.
    pub fn peak(&self) -> i64 {
        self.mean.max(self.largest).max(self.rule)
    }

    /// The bounds of a fleet.
    pub fn of(problem: &Problem) -> Self {
        let by_rule = demand_by_rule(problem);
        let mean = (0..problem.width).map(|dimension| mean(problem, &by_rule, dimension));
        Self {
            mean: mean.max().unwrap_or(0),
            largest: largest(problem),
            rule: within(problem, &by_rule),
        }
    }
}

/// Most sets of shards that are looked at: those with the most demand.
const SETS_MAX: usize = 64;

/// Demand and count of the namespaces of each rule.
type ByRule = Vec<([i128; DIMENSIONS_MAX], usize)>;

fn demand_by_rule(problem: &Problem) -> ByRule {
    let mut by_rule = vec![([0; DIMENSIONS_MAX], 0); problem.board.shape.rules()];
    for at in 0..problem.len() as u32 {
        let (sum, count) = &mut by_rule[problem.rule[at as usize] as usize];
        *count += 1;
        for (sum, demand) in sum.iter_mut().zip(problem.demand_of(at)) {
            *sum += i128::from(*demand);
        }
    }
    by_rule
}

fn mean(problem: &Problem, by_rule: &ByRule, dimension: usize) -> i64 {
    let (shape, state) = (&problem.board.shape, &problem.board.state);
    let demand: i128 = by_rule.iter().map(|(sum, _)| sum[dimension]).sum();
    let mut capacity = 0;
    let mut closed = Vec::new();
    for (shard, known) in shape.all().filter(|(_, shard)| !shard.lost) {
        let own = shape.capacity_of(shard)[dimension];
        if own == 0 {
            return 0;
        }
        capacity += i128::from(own);
        if !known.is_open() {
            let full = shape.ratio_of(shard)[dimension].millionths(state.load_of(shard)[dimension]);
            closed.push((full, i128::from(own), state.load_of(shard)[dimension]));
        }
    }
    closed.sort_unstable();
    let (mut demand, mut bound) = (demand, millionths(demand, capacity));
    for (full, own, load) in closed {
        if full >= bound {
            break;
        }
        (demand, capacity) = (demand - load, capacity - own);
        if capacity <= 0 {
            break;
        }
        bound = bound.max(millionths(demand, capacity));
    }
    bound
}

fn largest(problem: &Problem) -> i64 {
    let shape = &problem.board.shape;
    let best: Vec<Vec<Ratio>> = (0..shape.rules() as u32)
        .map(|rule| {
            let best = |dimension| {
                let own = |shard| shape.capacity_of(shard)[dimension];
                let all = || shape.admitted(rule).iter().map(own);
                // Without limit is better than any limit.
                if all().any(|own| own == 0) { 0 } else { all().max().unwrap_or(0) }
            };
            (0..problem.width).map(|dimension| Ratio::of(best(dimension))).collect()
        })
        .collect();
    let peak = |at: u32| {
        let ratios = &best[problem.rule[at as usize] as usize];
        let demand = problem.demand_of(at).iter();
        ratios.iter().zip(demand).map(|(r, d)| r.millionths(i128::from(*d))).max().unwrap_or(0)
    };
    (0..problem.len() as u32).map(peak).max().unwrap_or(0)
}

fn within(problem: &Problem, by_rule: &ByRule) -> i64 {
    let shape = &problem.board.shape;
    let used = (0..shape.rules() as u32).filter(|rule| by_rule[*rule as usize].1 > 0);
    let (pinned, free): (Vec<u32>, Vec<u32>) =
        used.partition(|rule| shape.rule_of(*rule).pinned.is_some());
    let mut bound = 0;
    // What is pinned to a shard must stay there.
    let mut on_shard = std::collections::BTreeMap::<u32, [i128; DIMENSIONS_MAX]>::new();
    for rule in &pinned {
        if let Some(shard) = shape.admitted(*rule).iter().next() {
            add(on_shard.entry(shard).or_default(), &by_rule[*rule as usize].0);
        }
    }
    for (shard, demand) in &on_shard {
        for (dimension, ratio) in shape.ratio_of(*shard).iter().enumerate() {
            bound = bound.max(ratio.millionths(demand[dimension]));
        }
    }
    let mut sets: Vec<u32> = Vec::new();
    let mut by_demand = free.clone();
    by_demand.sort_by_key(|rule| {
        (std::cmp::Reverse(by_rule[*rule as usize].0.iter().sum::<i128>()), *rule)
    });
    for rule in by_demand {
        let set = shape.admitted(rule);
        let known = set.is_empty() || sets.iter().any(|known| shape.admitted(*known) == set);
        if !known && sets.len() < SETS_MAX {
            sets.push(rule);
        }
    }
    for rule in sets {
        let set = shape.admitted(rule);
        let mut demand = [0; DIMENSIONS_MAX];
        // What no shard admits is not within these either.
        let inside = |other: &&u32| {
            let admitted = shape.admitted(**other);
            !admitted.is_empty() && admitted.is_within(set)
        };
        for other in free.iter().filter(inside) {
            add(&mut demand, &by_rule[*other as usize].0);
        }
        for (_, pinned) in on_shard.iter().filter(|(shard, _)| set.has(**shard)) {
            add(&mut demand, pinned);
        }
        for (dimension, demand) in demand.iter().enumerate().take(problem.width) {
            let own = || set.iter().map(|shard| i128::from(shape.capacity_of(shard)[dimension]));
            if own().all(|own| own > 0) {
                bound = bound.max(millionths(*demand, own().sum()));
            }
        }
    }
    bound
}

fn add(sum: &mut [i128; DIMENSIONS_MAX], more: &[i128; DIMENSIONS_MAX]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// How full the fullest dimension of the fullest shard is. Millionths.
pub fn peak(problem: &Problem) -> i64 {
    peak_of(problem, |shard| problem.board.state.load_of(shard))
}

pub(super) fn peak_of<'a>(problem: &Problem, load: impl Fn(u32) -> &'a [i128]) -> i64 {
    let shape = &problem.board.shape;
    let shards = shape.all().filter(|(_, shard)| !shard.lost);
    let full = |(shard, _): (u32, _)| {
        let ratios = shape.ratio_of(shard).iter().zip(load(shard));
        ratios.map(|(ratio, load)| ratio.millionths(*load)).max().unwrap_or(0)
    };
    shards.map(full).max().unwrap_or(0)
}
