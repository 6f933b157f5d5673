//! Why a namespace is where it is: answers that an on-call engineer can act on.
//!
//! Everything here is worked out from the same rules, room and objective that decisions go by;
//! nothing is remembered from when they were made. A shard's answer is *YES* (it would do now),
//! *NO* (with everything that speaks against it), or *THROTTLED*: nothing but something that passes
//! by itself keeps it out, such as a report that is late or room that a move is about to free.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    amount::percent,
    board::{Board, Needs},
    objective::{LEVEL_NAMES, LEVELS, Score, level_text},
    problem::Hold,
    rules::{Condition, Refusal},
};

/// Codes of what passes by itself.
const PASSING: [&str; 3] = ["SHARD_HEALTH_UNKNOWN", "SHARD_DEGRADED", "ROOM_ON_ITS_WAY"];

/// Whether a shard would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// It would, now.
    Yes,
    /// It will, when something passes by itself.
    Throttled,
    /// It would not.
    No,
}

impl Answer {
    /// `YES`, `NO` or `THROTTLED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "YES",
            Self::Throttled => "THROTTLED",
            Self::No => "NO",
        }
    }
}

/// What a shard says to a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardAnswer {
    /// The shard.
    pub shard: String,
    /// Whether it would do.
    pub answer: Answer,
    /// Everything that speaks against it.
    pub refusals: Vec<Refusal>,
    /// What the objective grows by with the namespace on it.
    pub score: Score,
    /// How full its fullest dimension would be. Millionths.
    pub peak: i64,
    /// That dimension.
    pub dimension: String,
}

/// What would be if one thing were different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterfactual {
    /// What is dropped.
    pub dropped: String,
    /// Shards that would do then. Count.
    pub eligible: usize,
}

/// Where a namespace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has no shard.
    Unplaced,
    /// Its shard breaks its rule.
    Misplaced,
    /// Its shard does; another would be better.
    CouldMove,
    /// Its shard does, and no other would be better.
    WellPlaced,
}

/// Why a namespace is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The namespace.
    pub namespace: String,
    /// Where it stands.
    pub verdict: Verdict,
    /// Its shard; none where it has none. What it says is that of a shard that it would come to.
    pub current: Option<ShardAnswer>,
    /// The best other shard that would do.
    pub best: Option<ShardAnswer>,
    /// The most important level on which the two differ, and by how much; positive where the other
    /// one is better.
    pub gain: Option<(usize, i128)>,
    /// Every shard's answer, the best first.
    pub shards: Vec<ShardAnswer>,
    /// How many shards each code keeps out, the commonest first.
    pub histogram: Vec<(String, usize)>,
    /// The code that alone keeps out the most shards.
    pub binding: Option<(String, usize)>,
    /// What would be if one thing were different.
    pub counterfactuals: Vec<Counterfactual>,
    /// Why it was not moved.
    pub not_moved: String,
}

/// What to do about a code.
pub fn fix(code: &str) -> &'static str {
    match code {
        "PINNED_ELSEWHERE" => "airfleet namespace unpin NAMESPACE, or pin it to another shard",
        "SELECTOR_MISMATCH" => {
            "change the shard's labels or the namespace's placement.selector, then airfleet apply"
        }
        "TAINT_NOT_TOLERATED" => {
            "add a toleration to the namespace, or take the taint off the shard, then airfleet apply"
        }
        "REGION_MISMATCH" => {
            "change the namespace's placement.region, or add a shard in its region"
        }
        "VERSION_MISMATCH" => {
            "upgrade the shard, or widen the namespace's placement.airflowVersion"
        }
        "VERSION_UNKNOWN" => "connect the shard's agent, or set the shard's airflowVersion",
        "NO_ROOM" => {
            "raise the shard's capacity, lower the namespace's demand, or make room: airfleet plan \
             create"
        }
        "ROOM_ON_ITS_WAY" => "wait: moves that are under way free the room",
        "NAMESPACE_LIMIT" => "raise placement.max_namespaces_per_shard in the router's settings",
        "GROUP_LIMIT" => "add a shard in another failure domain, or raise the limit",
        "CORDONED" => "airfleet shard uncordon SHARD, once the reason for the cordon is gone",
        "DRAINING" => "cancel the drain: airfleet plan cancel",
        "LOST" => "bring the shard back",
        "NOT_REGISTERED" | "BEING_REMOVED" => "declare the shard again: airfleet apply",
        "SHARD_DEGRADED" | "SHARD_UNHEALTHY" => {
            "mend the shard: airfleet shard show SHARD says what"
        }
        "SHARD_HEALTH_UNKNOWN" => "start the shard's agent, or look at its connection",
        _ => "",
    }
}

impl Board {
    /// Why a namespace is where it is. `shard` is where it is now, and it is counted there.
    /// `frozen` says why rebalancing is off, where it is.
    pub fn explain(
        &mut self,
        namespace: &str,
        needs: &Needs,
        shard: Option<u32>,
        hold: Hold,
        frozen: Option<&str>,
    ) -> Explanation {
        // As if it were nowhere: otherwise its own shard seems fuller than all others.
        if let Some(shard) = shard {
            self.remove(needs, shard);
        }
        let mut shards: Vec<(u32, ShardAnswer)> = self.answers(needs);
        let eligible = shards.iter().filter(|(_, a)| a.answer == Answer::Yes).count();
        let counterfactuals = self.counterfactuals(needs, eligible);
        if let Some(shard) = shard {
            self.add(needs, shard);
        }
        shards.sort_by(|(_, a), (_, b)| {
            let key = |one: &ShardAnswer| (one.answer, one.score, one.peak);
            key(a).cmp(&key(b)).then_with(|| a.shard.cmp(&b.shard))
        });
        let current = shard.and_then(|at| shards.iter().find(|(own, _)| *own == at));
        let current = current.map(|(_, answer)| answer.clone());
        let best = shards
            .iter()
            .find(|(at, answer)| answer.answer == Answer::Yes && Some(*at) != shard)
            .map(|(_, answer)| answer.clone());
        let gain = current.as_ref().zip(best.as_ref()).and_then(|(own, other)| {
            let level = own.score.first_difference(&other.score)?;
            Some((level, own.score.0[level] - other.score.0[level]))
        });
        let misplaced = shard.is_some_and(|at| !self.shape.admitted(needs.rule).has(at));
        let verdict = match shard {
            None => Verdict::Unplaced,
            Some(_) if misplaced => Verdict::Misplaced,
            Some(_) if gain.is_some_and(|(_, gain)| gain > 0) => Verdict::CouldMove,
            Some(_) => Verdict::WellPlaced,
        };
        let not_moved = not_moved(verdict, hold, frozen, best.as_ref(), gain);
        let shards: Vec<ShardAnswer> = shards.into_iter().map(|(_, answer)| answer).collect();
        let (histogram, binding) = histogram(&shards);
        Explanation {
            namespace: namespace.to_owned(),
            verdict,
            current,
            best,
            gain,
            shards,
            histogram,
            binding,
            counterfactuals,
            not_moved,
        }
    }

    fn answers(&mut self, needs: &Needs) -> Vec<(u32, ShardAnswer)> {
        let item = needs.item();
        let tight = self.policy.resilience && {
            self.state.watch_resilience(&self.shape);
            self.state.resilience().is_some_and(|resilience| !resilience.is_ample(item.demand))
        };
        let numbers: Vec<u32> = self.shape.all().map(|(at, _)| at).collect();
        let mut answers = Vec::with_capacity(numbers.len());
        for at in numbers {
            let missing = if tight { self.missing(item, at) } else { 0 };
            let mut change = self.scorer(item).coming(item, at);
            change.missing = missing;
            let refusals = self.softened(needs, at);
            let answer = if refusals.is_empty() {
                Answer::Yes
            } else if refusals.iter().all(|refusal| PASSING.contains(&&*refusal.code)) {
                Answer::Throttled
            } else {
                Answer::No
            };
            answers.push((
                at,
                ShardAnswer {
                    shard: self.shape.name(at).to_owned(),
                    answer,
                    refusals,
                    score: change.into(),
                    peak: change.peak,
                    dimension: self
                        .shape
                        .dimensions()
                        .get(change.fullest)
                        .cloned()
                        .unwrap_or_default(),
                },
            ));
        }
        answers
    }

    /// What speaks against a shard; room that moves are about to free is told apart.
    fn softened(&self, needs: &Needs, shard: u32) -> Vec<Refusal> {
        let item = needs.item();
        let leaving = self.leaving_of(shard);
        let capacity = self.shape.capacity_of(shard);
        let comes = (0..capacity.len()).all(|dimension| {
            let demand = i128::from(item.demand[dimension]);
            let load = self.state.load_of(shard)[dimension] - leaving[dimension];
            capacity[dimension] == 0 || demand == 0 || load + demand <= capacity[dimension].into()
        });
        let mut refusals = self.refusals(needs, shard);
        for refusal in refusals.iter_mut().filter(|refusal| comes && refusal.code == "NO_ROOM") {
            refusal.code = "ROOM_ON_ITS_WAY".into();
            refusal.message.push_str("; moves that are under way free enough");
        }
        refusals
    }

    fn counterfactuals(&self, needs: &Needs, eligible: usize) -> Vec<Counterfactual> {
        let rule = self.shape.rule_of(needs.rule);
        let mut all = Vec::new();
        let mut would_do: Vec<(String, usize)> = Vec::new();
        let fits =
            |at: u32| super::board::fits(&self.shape, &self.state, &self.policy, needs.item(), at);
        for (condition, says) in rule.conditions() {
            let count = self
                .shape
                .all()
                .filter(|(at, shard)| {
                    shard.is_open() && rule.admits_without(shard, Some(condition)) && fits(*at)
                })
                .count();
            let what = match condition {
                Condition::Pin => "the pin",
                Condition::Selector(_) => "the requirement",
                Condition::Taints => "the shards'",
                Condition::Region | Condition::Version => "the",
            };
            would_do.push((format!("{what} {says}"), count));
        }
        let admitted = |at: u32| self.shape.admitted(needs.rule).has(at);
        let shards = || self.shape.all();
        would_do.push((
            "its demand (as if it needed no room)".into(),
            shards().filter(|(at, shard)| shard.is_open() && admitted(*at)).count(),
        ));
        would_do.push((
            "cordons, drains and bad health of shards".into(),
            shards().filter(|(at, shard)| !shard.lost && admitted(*at) && fits(*at)).count(),
        ));
        would_do.retain(|(_, count)| *count > eligible);
        would_do.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.extend(
            would_do.into_iter().map(|(dropped, eligible)| Counterfactual { dropped, eligible }),
        );
        all
    }
}

/// A code, and how many shards it keeps out.
type Count = (String, usize);

fn histogram(shards: &[ShardAnswer]) -> (Vec<Count>, Option<Count>) {
    let (mut counts, mut alone) = (BTreeMap::new(), BTreeMap::new());
    for answer in shards {
        let mut codes: Vec<&str> = answer.refusals.iter().map(|r| &*r.code).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in &codes {
            *counts.entry((*code).to_owned()).or_insert(0) += 1;
        }
        if let [code] = codes[..] {
            *alone.entry(code.to_owned()).or_insert(0) += 1;
        }
    }
    let sorted = |counts: BTreeMap<String, usize>| {
        let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts
    };
    (sorted(counts), sorted(alone).into_iter().next())
}

fn not_moved(
    verdict: Verdict,
    hold: Hold,
    frozen: Option<&str>,
    best: Option<&ShardAnswer>,
    gain: Option<(usize, i128)>,
) -> String {
    let held = match hold {
        Hold::None => None,
        Hold::InFlight => Some("it is being moved now"),
        Hold::Cooldown => Some("it was moved a short while ago and cools down"),
        Hold::Orphaned => Some("the manifest no longer has it; register it again or release it"),
    };
    if let Some(held) = held {
        return held.into();
    }
    if let Some(why) = frozen {
        return format!("rebalancing is frozen: {why}; airfleet rebalance unfreeze");
    }
    match (verdict, best, gain) {
        (Verdict::Unplaced, None, _) => "no shard will do; see what keeps them out".into(),
        (Verdict::Unplaced, Some(best), _) => {
            format!("{} will do: it is placed there with the next decision", best.shard)
        }
        (Verdict::Misplaced, Some(best), _) => {
            format!("{} will do; a plan would move it: airfleet plan create", best.shard)
        }
        (_, None, _) => "no other shard will do".into(),
        (_, Some(best), Some((level, gain))) if gain > 0 => format!(
            "{} would be better on {}; the next plan moves it if that is worth the cost: airfleet \
             plan create",
            best.shard, LEVEL_NAMES[level]
        ),
        (_, Some(best), Some((level, _))) => {
            format!("the best other one, {}, would be worse on {}", best.shard, LEVEL_NAMES[level])
        }
        (_, Some(best), None) => {
            format!("the best other one, {}, would be as good, and moving costs", best.shard)
        }
    }
}

impl Explanation {
    /// Whether any shard would do now.
    pub fn eligible(&self) -> usize {
        self.shards.iter().filter(|answer| answer.answer == Answer::Yes).count()
    }

    /// The explanation as text, with at most `shards_max` shards.
    pub fn text(&self, shards_max: usize) -> String {
        let mut text = String::new();
        self.write(&mut text, shards_max).expect("writing to a string does not fail");
        text
    }

    fn write(&self, f: &mut String, shards_max: usize) -> std::fmt::Result {
        let name = &self.namespace;
        let current = self.current.as_ref().map_or("no shard", |answer| &answer.shard);
        match self.verdict {
            Verdict::Unplaced => writeln!(f, "{name} has no shard.")?,
            Verdict::Misplaced => writeln!(f, "{name} is on {current}, which breaks its rule.")?,
            Verdict::CouldMove => writeln!(f, "{name} is on {current}; another would be better.")?,
            Verdict::WellPlaced => writeln!(f, "{name} is on {current}, and that is best.")?,
        }
        writeln!(f, "Not moved: {}.", self.not_moved)?;
        let of = self.shards.len();
        writeln!(f, "\n{} of {of} shards would do now.", self.eligible())?;
        for (code, count) in &self.histogram {
            writeln!(f, "  {code:<22} keeps out {count:>5}   {}", fix(code))?;
        }
        if let Some((code, count)) = &self.binding {
            writeln!(f, "Binding: {code} alone keeps out {count}.")?;
        }
        for one in &self.counterfactuals {
            writeln!(f, "Without {}: {} would do.", one.dropped, one.eligible)?;
        }
        if let (Some(own), Some(best)) = (&self.current, &self.best) {
            writeln!(f, "\n{:<28} {:>24} {:>24}", "", own.shard, best.shard)?;
            for (level, name) in LEVEL_NAMES.iter().enumerate().take(LEVELS - 1) {
                let (a, b) = (own.score.0[level], best.score.0[level]);
                if a != 0 || b != 0 {
                    let (a, b) = (level_text(level, a), level_text(level, b));
                    writeln!(f, "{name:<28} {a:>24} {b:>24}")?;
                }
            }
            let full =
                |answer: &ShardAnswer| format!("{} {}", percent(answer.peak), answer.dimension);
            writeln!(f, "{:<28} {:>24} {:>24}", "fullest with it", full(own), full(best))?;
        }
        writeln!(f)?;
        for answer in self.shards.iter().take(shards_max) {
            let marker = if Some(answer) == self.current.as_ref() { "*" } else { " " };
            let peak = percent(answer.peak);
            write!(f, "{marker} {:<9} {:<24}", answer.answer.as_str(), answer.shard)?;
            match answer.refusals.split_first() {
                None => writeln!(f, " {peak} {} with it", answer.dimension)?,
                Some((first, rest)) => {
                    writeln!(f, " {}: {}", first.code, first.message)?;
                    for refusal in rest {
                        writeln!(f, "{:<36} {}: {}", "", refusal.code, refusal.message)?;
                    }
                }
            }
        }
        let more = of.saturating_sub(shards_max);
        if more > 0 {
            writeln!(f, "  … and {more} more")?;
        }
        Ok(())
    }
}
