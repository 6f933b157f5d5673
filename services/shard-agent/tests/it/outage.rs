//! Databases that are away, slow or locked.

use std::time::{Duration, Instant};

use airfleet_local::AirflowVersion;
use airfleet_proto::{agent::v1::Report, common::v1::Verdict};

use sqlx::{Connection as _, PgConnection};

use crate::{
    RunningAgent,
    database::{agent_of, database, fill, query},
    eventually,
    scripted::{ScriptedRouter, roles},
    url,
};

fn is(report: &Report, verdict: Verdict, code: &str) -> bool {
    report.health.as_ref().is_some_and(|health| {
        health.verdict() == verdict && health.reasons.iter().any(|reason| reason.code == code)
    })
}

fn usage_is_known(report: &Report) -> bool {
    report.usage.is_some() && !report.namespaces.is_empty()
}

#[tokio::test]
async fn a_stopped_database_makes_the_shard_unhealthy_until_it_is_back() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let router = ScriptedRouter::start().await;
    router.tell(roles(1, 1, &[("pay", "pay__")]));
    let agent = RunningAgent::start(agent_of(&shard, &router));
    let before = router.when("usage", usage_is_known).await;

    shard.postgres().unwrap().stop().await;
    let away = router
        .when("an unhealthy verdict", |report| {
            is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE")
        })
        .await;
    // Signals are gone, but the shard is not taken for empty.
    assert_eq!(away.signals.unwrap().scheduler_heartbeat_age_ms, -1);
    assert_eq!(away.usage.unwrap().dags, before.usage.unwrap().dags);
    assert_eq!(away.namespaces.len(), 1);

    shard.postgres().unwrap().start().await.unwrap();
    router
        .when("recovery", |report| {
            !is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE")
                && report.signals.is_some_and(|signals| signals.scheduler_heartbeat_age_ms > 0)
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_killed_database_is_no_different() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let router = ScriptedRouter::start().await;
    let agent = RunningAgent::start(agent_of(&shard, &router));
    router.when("usage", |report| report.usage.is_some()).await;
    shard.postgres().unwrap().kill().await;
    router
        .when("an unhealthy verdict", |report| {
            is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE")
        })
        .await;
    shard.postgres().unwrap().start().await.unwrap();
    router
        .when("recovery", |report| !is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE"))
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_locked_table_neither_blocks_reports_nor_piles_up_queries() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let router = ScriptedRouter::start().await;
    let mut config = agent_of(&shard, &router);
    config.airflow.metadata_timeout = Duration::from_millis(700);
    let agent = RunningAgent::start(config);
    router.when("usage", |report| report.usage.is_some()).await;

    // Somebody holds the table as a migration does.
    let mut holder = PgConnection::connect(&shard.metadata_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE dag IN ACCESS EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .unwrap();
    router
        .when("an unhealthy verdict", |report| {
            is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE")
        })
        .await;
    // Reports go on every 100 ms.
    let (before, began) = (router.reports().len(), Instant::now());
    eventually("ten more reports", async || (router.reports().len() >= before + 10).then_some(()))
        .await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'airfleet-agent'";
    let connections: i64 = query(&shard, sql).await.parse().unwrap();
    // One for reports, one for samples, and what was given up on lives until its statement ends.
    assert!((1..=4).contains(&connections), "{connections} connections");

    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    router
        .when("recovery", |report| !is(report, Verdict::Unhealthy, "METADATA_DB_UNREACHABLE"))
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn what_accepts_and_never_answers_is_given_up_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = ScriptedRouter::start().await;
    let mut config = router.agent();
    config.airflow.metadata_url = Some(url(format!("postgres://u:p@{address}/airflow")));
    config.airflow.metadata_timeout = Duration::from_millis(500);
    config.airflow.api_url = Some(format!("http://{address}"));
    config.airflow.api_timeout = Duration::from_millis(400);
    config.broker.url = Some(url(format!("redis://{address}/0")));
    config.broker.timeout = Duration::from_millis(300);
    let agent = RunningAgent::start(config);
    let report = router
        .when("all three to be given up on", |report| {
            let reasons = report.health.as_ref().map_or(&[][..], |health| &health.reasons);
            reasons.iter().filter(|reason| reason.message.contains("no answer")).count() == 3
        })
        .await;
    assert!(is(&report, Verdict::Unhealthy, "BROKER_UNREACHABLE"), "{report:?}");
    assert!(is(&report, Verdict::Unhealthy, "API_UNREACHABLE"), "{report:?}");
    agent.stop().await;
}
