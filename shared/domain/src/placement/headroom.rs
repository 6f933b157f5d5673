//! How much room is left: per set of shards that some rule admits, how many more namespaces of a
//! typical size fit and when it will be full, and what would not fit if a failure domain died.
//!
//! Both count whole namespaces onto single shards, not sums over sums: room that is scattered over
//! many shards holds no large namespace.

use super::{
    amount::{DIMENSIONS_MAX, millionths},
    problem::Problem,
    shape::Shape,
    state::NONE,
};

/// Most sets of shards that are told.
const SETS_MAX: usize = 64;

/// Namespaces told of each failure domain.
const MISFITS_MAX: usize = 20;

/// How much room a set of shards has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What the rule asks for; `any` where it asks for nothing.
    pub asks: String,
    /// Shards that it admits and that take something. Count.
    pub shards: usize,
    /// Namespaces whose rule admits just these shards. Count.
    pub namespaces: usize,
    /// What these shards can take, by dimension; none where one has no limit.
    pub capacity: Vec<Option<i128>>,
    /// What lies on them.
    pub load: Vec<i128>,
    /// The median demand of the rule's namespaces, by dimension.
    pub typical: Vec<i64>,
    /// How many more of that size fit.
    pub fits: u64,
    /// The dimension that fills up first, and in how many days at the present growth; none where
    /// nothing grows.
    pub full_in: Option<(usize, i64)>,
}

/// What would happen if a failure domain died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The failure domain.
    pub domain: String,
    /// Its shards. Count.
    pub shards: usize,
    /// Namespaces on them. Count.
    pub namespaces: usize,
    /// How many of them find no room elsewhere.
    pub misfits: usize,
    /// Some of those, by name, the largest first, each with why.
    pub examples: Vec<(String, String)>,
}

/// How much room is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// Sets of shards, those with the most namespaces first.
    pub rooms: Vec<Room>,
    /// Failure domains, the worst first.
    pub losses: Vec<Loss>,
}

impl Headroom {
    /// Whether the fleet could lose any one failure domain.
    pub fn is_certified(&self) -> bool {
        self.losses.iter().all(|loss| loss.misfits == 0)
    }

    /// Works it out. `growth` is by how much demand grows a day, in each dimension, over the whole
    /// fleet; each set of shards is taken to grow with its share of the demand.
    pub fn of(problem: &Problem, growth: &[i64]) -> Self {
        let mut losses: Vec<Loss> = losses(problem);
        losses.sort_by(|a, b| {
            (b.misfits, b.namespaces, &a.domain).cmp(&(a.misfits, a.namespaces, &b.domain))
        });
        Self { rooms: rooms(problem, growth), losses }
    }
}

fn rooms(problem: &Problem, growth: &[i64]) -> Vec<Room> {
    let shape = &problem.board.shape;
    let mut sets: Vec<(u32, Vec<u32>)> = Vec::new();
    let mut by_rule: Vec<Vec<u32>> = vec![Vec::new(); shape.rules()];
    for at in 0..problem.len() as u32 {
        by_rule[problem.rule[at as usize] as usize].push(at);
    }
    for (rule, members) in by_rule.into_iter().enumerate() {
        let rule = rule as u32;
        if members.is_empty() || shape.rule_of(rule).pinned.is_some() {
            continue;
        }
        let same = sets.iter_mut().find(|(own, _)| shape.admitted(*own) == shape.admitted(rule));
        match same {
            Some((_, all)) => all.extend(members),
            None => sets.push((rule, members)),
        }
    }
    sets.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(&b.0)));
    sets.truncate(SETS_MAX);
    sets.into_iter().map(|(rule, members)| room(problem, rule, &members, growth)).collect()
}

fn room(problem: &Problem, rule: u32, members: &[u32], growth: &[i64]) -> Room {
    let (shape, state) = (&problem.board.shape, &problem.board.state);
    let width = problem.width;
    let shards: Vec<u32> = shape.candidates(rule).collect();
    let typical: Vec<i64> = (0..width)
        .map(|dimension| {
            let mut all: Vec<i64> =
                members.iter().map(|at| problem.demand_of(*at)[dimension]).collect();
            let middle = all.len() / 2;
            *all.select_nth_unstable(middle).1
        })
        .collect();
    let fits = shards.iter().map(|shard| {
        let slots = u64::from(shape.namespaces_max(*shard).saturating_sub(state.count_of(*shard)));
        let by_dimension = (0..width).map(|dimension| {
            let capacity = i128::from(shape.capacity_of(*shard)[dimension]);
            let room = (capacity - state.load_of(*shard)[dimension]).max(0);
            if capacity == 0 || typical[dimension] == 0 {
                u64::MAX
            } else {
                u64::try_from(room / i128::from(typical[dimension])).unwrap_or(u64::MAX)
            }
        });
        by_dimension.min().unwrap_or(u64::MAX).min(slots)
    });
    let fits = fits.fold(0_u64, u64::saturating_add);
    let sum = |of: &dyn Fn(u32) -> i128| shards.iter().map(|shard| of(*shard)).sum::<i128>();
    let load: Vec<i128> = (0..width).map(|d| sum(&|shard| state.load_of(shard)[d])).collect();
    let capacity: Vec<Option<i128>> = (0..width)
        .map(|d| {
            let all = shards.iter().all(|shard| shape.capacity_of(*shard)[d] > 0);
            all.then(|| sum(&|shard| shape.capacity_of(shard)[d].into()))
        })
        .collect();
    let days = |dimension: usize| {
        let all = state.sum(dimension);
        let grows = i128::from(growth.get(dimension).copied().unwrap_or(0));
        let own = if all > 0 { grows.saturating_mul(load[dimension]) / all } else { 0 };
        let room = capacity[dimension]? - load[dimension];
        (own > 0).then(|| (dimension, i64::try_from(room.max(0) / own).unwrap_or(i64::MAX)))
    };
    Room {
        asks: asks(shape, rule),
        shards: shards.len(),
        namespaces: members.len(),
        full_in: (0..width).filter_map(days).min_by_key(|(dimension, days)| (*days, *dimension)),
        capacity,
        load,
        typical,
        fits,
    }
}

fn asks(shape: &Shape, rule: u32) -> String {
    let conditions = shape.rule_of(rule).conditions();
    let last = conditions.len() - 1;
    // Taints come last and always; they only matter where something is tolerated.
    let says: Vec<String> = conditions
        .into_iter()
        .enumerate()
        .filter(|(at, (_, says))| *at < last || !says.contains("none"))
        .map(|(_, (_, says))| says)
        .collect();
    if says.is_empty() { "any".into() } else { says.join(", ") }
}

fn losses(problem: &Problem) -> Vec<Loss> {
    let (shape, state) = (&problem.board.shape, &problem.board.state);
    let mut on: Vec<Vec<u32>> = vec![Vec::new(); shape.domains()];
    for (at, shard) in problem.shard.iter().enumerate() {
        if *shard != NONE {
            on[shape.domain_of(*shard) as usize].push(at as u32);
        }
    }
    let mut shards = vec![0; shape.domains()];
    for (shard, _) in shape.all().filter(|(_, shard)| !shard.lost) {
        shards[shape.domain_of(shard) as usize] += 1;
    }
    let loads: Vec<i128> =
        (0..shape.slots() as u32).flat_map(|shard| state.load_of(shard)).copied().collect();
    (0..shape.domains() as u32)
        .filter(|domain| shards[*domain as usize] > 0)
        .map(|domain| {
            let namespaces = std::mem::take(&mut on[domain as usize]);
            let count = namespaces.len();
            let misfits = misfits(problem, domain, namespaces, loads.clone());
            let examples = misfits.iter().take(MISFITS_MAX).map(|at| {
                let rule = problem.rule[*at as usize];
                let left = shape.candidates(rule).filter(|s| shape.domain_of(*s) != domain).count();
                let why = match (left, &shape.rule_of(rule).pinned) {
                    (_, Some(pin)) => format!("pinned to {pin}"),
                    (0, None) => format!("no shard outside admits {}", asks(shape, rule)),
                    (left, None) => format!("no room on the {left} shards that would do"),
                };
                (problem.name(*at).to_string(), why)
            });
            Loss {
                domain: shape.domain_name(domain).to_owned(),
                shards: shards[domain as usize],
                namespaces: count,
                misfits: misfits.len(),
                examples: examples.collect(),
            }
        })
        .collect()
}

/// Deals what was on the domain out to all others, the most bound and the largest first, each to
/// where most room is left.
fn misfits(problem: &Problem, domain: u32, mut lost: Vec<u32>, mut loads: Vec<i128>) -> Vec<u32> {
    let shape = &problem.board.shape;
    let width = problem.width;
    let mut counts: Vec<u32> =
        (0..shape.slots() as u32).map(|shard| problem.board.state.count_of(shard)).collect();
    let size = |at: u32| {
        let demand = problem.demand_of(at).iter().enumerate();
        let total = |d: usize| shape.total(d).unwrap_or(0);
        demand.map(|(d, own)| millionths(i128::from(*own) << 10, total(d))).max().unwrap_or(0)
    };
    lost.sort_by_cached_key(|at| {
        let choice = shape.admitted(problem.rule[*at as usize]).len();
        (choice, std::cmp::Reverse(size(*at)), *at)
    });
    let mut left: std::collections::HashMap<u32, Vec<u32>, foldhash::fast::FixedState> =
        Default::default();
    let mut misfits = Vec::new();
    for at in lost {
        let rule = problem.rule[at as usize];
        let shards = left.entry(rule).or_insert_with(|| {
            shape.candidates(rule).filter(|shard| shape.domain_of(*shard) != domain).collect()
        });
        let mut demand = [0; DIMENSIONS_MAX];
        demand[..width].copy_from_slice(problem.demand_of(at));
        let fits = |shard: u32| {
            let capacity = shape.capacity_of(shard);
            let load = &loads[shard as usize * width..][..width];
            let room = (0..width).all(|d| {
                let after = load[d] + i128::from(demand[d]);
                capacity[d] == 0 || demand[d] == 0 || after <= i128::from(capacity[d])
            });
            room && counts[shard as usize] < shape.namespaces_max(shard)
        };
        let peak = |shard: u32| {
            let load = loads[shard as usize * width..][..width].iter().zip(&demand);
            let full = shape.ratio_of(shard).iter().zip(load);
            full.map(|(r, (load, own))| r.millionths(load + i128::from(*own))).max().unwrap_or(0)
        };
        // Looking at a few is enough while there is room; all are looked at before giving up.
        let some = 16.min(shards.len());
        let start = if shards.is_empty() { 0 } else { at as usize * 7919 % shards.len() };
        let around = shards[start..].iter().chain(&shards[..start]).copied();
        let best =
            around.clone().take(some).filter(|shard| fits(*shard)).min_by_key(|s| (peak(*s), *s));
        match best.or_else(|| around.skip(some).find(|shard| fits(*shard))) {
            None => misfits.push(at),
            Some(shard) => {
                counts[shard as usize] += 1;
                let row = &mut loads[shard as usize * width..][..width];
                row.iter_mut().zip(&demand).for_each(|(load, own)| *load += i128::from(*own));
            }
        }
    }
    misfits.sort_by_cached_key(|at| (std::cmp::Reverse(size(*at)), *at));
    misfits
}
