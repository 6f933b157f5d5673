//! Decides whether runs were lost or doubled, from what both shards have and from what tasks left
//! outside of Airflow.
//!
//! Nothing of Airfleet's own word counts here. A shard that gave a namespace away keeps rows of it
//! for a while; they are a part of what the owner has, and never more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result};

/// A run, as a metadata database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its DAG.
    pub dag_id: String,
    /// Its name within the DAG.
    pub run_id: String,
    /// What it is for; none where it was asked for without one. Microseconds since 1970.
    pub logical_us: Option<i64>,
    /// From when it may run. Microseconds since 1970.
    pub after_us: i64,
    /// `queued`, `running`, `success`, `failed`.
    pub state: String,
}

/// What a task did to the world outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// Where it ran.
    pub shard: String,
    /// Its DAG.
    pub dag_id: String,
    /// Its run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Which of its mapped instances; -1 where it is not mapped.
    pub map_index: i32,
    /// Which try.
    pub try_number: i32,
    /// Whether it came to its end; otherwise it began.
    pub ended: bool,
}

impl Effect {
    /// From a line as tasks write it: fields separated by tabs.
    pub fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split('\t').collect();
        let [shard, dag_id, run_id, task_id, map_index, try_number, what] = fields[..] else {
            anyhow::bail!("not seven fields: {line:?}");
        };
        Ok(Self {
            shard: shard.to_owned(),
            dag_id: dag_id.to_owned(),
            run_id: run_id.to_owned(),
            task_id: task_id.to_owned(),
            map_index: map_index.parse().context("map index")?,
            try_number: try_number.parse().context("try number")?,
            ended: what == "ended",
        })
    }

    /// The line.
    pub fn line(&self) -> String {
        let Self { shard, dag_id, run_id, task_id, map_index, try_number, ended } = self;
        let what = if *ended { "ended" } else { "began" };
        format!("{shard}\t{dag_id}\t{run_id}\t{task_id}\t{map_index}\t{try_number}\t{what}")
    }
}

/// What is expected of a DAG.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Between two logical dates; none where it has no schedule. Microseconds.
    pub step_us: Option<i64>,
    /// Tasks that come to an end in each run that succeeds, and how many instances of each.
    pub tasks: BTreeMap<String, usize>,
}

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The shard that has the namespace.
    pub owner: String,
    /// Runs of each shard.
    pub runs: BTreeMap<String, Vec<Run>>,
    /// What tasks did, in the order in which they did it.
    pub effects: Vec<Effect>,
    /// The DAGs.
    pub dags: BTreeMap<String, Expected>,
    /// Runs that an Airflow took on when it was asked: DAG and run.
    pub asked: Vec<(String, String)>,
    /// What is due later does not count yet. Microseconds since 1970.
    pub until_us: i64,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// There was a run, and its owner does not have it.
    Lost {
        /// Its DAG.
        dag_id: String,
        /// The run.
        run_id: String,
        /// Who knows of it.
        known_to: String,
    },
    /// A schedule has no run for one of its dates.
    Missing {
        /// The DAG.
        dag_id: String,
        /// The date. Microseconds since 1970.
        logical_us: i64,
    },
    /// More than one run is for the same date.
    Doubled {
        /// The DAG.
        dag_id: String,
        /// The date. Microseconds since 1970.
        logical_us: i64,
        /// The runs.
        run_ids: BTreeSet<String>,
    },
    /// A try began twice, or a task ended on two shards.
    ExecutedTwice {
        /// What was executed twice, the last time.
        effect: Effect,
        /// Where it had been before.
        before: String,
    },
    /// A task ended twice, in two tries on one shard: Airflow does so when it could not write down
    /// that the first one ended.
    Repeated {
        /// The last time.
        effect: Effect,
    },
    /// A run that succeeded without all of its tasks' effects.
    NotExecuted {
        /// The DAG.
        dag_id: String,
        /// The run.
        run_id: String,
        /// The task.
        task_id: String,
        /// How often it ended.
        ended: usize,
    },
    /// A run that did not succeed.
    Unfinished {
        /// The DAG.
        dag_id: String,
        /// The run.
        run_id: String,
        /// Its state.
        state: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { dag_id, run_id, known_to } => {
                write!(f, "lost: {dag_id} {run_id}, known to {known_to}")
            }
            Self::Missing { dag_id, logical_us } => {
                write!(f, "missing: {dag_id} has no run for {}", date(*logical_us))
            }
            Self::Doubled { dag_id, logical_us, run_ids } => {
                write!(f, "doubled: {dag_id} has {run_ids:?} for {}", date(*logical_us))
            }
            Self::ExecutedTwice { effect, before } => {
                write!(f, "executed twice: {effect}, before on {before}")
            }
            Self::Repeated { effect } => write!(f, "repeated: {effect}"),
            Self::NotExecuted { dag_id, run_id, task_id, ended } => write!(
                f,
                "not executed: {dag_id} {run_id} succeeded, and its task {task_id} ended {ended} \
                 times"
            ),
            Self::Unfinished { dag_id, run_id, state } => {
                write!(f, "unfinished: {dag_id} {run_id} is {state}")
            }
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, dag_id, run_id, task_id, map_index, try_number, ended } = self;
        let what = if *ended { "ended" } else { "began" };
        write!(f, "{dag_id} {run_id} {task_id}[{map_index}] try {try_number} {what} on {shard}")
    }
}

fn date(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| time.to_string())
}

/// What must not be, in order; empty where every run exists once and was executed once.
pub fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    lost(evidence, &mut found);
    missing_and_doubled(evidence, &mut found);
    executed(evidence, &mut found);
    finished(evidence, &mut found);
    found.into_iter().collect()
}

fn owned(evidence: &Evidence) -> impl Iterator<Item = &Run> {
    evidence.runs.get(&evidence.owner).into_iter().flatten()
}

fn lost(evidence: &Evidence, found: &mut BTreeSet<Finding>) {
    let owned: BTreeSet<_> =
        owned(evidence).map(|run| (run.dag_id.as_str(), run.run_id.as_str())).collect();
    let others = evidence.runs.iter().flat_map(|(shard, runs)| {
        runs.iter().map(move |run| (run.dag_id.as_str(), run.run_id.as_str(), shard.as_str()))
    });
    let executed = evidence.effects.iter();
    let executed =
        executed.map(|effect| (effect.dag_id.as_str(), effect.run_id.as_str(), "its tasks"));
    let asked = evidence.asked.iter();
    let asked = asked.map(|(dag_id, run_id)| (dag_id.as_str(), run_id.as_str(), "its user"));
    let mut told = BTreeSet::new();
    for (dag_id, run_id, known_to) in others.chain(executed).chain(asked) {
        if !owned.contains(&(dag_id, run_id)) && told.insert((dag_id, run_id)) {
            found.insert(Finding::Lost {
                dag_id: dag_id.to_owned(),
                run_id: run_id.to_owned(),
                known_to: known_to.to_owned(),
            });
        }
    }
}

fn missing_and_doubled(evidence: &Evidence, found: &mut BTreeSet<Finding>) {
    let mut dates: BTreeMap<(&str, i64), BTreeSet<&str>> = BTreeMap::new();
    for run in evidence.runs.values().flatten() {
        if let Some(logical_us) = run.logical_us {
            dates.entry((&run.dag_id, logical_us)).or_default().insert(&run.run_id);
        }
    }
    for ((dag_id, logical_us), run_ids) in dates {
        if run_ids.len() > 1 {
            found.insert(Finding::Doubled {
                dag_id: dag_id.to_owned(),
                logical_us,
                run_ids: run_ids.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    let mut runs: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for run in owned(evidence) {
        if let Some(logical_us) = run.logical_us {
            runs.entry(&run.dag_id).or_default().insert(logical_us, run.after_us);
        }
    }
    for (dag_id, expected) in &evidence.dags {
        let Some(step_us) = expected.step_us else { continue };
        let none = BTreeMap::new();
        let runs = runs.get(dag_id.as_str()).unwrap_or(&none);
        // A run is due a fixed time after its date: at once, or when its interval is over.
        let Some((first_us, after_us)) = runs.first_key_value() else {
            found.insert(Finding::Missing { dag_id: dag_id.clone(), logical_us: 0 });
            continue;
        };
        let mut due_us = *first_us;
        while due_us + (after_us - first_us) <= evidence.until_us {
            if !runs.contains_key(&due_us) {
                found.insert(Finding::Missing { dag_id: dag_id.clone(), logical_us: due_us });
            }
            due_us += step_us;
        }
    }
}

fn executed(evidence: &Evidence, found: &mut BTreeSet<Finding>) {
    let mut began = BTreeMap::new();
    let mut ended = BTreeMap::new();
    for effect in &evidence.effects {
        let Effect { shard, dag_id, run_id, task_id, map_index, try_number, .. } = effect;
        let task = (dag_id, run_id, task_id, map_index);
        let before = if effect.ended {
            ended.insert(task, (shard, try_number))
        } else {
            began.insert((task, try_number), (shard, try_number))
        };
        let Some((before, before_try)) = before else { continue };
        let effect = effect.clone();
        found.insert(if before == shard && before_try != try_number {
            Finding::Repeated { effect }
        } else {
            Finding::ExecutedTwice { effect, before: before.clone() }
        });
    }
}

fn finished(evidence: &Evidence, found: &mut BTreeSet<Finding>) {
    let mut ended: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for effect in evidence.effects.iter().filter(|effect| effect.ended) {
        let task = (effect.dag_id.as_str(), effect.run_id.as_str(), effect.task_id.as_str());
        ended.entry(task).or_default().insert(effect.map_index);
    }
    for run in owned(evidence).filter(|run| run.after_us <= evidence.until_us) {
        let Run { dag_id, run_id, state, .. } = run;
        if state != "success" {
            found.insert(Finding::Unfinished {
                dag_id: dag_id.clone(),
                run_id: run_id.clone(),
                state: state.clone(),
            });
            continue;
        }
        for (task_id, instances) in evidence.dags.get(dag_id).iter().flat_map(|dag| &dag.tasks) {
            let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
            let ended = ended.get(&task).map_or(0, BTreeSet::len);
            if ended != *instances {
                found.insert(Finding::NotExecuted {
                    dag_id: dag_id.clone(),
                    run_id: run_id.clone(),
                    task_id: task_id.clone(),
                    ended,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    /// Ten minutes of a DAG with one task, the first half of them on another shard.
    fn sound() -> Evidence {
        let run = |minute: i64| Run {
            dag_id: "pay.a".to_owned(),
            run_id: format!("scheduled__{minute}"),
            logical_us: Some(minute * MINUTE),
            after_us: minute * MINUTE,
            state: "success".to_owned(),
        };
        let effects = (0..10).flat_map(|minute| {
            [false, true].map(|ended| Effect {
                shard: if minute < 5 { "shard-a" } else { "shard-b" }.to_owned(),
                dag_id: "pay.a".to_owned(),
                run_id: format!("scheduled__{minute}"),
                task_id: "work".to_owned(),
                map_index: -1,
                try_number: 1,
                ended,
            })
        });
        let tasks = BTreeMap::from([("work".to_owned(), 1)]);
        let expected = Expected { step_us: Some(MINUTE), tasks };
        Evidence {
            owner: "shard-b".to_owned(),
            runs: BTreeMap::from([
                ("shard-a".to_owned(), (0..5).map(run).collect()),
                ("shard-b".to_owned(), (0..10).map(run).collect()),
            ]),
            effects: effects.collect(),
            dags: BTreeMap::from([("pay.a".to_owned(), expected)]),
            asked: vec![],
            until_us: 9 * MINUTE + 1,
        }
    }

    fn owned(evidence: &mut Evidence) -> &mut Vec<Run> {
        evidence.runs.get_mut("shard-b").unwrap()
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        assert_eq!(check(&sound()), []);
    }

    #[test]
    fn a_run_that_is_lost_is_found() {
        let mut evidence = sound();
        // One that ran, and is known to the old owner too.
        owned(&mut evidence).remove(3);
        let found = check(&evidence);
        assert!(matches!(&found[..], [Finding::Lost { run_id, known_to, .. },
            Finding::Missing { logical_us, .. }]
            if run_id == "scheduled__3" && known_to == "shard-a" && *logical_us == 3 * MINUTE));
        // One that nobody ever made.
        let mut evidence = sound();
        owned(&mut evidence).remove(7);
        evidence.effects.retain(|effect| effect.run_id != "scheduled__7");
        let missing = Finding::Missing { dag_id: "pay.a".to_owned(), logical_us: 7 * MINUTE };
        assert_eq!(check(&evidence), [missing]);
        // The last one, and all of them.
        let mut evidence = sound();
        evidence.until_us += MINUTE;
        assert!(matches!(&check(&evidence)[..], [Finding::Missing { .. }]));
        owned(&mut evidence).clear();
        assert_eq!(check(&evidence).len(), 11);
        // One that a user was told of.
        let mut evidence = sound();
        evidence.asked.push(("pay.manual".to_owned(), "ask-1".to_owned()));
        assert!(matches!(&check(&evidence)[..], [Finding::Lost { known_to, .. }]
            if known_to == "its user"));
    }

    #[test]
    fn a_run_that_is_doubled_is_found() {
        // The old owner made one after it gave the namespace away, under another name.
        let mut evidence = sound();
        let mut second = evidence.runs["shard-b"][6].clone();
        second.run_id = "manual__6".to_owned();
        evidence.runs.get_mut("shard-a").unwrap().push(second.clone());
        let found = check(&evidence);
        assert!(matches!(&found[..], [Finding::Lost { .. }, Finding::Doubled { run_ids, .. }]
            if run_ids.len() == 2));
        // The owner itself has both.
        let mut evidence = sound();
        second.state = "success".to_owned();
        owned(&mut evidence).push(second);
        assert!(check(&evidence).iter().any(|found| matches!(found, Finding::Doubled { .. })));
    }

    #[test]
    fn what_was_executed_twice_is_found() {
        for (shard, try_number, repeated) in [
            ("shard-a", 1, false),
            ("shard-b", 1, false),
            ("shard-b", 2, false),
            ("shard-a", 2, true),
        ] {
            let mut evidence = sound();
            let mut again = evidence.effects[3].clone();
            assert!(again.ended && again.shard == "shard-a");
            again.shard = shard.to_owned();
            again.try_number = try_number;
            evidence.effects.push(again);
            let found = check(&evidence);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(matches!(found[0], Finding::Repeated { .. }), repeated, "{found:?}");
        }
        // Begun by two workers at once.
        let mut evidence = sound();
        let again = evidence.effects[2].clone();
        evidence.effects.push(again);
        assert!(matches!(&check(&evidence)[..], [Finding::ExecutedTwice { .. }]));
    }

    #[test]
    fn what_succeeded_without_running_and_what_never_ended_is_found() {
        let mut evidence = sound();
        evidence.effects.retain(|effect| effect.run_id != "scheduled__2" || !effect.ended);
        assert!(matches!(&check(&evidence)[..], [Finding::NotExecuted { ended: 0, .. }]));
        let mut evidence = sound();
        owned(&mut evidence)[9].state = "running".to_owned();
        assert!(matches!(&check(&evidence)[..], [Finding::Unfinished { .. }]));
        // It is not due yet.
        evidence.until_us = 8 * MINUTE;
        assert_eq!(check(&evidence), []);
    }

    #[test]
    fn lines_of_tasks_are_read() {
        let line = "shard-a\tpay.a\tscheduled__1\twork\t-1\t2\tended";
        let effect = Effect::parse(line).unwrap();
        assert_eq!((effect.try_number, effect.map_index, effect.ended), (2, -1, true));
        assert_eq!(effect.line(), line);
        assert!(Effect::parse("shard-a\tpay.a").is_err());
    }
}
