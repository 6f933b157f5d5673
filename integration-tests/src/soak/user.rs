//! Somebody who changes DAGs by the fleet's own API, whatever is moved meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use airfleet_proto::{
    dags::v1::{
        PauseDagRequest, TriggerDagRequest, UnpauseDagRequest, dag_service_client::DagServiceClient,
    },
    router::v1::{
        ResolveRequest, ResolveResponse, resolve_request::Target,
        router_service_client::RouterServiceClient,
    },
};
use airfleet_runtime::status::Problem;
use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::{Code, Response, Status, transport::Channel};

use super::first_answer;

/// Why requests were refused for now, and how often.
pub type Refusals = BTreeMap<String, usize>;

/// Triggers runs, and pauses and unpauses a DAG.
pub(super) struct User {
    pub(super) routers: Vec<Channel>,
    /// Runs that were taken on.
    pub(super) asked: Arc<Mutex<Vec<(String, String)>>>,
    pub(super) refusals: Arc<Mutex<Refusals>>,
    pub(super) asking: Arc<AtomicBool>,
}

impl User {
    pub(super) async fn ask(self) {
        let mut pauses = interval(Duration::from_secs(7));
        // Who had to wait asks for no more at once than anybody.
        pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        while self.asking.load(Ordering::SeqCst) {
            pauses.tick().await;
            number += 1;
            let dag_id = if number % 4 == 0 { "pay.long" } else { "pay.manual" };
            let (dag_id, run_id) = (dag_id.to_owned(), format!("asked-{number}"));
            let trigger = TriggerDagRequest {
                dag_id: dag_id.clone(),
                run_id: run_id.clone(),
                ..TriggerDagRequest::default()
            };
            let taken = self.until_taken(|router| {
                let trigger = trigger.clone();
                async move { DagServiceClient::new(router).trigger_dag(trigger).await }
            });
            if taken.await {
                self.asked.lock().expect("nobody panics").push((dag_id, run_id));
            }
            if number % 3 == 0 {
                self.pause_for_a_moment("pay.manual").await;
            }
        }
    }

    /// What is unpaused at last has to be so on whichever shard has it then.
    async fn pause_for_a_moment(&self, dag_id: &str) {
        let pause = PauseDagRequest { dag_id: dag_id.to_owned() };
        let unpause = UnpauseDagRequest { dag_id: dag_id.to_owned() };
        self.until_taken(|router| {
            let pause = pause.clone();
            async move { DagServiceClient::new(router).pause_dag(pause).await }
        })
        .await;
        self.until_taken(|router| {
            let unpause = unpause.clone();
            async move { DagServiceClient::new(router).unpause_dag(unpause).await }
        })
        .await;
    }

    /// Asks each router in turn, until one takes it on; whether one did. One that is in doubt is
    /// asked for again until it is certain.
    async fn until_taken<T, F>(&self, ask: impl Fn(Channel) -> F) -> bool
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        while self.asking.load(Ordering::SeqCst) {
            for router in &self.routers {
                let problem = match ask(router.clone()).await {
                    Ok(_) => return true,
                    Err(status) => Problem::from(&status),
                };
                // A router that does not run gives no reason; one of two seldom runs.
                let code = || match problem.code {
                    Code::Unavailable => "(no router there)".to_owned(),
                    code => format!("{code:?}"),
                };
                let why = Some(problem.reason.clone()).filter(|why| !why.is_empty());
                let mut refusals = self.refusals.lock().expect("nobody panics");
                *refusals.entry(why.unwrap_or_else(code)).or_default() += 1;
            }
            sleep(Duration::from_millis(500)).await;
        }
        false
    }
}

/// Where a namespace is.
pub(super) async fn resolve(routers: &[Channel], namespace: &str) -> Result<ResolveResponse> {
    let request = ResolveRequest { target: Some(Target::Namespace(namespace.to_owned())) };
    first_answer(routers, |channel| {
        let request = request.clone();
        async move { RouterServiceClient::new(channel).resolve(request).await }
    })
    .await
}
