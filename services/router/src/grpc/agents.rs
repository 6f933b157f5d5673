//! AgentService.
//!
//! The stream is one state machine that runs when the connection can take an answer: while an agent
//! does not read, its reports are not read either, and nothing piles up.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use airfleet_domain::{ids::Term, routing::Entry};
use airfleet_proto::agent::v1::{
    AttachRequest, AttachResponse, DesiredRoles, OwnersAnswer, OwnersQuery, Report, ReportAck,
    Welcome, agent_service_server::AgentService, attach_request, attach_response::Message,
};
use airfleet_runtime::{
    request::ContextExt as _,
    status::{Failure, Kind},
};
use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    agents::{Refusal, Session},
    config::AgentsConfig,
    convert,
    leader::{Leader, election::Lead},
    service::{Error, Service, foreign},
};

/// Time for an agent to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// AgentService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct AgentApi {
    service: Arc<Service>,
    config: AgentsConfig,
}

impl AgentApi {
    pub(crate) fn new(service: Arc<Service>, config: AgentsConfig) -> Self {
        Self { service, config }
    }
}

type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for AgentApi {
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
        let hello = convert::hello(hello).map_err(Failure::invalid)?;
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
        let mut attached = Attached {
            service: self.service.clone(),
            session,
            inbound,
            lead,
            outbox: VecDeque::from([answer(Message::Welcome(welcome))]),
            term: leader.term,
            sequence: 0,
            ended: false,
        };
        attached.tell_roles();
        Ok(Response::new(Box::pin(stream::unfold(attached, async |mut attached: Attached| {
            let answer = attached.next().await?;
            Some((answer, attached))
        }))))
    }
}

fn silent(message: &str) -> Failure {
    Failure::invalid_field("hello", "REQUIRED", message)
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

/// One agent's stream.
struct Attached {
    service: Arc<Service>,
    session: Session,
    inbound: Streaming<AttachRequest>,
    lead: watch::Receiver<Lead>,
    /// What is to be sent: at most an answer and the roles.
    outbox: VecDeque<AttachResponse>,
    term: Term,
    sequence: i64,
    ended: bool,
}

impl Attached {
    /// What to send next; waits until there is something. `None` ends the stream.
    async fn next(&mut self) -> Option<Result<AttachResponse, Status>> {
        loop {
            if let Some(answer) = self.outbox.pop_front() {
                return Some(Ok(answer));
            }
            if self.ended {
                return None;
            }
            let failure = tokio::select! {
                biased;
                () = self.session.replaced() => {
                    Some(superseded("a newer agent of the shard connected; this stream ends"))
                }
                changed = self.lead.changed() => {
                    let lead = self.lead.borrow_and_update().clone();
                    match (changed, lead) {
                        (Ok(()), Lead::Other { address, .. }) => {
                            Some(Failure::not_leader(Some(&address)))
                        }
                        // While nobody leads, agents stay: this replica may lead again.
                        _ => {
                            self.tell_roles();
                            None
                        }
                    }
                }
                () = self.session.woken() => {
                    self.tell_roles();
                    None
                }
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => self.take(message).err(),
                    Ok(None) => {
                        tracing::info!(shard = %self.session.shard(), "an agent left");
                        return None;
                    }
                    Err(status) => {
                        let shard = self.session.shard();
                        tracing::info!(%shard, %status, "an agent's stream broke");
                        return None;
                    }
                },
            };
            if let Some(failure) = failure {
                self.ended = true;
                self.outbox.clear();
                return Some(Err(failure.into()));
            }
        }
    }

    fn take(&mut self, request: AttachRequest) -> Result<(), Failure> {
        match request.message {
            Some(attach_request::Message::Report(report)) => {
                self.take_report(report);
                Ok(())
            }
            Some(attach_request::Message::OwnersQuery(query)) => {
                self.answer_query(&query);
                Ok(())
            }
            Some(attach_request::Message::Hello(_)) => Err(Failure::invalid_field(
                "hello",
                "REPEATED",
                "Hello is said once; open another stream to say it again",
            )),
            // A message of a later version.
            None => Ok(()),
        }
    }

    fn take_report(&mut self, report: Report) {
        let sequence = report.sequence;
        let leader = self.service.leadership.leader().ok();
        let shard = self.session.shard();
        let send_full = self.session.report(convert::report(report), |observation, changes| {
            if let Some(leader) = &leader {
                leader.observed(shard, observation, changes);
            }
        });
        self.service.metrics.reported(send_full);
        let ack = ReportAck {
            sequence,
            send_full,
            keep_events: false,
            prefixes_revision: self.service.live.prefixes_revision().0,
        };
        self.outbox.push_back(answer(Message::ReportAck(ack)));
    }

    fn answer_query(&mut self, query: &OwnersQuery) {
        let view = self.service.live.view();
        let prefixes = foreign(&view.table, self.session.shard(), &query.dag_ids);
        let found = OwnersAnswer {
            number: query.number,
            revision: view.table.revision().0,
            prefixes: prefixes.iter().map(convert::foreign).collect(),
        };
        self.outbox.push_back(answer(Message::OwnersAnswer(found)));
    }

    /// Tells what has changed since it was last told, if this replica leads.
    fn tell_roles(&mut self) {
        let Ok(leader) = self.service.leadership.leader() else { return };
        let mut pending = self.session.take_pending();
        if leader.term != self.term {
            self.term = leader.term;
            self.sequence = 0;
            pending.full = true;
        }
        let mut roles = DesiredRoles {
            term: self.term.0,
            sequence: self.sequence + 1,
            full: pending.full,
            ..DesiredRoles::default()
        };
        if pending.full {
            roles.roles = self.all_roles(&leader);
            self.session.told_all();
        } else if pending.names.is_empty() {
            return;
        } else {
            let view = self.service.live.view();
            for name in &pending.names {
                match self.own(view.table.resolve_namespace(name.as_str())) {
                    Some(entry) => roles.roles.push(convert::active_role(entry)),
                    None => roles.removed.push(name.to_string()),
                }
            }
            self.session.told(pending.names);
        }
        self.sequence += 1;
        self.outbox.push_back(answer(Message::DesiredRoles(roles)));
    }

    fn all_roles(&self, leader: &Leader) -> Vec<airfleet_proto::agent::v1::DesiredRole> {
        let names: Vec<_> = {
            let fleet = leader.fleet();
            let shard = fleet.shard(self.session.shard().as_str());
            shard.into_iter().flat_map(|shard| shard.namespaces.iter().cloned()).collect()
        };
        let view = self.service.live.view();
        let entries = names.iter().map(|name| view.table.resolve_namespace(name.as_str()));
        entries.filter_map(|entry| self.own(entry)).map(convert::active_role).collect()
    }

    fn own<'a>(&self, entry: Option<&'a Entry>) -> Option<&'a Entry> {
        entry.filter(|entry| entry.shard() == Some(self.session.shard().as_str()))
    }
}
