//! What an agent costs a large metadata database.

use std::time::{Duration, Instant};

use airfleet_local::{AirflowShard, AirflowVersion};
use airfleet_shard_agent::airflow::Reader;

use crate::{
    database::{fill, query},
    url,
};

/// Reports between two samples of each kind, at the default intervals.
const REPORTS_PER_ACTIVITY: f64 = 12.0;
const REPORTS_PER_SIZES: f64 = 60.0;
const ROUNDS: u32 = 10;

/// Fills for minutes: run it by name, with `--ignored --nocapture`. The time is what the server
/// spends, by its own account.
#[tokio::test]
#[ignore = "fills a database for several minutes"]
async fn probes_cost_the_database_less_than_a_tenth_of_a_second_per_report() {
    let shard = AirflowShard::builder("large")
        .version(AirflowVersion::V3_3_2)
        .database_only()
        .boot()
        .await
        .unwrap();
    fill(&shard, "large-3.3.sql").await;
    let mut reader = Reader::new(&url(shard.metadata_url()), Duration::from_mins(1)).unwrap();

    // Once to warm the caches of the server.
    let pulse = reader.pulse().await.unwrap();
    let activity = reader.activity(Duration::from_secs(30)).await.unwrap();
    let sizes = reader.sizes().await.unwrap();
    assert_eq!((pulse.dags.len(), sizes.dags.len()), (2_000, 2_000));
    assert!(activity.dags.len() >= 1_900 && activity.scheduling_delay_p95_ms.is_some());

    let mut medians = Vec::new();
    for part in ["pulse", "activity", "sizes"] {
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            match part {
                "pulse" => drop(reader.pulse().await.unwrap()),
                "activity" => drop(reader.activity(Duration::from_secs(30)).await.unwrap()),
                _ => drop(reader.sizes().await.unwrap()),
            }
            taken.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        taken.sort_by(f64::total_cmp);
        let median = taken[taken.len() / 2];
        println!("{part}: median {median:.1} ms, worst {:.1} ms", taken[taken.len() - 1]);
        medians.push(median);
    }
    let per_report =
        medians[0] + medians[1] / REPORTS_PER_ACTIVITY + medians[2] / REPORTS_PER_SIZES;
    println!("per report, samples spread over the reports between them: {per_report:.1} ms");
    let rows = query(&shard, "SELECT count(*) FROM task_instance").await;
    println!("task instances: {rows}");
    assert!(per_report < 100.0, "{per_report} ms");
}
