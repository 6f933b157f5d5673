//! The command as people and scripts use it.

use std::process::Output;

use airfleet_local::AirflowVersion;
use serde_json::Value;
use tokio::process::Command;

use crate::database::{database, fill, query};

async fn agent(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_airfleet-agent"))
        .args(arguments)
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn one_look_tells_people_and_scripts_what_is_wrong() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let metadata = format!("airflow.metadata_url={}", shard.metadata_url());
    let look = ["probe", "--shard", "shard-a", "--set", &metadata];

    let seen = agent(&look, &[]).await;
    assert_eq!(seen.status.code(), Some(2), "{}", text(&seen.stderr));
    let table = text(&seen.stdout);
    assert!(table.starts_with("shard-a is DEGRADED\n"), "{table}");
    for expected in
        ["DAGS_LATE", "schema d2f4e1b3c5a7", "task_starts_per_hour", "broker    not configured"]
    {
        assert!(table.contains(expected), "{expected} is not in\n{table}");
    }

    query(&shard, "UPDATE dag SET next_dagrun_create_after = NULL").await;
    let seen = agent(&[&look[..], &["-o", "json"]].concat(), &[]).await;
    assert_eq!(seen.status.code(), Some(0), "{}", text(&seen.stderr));
    let summary: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(summary["verdict"], "healthy");
    assert_eq!(summary["usage"]["dags"], 8);
    assert_eq!(summary["reasons"][0]["code"], "IMPORT_ERRORS");
    assert_eq!(summary["probes"][0]["ok"], true);
}

#[tokio::test]
async fn errors_say_what_to_do_and_hide_secrets() {
    let refused = agent(&["--listen", "127.0.0.1:0"], &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let why = text(&refused.stderr);
    assert!(why.contains("set shard (--shard)"), "{why}");

    let wrong = [("AIRFLEET__AIRFLOW__METADATA_URL", "mysql://u:hunter2@db/airflow")];
    let refused = agent(&["probe"], &wrong).await;
    let why = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("airflow.metadata_url") && !why.contains("hunter2"), "{why}");

    let shown = agent(&["--show-config"], &wrong).await;
    let settings = text(&shown.stdout);
    assert!(
        settings.contains("airflow.metadata_url") && !settings.contains("hunter2"),
        "{settings}"
    );

    let help = text(&agent(&["--help"], &[]).await.stdout);
    assert!(help.contains("Examples:") && help.contains("--simulate"), "{help}");
}
