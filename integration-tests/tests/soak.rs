//! A namespace under load moves between two running Airflows while things break: no run is lost and
//! none doubled, nor by a plan. A few of the moves that `make soak` makes many of.

use std::time::Duration;

use airfleet_domain::moves::Side;
use airfleet_integration_tests::soak::{
    Soak,
    checker::{Effect, Evidence, Finding, check},
    fault::{Fault, Moment, Victim},
};
use airfleet_proto::moves::v1::MovePhase;
use anyhow::{Context as _, Result, ensure};

const FAULTS: [Option<Fault>; 6] = [
    None,
    Some(fault(Victim::Agent(Side::Source), MovePhase::Sealing, Moment::After)),
    Some(fault(Victim::Leader, MovePhase::Copying, Moment::Before)),
    Some(fault(Victim::Database(Side::Target), MovePhase::Activating, Moment::Before)),
    Some(fault(Victim::Link(Side::Target), MovePhase::Copying, Moment::After)),
    Some(fault(Victim::Scheduler(Side::Source), MovePhase::Quiescing, Moment::After)),
];

const fn fault(victim: Victim, phase: MovePhase, moment: Moment) -> Fault {
    Fault { victim, phase, moment }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_load_lose_nothing_and_double_nothing() -> Result<()> {
    let mut soak = Soak::boot(Duration::from_secs(5)).await?;
    // Before it was moved: a plan leaves alone what was a short while ago.
    soak.drain_by_plan().await?;
    let mut moved = 0;
    for fault in FAULTS {
        let phase = soak.move_over(fault).await?.last.phase();
        moved += usize::from(phase == MovePhase::Done);
    }
    ensure!(moved >= 4, "only {moved} moves came to their end");
    // What users asked for came in between, too.
    let refusals = soak.refusals();
    ensure!(refusals.contains_key("NAMESPACE_MOVING"), "{refusals:?}");
    let evidence = soak.finish().await?;
    let findings = soak.judge(&evidence);
    ensure!(findings.is_empty(), "{findings:#?}");
    for shard in [0, 1] {
        let findings = soak.judge(&soak.neighbour(shard, evidence.until_us).await?);
        ensure!(findings.is_empty(), "{findings:#?}");
    }

    planted_faults_are_found(&soak, &evidence).await?;
    soak.stop().await;
    Ok(())
}

/// The same eyes see a run that is lost, one that is doubled, and a task that ran twice.
async fn planted_faults_are_found(soak: &Soak, evidence: &Evidence) -> Result<()> {
    let owner = soak.owner().await?;
    // Not the first: nobody knows that there should be one before it.
    let second = "SELECT run_id FROM dag_run WHERE dag_id = 'pay.minutely' \
                  ORDER BY logical_date LIMIT 1 OFFSET 1";
    let lost = soak.sql(owner, second).await?;
    let delete = format!("DELETE FROM dag_run WHERE dag_id = 'pay.minutely' AND run_id = '{lost}'");
    soak.sql(owner, &delete).await?;
    // The shard that gave it away goes on with its schedule, under a name of its own.
    let newest = "SELECT run_id, logical_date FROM dag_run WHERE dag_id = 'pay.latest' \
                  ORDER BY logical_date DESC LIMIT 1";
    let newest = soak.sql(owner, newest).await?;
    let (doubled, date) = newest.split_once('\t').context("no run")?;
    let plant = format!(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, \
           clear_number, updated_at, span_status) \
         VALUES ('pay.latest', 'planted', 'scheduled', 'success', '{date}', '{date}', 0, now(), \
           'ended')"
    );
    soak.sql(1 - owner, &plant).await?;
    let twice = evidence.effects.iter().find(|effect| effect.ended).expect("tasks ended");
    soak.plant(&Effect { shard: "shard-z".to_owned(), ..twice.clone() })?;
    let found = check(&soak.evidence(evidence.until_us).await?);
    let has = |what: &dyn Fn(&Finding) -> bool| found.iter().any(what);
    ensure!(
        has(&|found| matches!(found, Finding::Lost { run_id, .. } if *run_id == lost))
            && has(
                &|found| matches!(found, Finding::Missing { dag_id, .. } if dag_id == "pay.minutely")
            )
            && has(&|found| matches!(found, Finding::Doubled { run_ids, .. }
                if run_ids.contains("planted") && run_ids.contains(doubled)))
            && has(&|found| matches!(found, Finding::ExecutedTwice { effect, .. }
                if effect.shard == "shard-z")),
        "{found:#?}"
    );
    Ok(())
}
