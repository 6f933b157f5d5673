//! From a new release in a namespace's source to its DAG being schedulable on a real shard.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    eventually,
    shard::{Fleet, FleetOptions, LIMIT},
};
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

/// Releases that are measured.
const RELEASES: usize = 24;

/// How often the agent asks the source.
const INTERVAL: Duration = Duration::from_secs(1);

const DAG: &str = r#"
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("pay.NUMBER", start_date=datetime(2026, 1, 1), schedule="@daily", catchup=False,
         is_paused_upon_creation=False):
    EmptyOperator(task_id="nothing")
"#;

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    let fleet = Fleet::boot(&FleetOptions { interval: INTERVAL, ..Default::default() }).await?;
    let release = async |number: usize| {
        let text = DAG.replace("NUMBER", &number.to_string());
        let begun = Instant::now();
        fleet.write("pay", &format!("dag_{number}.py"), &text)?;
        let sql = format!(
            "SELECT count(*) FROM dag d JOIN serialized_dag s USING (dag_id) \
             WHERE d.dag_id = 'pay.{number}' AND NOT d.is_paused AND NOT d.is_stale \
               AND d.next_dagrun_create_after IS NOT NULL"
        );
        eventually(LIMIT, async || {
            ensure!(
                fleet.shards[0].airflow.sql(&sql).await? == "1",
                "pay.{number} cannot be scheduled"
            );
            anyhow::Ok(())
        })
        .await?;
        anyhow::Ok(begun.elapsed().as_millis() as u64)
    };
    fleet.create(fleet.namespace("pay", "shard-a")?).await?;
    // The first is a namespace's arrival.
    release(0).await?;
    let mut times_ms = Histogram::<u64>::new(3)?;
    for number in 1..=RELEASES {
        times_ms.record(release(number).await?)?;
        // At another moment of the rounds of agent and DAG processor each time.
        tokio::time::sleep(Duration::from_millis(370 * (number as u64 % 7))).await;
    }
    let at = |quantile| times_ms.value_at_quantile(quantile) as f64 / 1e3;
    report.add(Figure::alone("release.schedulable_p50", at(0.5), "s", Goal::None))?;
    report.add(Figure::alone("release.schedulable_p95", at(0.95), "s", Goal::AtMost(10.0)))?;
    fleet.stop().await;
    Ok(())
}
