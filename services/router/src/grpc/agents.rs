//! AgentService.

mod relay;
mod stream;
mod telling;

use std::{pin::Pin, sync::Arc, time::Duration};

use airfleet_proto::agent::v1::{
    AttachRequest, AttachResponse, TransferRequest, TransferResponse, Welcome,
    agent_service_server::AgentService, attach_request, attach_response::Message, transfer_request,
};
use airfleet_runtime::{
    request::ContextExt as _,
    status::{Failure, Kind},
};
use futures::{Stream, stream as streams};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use self::stream::Attached;
use crate::{
    agents::Refusal,
    config::{AgentsConfig, Config},
    convert,
    service::{Error, Service},
};

/// Time for an agent to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Agents that are told roles at a time: each reads workloads from the store, which others need too.
const TOLD_AT_A_TIME: usize = 8;

/// AgentService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct AgentApi {
    service: Arc<Service>,
    config: AgentsConfig,
    events_per_minute: u32,
    telling: Arc<Semaphore>,
    relay: Arc<relay::Relay>,
}

impl AgentApi {
    pub(crate) fn new(service: Arc<Service>, config: &Config) -> Self {
        Self {
            service,
            config: config.agents.clone(),
            events_per_minute: config.events.per_agent_minute,
            telling: Arc::new(Semaphore::new(TOLD_AT_A_TIME)),
            relay: Arc::new(relay::Relay::new(&config.moves)),
        }
    }
}

type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;
type TransferStream = Pin<Box<dyn Stream<Item = Result<TransferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for AgentApi {
    type TransferStream = TransferStream;

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<TransferStream>, Status> {
        let principal = request.principal()?.clone();
        let mut inbound = request.into_inner();
        let open = match tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await {
            Ok(first) => match first?.and_then(|first| first.message) {
                Some(transfer_request::Message::Open(open)) => open,
                _ => return Err(unopened("the first message must be Open").into()),
            },
            Err(_) => return Err(unopened("no Open came; send it at once").into()),
        };
        principal.require_agent_for(&open.shard)?;
        let end = relay::End::open(&self.service, &self.relay, open, inbound)?;
        Ok(Response::new(Box::pin(end.into_stream())))
    }

    type AttachStream = AttachStream;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<AttachStream>, Status> {
        let principal = request.principal()?.clone();
        let leader =
            self.service.leadership.leader().map_err(Error::from).map_err(Failure::from)?;
        let lead = self.service.leadership.subscribe();
        let mut inbound = request.into_inner();
        let hello = match tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await {
            Ok(first) => match first?.and_then(|first| first.message) {
                Some(attach_request::Message::Hello(hello)) => hello,
                _ => return Err(silent("the first message must be Hello").into()),
            },
            Err(_) => return Err(silent("no Hello came; send it at once").into()),
        };
        let hello = convert::agent::hello(hello).map_err(Failure::invalid)?;
        principal.require_agent_for(hello.shard.as_str())?;
        tracing::info!(
            shard = %hello.shard,
            incarnation = %hello.incarnation,
            version = hello.agent_version,
            airflow = hello.airflow_version,
            "an agent connected"
        );
        let session = self.service.hub.attach(hello).map_err(|refusal| refused(&refusal))?;
        let welcome = Welcome {
            term: leader.term.0,
            report_interval_ms: millis(self.config.report_interval),
            full_report_interval_ms: millis(self.config.full_report_interval),
        };
        let mut attached = Attached::new(self, session, inbound, lead, leader.term, welcome);
        attached.begin_telling();
        Ok(Response::new(Box::pin(streams::unfold(attached, async |mut attached: Attached| {
            let answer = attached.next().await?;
            Some((answer, attached))
        }))))
    }
}

fn silent(message: &str) -> Failure {
    Failure::invalid_field("hello", "REQUIRED", message)
}

fn unopened(message: &str) -> Failure {
    Failure::invalid_field("open", "REQUIRED", message)
}

fn refused(refusal: &Refusal) -> Failure {
    let message = refusal.to_string();
    match refusal {
        Refusal::Superseded { .. } => superseded(message),
        Refusal::TooMany { max } => Failure::exhausted("node", format!("{max} agents"))
            .with_message(message)
            .with_retry_after(Duration::from_secs(30)),
    }
}

fn superseded(message: impl Into<String>) -> Failure {
    Failure::new(Kind::AlreadyExists, "SUPERSEDED", message)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn answer(message: Message) -> AttachResponse {
    AttachResponse { message: Some(message) }
}
