//! Placing one namespace at a time.
//!
//! The board is the fleet as it stands: shards, rules, and what lies where. It is what a leader
//! keeps in memory and what a rebalancing starts from. Deciding filters by the namespace's rule
//! (bits), then by room, and takes the shard where the objective grows least.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    amount::{DIMENSIONS_MAX, percent},
    objective::{Change, Policy, Scorer, mean_peak, target},
    resilience::Resilience,
    rules::{Constraints, Refusal},
    shape::{Names, Shape, Shard},
    state::{Item, NONE, State},
};
use crate::ids::ShardName;

/// What a namespace needs, in the board's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    demand: [i64; DIMENSIONS_MAX],
    width: usize,
    /// Its rule.
    pub rule: u32,
    /// Its spread group, or [`NONE`].
    pub group: u32,
    /// Its affinity group, or [`NONE`].
    pub affinity: u32,
}

impl Needs {
    pub(super) fn of(demand: [i64; DIMENSIONS_MAX], width: usize, item: Item<'_>) -> Self {
        Self { demand, width, rule: item.rule, group: item.group, affinity: item.affinity }
    }

    /// The same with another demand.
    #[must_use]
    pub fn with_demand(&self, demand: &[i64]) -> Self {
        let mut own = Self { demand: [0; DIMENSIONS_MAX], ..*self };
        let amounts = own.demand.iter_mut().zip(demand).take(self.width);
        amounts.for_each(|(own, amount)| *own = (*amount).max(0));
        own
    }

    /// As a score sees it.
    #[inline]
    pub fn item(&self) -> Item<'_> {
        Item {
            demand: &self.demand[..self.width],
            rule: self.rule,
            group: self.group,
            affinity: self.affinity,
        }
    }
}

/// Where a namespace goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The shard; `None` where none will do.
    pub shard: Option<ShardName>,
    /// Why, in one line.
    pub reason: String,
}

/// The fleet as it stands.
#[derive(Debug, Clone)]
pub struct Board {
    /// The shards and what is asked of them.
    pub(super) shape: Shape,
    /// Who is where.
    pub(super) state: State,
    /// What is asked of the fleet.
    pub(super) policy: Policy,
    pub(super) groups: Names,
    affinities: Names,
    /// What is on its way off each shard, shards × dimensions: room that will come by itself.
    leaving: Vec<i128>,
}

impl Board {
    /// A fleet without shards.
    pub fn new<S: AsRef<str>>(dimensions: &[S], policy: Policy) -> Self {
        let shape = Shape::new(dimensions);
        let state = State::new(&shape);
        Self {
            shape,
            state,
            policy,
            groups: Names::default(),
            affinities: Names::default(),
            leaving: Vec::new(),
        }
    }

    /// The shards and rules.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Who is where.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is asked of the fleet.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The name of a spread group; empty for none.
    pub fn group_name(&self, group: u32) -> &str {
        if group == NONE { "" } else { self.groups.get(group) }
    }

    /// The name of an affinity group; empty for none.
    pub fn affinity_name(&self, affinity: u32) -> &str {
        if affinity == NONE { "" } else { self.affinities.get(affinity) }
    }

    /// Adds a shard, or replaces the one of its name. Its failure domain may only change while
    /// nothing is on it: take what it has off before and put it back after.
    pub fn put_shard(&mut self, shard: Shard) -> u32 {
        let at = self.shape.put(shard);
        self.state.fit(&self.shape);
        self.leaving.resize(self.shape.slots() * self.shape.width(), 0);
        at
    }

    /// Notes that a namespace, which counts on a shard, is on its way off it; or that it no longer
    /// is.
    pub fn note_leaving(&mut self, needs: &Needs, shard: u32, is: bool) {
        let width = self.shape.width();
        let row = &mut self.leaving[shard as usize * width..][..width];
        for (sum, demand) in row.iter_mut().zip(needs.item().demand) {
            *sum += if is { i128::from(*demand) } else { -i128::from(*demand) };
        }
    }

    /// What is on its way off a shard.
    pub(super) fn leaving_of(&self, shard: u32) -> &[i128] {
        let width = self.shape.width();
        &self.leaving[shard as usize * width..][..width]
    }

    /// Removes a shard that holds nothing. Answers false where it holds something or is not there.
    pub fn remove_shard(&mut self, name: &str) -> bool {
        match self.shape.number(name) {
            Some(at) if self.state.is_empty(at) => self.shape.remove(name).is_some(),
            _ => false,
        }
    }

    /// What a namespace needs, in the board's numbers. A demand that is negative counts as nothing.
    pub fn needs(
        &mut self,
        demand: &[i64],
        constraints: &Constraints,
        pinned: Option<&ShardName>,
        affinity: &str,
    ) -> Needs {
        let width = self.shape.width();
        let mut own = [0; DIMENSIONS_MAX];
        own.iter_mut().zip(demand).take(width).for_each(|(own, amount)| *own = (*amount).max(0));
        let number = |names: &mut Names, name: &str| {
            if name.is_empty() { NONE } else { names.intern(name) }
        };
        Needs {
            demand: own,
            width,
            rule: self.shape.rule(constraints, pinned),
            group: number(&mut self.groups, &constraints.spread_group),
            affinity: number(&mut self.affinities, affinity),
        }
    }

    /// A namespace comes to a shard, whether it fits or not.
    pub fn add(&mut self, needs: &Needs, shard: u32) {
        self.state.add(&self.shape, needs.item(), shard);
    }

    /// A namespace leaves a shard.
    pub fn remove(&mut self, needs: &Needs, shard: u32) {
        self.state.remove(&self.shape, needs.item(), shard);
    }

    /// The scorer that a decision about one more namespace goes by.
    pub(super) fn scorer(&self, item: Item<'_>) -> Scorer<'_> {
        let peak = mean_peak(&self.shape, |dimension| {
            self.state.sum(dimension) + i128::from(item.demand[dimension])
        });
        Scorer {
            shape: &self.shape,
            state: &self.state,
            soft_limit: self.policy.soft(),
            target: target(peak, &self.policy),
        }
    }

    /// The shard where a namespace that is nowhere does least harm, with what it changes there;
    /// `None` where none will do. Also tells how many would do.
    pub fn choose(&mut self, needs: &Needs) -> (Option<(u32, Change)>, usize) {
        let item = needs.item();
        let tight = self.policy.resilience && {
            self.state.watch_resilience(&self.shape);
            self.state.resilience().is_some_and(|resilience| !resilience.is_ample(item.demand))
        };
        let scorer = self.scorer(item);
        let mut best: Option<(u32, Change)> = None;
        let mut will_do = 0;
        let mut candidates: Vec<(u32, Change)> = Vec::new();
        for shard in self.shape.candidates(item.rule) {
            if !fits(&self.shape, &self.state, &self.policy, item, shard) {
                continue;
            }
            will_do += 1;
            let change = scorer.coming(item, shard);
            if tight {
                candidates.push((shard, change));
            } else if self.is_better((shard, &change), best.as_ref()) {
                best = Some((shard, change));
            }
        }
        for (shard, mut change) in candidates {
            change.missing = self.missing(item, shard);
            if self.is_better((shard, &change), best.as_ref()) {
                best = Some((shard, change));
            }
        }
        (best, will_do)
    }

    /// Ties go to the shard with fewer namespaces, then to the first by name.
    fn is_better(&self, one: (u32, &Change), best: Option<&(u32, Change)>) -> bool {
        let Some((other, least)) = best else { return true };
        let count = |shard| self.state.count_of(shard);
        let order = one.1.cmp(least).then_with(|| count(one.0).cmp(&count(*other)));
        order.then_with(|| self.shape.name(one.0).cmp(self.shape.name(*other))).is_lt()
    }

    /// What level 4 changes by when a namespace comes to a shard.
    pub(super) fn missing(&mut self, item: Item<'_>, shard: u32) -> i128 {
        let level = |state: &State| state.resilience().map_or(0, Resilience::level);
        let before = level(&self.state);
        self.state.add(&self.shape, item, shard);
        let after = level(&self.state);
        self.state.remove(&self.shape, item, shard);
        after - before
    }

    /// Decides where a namespace goes. Counting it there, before the next is asked, is the
    /// caller's part.
    pub fn decide(&mut self, needs: &Needs) -> Decision {
        let (best, will_do) = self.choose(needs);
        let Some((shard, change)) = best else {
            return Decision { shard: None, reason: self.unplaced(needs) };
        };
        let name = self.shape.shard(shard).expect("a candidate is there").name.clone();
        let reason = match &self.shape.rule_of(needs.rule).pinned {
            Some(_) => format!("pinned to {name}"),
            None => format!(
                "least loaded of {will_do} eligible shards: {} at {} with it",
                self.shape.dimensions()[change.fullest],
                percent(change.peak),
            ),
        };
        Decision { shard: Some(name), reason }
    }

    /// Everything that speaks against a shard.
    pub fn refusals(&self, needs: &Needs, shard: u32) -> Vec<Refusal> {
        let Some(known) = self.shape.shard(shard) else { return Vec::new() };
        let item = needs.item();
        let mut refusals = known.closures();
        refusals.extend(self.shape.rule_of(item.rule).refusals(known));
        refusals.extend(room(&self.shape, &self.state, &self.policy, item, shard));
        refusals
    }

    /// What is said where a shard has as many namespaces as it may.
    pub fn namespace_limit(&self, shard: u32) -> Option<Refusal> {
        namespace_limit(&self.shape, &self.state, shard)
    }

    /// Why no shard will do: how many shards each reason keeps out, the commonest first, and how
    /// many would take it but be overloaded.
    pub(super) fn unplaced(&self, needs: &Needs) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let (mut fleet, mut open) = (0, 0);
        for (shard, _) in self.shape.all() {
            fleet += 1;
            let refusals = self.refusals(needs, shard);
            open += usize::from(refusals.is_empty());
            let mut codes: Vec<_> = refusals.into_iter().map(|refusal| refusal.code).collect();
            codes.sort_unstable();
            codes.dedup();
            for code in codes {
                *counts.entry(code.into_owned()).or_default() += 1;
            }
        }
        if fleet == 0 {
            return "no shard is registered; add one with kind: Shard".into();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut counts: Vec<String> =
            counts.iter().map(|(code, n)| format!("{code} on {n}")).collect();
        if open > 0 {
            let percent = self.policy.soft() / 10_000;
            counts
                .insert(0, format!("{open} would be above the soft limit of {percent} % with it"));
        }
        format!("none of {fleet} shards will do: {}", counts.join(", "))
    }
}

impl Shape {
    /// The shards that satisfy a rule and take something now, ascending.
    pub fn candidates(&self, rule: u32) -> impl Iterator<Item = u32> + '_ {
        self.admitted(rule).iter().filter(|shard| self.open().has(*shard))
    }
}

/// Whether a shard that is open has room for a namespace.
#[inline]
pub(super) fn fits(
    shape: &Shape,
    state: &State,
    policy: &Policy,
    item: Item<'_>,
    shard: u32,
) -> bool {
    let (capacity, load) = (shape.capacity_of(shard), state.load_of(shard));
    // A namespace that asks for nothing in a dimension does not mind that it is overfull.
    let fits = item.demand.iter().enumerate().all(|(dimension, demand)| {
        let limit = capacity[dimension];
        limit == 0 || *demand == 0 || load[dimension] + i128::from(*demand) <= i128::from(limit)
    });
    fits && state.count_of(shard) < shape.namespaces_max(shard)
        && (policy.group_max_per_domain == 0
            || item.group == NONE
            || state.group_members(item.group, shape.domain_of(shard))
                < policy.group_max_per_domain)
}

fn namespace_limit(shape: &Shape, state: &State, shard: u32) -> Option<Refusal> {
    let most = shape.namespaces_max(shard);
    (state.count_of(shard) >= most).then(|| {
        let message =
            format!("it owns {most} namespaces already; raise placement.max_namespaces_per_shard");
        Refusal::new("NAMESPACE_LIMIT", message)
    })
}

/// What [`fits`] says no to, in words.
pub(super) fn room(
    shape: &Shape,
    state: &State,
    policy: &Policy,
    item: Item<'_>,
    shard: u32,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (dimension, demand) in item.demand.iter().enumerate() {
        let capacity = shape.capacity_of(shard)[dimension];
        let room = i128::from(capacity) - state.load_of(shard)[dimension];
        if capacity > 0 && *demand > 0 && i128::from(*demand) > room {
            let name = &shape.dimensions()[dimension];
            let message = format!("{name}: needs {demand}, {room} of {capacity} are free");
            refusals.push(Refusal::new("NO_ROOM", message));
        }
    }
    refusals.extend(namespace_limit(shape, state, shard));
    let domain = shape.domain_of(shard);
    let most = policy.group_max_per_domain;
    if most > 0 && item.group != NONE && state.group_members(item.group, domain) >= most {
        let message = format!(
            "failure domain {} has {most} of its spread group already, the most that \
             placement.group_max_per_domain allows",
            shape.domain_name(domain)
        );
        refusals.push(Refusal::new("GROUP_LIMIT", message));
    }
    refusals
}
