//! What is better: the one order that placing and rebalancing go by.
//!
//! A [`Score`] is a tuple compared from left to right, smaller is better. Each level is a sum over
//! shards, groups or domains, so that what one namespace changes can be told from where it goes and
//! where it leaves, without looking at the rest ([`Scorer::coming`], [`Scorer::leaving`]).
//!
//! Level 5 asks how far shards stand above a *target*, not how far they are from each other: below
//! the target a shard is as good as any other, so that nothing moves between two shards of which
//! neither is hot. The sum is of squares, so that the hottest shard counts most.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    amount::{DIMENSIONS_MAX, FULL, MILLIONTHS_MAX, percent},
    resilience::Resilience,
    shape::Shape,
    state::{Item, NONE, State},
};

/// How many levels there are.
pub const LEVELS: usize = 8;

/// The levels by name, the most important first.
pub const LEVEL_NAMES: [&str; LEVELS] = [
    "unplaced and violations",
    "overload",
    "spread",
    "draining residue",
    "not absorbable",
    "imbalance",
    "scattered affinity groups",
    "cost of moves",
];

/// How bad a placement is, level by level.
///
/// | level | unit |
/// |---|---|
/// | 0 unplaced and violations | a million for each namespace without a shard or on one that its rule forbids, plus millionths of capacity that are exceeded |
/// | 1 overload | millionths of capacity above the soft limit |
/// | 2 spread | pairs of one group in one failure domain |
/// | 3 draining residue | namespaces on draining shards |
/// | 4 not absorbable | millionths of capacity, see [`resilience`](super::resilience) |
/// | 5 imbalance | squares of millionths above the target |
/// | 6 scattered affinity groups | shards that a group is on beyond its first |
/// | 7 cost of moves | cost units of what is not where it was |
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub [i128; LEVELS]);

impl Score {
    /// The sum, level by level.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|level| self.0[level].saturating_add(other.0[level])))
    }

    /// The difference, level by level.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|level| self.0[level].saturating_sub(other.0[level])))
    }

    /// Whether this change makes something better, and nothing worse on the same or a higher
    /// level than where it is better. What is moved does not count.
    pub fn improves(&self) -> bool {
        self.0[..7].iter().find(|change| **change != 0).is_some_and(|change| *change < 0)
    }

    /// The first level on which two differ.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        (0..LEVELS).find(|level| self.0[*level] != other.0[*level])
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<String> = self.0.iter().map(i128::to_string).collect();
        write!(f, "({})", levels.join(", "))
    }
}

/// A level's value for people.
pub fn level_text(level: usize, value: i128) -> String {
    let share = |value: i128| percent(i64::try_from(value).unwrap_or(i64::MAX));
    match level {
        0 if value % i128::from(FULL) == 0 => (value / i128::from(FULL)).to_string(),
        0 => format!(
            "{}, {} over capacity",
            value / i128::from(FULL),
            share(value % i128::from(FULL))
        ),
        1 => format!("{} over the soft limit", share(value)),
        2 => format!("{value} pairs"),
        4 => share(value),
        5 => format!("{} above the target", share(value.max(0).isqrt())),
        _ => value.to_string(),
    }
}

/// What is asked of a fleet beside its namespaces' rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// A shard should not be fuller than this. Millionths of its capacity.
    pub soft_limit: i64,
    /// How far above the best possible peak a shard may stand before it counts as too full.
    /// Millionths of that peak.
    pub tolerance: i64,
    /// Most members of a spread group in one failure domain; zero leaves it at a preference.
    pub group_max_per_domain: u32,
    /// Whether level 4 is looked at.
    pub resilience: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { soft_limit: 900_000, tolerance: 50_000, group_max_per_domain: 0, resilience: true }
    }
}

impl Policy {
    /// The soft limit, within what can be told.
    pub fn soft(&self) -> i64 {
        self.soft_limit.clamp(0, MILLIONTHS_MAX)
    }
}

/// Scores what a namespace changes.
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    /// The shards.
    pub shape: &'a Shape,
    /// Who is where.
    pub state: &'a State,
    /// Level 1 counts from here. Millionths.
    pub soft_limit: i64,
    /// Level 5 counts from here. Millionths.
    pub target: i64,
}

/// What a namespace changes where it comes, in numbers that are quick to compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Level 0: violated rules and exceeded capacity.
    pub broken: i64,
    /// Level 1.
    pub overload: i64,
    /// Level 2.
    pub spread: i64,
    /// Level 3.
    pub residue: i64,
    /// Level 4; the caller's part, since it costs more than the rest.
    pub missing: i128,
    /// Level 5.
    pub imbalance: i128,
    /// Level 6.
    pub scattered: i64,
    /// Between shards that no level tells apart: how full the fullest dimension will be, then how
    /// much the squares of all grow.
    pub peak: i64,
    /// See `peak`.
    pub rise: i64,
    /// The fullest dimension.
    pub fullest: usize,
}

impl From<Change> for Score {
    fn from(change: Change) -> Self {
        Self([
            change.broken.into(),
            change.overload.into(),
            change.spread.into(),
            change.residue.into(),
            change.missing,
            change.imbalance,
            change.scattered.into(),
            0,
        ])
    }
}

impl Scorer<'_> {
    /// What changes when a namespace that is nowhere comes to a shard, without level 4, and without
    /// that it is no longer unplaced.
    #[inline]
    pub fn coming(&self, item: Item<'_>, shard: u32) -> Change {
        let mut change = Change::default();
        let load = self.state.load_of(shard);
        for (dimension, ratio) in self.shape.ratio_of(shard).iter().enumerate() {
            let demand = item.demand[dimension];
            let before = ratio.millionths(load[dimension]);
            let after = match demand {
                0 => before,
                demand => ratio.millionths(load[dimension] + i128::from(demand)),
            };
            if after > change.peak {
                (change.peak, change.fullest) = (after, dimension);
            }
            if demand == 0 {
                continue;
            }
            change.rise = change.rise.saturating_add((after - before) * (after + before));
            change.broken += (after - FULL).max(0) - (before - FULL).max(0);
            change.overload += (after - self.soft_limit).max(0) - (before - self.soft_limit).max(0);
            let (above, was) = ((after - self.target).max(0), (before - self.target).max(0));
            if above > 0 {
                change.imbalance += i128::from(above) * i128::from(above);
                change.imbalance -= i128::from(was) * i128::from(was);
            }
        }
        if !self.shape.admitted(item.rule).has(shard) {
            change.broken += FULL;
        }
        if item.group != NONE {
            let domain = self.shape.domain_of(shard);
            change.spread = i64::from(self.state.group_members(item.group, domain));
        }
        change.residue = i64::from(self.shape.is_draining(shard));
        if item.affinity != NONE && self.state.placed_mates(item.affinity) > 0 {
            change.scattered = i64::from(self.state.mates(item.affinity, shard) == 0);
        }
        change
    }

    /// How much the squares of a shard's loads grow when a namespace comes to it.
    #[inline]
    pub fn rise(&self, item: Item<'_>, shard: u32) -> i64 {
        let load = self.state.load_of(shard);
        let mut rise = 0_i64;
        for (dimension, ratio) in self.shape.ratio_of(shard).iter().enumerate() {
            let before = ratio.millionths(load[dimension]);
            let after = ratio.millionths(load[dimension] + i128::from(item.demand[dimension]));
            rise = rise.saturating_add((after - before) * (after + before));
        }
        rise
    }

    /// What changes when a namespace leaves its shard, as [`Self::coming`] tells it.
    pub fn leaving(&self, item: Item<'_>, shard: u32) -> Score {
        let load = self.state.load_of(shard);
        let mut change = [0; LEVELS];
        for (dimension, ratio) in self.shape.ratio_of(shard).iter().enumerate() {
            let before = ratio.millionths(load[dimension]);
            let after = ratio.millionths(load[dimension] - i128::from(item.demand[dimension]));
            let fall = |limit: i64| i128::from((after - limit).max(0) - (before - limit).max(0));
            change[0] += fall(FULL);
            change[1] += fall(self.soft_limit);
            let square = |full: i64| i128::from((full - self.target).max(0)).pow(2);
            change[5] += square(after) - square(before);
        }
        if !self.shape.admitted(item.rule).has(shard) {
            change[0] -= i128::from(FULL);
        }
        if item.group != NONE {
            let domain = self.shape.domain_of(shard);
            change[2] = 1 - i128::from(self.state.group_members(item.group, domain));
        }
        change[3] = -i128::from(self.shape.is_draining(shard));
        if item.affinity != NONE && self.state.placed_mates(item.affinity) > 1 {
            change[6] = -i128::from(self.state.mates(item.affinity, shard) == 1);
        }
        Score(change)
    }

    /// Levels 0 (as far as it is overflow), 1 and 5 of a shard as it is.
    fn weight(&self, shard: u32) -> (i64, i64, i128) {
        let (mut over, mut hot, mut square) = (0, 0, 0);
        for full in self.millionths(shard) {
            over += (full - FULL).max(0);
            hot += (full - self.soft_limit).max(0);
            square += i128::from((full - self.target).max(0)).pow(2);
        }
        (over, hot, square)
    }

    /// How full a shard is in each dimension.
    pub fn millionths(&self, shard: u32) -> impl Iterator<Item = i64> {
        let load = self.state.load_of(shard);
        self.shape.ratio_of(shard).iter().zip(load).map(|(ratio, load)| ratio.millionths(*load))
    }

    /// Levels 1 to 6 of the whole, and of level 0 the capacity that is exceeded. The caller knows
    /// what is unplaced, misplaced and moved.
    pub fn whole(&self) -> Score {
        let mut score = [0; LEVELS];
        for (shard, known) in self.shape.all() {
            if known.lost {
                continue;
            }
            let (over, hot, square) = self.weight(shard);
            score[0] += i128::from(over);
            score[1] += i128::from(hot);
            score[3] += i128::from(known.draining) * i128::from(self.state.count_of(shard));
            score[5] += square;
        }
        score[2] = self.state.collisions();
        score[4] = self.state.resilience().map_or(0, Resilience::level);
        score[6] = self.state.scattered();
        Score(score)
    }
}

/// The peak that cannot be undercut by evening loads out: all demand over all capacity, in the
/// dimension where that is most. Millionths, rounded up.
pub fn mean_peak(shape: &Shape, sum: impl Fn(usize) -> i128) -> i64 {
    let means = (0..shape.width().min(DIMENSIONS_MAX)).map(|dimension| {
        shape.total(dimension).map_or(0, |total| super::amount::millionths(sum(dimension), total))
    });
    means.max().unwrap_or(0)
}

/// The target of level 5: `peak` and the tolerance on top of it.
pub fn target(peak: i64, policy: &Policy) -> i64 {
    let tolerance = i128::from(peak) * i128::from(policy.tolerance.max(0)) / i128::from(FULL);
    (i128::from(peak) + tolerance).min(i128::from(MILLIONTHS_MAX)) as i64
}
