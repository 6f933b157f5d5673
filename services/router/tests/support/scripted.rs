//! Agents that do at once what they are told over the real stream, and say so. There is no Airflow
//! behind them.

#![allow(dead_code, reason = "each test uses some of it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use airfleet_proto::{
    agent::v1::{
        self as agent, AttachRequest, DesiredRole, MoveEvidence,
        agent_service_client::AgentServiceClient, attach_request, attach_response::Message,
        dag_change_result,
    },
    common::v1 as common,
    dags::v1::dag_service_client::DagServiceClient,
    moves::v1::{self as wire, move_service_client::MoveServiceClient},
    router::v1 as router,
};
use airfleet_runtime::status::Problem;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::support::{Replica, config, eventually};

/// What the shards of a test keep, whichever router there is.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    /// Role and generation of each shard.
    pub(crate) roles: BTreeMap<String, (common::Role, i64)>,
    /// The namespace was taken in.
    pub(crate) imported: bool,
    /// Roles in which a source does not report, so that the move stays there.
    pub(crate) stuck_in: Option<common::Role>,
    /// Shards of which nobody knows what they run.
    pub(crate) lost: Vec<&'static str>,
    /// Airflow of the target is of another version.
    pub(crate) other_version: bool,
    /// Runs that were made: where, and of which DAG.
    pub(crate) triggered: Vec<(String, String)>,
}

pub(crate) type Kept = Arc<Mutex<Shards>>;

pub(crate) fn settings(store: &str) -> airfleet_router::Config {
    let mut settings = config(store);
    settings.placement.require_report = true;
    settings.agents.report_interval = Duration::from_millis(100);
    settings
}

pub(crate) fn channel(replica: &Replica) -> Channel {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{}", replica.address));
    endpoint.unwrap().connect_lazy()
}

pub(crate) fn moves(replica: &Replica) -> MoveServiceClient<Channel> {
    MoveServiceClient::new(channel(replica))
}

pub(crate) fn dags(replica: &Replica) -> DagServiceClient<Channel> {
    DagServiceClient::new(channel(replica))
}

fn evidence(kept: &Kept, shard: &str, role: &DesiredRole) -> Option<MoveEvidence> {
    let mut kept = kept.lock().unwrap();
    let (_, highest) = kept.roles.get(shard).copied().unwrap_or_default();
    assert!(role.generation >= highest, "generations never go back");
    kept.roles.insert(shard.to_owned(), (role.role(), role.generation));
    let counts = |(name, (role, _)): &(&String, &(common::Role, i64))| {
        *role == common::Role::Active && !kept.lost.contains(&name.as_str())
    };
    let active = kept.roles.iter().filter(counts).count();
    assert!(active <= 1, "two shards run it: {:?}", kept.roles);
    if kept.stuck_in == Some(role.role()) {
        return None;
    }
    let task = role.r#move.as_ref()?;
    let source = task.side() == agent::MoveSide::Source;
    let rest = |part: agent::TransferPart| part == agent::TransferPart::Rest;
    kept.imported |= !source && task.transfer.as_ref().is_some_and(|ordered| rest(ordered.part()));
    let marks = agent::Marks {
        marks: vec![agent::Mark { dag_id: "one.daily".into(), runs: 3, ..Default::default() }],
    };
    let told = role.role() == common::Role::Sealed || (!source && kept.imported);
    Some(MoveEvidence {
        namespace: role.namespace.clone(),
        move_id: task.move_id.clone(),
        revision: role.revision,
        attempt: task.attempt,
        role: role.role,
        generation: role.generation,
        dag_ids: Some(agent::DagIds { dag_ids: vec!["one.daily".into()] }),
        drain: Some(agent::Drain { confirmed: true, ..Default::default() }),
        marks: told.then_some(marks),
        transfer: task.transfer.as_ref().map(|ordered| agent::TransferProgress {
            part: ordered.part,
            attempt: task.attempt,
            state: agent::TransferState::Done.into(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// An agent that does at once what it is told, as long as there is a router.
pub(crate) fn obedient(replica: &Replica, shard: &'static str, kept: &Kept) -> JoinHandle<()> {
    let (client, kept) = (AgentServiceClient::new(channel(replica)), kept.clone());
    tokio::spawn(async move {
        loop {
            let _ = attached(client.clone(), shard, &kept).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

async fn attached(mut client: AgentServiceClient<Channel>, shard: &str, kept: &Kept) -> Option<()> {
    let (send, receive) = mpsc::channel(64);
    let say = async |message| send.send(AttachRequest { message: Some(message) }).await.ok();
    say(attach_request::Message::Hello(agent::Hello {
        shard: shard.into(),
        incarnation: uuid::Uuid::now_v7().to_string(),
        airflow_version: "3.3.2".into(),
        ..Default::default()
    }))
    .await?;
    let mut heard = client.attach(ReceiverStream::new(receive)).await.ok()?.into_inner();
    let mut sequence = 0;
    loop {
        sequence += 1;
        let health =
            common::Health { verdict: common::Verdict::Healthy.into(), ..Default::default() };
        let report =
            agent::Report { sequence, full: true, health: Some(health), ..Default::default() };
        say(attach_request::Message::Report(report)).await?;
        let until = tokio::time::Instant::now() + Duration::from_millis(100);
        while let Ok(message) = tokio::time::timeout_at(until, heard.message()).await {
            match message.ok()??.message? {
                Message::DesiredRoles(desired) => {
                    for role in &desired.roles {
                        let Some(said) = evidence(kept, shard, role) else { continue };
                        // Twice: an agent may repeat itself.
                        say(attach_request::Message::MoveEvidence(said.clone())).await?;
                        say(attach_request::Message::MoveEvidence(said)).await?;
                    }
                }
                Message::Inspect(asked) => {
                    let other = kept.lock().unwrap().other_version && shard == "shard-b";
                    let version = if other { "2.11.0" } else { "3.3.2" };
                    say(attach_request::Message::Inspection(agent::Inspection {
                        number: asked.number,
                        namespace: asked.namespace.clone(),
                        side: asked.side,
                        airflow_version: version.into(),
                        schema_revision: "abc".into(),
                        schema_digest: "def".into(),
                        database: "postgresql".into(),
                        dags_folder: "/dags".into(),
                        fernet_digest: "key".into(),
                        dags: 1,
                        ..Default::default()
                    }))
                    .await?;
                }
                Message::DagChange(asked) => {
                    let result = triggered(kept, shard, &asked);
                    let number = asked.number;
                    let result = agent::DagChangeResult { number, result: Some(result) };
                    say(attach_request::Message::DagChangeResult(result)).await?;
                }
                _ => {}
            }
        }
    }
}

/// Makes a run where the shard is active.
fn triggered(kept: &Kept, shard: &str, asked: &agent::DagChange) -> dag_change_result::Result {
    let mut kept = kept.lock().unwrap();
    assert!(asked.patience_ms > 0 && asked.change.is_some(), "{asked:?}");
    if kept.roles.get(shard) == Some(&(common::Role::Active, asked.generation)) {
        kept.triggered.push((shard.to_owned(), asked.dag_id.clone()));
        let run_state = "queued".to_owned();
        return dag_change_result::Result::Done(agent::DagChangeDone {
            run_state,
            ..Default::default()
        });
    }
    dag_change_result::Result::Failed(agent::DagChangeFailure {
        trouble: agent::DagChangeTrouble::NotActive.into(),
        message: "not active".into(),
    })
}

/// `one` is on shard-a, and shard-b is there too.
pub(crate) async fn ready(replica: &Replica, kept: &Kept) -> Vec<JoinHandle<()>> {
    replica.declare(1, &["shard-a", "one"]).await;
    let mut agents = vec![obedient(replica, "shard-a", kept)];
    replica.until_assigned("one").await;
    replica.declare(2, &["shard-b"]).await;
    replica.until_declared(2).await;
    agents.push(obedient(replica, "shard-b", kept));
    until_healthy(replica).await;
    agents
}

pub(crate) async fn until_healthy(replica: &Replica) {
    for shard in ["shard-a", "shard-b"] {
        eventually("the shard is healthy", async || {
            let ask = router::GetShardStatusRequest { shard: shard.into() };
            let status = replica.client.clone().get_shard_status(ask).await.ok()?.into_inner();
            (status.health?.verdict() == common::Verdict::Healthy).then_some(())
        })
        .await;
    }
}

pub(crate) fn to_b() -> wire::StartMoveRequest {
    wire::StartMoveRequest {
        namespace: "one".into(),
        target_shard: "shard-b".into(),
        reason: "test".into(),
        request_id: "the-move".into(),
        ..Default::default()
    }
}

pub(crate) async fn get(replica: &Replica) -> Option<wire::Move> {
    let ask = wire::GetMoveRequest { name: "one".into() };
    moves(replica).get_move(ask).await.ok().map(tonic::Response::into_inner)
}

pub(crate) async fn until(replica: &Replica, phase: wire::MovePhase) -> wire::Move {
    eventually("the move gets there", async || {
        get(replica).await.filter(|found| found.phase() == phase)
    })
    .await
}

pub(crate) fn reason(status: &tonic::Status) -> String {
    Problem::from(status).reason
}
