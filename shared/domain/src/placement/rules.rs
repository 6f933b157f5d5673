//! What namespaces ask of shards, interned, and which shards give it.
//!
//! A million namespaces ask a few hundred different things. Each different question is a *rule*
//! with a number; which shards satisfy it is worked out once and kept as a set of bits. What a rule
//! covers does not change with load: labels, taints, region, Airflow version, pin. Room, cordons
//! and health are looked at when a shard is chosen.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, Hasher as _},
};

use foldhash::fast::FixedState;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::shape::Shard;
use crate::{
    ids::ShardName,
    labels::{Requirement, Toleration},
    manifest,
};

/// What a namespace asks of its shard, ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Constraints {
    /// Conditions on the shard's labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selector: Vec<Requirement>,
    /// Taints that it tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Airflow versions that it runs on.
    pub airflow_version: VersionReq,
    /// Region; empty means any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Namespaces of one group are spread over failure domains; empty means none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spread_group: String,
}

impl Default for Constraints {
    fn default() -> Self {
        Self {
            selector: Vec::new(),
            tolerations: Vec::new(),
            airflow_version: VersionReq::STAR,
            region: String::new(),
            spread_group: String::new(),
        }
    }
}

impl TryFrom<&manifest::Placement> for Constraints {
    type Error = String;

    /// Fails only on a version range that is none, which validation has refused before.
    fn try_from(placement: &manifest::Placement) -> Result<Self, String> {
        Ok(Self {
            selector: placement.selector.clone(),
            tolerations: placement.tolerations.clone(),
            airflow_version: manifest::parse_version_range(&placement.airflow_version)?,
            region: placement.region.clone(),
            spread_group: placement.spread_group.clone(),
        })
    }
}

/// Why a shard will not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: std::borrow::Cow<'static, str>,
    /// The numbers, and what would change it.
    pub message: String,
}

impl Refusal {
    /// A refusal with a stable code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// One of the conditions that a rule is made of; the unit in which "what if" drops them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// It is pinned.
    Pin,
    /// One requirement of its selector, by position.
    Selector(usize),
    /// It does not tolerate every taint.
    Taints,
    /// Its region.
    Region,
    /// Its range of Airflow versions.
    Version,
}

/// A rule: constraints, and the only shard that will do where the namespace is pinned. The spread
/// group is no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What is asked of the shard.
    pub constraints: Constraints,
    /// The only shard that will do.
    pub pinned: Option<ShardName>,
}

impl Rule {
    fn is(&self, constraints: &Constraints, pinned: Option<&ShardName>) -> bool {
        let own = &self.constraints;
        self.pinned.as_ref() == pinned
            && own.region == constraints.region
            && own.selector == constraints.selector
            && own.tolerations == constraints.tolerations
            && own.airflow_version == constraints.airflow_version
    }

    fn hash(constraints: &Constraints, pinned: Option<&ShardName>) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        constraints.selector.hash(&mut hasher);
        constraints.tolerations.hash(&mut hasher);
        constraints.airflow_version.hash(&mut hasher);
        constraints.region.hash(&mut hasher);
        pinned.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a shard satisfies it.
    pub fn admits(&self, shard: &Shard) -> bool {
        self.admits_without(shard, None)
    }

    /// Whether a shard satisfies it when one condition is dropped.
    pub fn admits_without(&self, shard: &Shard, dropped: Option<Condition>) -> bool {
        let Constraints { selector, tolerations, airflow_version, region, .. } = &self.constraints;
        let holds = |condition, holds: bool| dropped == Some(condition) || holds;
        holds(Condition::Pin, self.pinned.as_ref().is_none_or(|pin| *pin == shard.name))
            && holds(Condition::Region, region.is_empty() || *region == shard.region)
            && holds(
                Condition::Taints,
                shard.taints.iter().all(|taint| tolerations.iter().any(|t| t.tolerates(taint))),
            )
            && holds(
                Condition::Version,
                *airflow_version == VersionReq::STAR
                    || shard.airflow_version.as_ref().is_some_and(|v| matches(airflow_version, v)),
            )
            && selector
                .iter()
                .enumerate()
                .all(|(at, r)| holds(Condition::Selector(at), r.matches(&shard.labels)))
    }

    /// Its conditions, each with what it says.
    pub fn conditions(&self) -> Vec<(Condition, String)> {
        let Constraints { selector, tolerations, airflow_version, region, .. } = &self.constraints;
        let mut all = Vec::new();
        if let Some(pin) = &self.pinned {
            all.push((Condition::Pin, format!("pinned to {pin}")));
        }
        let requirements = selector.iter().enumerate();
        all.extend(requirements.map(|(at, r)| (Condition::Selector(at), format!("label {r}"))));
        if !region.is_empty() {
            all.push((Condition::Region, format!("region {region}")));
        }
        if *airflow_version != VersionReq::STAR {
            all.push((Condition::Version, format!("Airflow {airflow_version}")));
        }
        let tolerated = match tolerations.len() {
            0 => "taints, of which it tolerates none".to_owned(),
            _ => {
                let keys: Vec<&str> = tolerations.iter().map(|t| t.key.as_str()).collect();
                format!("taints other than {}", keys.join(", "))
            }
        };
        all.push((Condition::Taints, tolerated));
        all
    }

    /// Everything about a shard that breaks it.
    pub fn refusals(&self, shard: &Shard) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let mut refuse = |code, message: String| refusals.push(Refusal::new(code, message));
        let wanted = &self.constraints;
        if let Some(pin) = &self.pinned
            && *pin != shard.name
        {
            refuse("PINNED_ELSEWHERE", format!("the namespace is pinned to {pin}"));
        }
        for requirement in wanted.selector.iter().filter(|r| !r.matches(&shard.labels)) {
            let has = shard.labels.get(&requirement.key).map_or("none", String::as_str);
            refuse("SELECTOR_MISMATCH", format!("needs {requirement}; the shard's value is {has}"));
        }
        for taint in &shard.taints {
            if !wanted.tolerations.iter().any(|t| t.tolerates(taint)) {
                let message = format!("taint {}={} is not tolerated", taint.key, taint.value);
                refuse("TAINT_NOT_TOLERATED", message);
            }
        }
        if !wanted.region.is_empty() && wanted.region != shard.region {
            let message = format!("needs region {}, is in {:?}", wanted.region, shard.region);
            refuse("REGION_MISMATCH", message);
        }
        let range = &wanted.airflow_version;
        if *range != VersionReq::STAR {
            match &shard.airflow_version {
                Some(version) if matches(range, version) => {}
                Some(version) => {
                    refuse("VERSION_MISMATCH", format!("needs Airflow {range}, runs {version}"));
                }
                None => refuse(
                    "VERSION_UNKNOWN",
                    format!(
                        "needs Airflow {range}; set the shard's airflowVersion or connect its agent"
                    ),
                ),
            }
        }
        refusals
    }
}

fn matches(range: &VersionReq, version: &Version) -> bool {
    range.matches(version)
}

/// A set of shards by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSet(Vec<u64>);

impl ShardSet {
    /// Whether it has this one.
    #[inline]
    pub fn has(&self, shard: u32) -> bool {
        self.0.get(shard as usize / 64).is_some_and(|word| word >> (shard % 64) & 1 == 1)
    }

    /// Puts one in or takes it out.
    pub fn set(&mut self, shard: u32, member: bool) {
        let (word, bit) = (shard as usize / 64, shard % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] = self.0[word] & !(1 << bit) | u64::from(member) << bit;
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Whether the other has all that this one has.
    pub fn is_within(&self, other: &ShardSet) -> bool {
        let theirs = other.0.iter().chain(std::iter::repeat(&0));
        self.0.iter().zip(theirs).all(|(own, theirs)| own & !theirs == 0)
    }

    /// Its members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    at as u32 * 64 + bit
                })
            })
        })
    }
}

/// All rules, each with the shards that satisfy it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    all: Vec<Rule>,
    admitted: Vec<ShardSet>,
    by_hash: HashMap<u64, Vec<u32>, FixedState>,
}

impl Rules {
    /// The number of a rule; a new one is worked out over `shards`.
    pub(super) fn intern<'a>(
        &mut self,
        constraints: &Constraints,
        pinned: Option<&ShardName>,
        shards: impl Iterator<Item = (u32, &'a Shard)>,
    ) -> u32 {
        let same = self.by_hash.entry(Rule::hash(constraints, pinned)).or_default();
        let known = same.iter().find(|at| self.all[**at as usize].is(constraints, pinned));
        if let Some(known) = known {
            return *known;
        }
        let number = self.all.len() as u32;
        same.push(number);
        let constraints = Constraints { spread_group: String::new(), ..constraints.clone() };
        let rule = Rule { constraints, pinned: pinned.cloned() };
        let mut admitted = ShardSet::default();
        for (at, shard) in shards.filter(|(_, shard)| rule.admits(shard)) {
            admitted.set(at, true);
            debug_assert!(rule.refusals(shard).is_empty(), "both say the same");
        }
        self.all.push(rule);
        self.admitted.push(admitted);
        number
    }

    /// Works a shard that changed out anew.
    pub(super) fn refresh(&mut self, at: u32, shard: Option<&Shard>) {
        for (rule, admitted) in self.all.iter().zip(&mut self.admitted) {
            admitted.set(at, shard.is_some_and(|shard| rule.admits(shard)));
        }
    }

    pub(super) fn get(&self, rule: u32) -> &Rule {
        &self.all[rule as usize]
    }

    pub(super) fn admitted(&self, rule: u32) -> &ShardSet {
        &self.admitted[rule as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
