//! Fleets that look like real ones, the same from the same seed on every machine.
//!
//! Integers only, also for the distributions: what a platform's `exp` says must not decide what a
//! benchmark runs on.

use serde::{Deserialize, Serialize};

use super::{
    objective::Policy,
    problem::{Hold, Problem, Row},
    random::Random,
    rules::Constraints,
    shape::Shard,
};

/// How heavy namespaces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Weights {
    /// Most are small, few are large: the logarithm is normal, with this many hundredths of a
    /// doubling as its standard deviation. What users of clusters ask for looks like that.
    Lognormal(u32),
    /// The logarithm is uniform, up to this many times the smallest.
    Ratio(u32),
    /// One in n is at least n times the smallest, up to this many times.
    PowerLaw(u32),
}

/// Where namespaces are at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// Nowhere.
    Unplaced,
    /// Anywhere they may be; how much a shard draws differs by up to so many millionths.
    Skewed(u32),
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Recipe {
    /// Namespaces.
    pub namespaces: usize,
    /// Shards.
    pub shards: usize,
    /// Dimensions.
    pub dimensions: usize,
    /// How heavy namespaces are.
    pub weights: Weights,
    /// How much of a namespace's weight is common to all dimensions. Percent.
    pub correlation: u32,
    /// All demand over all capacity. Millionths.
    pub fill: i64,
    /// By how much capacities differ from their mean. Millionths.
    pub capacity_spread: u32,
    /// Regions, each with as many shards.
    pub regions: usize,
    /// Failure domains in each region.
    pub zones: usize,
    /// Namespaces that are bound to a region. Millionths.
    pub bound_to_region: u32,
    /// Namespaces in a spread group of four. Millionths.
    pub spread_groups: u32,
    /// Namespaces in an affinity group of two. Millionths.
    pub affinity_groups: u32,
    /// Shards that have nothing at first. Millionths.
    pub empty_shards: u32,
    /// Where namespaces are at first.
    pub start: Start,
    /// What moving a namespace costs; zero takes its weight into account.
    pub flat_cost: i64,
    /// What is asked of the fleet.
    pub policy: Policy,
    /// Decides the rest.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            namespaces: 10_000,
            shards: 100,
            dimensions: 3,
            weights: Weights::Lognormal(150),
            correlation: 50,
            fill: 650_000,
            capacity_spread: 200_000,
            regions: 4,
            zones: 3,
            bound_to_region: 300_000,
            spread_groups: 0,
            affinity_groups: 0,
            empty_shards: 20_000,
            start: Start::Skewed(500_000),
            flat_cost: 0,
            policy: Policy::default(),
            seed: 1,
        }
    }
}

/// 2^(x / 2^16), times 2^20; linear between powers of two.
fn exp2(x: i64) -> u64 {
    let x = x.clamp(-20 << 16, 40 << 16);
    let (whole, part) = (x >> 16, x & 0xffff);
    let mantissa = ((1 << 16) + part) as u64;
    let shift = whole + 4;
    if shift >= 0 { mantissa << shift } else { mantissa >> -shift }
}

impl Recipe {
    fn weight(&self, random: &mut Random) -> i64 {
        match self.weights {
            Weights::Lognormal(deviation) => random.normal() * i64::from(deviation) / 100,
            Weights::Ratio(most) | Weights::PowerLaw(most) => {
                // The base-2 logarithm of the ratio, to 16 bits.
                let most = u64::from(most.max(1));
                let log = i64::from(most.ilog2()) << 16;
                let log = log + ((most << 16 >> most.ilog2()) as i64 - (1 << 16));
                if matches!(self.weights, Weights::Ratio(_)) {
                    random.below(log.max(1) as u64) as i64
                } else {
                    let one_in = (1 << 20) / (random.below(1 << 20) + 1);
                    let log_one_in = i64::from(one_in.max(1).ilog2()) << 16;
                    log_one_in.min(log)
                }
            }
        }
    }

    /// The demands, namespaces × dimensions.
    fn demands(&self, random: &mut Random) -> Vec<i64> {
        let mut demands = Vec::with_capacity(self.namespaces * self.dimensions);
        let common = i64::from(self.correlation.min(100));
        for _ in 0..self.namespaces {
            let shared = self.weight(random);
            for _ in 0..self.dimensions {
                let own = self.weight(random);
                let exponent = (shared * common + own * (100 - common)) / 100;
                demands.push((exp2(exponent) >> 10).max(1) as i64);
            }
        }
        demands
    }

    /// The shards, which hold the demand at the fill that is asked for.
    fn make_shards(&self, demands: &[i64], random: &mut Random) -> Vec<Shard> {
        let width = self.dimensions;
        let factors: Vec<i128> = (0..self.shards)
            .map(|_| {
                let spread = u64::from(self.capacity_spread);
                1_000_000 - i128::from(spread) + i128::from(random.below(2 * spread + 1))
            })
            .collect();
        let whole: i128 = factors.iter().sum();
        let needed: Vec<i128> = (0..width)
            .map(|d| {
                let sum: i128 =
                    demands.iter().skip(d).step_by(width).map(|own| i128::from(*own)).sum();
                sum * 1_000_000 / i128::from(self.fill.max(1))
            })
            .collect();
        let shard = |at: usize| {
            let own = needed.iter().map(|sum| (sum * factors[at] / whole.max(1)).max(1) as i64);
            let name = format!("shard-{at:05}").parse().expect("a valid name");
            let mut shard = Shard::new(name, own.collect());
            let region = at % self.regions.max(1);
            shard.region = format!("region-{region}");
            let zone = at / self.regions.max(1) % self.zones.max(1);
            shard.failure_domain = format!("region-{region}-zone-{zone}");
            shard
        };
        (0..self.shards).map(shard).collect()
    }

    /// The fleet.
    pub fn generate(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let demands = self.demands(&mut random);
        let shards = self.make_shards(&demands, &mut random);
        let names: Vec<String> = (0..self.dimensions).map(|d| format!("dimension-{d}")).collect();
        let mut draws = Vec::new();
        for _ in 0..self.regions.max(1) {
            draws.push(Vec::new());
        }
        for at in 0..self.shards {
            let Start::Skewed(skew) = self.start else { break };
            let draw = 1_000_000 - u64::from(skew) + random.below(2 * u64::from(skew) + 1);
            let draw = if random.happens(self.empty_shards) { 0 } else { draw };
            let region: &mut Vec<(u64, u32)> = &mut draws[at % self.regions.max(1)];
            let before = region.last().map_or(0, |(sum, _)| *sum);
            region.push((before + draw, at as u32));
        }
        let mut problem = Problem::new(&names, self.policy, shards);
        let (mut spread, mut affinity) = ((0, 0), (0, 0));
        for at in 0..self.namespaces {
            // A region that is bound to draws more, the more so the lower its number.
            let region = (random
                .below(self.regions.max(1) as u64)
                .min(random.below(self.regions.max(1) as u64 * 2)))
                as usize;
            let bound = random.happens(self.bound_to_region);
            let mut group = |share: u32, size: usize, open: &mut (usize, usize)| {
                if open.1 == 0 && random.happens(share / size as u32) {
                    *open = (open.0 + 1, size);
                }
                let inside = open.1 > 0;
                open.1 = open.1.saturating_sub(1);
                inside.then_some(open.0)
            };
            let spread_group = group(self.spread_groups, 4, &mut spread);
            let affinity_group = group(self.affinity_groups, 2, &mut affinity);
            let constraints = Constraints {
                region: if bound { format!("region-{region}") } else { String::new() },
                spread_group: spread_group.map(|g| format!("spread-{g}")).unwrap_or_default(),
                ..Constraints::default()
            };
            let affinity = affinity_group.map(|g| format!("mates-{g}")).unwrap_or_default();
            let asked = problem.ask(&constraints, None, &affinity);
            let home =
                if bound { region } else { random.below(self.regions.max(1) as u64) as usize };
            let draws = &draws[home];
            let whole = draws.last().map_or(0, |(sum, _)| *sum);
            let shard = (whole > 0).then(|| {
                let point = random.below(whole);
                draws[draws.partition_point(|(sum, _)| *sum <= point)].1
            });
            let demand = &demands[at * self.dimensions..][..self.dimensions];
            let weight = demand.first().copied().unwrap_or(0);
            problem.push_row(&Row {
                name: format!("ns-{at:07}").parse().expect("a valid name"),
                demand,
                asked: &asked,
                shard,
                to: None,
                cost: if self.flat_cost > 0 { self.flat_cost } else { 100 + weight / 100 },
                hold: Hold::None,
            });
        }
        problem
    }
}
