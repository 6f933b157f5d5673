//! The Python package for shards, `deploy/airflow`, in a real Airflow 3.3 shard: what it refuses is
//! seen where users look, what it only tells lies where the agent looks, and no fault of what it
//! reads stops the shard. Rules one by one are tested beside the package.

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use airfleet_integration_tests::{eventually, shard::Airflow};
use airfleet_local::Component;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// For machines that do much else at the same time.
const LIMIT: Duration = Duration::from_mins(8);
const MANY: usize = 40;

const GOOD: &str = r#"
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("DAG_ID", start_date=datetime(2026, 1, 1), schedule=None, tags=["team"]):
    EmptyOperator(task_id="load", QUEUE)
"#;

/// Builds as many DAGs as are wanted, and has a task tell how many that were.
const GENERATED: &str = r#"
from datetime import datetime
from airflow.sdk import DAG, task
from airfleet_airflow.parsing import select

built = []

@task
def count():
    return len(built)

for number in select(range(MANY), dag_id=lambda number: f"payments__many_{number}"):
    with DAG(f"payments__many_{number}", start_date=datetime(2026, 1, 1), schedule=None,
             tags=["team"], is_paused_upon_creation=False) as dag:
        count()
    built.append(dag)
    globals()[f"dag_{number}"] = dag
"#;

const JITTERED: &str = r#"
from datetime import datetime, timedelta
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airfleet_airflow.smoothing import JitteredCronTriggerTimetable

schedule = JitteredCronTriggerTimetable(
    "0 6 * * *", seed="payments__jittered", max_jitter=timedelta(minutes=30))
with DAG("payments__jittered", start_date=datetime(2026, 1, 1), schedule=schedule, catchup=True,
         tags=["team"], doc_md=str(int(schedule.jitter.total_seconds()))):
    EmptyOperator(task_id="load", retries=9)
"#;

/// A shard, and what the agent does to its folder of DAG files.
struct Fixture {
    airflow: Airflow,
    releases: usize,
}

impl Fixture {
    async fn boot() -> Result<Self> {
        let airflow = Airflow::boot("guarded", &[]).await?;
        fs::write(airflow.shard.dags_folder().join(".airflowignore"), ".airfleet\n")?;
        Ok(Self { airflow, releases: 0 })
    }

    fn state(&self) -> PathBuf {
        self.airflow.shard.dags_folder().join(".airfleet")
    }

    fn write_guardrails(&self, text: &str) -> Result<()> {
        fs::create_dir_all(self.state())?;
        let draft = self.state().join("guardrails.json.draft");
        fs::write(&draft, text)?;
        fs::rename(draft, self.state().join("guardrails.json"))?;
        Ok(())
    }

    /// Delivers the files of a namespace as a new release and switches to it.
    fn release(&mut self, namespace: &str, files: &[(&str, String)]) -> Result<()> {
        self.releases += 1;
        let folder = self.state().join(format!("releases/{namespace}/r{}", self.releases));
        fs::create_dir_all(&folder)?;
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        let link = self.airflow.shard.dags_folder().join(format!(".{namespace}.draft"));
        symlink(&folder, &link)?;
        fs::rename(link, self.airflow.shard.dags_folder().join(namespace))?;
        Ok(())
    }

    /// Waits until the import errors are these, of which each begins so.
    async fn wait_for_errors(&self, expected: &[(&str, &str)]) -> Result<()> {
        eventually(LIMIT, async || {
            let errors = self.airflow.get("importErrors").await?;
            let mut found: Vec<(String, String)> = Vec::new();
            for error in errors["import_errors"].as_array().context("no list")? {
                let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
                found.push((text("filename"), text("stack_trace")));
            }
            found.sort();
            let same = found.len() == expected.len()
                && expected.iter().zip(&found).all(|((file, line), (filename, trace))| {
                    filename == file
                        && trace.starts_with(&format!("AirflowClusterPolicyViolation: {line}"))
                });
            ensure!(same, "{found:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the shard has the DAG and its file was parsed.
    async fn wait_for_dag(&self, dag_id: &str) -> Result<Value> {
        eventually(LIMIT, async || {
            let dag = self.airflow.get(&format!("dags/{dag_id}/details")).await?;
            ensure!(dag["is_stale"] == false, "{dag}");
            Ok(dag)
        })
        .await
    }

    /// What the agent would read, by dag_id and code.
    fn violations(&self) -> Result<Vec<(String, String, String)>> {
        let mut lines = Vec::new();
        let Ok(folder) = fs::read_dir(self.state().join("violations")) else {
            return Ok(lines);
        };
        for entry in folder {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "jsonl") {
                for line in fs::read_to_string(path)?.lines() {
                    let line: Value = serde_json::from_str(line)?;
                    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                    lines.push((text("dag_id"), text("code"), text("action")));
                }
            }
        }
        lines.sort();
        Ok(lines)
    }

    async fn wait_for_violations(&self, expected: &[(&str, &str, &str)]) -> Result<()> {
        eventually(LIMIT, async || {
            let found = self.violations()?;
            let same = found.len() == expected.len()
                && found.iter().zip(expected).all(|((dag_id, code, action), expected)| {
                    (dag_id.as_str(), code.as_str(), action.as_str()) == *expected
                });
            ensure!(same, "{found:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }
}

fn guardrails(payments: &Value) -> String {
    let document = json!({
        "version": 1, "shard": "guarded", "manifestRevision": 3,
        "writtenAt": "2026-01-01T00:00:00Z",
        "namespaces": {
            "payments": { "prefixes": ["payments__"], "owners": [], "rules": payments },
            "reports": {
                "prefixes": ["reports__"],
                "owners": [],
                "rules": { "mode": "warn", "queues": ["default"] },
            },
        },
    });
    document.to_string()
}

fn strict() -> Value {
    json!({ "queues": ["default"], "requiredTags": ["team"], "retries": { "max": 5 } })
}

fn dag(dag_id: &str, queue: &str) -> String {
    GOOD.replace("DAG_ID", dag_id).replace("QUEUE", &format!("queue={queue:?}"))
}

#[tokio::test]
async fn guardrails_hold_on_a_real_shard() -> Result<()> {
    let mut fixture = Fixture::boot().await?;

    // Refused DAGs are import errors; files beside them, and other namespaces, are not affected.
    fixture.write_guardrails(&guardrails(&strict()))?;
    let good = ("good.py", dag("payments__good", "default"));
    fixture.release(
        "payments",
        &[
            good.clone(),
            ("bad.py", dag("payments__bad", "gpu")),
            ("stray.py", dag("reports__stray", "default")),
            ("many.py", GENERATED.replace("MANY", &MANY.to_string())),
            ("jittered.py", JITTERED.to_owned()),
        ],
    )?;
    fixture.release("reports", &[("daily.py", dag("reports__daily", "gpu"))])?;
    fixture
        .wait_for_errors(&[
            (
                "payments/bad.py",
                "AF104 payments__bad.load: queue 'gpu' is not allowed; set queue to",
            ),
            (
                "payments/stray.py",
                "AF103 reports__stray: belongs to namespace reports, but payments/",
            ),
        ])
        .await?;
    fixture.wait_for_dag("payments__good").await?;
    fixture.wait_for_dag("reports__daily").await?;
    let refused = fixture.airflow.get("dags/payments__bad").await;
    ensure!(refused.is_err(), "{refused:?}");
    let jittered = fixture.wait_for_dag("payments__jittered").await?;
    fixture
        .wait_for_violations(&[
            ("payments__bad", "AF104", "refused"),
            ("payments__jittered", "AF110", "changed"),
            ("reports__daily", "AF104", "told"),
            ("reports__stray", "AF103", "refused"),
        ])
        .await?;

    // What is over its limit is brought down to it.
    let task = fixture.airflow.get("dags/payments__jittered/tasks/load").await?;
    ensure!(task["retries"] == 5.0, "{task}");
    // The scheduler read the timetable back: runs keep their dates, and begin later.
    let time = |key: &str| jittered[key].as_str().context("no time")?.parse().context("no time");
    let (date, after): (jiff::Timestamp, jiff::Timestamp) =
        (time("next_dagrun_logical_date")?, time("next_dagrun_run_after")?);
    let jitter: i64 = jittered["doc_md"].as_str().context("no doc")?.parse()?;
    ensure!(date == "2026-01-01T06:00:00Z".parse()?, "{date}");
    ensure!(after.as_second() - date.as_second() == jitter && jitter > 0, "{after}, {jitter} s");

    a_worker_builds_only_its_own_dag(&fixture).await?;

    // While guardrails are broken or gone, those before hold, also in a process that starts anew.
    fixture.write_guardrails(&guardrails(&strict())[..100])?;
    fixture.release("payments", &[good.clone(), ("worse.py", dag("payments__worse", "gpu"))])?;
    let worse = [("payments/worse.py", "AF104 payments__worse.load: ")];
    fixture.wait_for_errors(&worse).await?;
    fixture.airflow.shard.kill_component(Component::DagProcessor).await?;
    fs::remove_file(fixture.state().join("guardrails.json"))?;
    fixture.release("payments", &[good.clone(), ("again.py", dag("payments__again", "gpu"))])?;
    fixture.airflow.shard.start_component(Component::DagProcessor).await?;
    fixture.wait_for_errors(&[("payments/again.py", "AF104 payments__again.load: ")]).await?;
    fixture.wait_for_dag("payments__good").await?;

    // What is mended or no longer forbidden is let in and taken back.
    fixture.write_guardrails(&guardrails(&json!({})))?;
    fixture.wait_for_errors(&[]).await?;
    fixture.wait_for_dag("payments__again").await?;
    let again = |found: &(String, String, String)| found.0 == "payments__again";
    eventually(LIMIT, async || {
        ensure!(!fixture.violations()?.iter().any(again), "{:?}", fixture.violations()?);
        anyhow::Ok(())
    })
    .await?;
    fixture.airflow.shard.stop().await;
    Ok(())
}

/// The DAG processor builds all DAGs of a file; the process of a task builds one.
async fn a_worker_builds_only_its_own_dag(fixture: &Fixture) -> Result<()> {
    let pattern = "dags?dag_id_prefix_pattern=payments__many_&limit=1";
    eventually(LIMIT, async || {
        let found = fixture.airflow.get(pattern).await?;
        ensure!(found["total_entries"] == MANY, "{found}");
        Ok(())
    })
    .await?;
    let runs = "dags/payments__many_7/dagRuns";
    let run = json!({ "logical_date": null, "dag_run_id": "once" });
    eventually(LIMIT, async || {
        let path = format!("{runs}/once");
        let Ok(found) = fixture.airflow.get(&path).await else {
            fixture.airflow.rest(reqwest::Method::POST, runs, run.clone()).await?;
            anyhow::bail!("just triggered");
        };
        ensure!(found["state"] == "success", "{found}");
        Ok(())
    })
    .await?;
    let xcom = format!("{runs}/once/taskInstances/count/xcomEntries/return_value");
    let built = fixture.airflow.get(&xcom).await?;
    ensure!(built["value"] == 1 || built["value"] == "1", "{built}");
    Ok(())
}
