//! Fleets over weeks, in seconds: demand drifts, shards come, zones are lost, and the real engine
//! answers every day. What it reports is what a change of the engine or its settings has to be
//! judged by: objective, moves, thrash.

use serde::{Deserialize, Serialize};

use super::{
    bounds,
    dump::{Error, Snapshot},
    generate::Recipe,
    history::{History, Hysteresis},
    objective::Score,
    problem::Hold,
    random::Random,
    search::{Mode, Settings, Stop},
};

const DAY_US: i64 = 86_400_000_000;

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// So many shards are added, empty, each like one that is there.
    AddShards(usize),
    /// A failure domain is lost, with all that is on it.
    LoseDomain(String),
    /// A failure domain is back, empty.
    RestoreDomain(String),
    /// A shard is to be emptied.
    Drain(String),
}

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scenario {
    /// The fleet at first.
    pub recipe: Recipe,
    /// Days.
    pub days: u32,
    /// By how much demands change a day: standard deviation, in percent.
    pub drift_percent: u32,
    /// By how much all demand grows a day. Millionths.
    pub growth: i64,
    /// What happens, and on which day.
    pub events: Vec<(u32, Event)>,
    /// How it is rebalanced every day.
    pub settings: Settings,
    /// Days that an imbalance has to last.
    pub hysteresis_days: u32,
    /// Days within which coming back is thrash.
    pub thrash_days: u32,
    /// Days for which a namespace that was moved is left alone.
    pub cooldown_days: u32,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            recipe: Recipe::default(),
            days: 14,
            drift_percent: 3,
            growth: 0,
            events: Vec::new(),
            settings: Settings::default(),
            hysteresis_days: 2,
            thrash_days: 7,
            cooldown_days: 1,
        }
    }
}

/// How a day went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    /// The day, from 0.
    pub day: u32,
    /// What happened.
    pub events: Vec<Event>,
    /// Whether it was rebalanced, and how.
    pub mode: Option<Mode>,
    /// The objective in the morning.
    pub before: Score,
    /// The objective in the evening.
    pub after: Score,
    /// The peak in the evening. Millionths.
    pub peak: i64,
    /// The lower bound on it.
    pub bound: i64,
    /// Moves.
    pub moves: usize,
    /// Namespaces that came back to where they were, so far.
    pub thrashed: u64,
    /// Why it stopped.
    pub stop: Option<Stop>,
    /// How long it took, by the caller's clock. Microseconds.
    pub took_us: u64,
}

/// Runs a generated fleet. `now_us` is the caller's clock, for nothing but telling how long it took.
pub fn run(
    scenario: &Scenario,
    threads: usize,
    now_us: &dyn Fn() -> u64,
) -> Result<Vec<Day>, Error> {
    run_from(Snapshot::of(&scenario.recipe.generate(), 0, &|_| 1), scenario, threads, now_us)
}

/// Runs a recorded fleet; of the scenario everything but the recipe.
pub fn run_from(
    mut fleet: Snapshot,
    scenario: &Scenario,
    threads: usize,
    now_us: &dyn Fn() -> u64,
) -> Result<Vec<Day>, Error> {
    let mut random = Random::new(scenario.recipe.seed ^ 0x51_u64);
    let days = |days: u32| i64::from(days) * DAY_US;
    let mut history = History::new(days(scenario.thrash_days), days(scenario.cooldown_days));
    let mut hysteresis = Hysteresis::new(scenario.hysteresis_days);
    let mut all = Vec::new();
    for day in 0..scenario.days {
        let today = days(day);
        let events: Vec<Event> =
            scenario.events.iter().filter(|(on, _)| *on == day).map(|(_, e)| e.clone()).collect();
        for event in &events {
            happen(&mut fleet, event);
        }
        if day > 0 {
            drift(&mut fleet, scenario, &mut random);
        }
        for namespace in &mut fleet.namespaces {
            let cools = history.cools_down(&namespace.name, today);
            namespace.hold = if cools { Hold::Cooldown } else { Hold::None };
        }
        let problem = fleet.problem()?;
        let before = problem.score_now();
        let lasted = hysteresis.look(before.0[5] > 0);
        let mode = if before.0[..2] != [0, 0] {
            Some(Mode::Emergency)
        } else if lasted || before.0[2] + before.0[3] + before.0[4] > 0 {
            Some(Mode::Periodic)
        } else {
            None
        };
        let mut report = Day {
            day,
            events,
            mode,
            before,
            after: before,
            peak: bounds::peak(&problem),
            bound: bounds::Bounds::of(&problem).peak(),
            moves: 0,
            thrashed: history.thrashed(),
            stop: None,
            took_us: 0,
        };
        // What is broken or overloaded is mended at once; the rest follows if it is worth it.
        let modes: &[Mode] = match mode {
            Some(Mode::Emergency) => &[Mode::Emergency, Mode::Periodic],
            Some(Mode::Periodic) => &[Mode::Periodic],
            None => &[],
        };
        for mode in modes {
            let problem = fleet.problem()?;
            let began = now_us();
            let settings = Settings { mode: *mode, ..scenario.settings.clone() };
            let outcome = problem.rebalance(&settings, threads, &|| false);
            report.took_us += now_us() - began;
            report.after = outcome.after;
            report.peak = outcome.peak_after;
            report.stop = Some(outcome.stop);
            report.moves += outcome.steps.len();
            for step in &outcome.steps {
                let name = |at| problem.board().shape().shard(at).map(|shard| shard.name.clone());
                let namespace = &mut fleet.namespaces[step.namespace as usize];
                let to = name(step.to);
                if let (Some(from), Some(to)) = (name(step.from), &to) {
                    history.note(&namespace.name, &from, to, today);
                }
                namespace.shard = to;
            }
            hysteresis.reset();
        }
        report.thrashed = history.thrashed();
        all.push(report);
    }
    Ok(all)
}

fn happen(fleet: &mut Snapshot, event: &Event) {
    match event {
        Event::AddShards(count) => {
            let there = fleet.shards.len();
            for at in 0..*count {
                let Some(like) = fleet.shards.get(at % there.max(1)).cloned() else { return };
                let name = format!("shard-{:05}", there + at).parse().expect("a valid name");
                fleet.shards.push(super::Shard { name, ..like });
            }
            fleet.shards.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Event::LoseDomain(domain) | Event::RestoreDomain(domain) => {
            for shard in fleet.shards.iter_mut().filter(|shard| shard.domain() == domain) {
                shard.lost = matches!(event, Event::LoseDomain(_));
            }
        }
        Event::Drain(name) => {
            for shard in fleet.shards.iter_mut().filter(|shard| shard.name.as_str() == name) {
                shard.draining = true;
            }
        }
    }
}

fn drift(fleet: &mut Snapshot, scenario: &Scenario, random: &mut Random) {
    let growth = i128::from(scenario.growth);
    for namespace in &mut fleet.namespaces {
        for demand in &mut namespace.demand {
            // One standard deviation is 2^16.
            let change = i128::from(random.normal() * i64::from(scenario.drift_percent)) * 10_000;
            let factor = 1_000_000 + (change >> 16) + growth;
            let after = i128::from(*demand) * factor.max(0) / 1_000_000;
            *demand = i64::try_from(after.max(1)).unwrap_or(i64::MAX);
        }
    }
}
