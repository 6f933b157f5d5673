//! A whole Airflow, with a real Celery worker.

use std::time::Duration;

use airfleet_local::{AirflowShard, Component, Stack};
use airfleet_proto::common::v1::Verdict;

use crate::{
    RunningAgent,
    scripted::{ScriptedRouter, roles},
    url,
};

/// How long a whole Airflow may take for anything, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_mins(5);

/// Takes about a minute and a gigabyte.
#[tokio::test]
async fn a_real_shard_is_healthy_until_its_worker_and_scheduler_go() {
    if Stack::installed() != Stack::Celery {
        eprintln!("passed over: PostgreSQL or Redis is not installed");
        return;
    }
    let shard = AirflowShard::builder("shard-a").boot().await.unwrap();
    let router = ScriptedRouter::start().await;
    router.tell(roles(1, 1, &[("pay", "pay__")]));
    let mut config = router.agent();
    config.airflow.metadata_url = Some(url(shard.metadata_url()));
    config.airflow.api_url = Some(shard.api_url());
    config.broker.url = shard.broker_url().map(url);
    config.broker.worker_window = Duration::from_secs(10);
    config.thresholds.scheduler_heartbeat_age = Duration::from_secs(15);
    let agent = RunningAgent::start(config);

    let healthy = router
        .within(LIMIT, "a healthy shard with a live worker", |report| {
            report.health.as_ref().is_some_and(|health| health.verdict() == Verdict::Healthy)
                && report.signals.is_some_and(|signals| signals.live_workers == 1)
        })
        .await;
    assert_eq!(healthy.airflow_version, "3.3.2");
    assert_eq!(healthy.schema_revision, "d2f4e1b3c5a7");
    let signals = healthy.signals.unwrap();
    assert!(signals.api_probe_ms > 0 && signals.broker_probe_ms > 0, "{signals:?}");

    // A file with two DAGs comes in.
    let dag = "from airflow.sdk import DAG\n\
        for name in ('pay__a', 'other_b'):\n    globals()[name] = DAG(name, schedule=None)\n";
    std::fs::write(shard.dags_folder().join("two.py"), dag).unwrap();
    let parsed = router
        .within(LIMIT, "both DAGs and what parsing them takes", |report| {
            report.unowned_dags == 1
                && report.namespaces.iter().any(|seen| {
                    seen.usage.is_some_and(|usage| usage.dags == 1 && usage.parse_ms_per_minute > 0)
                })
        })
        .await;
    assert_eq!(parsed.usage.unwrap().dags, 2);

    shard.kill_component(Component::Worker).await.unwrap();
    router
        .within(LIMIT, "no worker", |report| {
            let health = report.health.as_ref().unwrap();
            health.verdict() == Verdict::Unhealthy
                && health.reasons.iter().any(|reason| reason.code == "NO_LIVE_WORKERS")
        })
        .await;
    shard.kill_component(Component::Scheduler).await.unwrap();
    shard.kill_component(Component::ApiServer).await.unwrap();
    router
        .within(LIMIT, "no scheduler and no web server", |report| {
            let reasons = &report.health.as_ref().unwrap().reasons;
            ["SCHEDULER_HEARTBEAT_OLD", "API_UNREACHABLE"]
                .iter()
                .all(|code| reasons.iter().any(|reason| reason.code == *code))
        })
        .await;
    agent.stop().await;
}
