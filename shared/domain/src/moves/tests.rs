//! What is found before a move begins and what comes of it, and how long things may take. Whole
//! moves are in the simulation.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    End, Move, Observations, Options, Phase, Policy, RunningTasks, Step, Waiting,
    preflight::{Code, Inspection, Severity, findings},
    step::step,
};
use crate::ids::{Generation, Revision};

const NOW_US: i64 = 1_000_000_000;

fn planned(options: Options) -> Move {
    Move::begin(
        "move-1".parse().unwrap(),
        "pay".parse().unwrap(),
        ("shard-a".parse().unwrap(), "shard-b".parse().unwrap()),
        Generation(1),
        Revision(1),
        options,
        ("somebody".into(), String::new()),
        &Policy::default(),
        NOW_US,
    )
}

fn inspection() -> Inspection {
    Inspection {
        at_us: NOW_US,
        airflow_version: "3.3.2".into(),
        schema_revision: "d2f4e1b3c5a7".into(),
        schema_digest: "columns".into(),
        database: "postgresql".into(),
        dags_folder: "/dags".into(),
        providers: [("celery".into(), "1".into())].into(),
        pools: ["default_pool".into()].into(),
        fernet_digest: "key".into(),
        ..Inspection::default()
    }
}

fn seen(source: Inspection, target: Inspection) -> Observations {
    let end = |inspection| End {
        connected: true,
        inspection: Some(Arc::new(inspection)),
        ..End::default()
    };
    Observations { source: end(source), target: end(target), ..Observations::default() }
}

fn next(row: &Move, seen: &Observations) -> Step {
    step(row, seen, &Policy::default(), NOW_US, 7)
}

#[test]
fn two_ends_that_agree_have_nothing_against_a_move() {
    let (row, both) = (planned(Options::default()), seen(inspection(), inspection()));
    assert_eq!(findings(&row, &both), []);
    let Step::Advance(change) = next(&row, &both) else { panic!("it begins") };
    assert_eq!(change.row.phase, Phase::Staging);
}

/// How what is seen, and what is asked for, is spoilt.
type Spoil = fn(&mut Observations, &mut Options);

fn source(seen: &mut Observations) -> &mut Inspection {
    Arc::make_mut(seen.source.inspection.as_mut().unwrap())
}

fn target(seen: &mut Observations) -> &mut Inspection {
    Arc::make_mut(seen.target.inspection.as_mut().unwrap())
}

/// Each finding, something that leads to it alone, and a word that it names.
const SPOILT: &[(Code, &str, Spoil)] = &[
    (Code::AgentAway, "shard-b", |seen, _| seen.target = End::default()),
    (Code::AgentUnable, "read-only", |seen, _| source(seen).obstacles = vec!["read-only".into()]),
    (Code::TargetUnfit, "DRAINING", |seen, _| seen.unfit = vec!["DRAINING".into()]),
    (Code::SourceAlive, "shard-a", |_, options| options.source_is_lost = true),
    (Code::AirflowVersionDiffers, "3.3.1", |seen, _| {
        target(seen).airflow_version = "3.3.1".into();
    }),
    (Code::SchemaRevisionDiffers, "other", |seen, _| {
        target(seen).schema_revision = "other".into();
    }),
    (Code::SchemaDiffers, "digest", |seen, _| target(seen).schema_digest = "other".into()),
    (Code::SchemaNotUnderstood, "dag_run.new", |seen, _| {
        source(seen).not_understood = vec!["dag_run.new".into()];
    }),
    (Code::DatabaseUnsupported, "sqlite", |seen, _| target(seen).database = "sqlite".into()),
    (Code::DagsFolderDiffers, "/other", |seen, _| target(seen).dags_folder = "/other".into()),
    (Code::ProviderMissing, "celery", |seen, _| target(seen).providers.clear()),
    (Code::ProviderVersionDiffers, "celery 1 on the source, 2", |seen, _| {
        target(seen).providers.insert("celery".into(), "2".into());
    }),
    (Code::PoolMissing, "gpu", |seen, _| {
        source(seen).pools.insert("gpu".into());
    }),
    (Code::FernetKeyDiffers, "encrypted", |seen, _| target(seen).fernet_digest = "other".into()),
    (Code::OpenBackfill, "pay.daily", |seen, _| {
        source(seen).open_backfills = vec!["pay.daily".into()];
    }),
    (Code::DeferredTasks, "3 task instances", |seen, _| source(seen).deferred = 3),
    (Code::AssetCrossing, "orders", |seen, _| source(seen).asset_crossings = vec!["orders".into()]),
    (Code::AssetCrossingAllowed, "orders", |seen, options| {
        source(seen).asset_crossings = vec!["orders".into()];
        options.allow_asset_crossings = true;
    }),
    (Code::NothingCopied, "shard-a", |seen, options| {
        seen.source = End::default();
        options.source_is_lost = true;
    }),
];

#[test]
fn whatever_speaks_against_a_move_is_found_and_keeps_it_as_it_should() {
    let covered: BTreeSet<Code> = SPOILT.iter().map(|(code, ..)| *code).collect();
    assert_eq!(covered, Code::ALL.iter().copied().collect());
    for (code, word, spoil) in SPOILT {
        let (mut both, mut options) = (seen(inspection(), inspection()), Options::default());
        spoil(&mut both, &mut options);
        let row = planned(options);
        let found = findings(&row, &both);
        assert_eq!(found[0].code, *code, "{found:?}");
        assert!(found[0].message.contains(word), "{found:?}");
        // That of which nothing comes along is said beside why it cannot be.
        assert_eq!(found.len(), if *code == Code::SourceAlive { 2 } else { 1 }, "{found:?}");
        assert!(!code.remedy().is_empty());
        match (code, code.severity(), next(&row, &both)) {
            // An agent may come back.
            (Code::AgentAway, _, Step::Wait { waiting: Waiting::Agent(_), .. }) => {}
            (_, Severity::Blocks, Step::Abort(change)) => {
                let why = change.row.last_error.unwrap();
                assert_eq!(why.code, code.name());
                assert!(why.message.ends_with(code.remedy()), "{}", why.message);
            }
            (_, Severity::Delays, Step::Wait { waiting: Waiting::Finding(why), .. }) => {
                assert!(why.starts_with(code.name()), "{why}");
            }
            (_, Severity::Warns, Step::Advance(change)) => {
                assert_eq!(change.row.phase, Phase::Staging);
            }
            (code, severity, step) => panic!("{code:?} {severity:?}: {step:?}"),
        }
    }
}

#[test]
fn one_secrets_backend_makes_up_for_two_fernet_keys() {
    let mut both = seen(inspection(), Inspection { fernet_digest: "other".into(), ..inspection() });
    source(&mut both).secrets_backend = "vault".into();
    let codes = |seen: &Observations| -> Vec<Code> {
        findings(&planned(Options::default()), seen).iter().map(|found| found.code).collect()
    };
    assert_eq!(codes(&both), [Code::FernetKeyDiffers], "one of them only");
    target(&mut both).secrets_backend = "vault".into();
    assert_eq!(codes(&both), []);
}

#[test]
fn each_phase_before_the_flip_has_a_deadline_and_none_after() {
    let policy = Policy::default();
    let wait = RunningTasks::Wait { at_most: Duration::from_secs(7) };
    assert_eq!(policy.deadline(Phase::Quiescing, wait), Some(Duration::from_secs(7)));
    for phase in [Phase::Planned, Phase::Staging, Phase::Quiescing, Phase::Sealing, Phase::Copying]
    {
        assert!(policy.deadline(phase, RunningTasks::Abort).is_some(), "{phase}");
    }
    for phase in [Phase::Flipped, Phase::Activating, Phase::Retiring, Phase::Aborting] {
        assert_eq!(policy.deadline(phase, wait), None, "{phase}");
    }
    // What nobody answers is given up at its deadline and no sooner.
    let (row, nobody) = (planned(Options::default()), Observations::default());
    let at = |now_us| step(&row, &nobody, &policy, now_us, 7);
    let deadline_us = row.deadline_at_us.unwrap();
    assert!(matches!(at(deadline_us - 1), Step::Wait { .. }));
    assert!(matches!(at(deadline_us), Step::Abort(_)));
}

#[test]
fn pauses_double_up_to_a_bound_and_are_spread() {
    let policy = Policy::default();
    for attempt in 1..40 {
        let full = Duration::from_secs(1 << (attempt - 1).min(6)).min(policy.backoff_max);
        let pauses: BTreeSet<_> = (0..50).map(|seed| policy.backoff(attempt, seed)).collect();
        assert!(pauses.len() > 40, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (full / 2..=full).contains(pause)), "{pauses:?}");
    }
}
