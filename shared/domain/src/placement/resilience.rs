//! What could not be absorbed if one failure domain died.
//!
//! Losing a domain sends what was on it to the room that is left elsewhere. Where that room is
//! depends on what is asked: what is bound to a region needs room in that region. So the question
//! is put for each *class* of rules (a different set of admitted shards), in each dimension:
//!
//! ```text
//! missing(class, domain) = max(0, demand of the class's rules on the domain
//!                                 - room of the class's shards outside of the domain)
//! ```
//!
//! where the rules of a class are all whose shards lie within the class's shards. With
//! `stake = that demand + the class's room inside of the domain` and `room` over all of the class's
//! shards, this is `max(0, stake - room)`: one number a class and one a domain, kept up to date as
//! namespaces come and go. Namespaces that are pinned are left out: they have nowhere to go,
//! whatever the room.
//!
//! Room is counted as if namespaces could be cut up. Whether the largest really fit is what the
//! certificate of [`headroom`](super::headroom) tries out.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    amount::{DIMENSIONS_MAX, millionths},
    rules::ShardSet,
    shape::Shape,
};

/// Most classes that are looked at: those with the most shards. What asks for fewer shards than any
/// of them is counted with those that it lies within.
const CLASSES_MAX: usize = 16;

/// The room of a shard without limit: more than any fleet demands, and small enough to add up.
const ENDLESS: i128 = 1 << 96;

/// Demand by rule and failure domain.
pub(super) type ByRule = HashMap<(u32, u32), [i128; DIMENSIONS_MAX], FixedState>;

#[derive(Debug, Clone, Default)]
pub(super) struct Resilience {
    width: usize,
    domains: usize,
    /// By shard: bits of the classes that it is in and open for.
    open_in: Vec<u32>,
    /// By rule: bits of the classes that it belongs to.
    belongs: Vec<u32>,
    classes: Vec<u32>,
    /// Classes × dimensions.
    room: Vec<i128>,
    missing: Vec<i128>,
    whole: Vec<i128>,
    /// No stake is above this.
    top: Vec<i128>,
    /// Classes × domains × dimensions.
    stake: Vec<i128>,
}

impl Resilience {
    /// Works it out from scratch.
    pub(super) fn new(shape: &Shape, load: &[i128], demand: &ByRule) -> Self {
        let width = shape.width();
        let classes = classes(shape);
        let mut own = Self {
            width,
            domains: shape.domains(),
            open_in: vec![0; shape.slots()],
            belongs: vec![0; shape.rules()],
            room: vec![0; classes.len() * width],
            missing: vec![0; classes.len() * width],
            whole: vec![0; classes.len() * width],
            top: vec![0; classes.len() * width],
            stake: vec![0; classes.len() * shape.domains() * width],
            classes,
        };
        for (class, rule) in own.classes.clone().into_iter().enumerate() {
            let admitted = shape.admitted(rule);
            for shard in admitted.iter() {
                if shape.open().has(shard) {
                    own.open_in[shard as usize] |= 1 << class;
                }
                for dimension in 0..width {
                    let capacity = i128::from(shape.capacity_of(shard)[dimension]);
                    own.whole[class * width + dimension] += capacity;
                }
            }
            for other in 0..shape.rules() as u32 {
                let within = shape.rule_of(other).pinned.is_none()
                    && shape.admitted(other).is_within(admitted);
                own.belongs[other as usize] |= u32::from(within) << class;
            }
        }
        for (shard, _) in shape.all() {
            let load = &load[shard as usize * width..][..width];
            let mask = own.open_in[shard as usize];
            for (dimension, load) in load.iter().enumerate() {
                let room = room(shape.capacity_of(shard)[dimension], *load);
                own.each(mask, |own, class| {
                    own.room[class * width + dimension] += room;
                    let at = own.at(class, shape.domain_of(shard), dimension);
                    own.stake[at] += room;
                });
            }
        }
        for ((rule, domain), demand) in demand {
            let mask = own.belongs[*rule as usize];
            for (dimension, demand) in demand.iter().take(width).enumerate() {
                own.each(mask, |own, class| {
                    let at = own.at(class, *domain, dimension);
                    own.stake[at] += demand;
                });
            }
        }
        for class in 0..own.classes.len() {
            (0..width).for_each(|dimension| own.recount(class, dimension));
        }
        own
    }

    fn at(&self, class: usize, domain: u32, dimension: usize) -> usize {
        (class * self.domains + domain as usize) * self.width + dimension
    }

    fn each(&mut self, mask: u32, mut f: impl FnMut(&mut Self, usize)) {
        let mut rest = mask;
        while rest != 0 {
            f(self, rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }

    fn recount(&mut self, class: usize, dimension: usize) {
        let key = class * self.width + dimension;
        let room = self.room[key];
        let (mut missing, mut top) = (0, i128::MIN);
        for domain in 0..self.domains as u32 {
            let stake = self.stake[self.at(class, domain, dimension)];
            missing += (stake - room).max(0);
            top = top.max(stake);
        }
        self.missing[key] = missing;
        self.top[key] = top;
    }

    /// A namespace of `rule` came to the shard or left it, whose load in a dimension went from
    /// `before` to `after`.
    pub(super) fn change(
        &mut self,
        shape: &Shape,
        shard: u32,
        rule: u32,
        dimension: usize,
        (before, after): (i128, i128),
    ) {
        let (open, belongs) = (self.open_in[shard as usize], self.belongs[rule as usize]);
        if open | belongs == 0 || before == after {
            return;
        }
        let capacity = shape.capacity_of(shard)[dimension];
        let room_change = room(capacity, after) - room(capacity, before);
        let domain = shape.domain_of(shard);
        self.each(open | belongs, |own, class| {
            let key = class * own.width + dimension;
            let at = own.at(class, domain, dimension);
            let demand = if belongs >> class & 1 == 1 { after - before } else { 0 };
            let room = if open >> class & 1 == 1 { room_change } else { 0 };
            let was = own.stake[at];
            own.stake[at] += demand + room;
            own.room[key] += room;
            own.top[key] = own.top[key].max(own.stake[at]);
            if own.top[key] <= own.room[key] && own.missing[key] == 0 {
                return;
            }
            if room == 0 {
                let room = own.room[key];
                own.missing[key] += (own.stake[at] - room).max(0) - (was - room).max(0);
            } else {
                own.recount(class, dimension);
            }
        });
    }

    /// Whether it cannot come to anything missing, wherever so much goes.
    pub(super) fn is_ample(&self, demand: &[i64]) -> bool {
        (0..self.room.len()).all(|key| {
            let demand = i128::from(demand[key % self.width]);
            self.missing[key] == 0 && self.top[key] + demand <= self.room[key] - demand
        })
    }

    /// What could not be absorbed, summed over domains, classes and dimensions, each in millionths
    /// of what the class's shards can take.
    pub(super) fn level(&self) -> i128 {
        let missing = self.missing.iter().zip(&self.whole);
        missing.map(|(missing, whole)| i128::from(millionths(*missing, *whole))).sum()
    }
}

fn room(capacity: i64, load: i128) -> i128 {
    if capacity > 0 { (i128::from(capacity) - load).max(0) } else { ENDLESS }
}

/// The rules whose sets of shards are looked at: different ones, the largest first. Which they are
/// does not depend on who is where, so that a score does not depend on how it came about.
fn classes(shape: &Shape) -> Vec<u32> {
    let mut rules: Vec<(usize, u32)> = (0..shape.rules() as u32)
        .filter(|rule| shape.rule_of(*rule).pinned.is_none())
        .map(|rule| (shape.admitted(rule).len(), rule))
        .filter(|(shards, _)| *shards > 0)
        .collect();
    rules.sort_unstable_by_key(|(shards, rule)| (std::cmp::Reverse(*shards), *rule));
    let mut chosen: Vec<u32> = Vec::new();
    for (_, rule) in rules {
        let set: &ShardSet = shape.admitted(rule);
        if !chosen.iter().any(|known| shape.admitted(*known) == set) {
            chosen.push(rule);
            if chosen.len() == CLASSES_MAX {
                break;
            }
        }
    }
    chosen
}
