//! Staying attached to a router.

use std::{convert::Infallible, time::Duration};

use airfleet_proto::agent::v1::{
    AttachResponse, Hello, Welcome, agent_service_client::AgentServiceClient,
    attach_response::Message,
};
use airfleet_runtime::{
    client::{Replicas, Transport},
    config::ClientConfig,
    health::Condition,
    lifecycle::Shutdown,
    status::{Problem, reason},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, Streaming};

use super::{Outbox, Roles};
use crate::{
    backoff::Backoff, changes::Changes, metrics::AgentMetrics, moves::Inspector, reconcile::Foreign,
};

/// How often a report is a full one where the router does not say.
pub(super) const FULL_INTERVAL: Duration = Duration::from_mins(1);

const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// The longest pause while a namespace is moved: it may run nowhere until both agents are back.
/// Moves are few, so those who come back so soon are few, too.
const BACKOFF_MOST_MOVING: Duration = Duration::from_secs(1);

/// Times that an agent follows routers that name each other before it waits.
const REDIRECTS_MAX: u32 = 3;

/// Failures in a row after which certificates are read anew: they may have been replaced.
const RELOAD_AFTER: u32 = 3;

/// Time for a router to welcome an agent once it is connected.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);

/// A router that takes no report in for so many intervals, and at least so long, is gone.
const SILENT_INTERVALS: u32 = 3;
const SILENT_MIN: Duration = Duration::from_secs(15);

/// Time for the router to end a stream that the agent ended.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Who the agent is; the rest of a Hello is observed.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) shard: String,
    pub(crate) incarnation: String,
    pub(crate) agent_version: String,
    pub(crate) hostname: String,
}

/// One agent's attachment to whichever router leads.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) identity: Identity,
    pub(crate) config: ClientConfig,
    pub(crate) replicas: Replicas,
    pub(crate) outbox: Outbox,
    pub(crate) roles: Roles,
    /// Who hears of the owners of DAGs; nobody in a simulation.
    pub(crate) foreign: Option<Foreign>,
    /// Who looks at the shard before a move; nobody in a simulation.
    pub(crate) inspector: Option<Inspector>,
    /// Who changes something for users; nobody in a simulation.
    pub(crate) changes: Option<Changes>,
    /// The way to the router that took the agent in, for rows of moves.
    pub(crate) uplink: watch::Sender<Option<Transport>>,
    pub(crate) report_interval: watch::Sender<Duration>,
    pub(crate) metrics: AgentMetrics,
    /// Told whether a router took the agent in.
    pub(crate) condition: Option<Condition>,
    pub(crate) shutdown: Shutdown,
}

/// How a stream ended.
#[derive(Debug)]
enum End {
    Shutdown,
    Lost(Status),
}

impl Attachment {
    /// Stays attached until shutdown.
    pub(crate) async fn keep(mut self) -> Result<(), Infallible> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MOST);
        let (mut redirects, mut failures) = (0, 0);
        while !self.shutdown.is_triggered() {
            let address = self.replicas.current_address();
            let mut welcomed = false;
            let end = self.attach(&mut welcomed).await;
            if welcomed {
                self.metrics.connected.dec();
                backoff.reset();
                (redirects, failures) = (0, 0);
            }
            let End::Lost(status) = end else { break };
            self.outbox.close();
            self.uplink.send_replace(None);
            failures += 1;
            self.complain(&address, &status);
            let problem = Problem::from(&status);
            let moved = self.replicas.failed(&status);
            if moved && problem.leader().is_some() && redirects < REDIRECTS_MAX {
                redirects += 1;
                continue;
            }
            let is_lasting = is_lasting(&problem);
            if is_lasting {
                backoff.slow_down();
            }
            if failures % RELOAD_AFTER == 0 {
                self.reload();
            }
            let mut pause = backoff.next_wait();
            if !is_lasting && self.roles.is_in_move() {
                pause = pause.min(BACKOFF_MOST_MOVING);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.triggered() => {}
            }
        }
        self.outbox.close();
        Ok(())
    }

    fn complain(&self, address: &str, status: &Status) {
        let problem = Problem::from(status);
        let why = format!("not attached to the router at {address}: {problem}");
        if is_lasting(&problem) {
            tracing::error!("{why}");
        } else {
            tracing::warn!("{why}");
        }
        if let Some(condition) = &self.condition {
            condition.unmet(why);
        }
    }

    fn reload(&mut self) {
        match Replicas::new(&self.config) {
            Ok(replicas) => self.replicas = replicas,
            Err(error) => {
                let error = crate::words::chain(&error);
                tracing::error!(error, "cannot read the credentials for the router again");
            }
        }
    }

    async fn attach(&self, welcomed: &mut bool) -> End {
        self.metrics.connects.inc();
        let (airflow_version, schema_revision) = self.outbox.versions();
        let outgoing = self.outbox.begin(Hello {
            shard: self.identity.shard.clone(),
            incarnation: self.identity.incarnation.clone(),
            agent_version: self.identity.agent_version.clone(),
            airflow_version,
            schema_revision,
            hostname: self.identity.hostname.clone(),
        });
        let mut client = AgentServiceClient::new(self.replicas.current());
        let opening = async {
            let mut incoming = client.attach(outgoing).await?.into_inner();
            match incoming.message().await?.and_then(|response| response.message) {
                Some(Message::Welcome(welcome)) => Ok((incoming, welcome)),
                Some(_) => Err(Status::internal("the router did not begin with a welcome")),
                None => Err(Status::unavailable("the router ended the stream without a welcome")),
            }
        };
        let limit = self.config.connect_timeout + WELCOME_LIMIT;
        let opened = tokio::select! {
            opened = timeout(limit, opening) => opened,
            () = self.shutdown.triggered() => return End::Shutdown,
        };
        let opened = opened.unwrap_or_else(|_| {
            Err(Status::unavailable(format!(
                "the router did not take the agent in within {limit:?}"
            )))
        });
        let (incoming, welcome) = match opened {
            Ok(opened) => opened,
            Err(status) => return End::Lost(status),
        };
        if let Err(refused) = self.roles.begin(welcome.term) {
            return End::Lost(Status::unavailable(refused.to_string()));
        }
        *welcomed = true;
        self.welcomed(&welcome);
        self.converse(incoming).await
    }

    fn welcomed(&self, welcome: &Welcome) {
        let interval = Duration::from_millis(welcome.report_interval_ms.unsigned_abs());
        if !interval.is_zero() {
            self.report_interval
                .send_if_modified(|known| std::mem::replace(known, interval) != interval);
        }
        self.metrics.connected.inc();
        if let Some(condition) = &self.condition {
            condition.met();
        }
        let address = self.replicas.current_address();
        tracing::info!(address, term = welcome.term, ?interval, "attached to the router");
        self.outbox.welcome(welcome);
        self.uplink.send_replace(Some(self.replicas.current()));
    }

    async fn converse(&self, mut incoming: Streaming<AttachResponse>) -> End {
        loop {
            let interval = crate::reporting::bounded(*self.report_interval.borrow());
            let patience = (interval * SILENT_INTERVALS).max(SILENT_MIN);
            let look_again = Instant::now() + patience / 4;
            tokio::select! {
                message = incoming.message() => {
                    let outcome = match message {
                        Ok(Some(response)) => self.obey(response),
                        Ok(None) => Err(Status::unavailable("the router ended the stream")),
                        Err(status) => Err(status),
                    };
                    if let Err(status) = outcome {
                        return End::Lost(status);
                    }
                }
                () = tokio::time::sleep_until(look_again) => {
                    let waited = self.outbox.waited();
                    if waited > patience {
                        return End::Lost(Status::unavailable(format!(
                            "the router took no report in for {} s", waited.as_secs()
                        )));
                    }
                }
                () = self.shutdown.triggered() => {
                    self.outbox.close();
                    let goodbye = async { while let Ok(Some(_)) = incoming.message().await {} };
                    // The router sees the end of the stream either way.
                    let _ = timeout(GOODBYE_LIMIT, goodbye).await;
                    return End::Shutdown;
                }
            }
        }
    }

    fn obey(&self, response: AttachResponse) -> Result<(), Status> {
        match response.message {
            Some(Message::ReportAck(ack)) => {
                self.outbox.acknowledge(&ack);
                if let Some(foreign) = &self.foreign {
                    foreign.changed(ack.prefixes_revision);
                }
            }
            Some(Message::DesiredRoles(roles)) => {
                let refused =
                    |refused: super::roles::Refused| Status::unavailable(refused.to_string());
                self.roles.take(roles).map_err(refused)?;
            }
            Some(Message::Welcome(_)) => {
                return Err(Status::internal("the router welcomed the agent twice"));
            }
            Some(Message::OwnersAnswer(answer)) => match &self.foreign {
                Some(foreign) => foreign.answered(answer),
                None => tracing::debug!("the router answered a question that was not asked"),
            },
            Some(Message::Inspect(question)) => match &self.inspector {
                Some(inspector) => inspector.ask(question, self.outbox.stream()),
                None => tracing::debug!("there is no shard to look at"),
            },
            Some(Message::DagChange(change)) => match &self.changes {
                Some(changes) => changes.ask(change, self.outbox.stream()),
                None => tracing::debug!("there is no shard to change"),
            },
            // Of a newer router: what this version does not know it cannot do.
            None => tracing::debug!("the router said something that this agent does not know"),
        }
        Ok(())
    }
}

/// Whether trying again soon is no use: somebody must change something first.
fn is_lasting(problem: &Problem) -> bool {
    matches!(
        problem.code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    ) && problem.reason != reason::TOKEN_EXPIRED
}
