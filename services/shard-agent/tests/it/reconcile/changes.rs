//! Changes that users ask for while their namespace is given up. Airflow's web server is scripted
//! here, since a real one cannot be made to take its time at the right moment; what a real one makes
//! of changes is tested with a fleet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use airfleet_local::AirflowVersion;
use airfleet_proto::{
    agent::v1::{DagChange, DagChangeResult, DagChangeTrouble, dag_change, dag_change_result},
    common::v1::Role,
};
use airfleet_runtime::config::Secret;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
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

fn trigger(number: i64, generation: i64) -> DagChange {
    DagChange {
        number,
        namespace: "pay".to_owned(),
        generation,
        dag_id: "pay__a".to_owned(),
        patience_ms: 60_000,
        change: Some(dag_change::Change::Trigger(Default::default())),
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
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false)]).await;
    fixture.source("pay", "a.py", "# 1");
    let airflow = SlowAirflow::start().await;
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
