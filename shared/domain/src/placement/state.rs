//! Who is where: what lies on each shard, and how groups are spread.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    amount::DIMENSIONS_MAX,
    resilience::{ByRule, Resilience},
    shape::Shape,
};

/// No shard, or no group.
pub const NONE: u32 = u32::MAX;

/// A namespace as a score sees it.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// How much it takes in each dimension.
    pub demand: &'a [i64],
    /// What it asks for.
    pub rule: u32,
    /// Its spread group, or [`NONE`].
    pub group: u32,
    /// Its affinity group, or [`NONE`].
    pub affinity: u32,
}

/// What lies on each shard.
#[derive(Debug, Clone, Default)]
pub struct State {
    width: usize,
    /// Shards × dimensions.
    load: Vec<i128>,
    count: Vec<u32>,
    sum: [i128; DIMENSIONS_MAX],
    /// Members of a spread group in a failure domain.
    spread: HashMap<(u32, u32), u32, FixedState>,
    /// Pairs of one spread group in one failure domain.
    collisions: i128,
    /// Members of an affinity group on a shard.
    mates: HashMap<(u32, u32), u32, FixedState>,
    /// Shards that affinity groups are on, less one for each group.
    scattered: i128,
    members: HashMap<u32, u32, FixedState>,
    by_rule: ByRule,
    resilience: Resilience,
    /// What the resilience was worked out on; none where it is not looked at.
    resilience_of: Option<(u64, usize)>,
}

impl State {
    /// Nothing anywhere.
    pub fn new(shape: &Shape) -> Self {
        let mut state = Self { width: shape.width(), ..Self::default() };
        state.fit(shape);
        state
    }

    /// Makes room for shards that came.
    pub(super) fn fit(&mut self, shape: &Shape) {
        self.load.resize(shape.slots() * self.width, 0);
        self.count.resize(shape.slots(), 0);
    }

    /// From here on resilience is kept up to date, as long as the shape does not change.
    pub(super) fn watch_resilience(&mut self, shape: &Shape) {
        let of = Some((shape.version, shape.rules()));
        if self.resilience_of != of {
            self.resilience = Resilience::new(shape, &self.load, &self.by_rule);
            self.resilience_of = of;
        }
    }

    #[cfg(test)]
    pub(super) fn forget_resilience(&mut self) {
        self.resilience_of = None;
    }

    pub(super) fn resilience(&self) -> Option<&Resilience> {
        self.resilience_of.is_some().then_some(&self.resilience)
    }

    /// What lies on a shard, by dimension.
    #[inline]
    pub fn load_of(&self, shard: u32) -> &[i128] {
        &self.load[shard as usize * self.width..][..self.width]
    }

    /// Namespaces on a shard.
    #[inline]
    pub fn count_of(&self, shard: u32) -> u32 {
        self.count[shard as usize]
    }

    /// What lies on all shards together.
    #[inline]
    pub fn sum(&self, dimension: usize) -> i128 {
        self.sum[dimension]
    }

    /// Members of a spread group in a failure domain.
    pub fn group_members(&self, group: u32, domain: u32) -> u32 {
        self.spread.get(&(group, domain)).copied().unwrap_or(0)
    }

    /// Members of an affinity group on a shard.
    pub fn mates(&self, affinity: u32, shard: u32) -> u32 {
        self.mates.get(&(affinity, shard)).copied().unwrap_or(0)
    }

    /// Members of an affinity group that are on any shard.
    pub(super) fn placed_mates(&self, affinity: u32) -> u32 {
        self.members.get(&affinity).copied().unwrap_or(0)
    }

    /// Pairs of one spread group in one failure domain.
    pub(super) fn collisions(&self) -> i128 {
        self.collisions
    }

    /// Shards that affinity groups are on, less one for each group.
    pub(super) fn scattered(&self) -> i128 {
        self.scattered
    }

    /// A namespace comes to a shard.
    pub fn add(&mut self, shape: &Shape, item: Item<'_>, shard: u32) {
        self.change(shape, item, shard, true);
    }

    /// A namespace leaves a shard.
    pub fn remove(&mut self, shape: &Shape, item: Item<'_>, shard: u32) {
        self.change(shape, item, shard, false);
    }

    fn change(&mut self, shape: &Shape, item: Item<'_>, shard: u32, comes: bool) {
        let sign = if comes { 1 } else { -1 };
        let row = shard as usize * self.width;
        let domain = shape.domain_of(shard);
        let fresh = self.resilience_of == Some((shape.version, shape.rules()));
        for (dimension, demand) in item.demand.iter().enumerate() {
            let change = i128::from(*demand) * sign;
            let before = self.load[row + dimension];
            self.load[row + dimension] += change;
            self.sum[dimension] += change;
            if fresh {
                let loads = (before, before + change);
                self.resilience.change(shape, shard, item.rule, dimension, loads);
            }
        }
        if !fresh {
            self.resilience_of = None;
        }
        let by_rule = self.by_rule.entry((item.rule, domain)).or_default();
        for (sum, demand) in by_rule.iter_mut().zip(item.demand) {
            *sum += i128::from(*demand) * sign;
        }
        if !comes && by_rule.iter().all(|sum| *sum == 0) {
            self.by_rule.remove(&(item.rule, domain));
        }
        let count = &mut self.count[shard as usize];
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        if item.group != NONE {
            let members = self.spread.entry((item.group, domain)).or_default();
            self.collisions += if comes {
                *members += 1;
                i128::from(*members) - 1
            } else {
                *members = members.saturating_sub(1);
                -i128::from(*members)
            };
            if *members == 0 {
                self.spread.remove(&(item.group, domain));
            }
        }
        if item.affinity != NONE {
            self.change_affinity(item.affinity, shard, comes);
        }
    }

    fn change_affinity(&mut self, affinity: u32, shard: u32, comes: bool) {
        let mates = self.mates.entry((affinity, shard)).or_default();
        let members = self.members.entry(affinity).or_default();
        // The first shard of a group scatters nothing, each further one does.
        if comes {
            self.scattered += i128::from(*mates == 0) - i128::from(*members == 0);
            (*mates, *members) = (*mates + 1, *members + 1);
        } else {
            (*mates, *members) = (mates.saturating_sub(1), members.saturating_sub(1));
            self.scattered -= i128::from(*mates == 0) - i128::from(*members == 0);
        }
        let (alone, gone) = (*mates == 0, *members == 0);
        if alone {
            self.mates.remove(&(affinity, shard));
        }
        if gone {
            self.members.remove(&affinity);
        }
    }

    /// A shard's domain is about to change or has changed: what its groups and rules count there
    /// has to be taken out before and put back after, item by item. This forgets a shard that holds
    /// nothing.
    pub(super) fn is_empty(&self, shard: u32) -> bool {
        self.count_of(shard) == 0 && self.load_of(shard).iter().all(|load| *load == 0)
    }
}
