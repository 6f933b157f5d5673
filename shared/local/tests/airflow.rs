//! Airflow shards, for real. The first run installs Airflow and migrates the
//! databases that later runs copy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use airfleet_local::{AirflowShard, AirflowVersion, Component, Environment, Keep, Sandbox, Stack};
use tokio::sync::Mutex;

/// Whole shards boot one test at a time: each wants more than two cores.
static WHOLE_SHARDS: Mutex<()> = Mutex::const_new(());

/// For machines that do much else at the same time.
const READY_LIMIT: Duration = Duration::from_mins(10);
const DAG: &str = "
from datetime import datetime
from airflow.sdk import DAG, task

with DAG('payments.daily', start_date=datetime(2026, 1, 1), schedule=None):
    @task
    def answer():
        return 42
    answer()
";

async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            println!("{what} after {:.1}s", start.elapsed().as_secs_f64());
            return value;
        }
        assert!(start.elapsed() < READY_LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the REST API answers; null instead of an error, for a busy machine may
/// let a request time out.
async fn rest(
    shard: &AirflowShard,
    method: reqwest::Method,
    path: &str,
    body: serde_json::Value,
) -> serde_json::Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let Ok(token) = shard.token().await else {
        return serde_json::Value::Null;
    };
    let request = client
        .request(method, format!("{}/api/v2/{path}", shard.api_url()))
        .bearer_auth(token)
        .json(&body);
    match request.send().await.and_then(reqwest::Response::error_for_status) {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => serde_json::Value::Null,
    }
}

/// The text of every log below `folder`.
fn logs(folder: &Path) -> String {
    let mut text = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push(logs(&path));
        } else {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            text.push(format!("--- {}\n{log}", path.display()));
        }
    }
    text.join("\n")
}

async fn query(shard: &AirflowShard, sql: &str) -> String {
    let postgres = shard.postgres().unwrap();
    postgres.query("airflow", sql).await.unwrap()
}

/// Waits until the shard knows the DAG, unpauses and runs it.
async fn run_dag(shard: &AirflowShard) {
    let nothing = serde_json::json!({});
    eventually("the DAG is seen through REST", async || {
        let dag = rest(shard, reqwest::Method::GET, "dags/payments.daily", nothing.clone()).await;
        (dag["is_paused"] == true).then_some(())
    })
    .await;
    let unpause = serde_json::json!({ "is_paused": false });
    eventually("the DAG is unpaused", async || {
        let path = "dags/payments.daily";
        let dag = rest(shard, reqwest::Method::PATCH, path, unpause.clone()).await;
        (dag["is_paused"] == false).then_some(())
    })
    .await;
    // With an id of ours, so that asking again creates no second run.
    let runs = "dags/payments.daily/dagRuns";
    let run = serde_json::json!({ "logical_date": null, "dag_run_id": "once" });
    let path = format!("{runs}/once");
    eventually("the run succeeded", async || {
        let found = rest(shard, reqwest::Method::GET, &path, nothing.clone()).await;
        if found.is_null() {
            rest(shard, reqwest::Method::POST, runs, run.clone()).await;
        }
        let failed = found["state"] == "failed";
        assert!(!failed, "{found}\n{}", logs(&shard.folder().join("logs")));
        (found["state"] == "success").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_alone_has_the_schema_of_its_release() {
    // Alembic revisions, as each release's own `airflow db migrate` leaves them.
    for (version, revision) in
        [(AirflowVersion::V3_3_2, "d2f4e1b3c5a7"), (AirflowVersion::V2_11_2, "5f2621c13b39")]
    {
        let shard = AirflowShard::builder("schema")
            .version(version)
            .stack(Stack::Celery)
            .database_only()
            .on_progress(|progress| println!("{progress}"))
            .boot()
            .await
            .unwrap();
        let found = query(&shard, "SELECT version_num FROM alembic_version").await;
        assert_eq!(found, revision, "{version}");
        assert_eq!(shard.components().count(), 0);
        assert_eq!(shard.broker_url(), None);
        shard.health().await.expect_err("there is no API server");
        let folder = shard.folder().to_owned();
        shard.stop().await;
        assert!(!folder.exists());
    }
}

#[tokio::test]
async fn what_cannot_be_booted_is_refused_with_what_to_do() {
    let cases = [
        (AirflowShard::builder("a/b").database_only(), "is no shard name"),
        (AirflowShard::builder("old").version(AirflowVersion::V2_11_2), "ask for database_only"),
        (
            AirflowShard::builder("small")
                .stack(Stack::Sqlite)
                .components([Component::ApiServer, Component::Worker]),
            "a worker needs PostgreSQL and Redis",
        ),
        (
            AirflowShard::builder("silent").components([Component::Scheduler]),
            "add it to the components",
        ),
    ];
    for (builder, remedy) in cases {
        let error = builder.boot().await.unwrap_err().to_string();
        assert!(error.contains(remedy), "{error}");
    }
}

#[tokio::test]
async fn a_component_that_ends_is_told_with_its_last_words_and_nothing_stays() {
    let root = Sandbox::create("broken").await.unwrap();
    let folder = root.folder().join("shard");
    let error = AirflowShard::builder("broken")
        .stack(Stack::Sqlite)
        .folder(&folder, Keep::Nothing)
        .components([Component::ApiServer])
        .env("AIRFLOW__CORE__AUTH_MANAGER", "no.such.Manager")
        .boot()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("api-server ended with"), "{error}");
    assert!(error.contains("no.such.Manager"), "{error}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn two_shards_run_side_by_side_and_give_a_file_the_same_version() {
    let _alone = WHOLE_SHARDS.lock().await;
    let boot = |name: &str| {
        AirflowShard::builder(name)
            .ready_limit(READY_LIMIT)
            .on_progress(|progress| println!("{progress}"))
            .boot()
    };
    let (east, west) = tokio::join!(boot("east"), boot("west"));
    let shards = [east.unwrap(), west.unwrap()];

    for shard in &shards {
        let health = eventually("health", async || shard.health().await.ok()).await;
        assert!(health.metadatabase());
        assert_eq!(health.component(Component::Scheduler), Some(true));
        assert_eq!(health.component(Component::DagProcessor), Some(true));
        assert_eq!(health.component(Component::Triggerer), Some(false));
        std::fs::write(shard.dags_folder().join("payments.py"), DAG).unwrap();
    }
    let mut versions = Vec::new();
    for shard in &shards {
        let sql = "SELECT dag_hash FROM serialized_dag WHERE dag_id = 'payments.daily'";
        let version = eventually("the DAG is in the database", async || {
            Some(query(shard, sql).await).filter(|rows| !rows.is_empty())
        });
        versions.push(version.await);
    }
    assert_eq!(versions[0], versions[1]);

    let [east, west] = &shards;
    run_dag(west).await;
    assert_eq!(query(west, "SELECT count(*) FROM dag_run").await, "1");
    assert_eq!(query(east, "SELECT count(*) FROM dag_run").await, "0");

    east.kill_component(Component::Scheduler).await.unwrap();
    assert!(!east.is_running(Component::Scheduler).await);
    assert!(west.is_running(Component::Scheduler).await);
    let redis = east.redis().unwrap();
    redis.stop().await;
    redis.start().await.unwrap();
    east.start_component(Component::Scheduler).await.unwrap();
    east.wait_ready(READY_LIMIT).await.unwrap();
    run_dag(east).await;

    for shard in shards {
        let folder = shard.folder().to_owned();
        shard.stop().await;
        assert!(!folder.exists());
    }
}

#[tokio::test]
async fn a_shard_without_servers_runs_tasks_and_continues_in_a_kept_folder() {
    let _alone = WHOLE_SHARDS.lock().await;
    let root = Sandbox::create("small").await.unwrap();
    let folder = root.folder().join("shard");
    let dags: PathBuf = root.folder().join("releases");
    let boot = || {
        AirflowShard::builder("small")
            .stack(Stack::Sqlite)
            .folder(&folder, Keep::Everything)
            .dags_folder(&dags)
            .ready_limit(READY_LIMIT)
            .ready_limit(READY_LIMIT)
            .on_progress(|progress| println!("{progress}"))
    };
    let shard = boot().boot().await.unwrap();
    assert_eq!(shard.stack(), Stack::Sqlite);
    assert!(shard.metadata_url().starts_with("sqlite:///"));
    std::fs::write(dags.join("payments.py"), DAG).unwrap();
    run_dag(&shard).await;
    shard.stop().await;

    let only = [Component::ApiServer];
    let shard = boot().components(only).boot().await.unwrap();
    let runs = "dags/payments.daily/dagRuns";
    let runs = eventually("the runs are listed", async || {
        let runs = rest(&shard, reqwest::Method::GET, runs, serde_json::json!({})).await;
        runs["total_entries"].as_i64()
    });
    assert_eq!(runs.await, 1);
}

#[tokio::test]
async fn a_package_is_installed_as_it_is_now_and_beside_the_environment() {
    let sandbox = Sandbox::create("package").await.unwrap();
    // Not where Python runs, which would find it there.
    let source = sandbox.folder().join("source/greeter");
    let project = "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n\
         [project]\nname = 'greeter'\nversion = 'VERSION'\n\
         [project.entry-points.greetings]\nhello = 'greeter:hello'\n";
    let script = "from importlib.metadata import entry_points, version\n\
         print(version('greeter'), *(point.load()() for point in entry_points(group='greetings')))";
    std::fs::create_dir_all(source.join("greeter")).unwrap();
    std::fs::write(source.join("greeter/__init__.py"), "def hello():\n    return 'hello'\n")
        .unwrap();
    let airflow = Environment::ensure(AirflowVersion::V3_3_2, &sandbox).await.unwrap();
    for version in ["1", "2"] {
        std::fs::write(source.join("pyproject.toml"), project.replace("VERSION", version)).unwrap();
        let greeting = airflow.clone().install(&source, &sandbox).await.unwrap();
        let spec = greeting.python("greet").args(["-c", script]);
        let said = sandbox.run(&spec, READY_LIMIT).await.unwrap();
        assert_eq!(said.trim(), format!("{version} hello"));
    }
    let spec = airflow.python("without").args(["-c", "import greeter"]);
    let error = sandbox.run(&spec, READY_LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("No module named 'greeter'"), "{error}");
}
