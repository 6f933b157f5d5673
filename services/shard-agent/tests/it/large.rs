//! What an agent costs a large metadata database.

use std::time::{Duration, Instant};

use airfleet_domain::roles::Role;
use airfleet_local::{AirflowShard, AirflowVersion};
use airfleet_shard_agent::airflow::{
    Reader,
    fence::{
        self,
        gate::{self, Order, Place},
    },
};

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

/// What the fence costs with 100,000 DAGs and 100,000 prefixes.
#[tokio::test]
#[ignore = "fills a database"]
async fn the_fence_is_cheap_with_a_hundred_thousand_prefixes() {
    let shard = crate::database::database(AirflowVersion::V3_3_2).await;
    let metadata = crate::fence::metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    let insert = "INSERT INTO dag_bundle (name, active) VALUES ('b', true); \
        INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, timetable_type, \
          partition_mapper_info, max_active_tasks, max_consecutive_failed_dag_runs, \
          has_task_concurrency_limits) \
        SELECT format('team%s__dag%s', n % 50000, n), true, false, 'b', '', '{}', 16, 0, false \
        FROM generate_series(1, 100000) AS n; \
        INSERT INTO airfleet_fence (prefix, namespace, elsewhere) \
        SELECT format('team%s__', n), format('ns%s', n), true FROM generate_series(25000, 125000) n; \
        ANALYZE dag; ANALYZE airfleet_fence";
    query(&shard, insert).await;
    let time = async |what: &str, sql: &str| {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let plan =
                query(&shard, &format!("BEGIN; EXPLAIN (ANALYZE, TIMING off) {sql}; ROLLBACK"))
                    .await;
            let line = plan.lines().find_map(|line| line.split("Execution Time: ").nth(1)).unwrap();
            best = best.min(line.trim_end_matches(" ms").parse::<f64>().unwrap());
        }
        println!("{what}: {best:.2} ms");
        best
    };
    let one = "UPDATE dag SET is_paused = false WHERE dag_id = 'team30000__dag30000'";
    time("one DAG unpaused, fenced", one).await;
    let disable = "ALTER TABLE dag DISABLE TRIGGER airfleet_keep_paused";
    query(&shard, disable).await;
    let bare = time("100,000 DAGs unpaused, no fence", "UPDATE dag SET is_paused = false").await;
    query(&shard, &disable.replace("DISABLE", "ENABLE")).await;
    let fenced =
        time("100,000 DAGs unpaused, half of them fenced", "UPDATE dag SET is_paused = false")
            .await;
    let per_dag_us = (fenced - bare) / 100.0;
    println!("the fence adds {per_dag_us:.1} us to unpausing a DAG");
    time("a parse of every DAG (pause state untouched)", "UPDATE dag SET is_stale = false").await;
    query(&shard, "ALTER TABLE dag DISABLE TRIGGER airfleet_keep_paused").await;
    query(&shard, "UPDATE dag SET is_paused = false").await;
    let leaks = "SELECT count(*) FROM dag WHERE NOT is_paused AND airfleet_fenced(dag_id)";
    time("looking for leaks among 100,000 unpaused DAGs", leaks).await;
    query(&shard, "ALTER TABLE dag ENABLE TRIGGER airfleet_keep_paused").await;

    let mine = vec!["team7__".to_owned()];
    let place = Place { generation: 1, revision: 1 };
    let order = Order { namespace: "mine", prefixes: &mine, role: Role::Quiesced, place };
    for what in ["close", "open", "close again", "look"] {
        let began = Instant::now();
        let mut tx = metadata.begin().await.unwrap();
        match what {
            "open" => drop(gate::open(&mut tx, order).await.unwrap()),
            "look" => drop(gate::look(&mut tx, "mine", &mine).await.unwrap()),
            _ => drop(gate::close(&mut tx, order).await.unwrap()),
        }
        tx.commit().await.unwrap();
        println!("{what}: {:.1} ms", began.elapsed().as_secs_f64() * 1_000.0);
    }
    assert!(per_dag_us < 200.0, "{per_dag_us} us");
}
