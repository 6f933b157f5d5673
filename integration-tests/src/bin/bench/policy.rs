//! The Python package for shards, `deploy/airflow`, in real Airflows of both releases.
//!
//! Its scripts under `deploy/airflow/bench` measure, with the package built and installed as on a
//! shard; what they print becomes figures.

use std::{path::PathBuf, time::Duration};

use airfleet_integration_tests::bench::report::{Figure, Goal, Report};
use airfleet_local::{AirflowVersion, Environment};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::rig::Rig;

const LIMIT: Duration = Duration::from_mins(10);
const RELEASES: [(AirflowVersion, &str); 2] =
    [(AirflowVersion::V3_3_2, "airflow_3"), (AirflowVersion::V2_11_2, "airflow_2")];
const ROUNDS: &str = "5";
const DAGS: u32 = 2_000;
const PARSES: &str = "3";
/// Cron schedules among the workflows.
const SCHEDULES: u64 = 128;

/// Microseconds of processor time, with Airflow's own way to the policy.
pub(crate) async fn cost(rig: &Rig, report: &mut Report) -> Result<()> {
    for (version, name) in RELEASES {
        let found = run(rig, version, "policy.py", &[ROUNDS.to_owned()]).await?;
        for (what, key, most) in [("dag", "dag_us", 10.0), ("task", "task_us", 5.0)] {
            let figure = format!("policy.{name}_{what}");
            report.add(Figure::alone(&figure, number(&found, key)?, "us", Goal::AtMost(most)))?;
        }
    }
    Ok(())
}

/// Parses a second: of a worker that builds its DAG alone, beside the whole file.
pub(crate) async fn parsing(rig: &Rig, report: &mut Report) -> Result<()> {
    for (version, name) in RELEASES {
        let arguments = [PARSES.to_owned(), DAGS.to_string()];
        let found = run(rig, version, "parsing.py", &arguments).await?;
        report.add(Figure::beside(
            &format!("parsing.{name}_one_of_{DAGS}"),
            1.0 / number(&found, "one_s")?,
            "1/s",
            ("all of them", 1.0 / number(&found, "all_s")?),
            Goal::AtLeast(100.0),
        ))?;
    }
    Ok(())
}

/// Begins in the busiest minute of three months. That every interval is kept, the script sees to.
pub(crate) async fn smoothing(rig: &Rig, report: &mut Report) -> Result<()> {
    let workflows = folder().join("../../examples/fleet/workflows.csv").canonicalize()?;
    let arguments = [workflows.to_string_lossy().into_owned()];
    let found = run(rig, AirflowVersion::V3_3_2, "smoothing.py", &arguments).await?;
    ensure!(found["schedules"] == SCHEDULES, "{found}");
    let before = ("as they are", number(&found, "before")?);
    let goal = Goal::AtMost(0.2);
    for (name, key, goal) in [("together", "together", goal), ("each_alone", "alone", Goal::None)] {
        let figure = format!("smoothing.busiest_minute_{name}");
        report.add(Figure::beside(&figure, number(&found, key)?, "begins", before, goal))?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/airflow")
}

/// Runs a script; the JSON object that it prints last.
async fn run(
    rig: &Rig,
    version: AirflowVersion,
    script: &str,
    arguments: &[String],
) -> Result<Value> {
    let airflow = Environment::ensure(version, &rig.sandbox).await?;
    let airflow = airflow.install(&folder(), &rig.sandbox).await?;
    let spec = airflow
        .python(script)
        .args(["-W", "ignore"])
        .arg(folder().join("bench").join(script))
        .args(arguments);
    let output = rig.sandbox.run(&spec, LIMIT).await?;
    let line = output.lines().last().context("it printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("{script} printed {line}"))
}

fn number(found: &Value, key: &str) -> Result<f64> {
    found[key].as_f64().with_context(|| format!("no {key} in {found}"))
}
