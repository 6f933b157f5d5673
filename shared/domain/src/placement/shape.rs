//! The shards and what is asked of them: all that does not change with who is where.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    amount::{DIMENSIONS_MAX, Ratio},
    rules::{Constraints, Refusal, Rule, Rules, ShardSet},
};
use crate::{
    ids::ShardName,
    labels::{Labels, Taint},
};

/// A shard as placement sees it, without what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shard {
    /// Its name.
    pub name: ShardName,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Marks that keep namespaces away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Its region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// What fails together with it; empty where it stands alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_domain: String,
    /// Its Airflow version, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airflow_version: Option<Version>,
    /// What it can take in each dimension; zero is no limit.
    pub capacity: Vec<i64>,
    /// Reasons for which it takes nothing now: cordon, health, being removed. What it has stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Refusal>,
    /// It is to be emptied; takes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// It is gone, and what was on it has no shard; takes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Most namespaces on it; zero is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub namespaces_max: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Shard {
    /// A shard of which only name and capacity are known.
    pub fn new(name: ShardName, capacity: Vec<i64>) -> Self {
        Self {
            name,
            labels: Labels::new(),
            taints: Vec::new(),
            region: String::new(),
            failure_domain: String::new(),
            airflow_version: None,
            capacity,
            closed: Vec::new(),
            draining: false,
            lost: false,
            namespaces_max: 0,
        }
    }

    /// Whether it takes anything at all now.
    pub fn is_open(&self) -> bool {
        self.closed.is_empty() && !self.draining && !self.lost
    }

    /// What fails together with it: its failure domain, or itself where it stands alone.
    pub fn domain(&self) -> &str {
        if self.failure_domain.is_empty() { self.name.as_str() } else { &self.failure_domain }
    }

    /// Everything for which it takes nothing now.
    pub fn closures(&self) -> Vec<Refusal> {
        let mut all = self.closed.clone();
        if self.draining {
            all.push(Refusal::new("DRAINING", "it is being drained; stop that to use it"));
        }
        if self.lost {
            all.push(Refusal::new("LOST", "it is taken for lost"));
        }
        all
    }
}

/// Numbers for texts that occur often.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32, FixedState>,
}

impl Names {
    pub(super) fn intern(&mut self, name: &str) -> u32 {
        if let Some(known) = self.numbers.get(name) {
            return *known;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

/// The shards, by number, and the rules over them. Numbers of removed shards are used again.
#[derive(Debug, Clone)]
pub struct Shape {
    dimensions: Vec<String>,
    shards: Vec<Option<Shard>>,
    numbers: HashMap<ShardName, u32, FixedState>,
    free: Vec<u32>,
    /// Shards × dimensions.
    capacity: Vec<i64>,
    ratio: Vec<Ratio>,
    open: ShardSet,
    draining: ShardSet,
    domain: Vec<u32>,
    most: Vec<u32>,
    domains: Names,
    rules: Rules,
    /// Sum of the capacities of all shards that are not lost, by dimension.
    total: [i128; DIMENSIONS_MAX],
    /// How many of them have no limit, by dimension.
    unlimited: [usize; DIMENSIONS_MAX],
    /// Grows with every change, so that what is derived from it can tell.
    pub(super) version: u64,
}

impl Shape {
    /// No shards, in these dimensions; at most [`DIMENSIONS_MAX`] of them are looked at.
    pub fn new<S: AsRef<str>>(dimensions: &[S]) -> Self {
        let dimensions =
            dimensions.iter().take(DIMENSIONS_MAX).map(|d| d.as_ref().to_owned()).collect();
        Self {
            dimensions,
            shards: Vec::new(),
            numbers: HashMap::default(),
            free: Vec::new(),
            capacity: Vec::new(),
            ratio: Vec::new(),
            open: ShardSet::default(),
            draining: ShardSet::default(),
            domain: Vec::new(),
            most: Vec::new(),
            domains: Names::default(),
            rules: Rules::default(),
            total: [0; DIMENSIONS_MAX],
            unlimited: [0; DIMENSIONS_MAX],
            version: 0,
        }
    }

    /// Names of the dimensions.
    pub fn dimensions(&self) -> &[String] {
        &self.dimensions
    }

    /// How many dimensions there are.
    #[inline]
    pub fn width(&self) -> usize {
        self.dimensions.len()
    }

    /// One more than the highest number of a shard.
    #[inline]
    pub fn slots(&self) -> usize {
        self.shards.len()
    }

    /// Adds a shard, or replaces the one of its name. Answers its number.
    pub fn put(&mut self, shard: Shard) -> u32 {
        let at = match self.numbers.get(&shard.name) {
            Some(known) => *known,
            None => {
                let at = self.free.pop().unwrap_or(self.shards.len() as u32);
                if at as usize == self.shards.len() {
                    self.shards.push(None);
                    self.domain.push(0);
                    self.most.push(0);
                    self.capacity.extend(std::iter::repeat_n(0, self.dimensions.len()));
                    let unlimited = std::iter::repeat_n(Ratio::UNLIMITED, self.dimensions.len());
                    self.ratio.extend(unlimited);
                }
                self.numbers.insert(shard.name.clone(), at);
                at
            }
        };
        let width = self.width();
        self.count(at, false);
        for dimension in 0..width {
            let capacity = shard.capacity.get(dimension).copied().unwrap_or(0).max(0);
            self.capacity[at as usize * width + dimension] = capacity;
            self.ratio[at as usize * width + dimension] = Ratio::of(capacity);
        }
        self.domain[at as usize] = self.domains.intern(shard.domain());
        self.most[at as usize] =
            if shard.namespaces_max == 0 { u32::MAX } else { shard.namespaces_max };
        self.open.set(at, shard.is_open());
        self.draining.set(at, shard.draining && !shard.lost);
        self.rules.refresh(at, Some(&shard));
        self.shards[at as usize] = Some(shard);
        self.count(at, true);
        self.version += 1;
        at
    }

    /// Removes a shard. Answers the number that it had.
    pub fn remove(&mut self, name: &str) -> Option<u32> {
        let at = self.numbers.remove(name)?;
        let width = self.width();
        self.count(at, false);
        self.shards[at as usize] = None;
        self.open.set(at, false);
        self.draining.set(at, false);
        self.rules.refresh(at, None);
        self.capacity[at as usize * width..][..width].fill(0);
        self.ratio[at as usize * width..][..width].fill(Ratio::UNLIMITED);
        self.free.push(at);
        self.version += 1;
        Some(at)
    }

    /// Adds what a shard can take to the totals, or takes it away.
    fn count(&mut self, at: u32, add: bool) {
        if self.shard(at).is_none_or(|shard| shard.lost) {
            return;
        }
        for dimension in 0..self.width() {
            let capacity = i128::from(self.capacity_of(at)[dimension]);
            let (total, unlimited) = (&mut self.total[dimension], &mut self.unlimited[dimension]);
            match (capacity, add) {
                (0, true) => *unlimited += 1,
                (0, false) => *unlimited -= 1,
                (_, true) => *total += capacity,
                (_, false) => *total -= capacity,
            }
        }
    }

    /// The number of a rule: what is asked, and the pin.
    pub fn rule(&mut self, constraints: &Constraints, pinned: Option<&ShardName>) -> u32 {
        let shards = self.shards.iter().enumerate();
        let there = shards.filter_map(|(at, shard)| Some((at as u32, shard.as_ref()?)));
        self.rules.intern(constraints, pinned, there)
    }

    /// What a rule says.
    pub fn rule_of(&self, rule: u32) -> &Rule {
        self.rules.get(rule)
    }

    /// The shards that satisfy a rule.
    pub fn admitted(&self, rule: u32) -> &ShardSet {
        self.rules.admitted(rule)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// A shard by number.
    pub fn shard(&self, at: u32) -> Option<&Shard> {
        self.shards.get(at as usize)?.as_ref()
    }

    /// The name of a shard; empty where there is none of that number.
    pub fn name(&self, at: u32) -> &str {
        self.shard(at).map_or("", |shard| shard.name.as_str())
    }

    /// The number of a shard.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// All shards with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Shard)> {
        let shards = self.shards.iter().enumerate();
        shards.filter_map(|(at, shard)| Some((at as u32, shard.as_ref()?)))
    }

    /// The shards that take something now.
    pub fn open(&self) -> &ShardSet {
        &self.open
    }

    /// Whether a shard is to be emptied.
    #[inline]
    pub fn is_draining(&self, at: u32) -> bool {
        self.draining.has(at)
    }

    /// What a shard can take; zero is no limit.
    #[inline]
    pub fn capacity_of(&self, at: u32) -> &[i64] {
        &self.capacity[at as usize * self.width()..][..self.width()]
    }

    /// The ratios of a shard.
    #[inline]
    pub fn ratio_of(&self, at: u32) -> &[Ratio] {
        &self.ratio[at as usize * self.width()..][..self.width()]
    }

    /// Most namespaces on a shard.
    #[inline]
    pub fn namespaces_max(&self, at: u32) -> u32 {
        self.most[at as usize]
    }

    /// The failure domain of a shard.
    #[inline]
    pub fn domain_of(&self, at: u32) -> u32 {
        self.domain[at as usize]
    }

    /// How many failure domains were ever named.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// The name of a failure domain.
    pub fn domain_name(&self, domain: u32) -> &str {
        self.domains.get(domain)
    }

    /// The number of a failure domain.
    pub fn domain_number(&self, name: &str) -> Option<u32> {
        self.domains.find(name)
    }

    /// What all shards together can take in a dimension; none where one of them has no limit.
    #[inline]
    pub fn total(&self, dimension: usize) -> Option<i128> {
        (self.unlimited[dimension] == 0).then_some(self.total[dimension])
    }
}
