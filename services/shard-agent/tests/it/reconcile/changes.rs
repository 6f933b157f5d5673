//! Changes that users ask for. While their namespace is given up Airflow's web server is scripted,
//! since a real one cannot be made to take its time at the right moment. That of Airflow 2 is real
//! here, that of Airflow 3 is in the tests with a fleet.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use airfleet_local::{AirflowShard, AirflowVersion, Component, Stack};
use airfleet_proto::{
    agent::v1::{
        DagChange, DagChangeDone, DagChangeResult, DagChangeTrouble, DagClear, DagTrigger,
        dag_change::Change, dag_change_result,
    },
    common::v1::Role,
};
use airfleet_runtime::config::Secret;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Semaphore,
};

use super::Fixture;
use crate::{RunningAgent, database::query, eventually};

/// A web server that answers a change when it is let.
struct SlowAirflow {
    url: String,
    /// Changes that came. Count.
    asked: Arc<AtomicUsize>,
    let_go: Arc<Semaphore>,
}

impl SlowAirflow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, waited) = (asked.clone(), let_go.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, counted.clone(), waited.clone()));
            }
        });
        Self { url, asked, let_go }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, asked: Arc<AtomicUsize>, let_go: Arc<Semaphore>) {
    let mut text = Vec::new();
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
    }
    let text = String::from_utf8_lossy(&text);
    let (status, body) = if text.starts_with("POST /auth/token ") {
        ("201 Created", r#"{"access_token": "t"}"#)
    } else if text.starts_with("POST /api/v2/dags/pay__a/dagRuns ") {
        asked.fetch_add(1, Ordering::SeqCst);
        let_go.acquire().await.unwrap().forget();
        ("200 OK", r#"{"state": "queued"}"#)
    } else {
        ("404 Not Found", "{}")
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

async fn with_slow_airflow() -> (Fixture, SlowAirflow) {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false)]).await;
    fixture.source("pay", "a.py", "# 1");
    (fixture, SlowAirflow::start().await)
}

fn trigger(number: i64, generation: i64) -> DagChange {
    DagChange {
        number,
        namespace: "pay".to_owned(),
        generation,
        dag_id: "pay__a".to_owned(),
        patience_ms: 60_000,
        change: Some(Change::Trigger(Default::default())),
    }
}

fn trouble(result: &DagChangeResult) -> Option<DagChangeTrouble> {
    match result.result.as_ref()? {
        dag_change_result::Result::Done(_) => None,
        dag_change_result::Result::Failed(failure) => Some(failure.trouble()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_ends_before_its_namespace_is_given_up() {
    let (fixture, airflow) = with_slow_airflow().await;
    let mut config = fixture.config();
    config.airflow.api_url = Some(airflow.url.clone());
    config.airflow.api_username = "somebody".to_owned();
    config.airflow.api_password = Some(Secret::new("pw"));
    config.airflow.change_timeout = Duration::from_secs(50);
    let agent = RunningAgent::start(config);
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    let answered = async |count: usize| {
        eventually("the answer", async || {
            let results = fixture.router.changed();
            (results.len() == count).then(|| results.last().cloned().unwrap())
        })
        .await
    };

    // Of another generation: nobody is asked.
    fixture.router.change(&trigger(1, 2));
    assert_eq!(trouble(&answered(1).await), Some(DagChangeTrouble::NotActive));
    assert_eq!(airflow.asked(), 0);

    // Airflow takes its time, and the namespace is given up meanwhile.
    fixture.router.change(&trigger(2, 1));
    eventually("Airflow to be asked", async || (airflow.asked() == 1).then_some(())).await;
    fixture.tell_source(fixture.pay(Role::Quiesced, 1));
    let order = "SELECT role FROM airfleet_role WHERE namespace = 'pay'";
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    eventually("the order to wait for it", async || {
        (query(&fixture.shard, waiting).await.trim() != "0").then_some(())
    })
    .await;
    assert_eq!(query(&fixture.shard, order).await.trim(), "active", "it is held");
    assert_eq!(fixture.running().await, ["pay__a"]);
    // What comes after the order is not begun.
    fixture.router.change(&trigger(3, 1));
    let refused = answered(2).await;
    assert_eq!((refused.number, trouble(&refused)), (3, Some(DagChangeTrouble::NotActive)));
    airflow.let_go.add_permits(1);
    let done = answered(3).await;
    assert_eq!((done.number, trouble(&done)), (2, None));
    fixture.reached("pay", Role::Quiesced, 1).await;
    assert_eq!(fixture.running().await, Vec::<String>::new());
    assert_eq!(airflow.asked(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_meanwhile_holds_nothing() {
    let (fixture, airflow) = with_slow_airflow().await;
    let mut killed = Command::new(env!("CARGO_BIN_EXE_airfleet-agent"))
        .arg("--config")
        .arg(fixture.settings())
        .env("AIRFLEET__AIRFLOW__API_URL", &airflow.url)
        .env("AIRFLEET__AIRFLOW__API_USERNAME", "somebody")
        .env("AIRFLEET__AIRFLOW__API_PASSWORD", "pw")
        .env("AIRFLEET__AIRFLOW__CHANGE_TIMEOUT", "50s")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    fixture.router.change(&trigger(1, 1));
    eventually("Airflow to be asked", async || (airflow.asked() == 1).then_some(())).await;
    killed.kill().await.unwrap();

    // Airflow still works at it; nobody is told that it was done, and it holds nothing up.
    let agent = RunningAgent::start(fixture.config());
    fixture.tell_source(fixture.pay(Role::Quiesced, 1));
    fixture.reached("pay", Role::Quiesced, 1).await;
    assert_eq!(fixture.running().await, Vec::<String>::new());
    assert_eq!(fixture.router.changed(), []);
    agent.stop().await;
}

const DAG: &str = "
from airflow import DAG
from airflow.operators.empty import EmptyOperator
from pendulum import datetime
with DAG('pay__a', schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=True):
    EmptyOperator(task_id='one') >> EmptyOperator(task_id='two')
";

/// Takes about half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn airflow_2_is_asked_by_its_own_rest_api() {
    if Stack::installed() != Stack::Celery {
        eprintln!("passed over: PostgreSQL or Redis is not installed");
        return;
    }
    let shard = AirflowShard::builder("shard-a").version(AirflowVersion::V2_11_2);
    let shard = shard.components([Component::ApiServer]).boot().await.unwrap();
    std::fs::write(shard.dags_folder().join("a.py"), DAG).unwrap();
    let mut parse = Command::new(shard.command());
    let parsed = parse.args(["dags", "reserialize"]).current_dir(shard.folder()).output().await;
    let parsed = parsed.unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));

    let fixture = Fixture::of(shard).await;
    fixture.source("pay", "a.py", "# 1");
    let mut config = fixture.config();
    let (username, password) = fixture.shard.admin();
    config.airflow.api_url = Some(fixture.shard.api_url());
    config.airflow.api_username = username.to_owned();
    config.airflow.api_password = Some(Secret::new(password));
    let agent = RunningAgent::start(config);
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    let sql = async |sql: &str| query(&fixture.shard, sql).await.trim().to_owned();
    let answer_to = async |dag_id: &str, change: Change| {
        let number = i64::try_from(fixture.router.changed().len()).unwrap() + 1;
        let (dag_id, change) = (dag_id.to_owned(), Some(change));
        fixture.router.change(&DagChange { dag_id, change, ..trigger(number, 1) });
        eventually("the answer", async || {
            let answers = fixture.router.changed();
            answers.into_iter().find(|answer| answer.number == number)
        })
        .await
    };
    let done = async |change: Change| match answer_to("pay__a", change).await.result {
        Some(dag_change_result::Result::Done(done)) => done,
        other => panic!("{other:?}"),
    };
    let run = |run_id: &str, logical_date| {
        let (run_id, conf_json) = (run_id.to_owned(), r#"{"n": 1}"#.to_owned());
        Change::Trigger(DagTrigger { run_id, conf_json, logical_date, note: "why".to_owned() })
    };
    let clear = |run_id: &str, only_failed, task_ids: &[&str]| {
        let task_ids = task_ids.iter().map(|&task_id| task_id.to_owned()).collect();
        Change::Clear(DagClear { run_id: run_id.to_owned(), only_failed, task_ids })
    };

    let paused = "SELECT is_paused FROM dag WHERE dag_id = 'pay__a'";
    for (asked, found) in [(false, "f"), (true, "t"), (false, "f")] {
        done(Change::Paused(asked)).await;
        assert_eq!(sql(paused).await, found);
    }

    // Asked for twice it is one run, and another one of its date is none.
    let at = Some(prost_types::Timestamp { seconds: 1_767_571_200, nanos: 0 });
    let queued = |existed| DagChangeDone { run_state: "queued".to_owned(), existed, cleared: 0 };
    assert_eq!(done(run("r", at)).await, queued(false));
    assert_eq!(done(run("r", at)).await, queued(true));
    let refused = answer_to("pay__a", run("other", at)).await;
    assert_eq!(trouble(&refused), Some(DagChangeTrouble::Refused), "{refused:?}");
    assert_eq!(done(run("undated", None)).await, queued(false));
    let runs = "SELECT string_agg(concat_ws(' ', run_id, run_type, content), ',' ORDER BY run_id) \
                FROM dag_run LEFT JOIN dag_run_note ON dag_run_id = id";
    assert_eq!(sql(runs).await, "r manual why,undated manual why");

    sql("UPDATE dag_run SET state = 'failed'; \
         UPDATE task_instance SET state = 'success', start_date = now(), end_date = now(); \
         UPDATE task_instance SET state = 'failed' WHERE task_id = 'two'")
    .await;
    let cleared = async |change| done(change).await.cleared;
    assert_eq!(cleared(clear("r", true, &[])).await, 1);
    assert_eq!(cleared(clear("undated", false, &["one"])).await, 1);
    let states = "SELECT string_agg(concat_ws(' ', run_id, task_id, state), ',' \
                  ORDER BY run_id, task_id) FROM task_instance";
    assert_eq!(sql(states).await, "r one success,r two,undated one,undated two failed");
    assert_eq!(sql("SELECT count(*) FROM dag_run WHERE state = 'queued'").await, "2");

    // What is not there is said to be so, in Airflow's words.
    for (dag_id, change, word) in [
        ("pay__none", run("r", None), "pay__none"),
        ("pay__none", Change::Paused(true), ""),
        ("pay__a", clear("none", false, &[]), "none"),
    ] {
        let answer = answer_to(dag_id, change).await;
        assert_eq!(trouble(&answer), Some(DagChangeTrouble::NotFound), "{answer:?}");
        assert!(format!("{answer:?}").contains(word), "{answer:?}");
    }
    agent.stop().await;
}
