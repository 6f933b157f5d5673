//! Golden scenarios: small fleets as text, what is asked, and what the engine answers.
//!
//! A file in `tests/golden` holds a fleet, then questions, each followed by its answer. Questions
//! begin with `>`; everything between one and the next is the answer. With `AIRFLEET_GOLDEN_WRITE=1`
//! the answers are written anew; look at what changed before you commit it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use airfleet_domain::{
    ids::ShardName,
    labels::{Operator, Requirement, Taint, Toleration},
    placement::{
        Constraints, Policy, Refusal, Shard,
        amount::percent,
        dump::{Dump, Snapshot, decide},
        generate::{Recipe, Weights},
        headroom::Headroom,
        objective::{LEVEL_NAMES, level_text},
        plan::{Order, Pace, Plan, Purpose},
        problem::{Hold, Member, Problem},
        search::{Mode, Scope, Settings},
        state::NONE,
        waves::Limits,
    },
};

/// A namespace as the text has it.
#[derive(Debug, Clone, Default)]
struct Line {
    demand: Vec<i64>,
    words: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Fleet {
    dimensions: Vec<String>,
    policy: Policy,
    shards: Vec<Shard>,
    namespaces: BTreeMap<String, Line>,
}

/// `a 1 2 on=b cordoned` as name, numbers and words.
fn line(text: &str) -> (String, Line) {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap().to_owned();
    let mut line = Line::default();
    for word in words {
        match (word.parse(), word.split_once('=')) {
            (Ok(number), _) => line.demand.push(number),
            (_, Some((key, value))) => drop(line.words.insert(key.into(), value.into())),
            _ => drop(line.words.insert(word.into(), String::new())),
        }
    }
    (name, line)
}

impl Fleet {
    fn read(text: &str) -> Self {
        let mut fleet = Self::default();
        for text in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (kind, rest) = text.split_once(' ').unwrap();
            match kind {
                "dimensions" => {
                    fleet.dimensions = rest.split_whitespace().map(str::to_owned).collect();
                }
                "policy" => {
                    let (_, line) = line(&format!("policy {rest}"));
                    for (key, value) in line.words {
                        let value: i64 = value.parse().unwrap();
                        match key.as_str() {
                            "tolerance" => fleet.policy.tolerance = value * 10_000,
                            "soft-limit" => fleet.policy.soft_limit = value * 10_000,
                            "group-max" => fleet.policy.group_max_per_domain = value as u32,
                            other => panic!("policy {other}"),
                        }
                    }
                }
                "shard" => fleet.shards.push(shard(rest)),
                "namespace" => {
                    let (name, line) = line(rest);
                    fleet.namespaces.insert(name, line);
                }
                other => panic!("{other} is no kind of line"),
            }
        }
        fleet
    }

    fn problem(&self, lost: &dyn Fn(&Shard) -> bool, draining: &str) -> Problem {
        let mut shards = self.shards.clone();
        for shard in &mut shards {
            shard.lost |= lost(shard);
            shard.draining |= shard.name.as_str() == draining;
        }
        let mut problem = Problem::new(&self.dimensions, self.policy, shards);
        for (name, line) in &self.namespaces {
            let word = |key: &str| line.words.get(key).map(String::as_str);
            let pinned: Option<ShardName> = word("pinned").map(|name| name.parse().unwrap());
            let constraints = Constraints {
                selector: word("select").map(requirement).into_iter().collect(),
                tolerations: word("tolerates")
                    .map(|key| Toleration { key: key.into(), value: String::new() })
                    .into_iter()
                    .collect(),
                airflow_version: word("airflow").unwrap_or("*").parse().unwrap(),
                region: word("region").unwrap_or_default().into(),
                spread_group: word("group").unwrap_or_default().into(),
            };
            problem.push(&Member {
                name: name.parse().unwrap(),
                demand: &line.demand,
                constraints: &constraints,
                pinned: pinned.as_ref(),
                affinity: word("with").unwrap_or_default(),
                shard: word("on"),
                to: word("to"),
                cost: word("cost").map_or(100, |cost| cost.parse().unwrap()),
                hold: if word("cools").is_some() { Hold::Cooldown } else { Hold::None },
            });
        }
        problem
    }
}

/// `tier=gold`, `tier!=gold`, `tier` or `!tier`, with `:` for `=`.
fn requirement(text: &str) -> Requirement {
    let (key, operator, values) = match text.split_once(':') {
        Some((key, value)) if key.ends_with('!') => {
            (key.trim_end_matches('!'), Operator::NotIn, vec![value.into()])
        }
        Some((key, value)) => (key, Operator::In, vec![value.into()]),
        None if text.starts_with('!') => (&text[1..], Operator::DoesNotExist, vec![]),
        None => (text, Operator::Exists, vec![]),
    };
    Requirement { key: key.into(), operator, values }
}

fn shard(text: &str) -> Shard {
    let (name, line) = line(text);
    let mut shard = Shard::new(name.parse().unwrap(), line.demand);
    for (key, value) in line.words {
        match key.as_str() {
            "zone" => shard.failure_domain = value,
            "region" => shard.region = value,
            "airflow" => shard.airflow_version = Some(value.parse().unwrap()),
            "label" => {
                let (key, value) = value.split_once(':').unwrap();
                shard.labels.insert(key.into(), value.into());
            }
            "taint" => shard.taints.push(Taint { key: value, value: String::new() }),
            "cordoned" => shard.closed.push(Refusal::new("CORDONED", format!("cordoned: {value}"))),
            "unknown" => {
                shard
                    .closed
                    .push(Refusal::new("SHARD_HEALTH_UNKNOWN", "its health says REPORT_STALE"));
            }
            "draining" => shard.draining = true,
            other => panic!("shard {other}"),
        }
    }
    shard
}

fn plan(problem: &Problem, purpose: Purpose, mode: Mode, scope: Scope, words: &Line) -> Plan {
    let number = |key: &str| words.words.get(key).map_or(0, |text| text.parse().unwrap());
    let settings = Settings {
        mode,
        scope,
        cost_max: number("budget"),
        gain_min: number("gain-min"),
        ..Settings::default()
    };
    let order = Order {
        name: "plan".into(),
        purpose,
        revision: 1,
        settings,
        limits: Limits::default(),
        pace: Pace::default(),
        tenants: vec![],
    };
    let plan = decide(problem, &order, 1, &|| false, &|_| 1);
    let on_all_threads = decide(problem, &order, 4, &|| false, &|_| 1);
    assert_eq!(on_all_threads, plan, "the same on any number of threads");
    plan
}

fn told(plan: &Plan) -> String {
    let mut text = String::new();
    let Plan { before, after, .. } = plan;
    for (level, name) in LEVEL_NAMES.iter().enumerate() {
        if before.score.0[level] != after.score.0[level] {
            let [was, is] = [before, after].map(|m| level_text(level, m.score.0[level]));
            writeln!(text, "{name}: {was} -> {is}").unwrap();
        }
    }
    let peak = plan.bounds.peak();
    writeln!(
        text,
        "peak: {} -> {}, not below {}; {:?}",
        percent(before.peak),
        percent(after.peak),
        percent(peak),
        plan.stop
    )
    .unwrap();
    for planned in &plan.moves {
        let from = planned.from.as_ref().map_or("-", ShardName::as_str);
        writeln!(
            text,
            "wave {}: {} {from} -> {} ({})",
            planned.wave, planned.namespace, planned.to, planned.reason
        )
        .unwrap();
    }
    for unsolved in &plan.unsolved {
        writeln!(text, "unsolved: {}: {}", unsolved.namespace, unsolved.reason).unwrap();
    }
    text
}

fn answer(fleet: &mut Fleet, question: &str) -> String {
    let (verb, words) = line(question);
    let nobody = |_: &Shard| false;
    let named = |key: &str| words.words.keys().find(|word| word.as_str() != key).cloned();
    match verb.as_str() {
        "rebalance" => {
            let problem = fleet.problem(&nobody, "");
            told(&plan(&problem, Purpose::Rebalance, Mode::Periodic, Scope::All, &words))
        }
        "emergency" => {
            let problem = fleet.problem(&nobody, "");
            told(&plan(&problem, Purpose::Emergency, Mode::Emergency, Scope::All, &words))
        }
        "drain" => {
            let shard = named("").unwrap();
            let problem = fleet.problem(&nobody, &shard);
            let purpose = Purpose::Drain(shard.parse().unwrap());
            told(&plan(&problem, purpose, Mode::Periodic, Scope::Drain, &words))
        }
        "fill" => {
            let shard = named("").unwrap();
            let problem = fleet.problem(&nobody, "");
            let number = problem.board().shape().number(&shard).unwrap();
            let purpose = Purpose::Fill(shard.parse().unwrap());
            told(&plan(&problem, purpose, Mode::Periodic, Scope::Fill(vec![number]), &words))
        }
        "lose" => {
            let zone = &words.words["zone"];
            let problem = fleet.problem(&|shard| shard.domain() == zone, "");
            told(&plan(&problem, Purpose::WhatIfLose(vec![]), Mode::Emergency, Scope::All, &words))
        }
        "place" => {
            let (name, namespace) = line(question.split_once(' ').unwrap().1);
            fleet.namespaces.insert(name.clone(), namespace);
            let problem = fleet.problem(&nobody, "");
            let needs = problem.needs_of(problem.number(&name).unwrap());
            let decision = problem.board().clone().decide(&needs);
            if let Some(shard) = &decision.shard {
                let line = fleet.namespaces.get_mut(&name).unwrap();
                line.words.insert("on".into(), shard.to_string());
            }
            format!(
                "{}: {}\n",
                decision.shard.map_or("-".into(), |s| s.to_string()),
                decision.reason
            )
        }
        "explain" => {
            let name = named("").unwrap();
            let problem = fleet.problem(&nobody, "");
            let at = problem.number(&name).unwrap();
            let shard = problem.placement()[at as usize];
            let shard = (shard != NONE).then_some(shard);
            let mut board = problem.board().clone();
            board.explain(&name, &problem.needs_of(at), shard, problem.hold_of(at), None).text(20)
        }
        "capacity" => {
            let growth: Vec<i64> = words.demand;
            let headroom = Headroom::of(&fleet.problem(&nobody, ""), &growth);
            let mut text = String::new();
            for room in &headroom.rooms {
                let full = room.full_in.map_or("never full".into(), |(dimension, days)| {
                    format!("{} full in {days} days", fleet.dimensions[dimension])
                });
                writeln!(
                    text,
                    "{}: {} shards, {} namespaces, {} more of {:?} fit, {full}",
                    room.asks, room.shards, room.namespaces, room.fits, room.typical
                )
                .unwrap();
            }
            for loss in &headroom.losses {
                let (count, misfits) = (loss.namespaces, loss.misfits);
                write!(text, "losing {}: {misfits} of {count} find no room", loss.domain).unwrap();
                for (name, why) in &loss.examples {
                    write!(text, "; {name}: {why}").unwrap();
                }
                writeln!(text).unwrap();
            }
            writeln!(text, "N+1: {}", if headroom.is_certified() { "yes" } else { "no" }).unwrap();
            text
        }
        other => panic!("{other} is no question"),
    }
}

fn answered(text: &str) -> String {
    let (fleet, questions) = text.split_once("\n> ").expect("a question begins with >");
    let mut out = format!("{fleet}\n");
    let mut fleet = Fleet::read(fleet);
    for question in questions.split("\n> ") {
        let question = question.lines().next().unwrap();
        let answer = answer(&mut fleet, question);
        write!(out, "> {question}\n{}\n\n", answer.trim_end()).unwrap();
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn every_scenario_is_answered_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let write = std::env::var_os("AIRFLEET_GOLDEN_WRITE").is_some();
    assert!(files.len() >= 8, "the scenarios are there");
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let now = answered(&text);
        assert_eq!(answered(&text), now, "twice the same");
        if write {
            fs::write(&file, now).unwrap();
        } else if now != text {
            wrong.push(format!("{}:\n{now}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "answers differ:\n{}", wrong.join("\n"));
}

/// What is done to a fleet.
type Adjust = fn(&mut Settings, &mut Snapshot);

/// Fleets whose decisions are recorded in `tests/recorded`: name, fleet, and what is done to it.
fn recorded() -> Vec<(&'static str, Recipe, Adjust)> {
    let small = Recipe { namespaces: 240, shards: 8, dimensions: 3, ..Recipe::default() };
    vec![
        ("regions", small.clone(), |_, _| {}),
        (
            "groups",
            Recipe {
                spread_groups: 200_000,
                affinity_groups: 200_000,
                weights: Weights::Ratio(20),
                seed: 2,
                ..small.clone()
            },
            |_, _| {},
        ),
        (
            "shard-lost",
            Recipe { weights: Weights::PowerLaw(20), fill: 500_000, seed: 3, ..small.clone() },
            |settings, fleet| {
                settings.mode = Mode::Emergency;
                fleet.shards[3].lost = true;
            },
        ),
        ("budget", Recipe { seed: 4, ..small }, |settings, _| settings.cost_max = 1_000),
    ]
}

#[test]
fn recorded_decisions_are_made_again_byte_for_byte_on_any_number_of_threads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    for (name, recipe, change) in recorded() {
        let file = folder.join(format!("{name}.json"));
        if std::env::var_os("AIRFLEET_GOLDEN_WRITE").is_some() {
            let mut snapshot = Snapshot::of(&recipe.generate(), 1, &|at| i64::from(at % 5));
            let mut settings = Settings::default();
            change(&mut settings, &mut snapshot);
            let order = Order {
                name: name.into(),
                purpose: Purpose::Rebalance,
                revision: 1,
                settings,
                limits: Limits::default(),
                pace: Pace::default(),
                tenants: vec![],
            };
            let problem = snapshot.problem().unwrap();
            let generation = |at: u32| snapshot.namespaces[at as usize].generation;
            let plan = decide(&problem, &order, 1, &|| false, &generation);
            let dump = Dump::new(snapshot.clone(), order, &plan);
            fs::write(&file, serde_json::to_string(&dump).unwrap() + "\n").unwrap();
        }
        let text = fs::read_to_string(&file).unwrap();
        let dump: Dump = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&dump).unwrap() + "\n", text, "{name} reads as written");
        let once = serde_json::to_vec(&dump.replay(1).unwrap()).unwrap();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        for threads in [cores, 5] {
            let again = serde_json::to_vec(&dump.replay(threads).unwrap()).unwrap();
            assert_eq!(again, once, "{name} on {threads} threads");
        }
        let plan: Plan = serde_json::from_slice(&once).unwrap();
        assert_eq!(plan.hash, dump.hash, "{name} is the plan that was recorded");
        assert!(!plan.moves.is_empty(), "{name} moves something");
    }
}
