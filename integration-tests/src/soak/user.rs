//! Somebody who triggers runs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use airfleet_proto::router::v1::{
    AssignmentState, ResolveRequest, ResolveResponse, resolve_request::Target,
    router_service_client::RouterServiceClient,
};
use anyhow::Result;
use serde_json::json;
use tokio::time::{interval, sleep};
use tonic::transport::Channel;

use super::{first_answer, number_of};
use crate::shard::Door;

/// Somebody who triggers runs, as docs/moves.md asks of clients: not while the namespace is moving.
pub(super) struct User {
    pub(super) routers: Vec<Channel>,
    pub(super) shards: Vec<Door>,
    pub(super) asked: Arc<Mutex<Vec<(String, String)>>>,
    pub(super) asking: Arc<AtomicBool>,
}

impl User {
    pub(super) async fn ask_for_runs(self) {
        let mut pauses = interval(Duration::from_secs(7));
        let mut number = 0;
        while self.asking.load(Ordering::SeqCst) {
            pauses.tick().await;
            number += 1;
            let dag_id = if number % 4 == 0 { "pay.long" } else { "pay.manual" };
            let run_id = format!("asked-{number}");
            // One that is in doubt is asked for again, under the same name, until it is certain.
            while self.asking.load(Ordering::SeqCst) {
                if self.ask_for(dag_id, &run_id).await.unwrap_or(false) {
                    let mut asked = self.asked.lock().expect("nobody panics");
                    asked.push((dag_id.to_owned(), run_id));
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Whether a shard has the run now.
    async fn ask_for(&self, dag_id: &str, run_id: &str) -> Result<bool> {
        let found = resolve(&self.routers, dag_id).await?;
        if found.state() != AssignmentState::Assigned {
            return Ok(false);
        }
        let path = format!("dags/{dag_id}/dagRuns");
        let body = json!({ "dag_run_id": run_id, "logical_date": null, "conf": {} });
        let shard = &self.shards[number_of(&found.shard)?];
        let status = shard.post(&path, &body).await?;
        // It has it already: the answer to an earlier call was lost.
        Ok(status.is_success() || status == reqwest::StatusCode::CONFLICT)
    }
}

/// Where a namespace or a DAG is.
pub(super) async fn resolve(routers: &[Channel], name: &str) -> Result<ResolveResponse> {
    let target = if name.contains('.') {
        Target::DagId(name.to_owned())
    } else {
        Target::Namespace(name.to_owned())
    };
    let request = ResolveRequest { target: Some(target) };
    first_answer(routers, |channel| {
        let request = request.clone();
        async move { RouterServiceClient::new(channel).resolve(request).await }
    })
    .await
}
