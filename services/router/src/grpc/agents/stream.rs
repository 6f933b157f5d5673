//! One agent's stream.
//!
//! A state machine that runs when the connection can take an answer: while an agent does not read,
//! its reports are not read either, and nothing piles up.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::ids::Term;
use airfleet_proto::{
    agent::v1::{
        AttachRequest, AttachResponse, MoveEvidence, OwnersAnswer, OwnersQuery, Report, ReportAck,
        Welcome, attach_request, attach_response::Message,
    },
    convert::dags,
};
use airfleet_runtime::status::Failure;
use tokio::sync::{Semaphore, watch};
use tonic::{Status, Streaming};

use super::{AgentApi, answer, superseded, telling::Telling};
use crate::{
    agents::Session,
    convert,
    leader::election::Lead,
    service::{self, Service, foreign},
    store::Event,
};

/// Time for events to become durable before the agent is asked to send them again.
const EVENTS_PATIENCE: Duration = Duration::from_secs(3);

/// Events of what was seen that are kept to be written with a later report.
const UNTOLD_MAX: usize = 200;

/// One agent's stream.
pub(super) struct Attached {
    pub(super) service: Arc<Service>,
    pub(super) session: Session,
    inbound: Streaming<AttachRequest>,
    lead: watch::Receiver<Lead>,
    /// What is to be sent: an answer, and what is asked before moves.
    pub(super) outbox: VecDeque<AttachResponse>,
    pub(super) term: Term,
    /// Of the last roles that were told in this term.
    pub(super) sequence: i64,
    /// Roles that are being told.
    pub(super) telling: Option<Telling>,
    pub(super) telling_slots: Arc<Semaphore>,
    events: Allowance,
    /// Of what was seen, and could not be written yet.
    untold: Vec<Event>,
    ended: bool,
}

impl Attached {
    pub(super) fn new(
        api: &AgentApi,
        session: Session,
        inbound: Streaming<AttachRequest>,
        lead: watch::Receiver<Lead>,
        term: Term,
        welcome: Welcome,
    ) -> Self {
        Self {
            service: api.service.clone(),
            session,
            inbound,
            lead,
            outbox: VecDeque::from([answer(Message::Welcome(welcome))]),
            term,
            sequence: 0,
            telling: None,
            telling_slots: api.telling.clone(),
            events: Allowance::new(api.events_per_minute),
            untold: Vec::new(),
            ended: false,
        }
    }

    /// What to send next; waits until there is something. `None` ends the stream.
    pub(super) async fn next(&mut self) -> Option<Result<AttachResponse, Status>> {
        loop {
            if let Some(answer) = self.outbox.pop_front() {
                return Some(Ok(answer));
            }
            if self.ended {
                return None;
            }
            let telling_at = self.telling.as_ref().map(Telling::due);
            if telling_at.is_some_and(|due| due <= Instant::now()) {
                self.tell_piece().await;
                continue;
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
                            self.begin_telling();
                            None
                        }
                    }
                }
                () = self.session.woken() => {
                    let questions = self.session.take_questions();
                    self.outbox.extend(questions.into_iter().map(|question| {
                        answer(Message::Inspect(convert::moves::inspect(question)))
                    }));
                    let patience_ms = service::CHANGE_PATIENCE.as_millis() as i64;
                    self.outbox.extend(self.session.take_changes().into_iter().map(
                        |(number, ask)| {
                            let change = dags::change(ask, number, patience_ms);
                            answer(Message::DagChange(change))
                        },
                    ));
                    self.begin_telling();
                    None
                }
                () = sleep_until(telling_at), if telling_at.is_some() => None,
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => self.take(message).await.err(),
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

    async fn take(&mut self, request: AttachRequest) -> Result<(), Failure> {
        match request.message {
            Some(attach_request::Message::Report(report)) => {
                self.take_report(report).await;
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
            Some(attach_request::Message::MoveEvidence(evidence)) => {
                self.take_evidence(evidence);
                Ok(())
            }
            Some(attach_request::Message::Inspection(found)) => {
                if let Some((namespace, number, found)) = convert::moves::inspection(found)
                    && self.session.inspected(namespace, number, found)
                {
                    self.moves_soon();
                }
                Ok(())
            }
            Some(attach_request::Message::DagChangeResult(result)) => {
                self.session.changed(result.number, dags::outcome(result));
                Ok(())
            }
            // A message of a later version.
            None => Ok(()),
        }
    }

    /// What is said of a move counts only while there is such a move and the shard is an end of it.
    fn take_evidence(&mut self, evidence: MoveEvidence) {
        let Some((namespace, evidence)) = convert::moves::evidence(evidence) else { return };
        let Ok(leader) = self.service.leadership.leader() else { return };
        let shard = self.session.shard();
        let is_end = leader.moves().of(namespace.as_str()).is_some_and(|row| {
            row.id == evidence.move_id && (row.source == *shard || row.target == *shard)
        });
        if is_end {
            self.session.evidence(namespace, evidence);
            leader.moves_soon();
        }
    }

    fn moves_soon(&self) {
        if let Ok(leader) = self.service.leadership.leader() {
            leader.moves_soon();
        }
    }

    async fn take_report(&mut self, mut report: Report) {
        let sequence = report.sequence;
        let leader = self.service.leadership.leader().ok();
        let shard = self.session.shard();
        let told = std::mem::take(&mut report.events);
        let mut events = std::mem::take(&mut self.untold);
        let send_full = self.session.report(convert::agent::report(report), |observed, taken| {
            if let Some(leader) = &leader {
                events.extend(leader.observed(shard, observed, taken));
            }
        });
        self.service.metrics.reported(send_full);
        events.truncate(UNTOLD_MAX);
        let seen = events.len();
        events.extend(convert::agent::events(shard.as_str(), told));
        let view = self.service.live.view();
        events.retain(|event| view.table.resolve_namespace(event.namespace.as_str()).is_some());
        let dropped = events.split_off(self.events.take(events.len()));
        self.service.metrics.events_dropped(dropped.len());
        let recorded = match leader {
            Some(leader) => leader.record(events.clone(), EVENTS_PATIENCE).await,
            None => events.is_empty(),
        };
        if !recorded {
            events.truncate(seen);
            self.untold = events;
        }
        let ack = ReportAck {
            sequence,
            send_full,
            keep_events: !recorded,
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
            prefixes: prefixes.iter().map(convert::agent::foreign).collect(),
        };
        self.outbox.push_back(answer(Message::OwnersAnswer(found)));
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// How many events an agent may tell: so many a minute, and as many at once after a quiet one.
#[derive(Debug)]
struct Allowance {
    per_minute: usize,
    left: usize,
    refilled_at: Instant,
}

impl Allowance {
    fn new(per_minute: u32) -> Self {
        let per_minute = per_minute as usize;
        Self { per_minute, left: per_minute, refilled_at: Instant::now() }
    }

    /// How many of `asked` may be told now.
    fn take(&mut self, asked: usize) -> usize {
        if self.refilled_at.elapsed() >= Duration::from_mins(1) {
            self.left = self.per_minute;
            self.refilled_at = Instant::now();
        }
        let taken = asked.min(self.left);
        self.left -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_tell_so_many_events_a_minute() {
        let mut allowance = Allowance::new(3);
        assert_eq!((allowance.take(2), allowance.take(2), allowance.take(2)), (2, 1, 0));
        allowance.refilled_at -= Duration::from_mins(1);
        assert_eq!(allowance.take(9), 3);
    }
}
