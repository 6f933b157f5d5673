//! What an agent does at an end of a move, in a real metadata database, with a router that a test
//! speaks for.

use airfleet_local::AirflowVersion;
use airfleet_proto::common::v1::Role;

use super::fixture::Fixture;
use crate::{RunningAgent, database::query, eventually};

/// Messages of the events with this code.
fn told(fixture: &Fixture, code: &str) -> Vec<String> {
    let events = fixture.router.events("pay").into_iter();
    events.filter(|(is, _)| is == code).map(|(_, message)| message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn timetables_that_cannot_be_computed_are_told_once() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__own", false), ("pay__paused", true), ("ads__own", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    fixture.tell_source(fixture.pay(Role::Sealed, 1));
    fixture.reached("pay", Role::Sealed, 1).await;
    // Something of somebody's own timetable comes due under seal.
    let due = "UPDATE dag SET timetable_type = 'mine.Timetable', next_dagrun = now(), \
                 next_dagrun_create_after = now()";
    query(&fixture.shard, due).await;

    // The move is given up: the source goes on, and makes up for what it can.
    fixture.tell_source(fixture.pay(Role::Active, 2));
    fixture.reached("pay", Role::Active, 2).await;
    let message = eventually("it is told", async || told(&fixture, "TICKS_UNCERTAIN").pop()).await;
    assert!(message.starts_with("look whether a run is missing, and trigger it"), "{message}");
    assert!(message.contains(" 1 DAG ") && message.ends_with(": pay__own"), "{message}");
    let runs = "SELECT string_agg(dag_id, ' ') FROM dag_run";
    assert_eq!(query(&fixture.shard, runs).await, "pay__own", "what was planned next is there");

    // Told again by one that starts anew, as the same event.
    agent.stop().await;
    let agent = RunningAgent::start(fixture.config());
    let times = || {
        let reports = fixture.router.reports();
        let events = reports.iter().flat_map(|report| &report.events);
        events.filter(|event| event.code == "TICKS_UNCERTAIN").count()
    };
    let before = times();
    eventually("it is told again", async || (times() > before).then_some(())).await;
    assert_eq!(told(&fixture, "TICKS_UNCERTAIN").len(), 1, "the router takes it for one");

    // Once the move is over nothing is kept of it.
    fixture.tell(&[fixture.pay(Role::Active, 2)]);
    eventually("notes are dropped", async || {
        let notes = query(&fixture.shard, "SELECT count(*) FROM airfleet_move").await;
        (notes.trim() == "0").then_some(())
    })
    .await;
    assert_eq!(told(&fixture, "TICKS_UNCERTAIN").len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_came_after_the_seal_are_told() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false), ("ads__a", false)]).await;
    let add_run = async |dag: &str, run: &str| {
        let sql = format!(
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, clear_number, \
               updated_at, span_status) \
             VALUES ('{dag}', '{run}', 'manual', 'queued', now(), 0, now(), 'ended')"
        );
        query(&fixture.shard, &sql).await;
    };
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    add_run("pay__a", "before").await;
    fixture.tell_source(fixture.pay(Role::Sealed, 1));
    fixture.reached("pay", Role::Sealed, 1).await;
    add_run("pay__a", "after_1").await;
    add_run("pay__a", "after_2").await;
    add_run("ads__a", "of_others").await;
    fixture.tell_source(fixture.pay(Role::Retired, 2));
    fixture.reached("pay", Role::Retired, 2).await;
    let message = eventually("it is told", async || told(&fixture, "RUNS_STRANDED").pop()).await;
    assert!(message.starts_with("trigger them again on shard-b"), "{message}");
    assert!(message.contains(": 2 runs were made"), "{message}");
    assert!(message.ends_with(": pay__a after_1, pay__a after_2"), "{message}");

    // It is looked again, and each run told of once.
    add_run("pay__a", "after_3").await;
    let messages = eventually("the next one is told", async || {
        Some(told(&fixture, "RUNS_STRANDED")).filter(|messages| messages.len() > 1)
    })
    .await;
    assert!(messages[1].contains(": 1 run was made"), "{messages:?}");
    assert!(messages[1].ends_with(": pay__a after_3"), "{messages:?}");
    fixture.tell(&[fixture.pay(Role::Retired, 2)]);
    eventually("notes are dropped", async || {
        let notes = query(&fixture.shard, "SELECT count(*) FROM airfleet_move").await;
        (notes.trim() == "0").then_some(())
    })
    .await;
    assert_eq!(told(&fixture, "RUNS_STRANDED").len(), 2);
    agent.stop().await;
}
