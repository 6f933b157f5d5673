//! A router that does what a test tells it to: the protocol's other side, without a fleet.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use airfleet_proto::agent::v1::{
    AttachRequest, AttachResponse, DagChange, DagChangeResult, DesiredRole, DesiredRoles,
    ForeignPrefix, Hello, Inspect, Inspection, MoveEvidence, ObservedRole, OwnersAnswer, Report,
    ReportAck, TransferRequest, TransferResponse, Welcome,
    agent_service_server::{AgentService, AgentServiceServer},
    attach_request,
    attach_response::Message,
};
use airfleet_runtime::config::ClientConfig;
use airfleet_shard_agent::AgentConfig;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::eventually_within;

/// What it answers to agents that come.
pub(crate) type Reception = Arc<dyn Fn(&Hello) -> Result<Welcome, Status> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct ScriptedRouter {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    stop: CancellationToken,
}

struct Script {
    reception: Reception,
    /// Told to each agent after the welcome.
    roles: Option<DesiredRoles>,
    /// How to answer a report; nothing where the router is to be silent.
    acknowledge: bool,
    ask_full: bool,
    /// The streams that are open.
    streams: Vec<mpsc::UnboundedSender<Result<AttachResponse, Status>>>,
    hellos: Vec<Hello>,
    reports: Vec<Report>,
    /// Streams that the agent ended in good order.
    goodbyes: usize,
    /// Prefixes that other shards have.
    elsewhere: Vec<ForeignPrefix>,
    inspections: Vec<Inspection>,
    changed: Vec<DagChangeResult>,
    evidence: Vec<MoveEvidence>,
    /// Transfers that agents opened and no test took yet.
    transfers: Vec<Transfer>,
}

/// One end of a transfer; a test is the other one, and the router between them.
pub(crate) struct Transfer {
    pub(crate) heard: Streaming<TransferRequest>,
    pub(crate) say: mpsc::UnboundedSender<Result<TransferResponse, Status>>,
}

pub(crate) fn welcome(term: i64, report_interval_ms: i64) -> Welcome {
    Welcome { term, report_interval_ms, full_report_interval_ms: 60_000 }
}

/// Roles of namespaces with one prefix each.
pub(crate) fn roles(term: i64, sequence: i64, namespaces: &[(&str, &str)]) -> DesiredRoles {
    let roles = namespaces.iter().map(|(namespace, prefix)| DesiredRole {
        namespace: (*namespace).to_owned(),
        prefixes: vec![(*prefix).to_owned()],
        role: 3,
        generation: 1,
        ..DesiredRole::default()
    });
    DesiredRoles { term, sequence, full: true, roles: roles.collect(), ..Default::default() }
}

impl ScriptedRouter {
    /// Takes every agent in, for term 1, and wants a report every 100 ms.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Script {
            reception: Arc::new(|_| Ok(welcome(1, 100))),
            roles: None,
            acknowledge: true,
            ask_full: false,
            streams: vec![],
            hellos: vec![],
            reports: vec![],
            goodbyes: 0,
            elsewhere: vec![],
            inspections: vec![],
            changed: vec![],
            evidence: vec![],
            transfers: vec![],
        };
        let router = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script)),
            stop: CancellationToken::new(),
        };
        router.serve(listener);
        router
    }

    fn serve(&self, listener: TcpListener) {
        let service = AgentServiceServer::new(self.clone());
        let stop = self.stop.child_token();
        tokio::spawn(async move {
            let serving = Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                served = serving => served.unwrap(),
                () = stop.cancelled() => {}
            }
        });
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::plain(format!("http://{}", self.address))
    }

    /// Settings of an agent of shard-a that reports here and looks at nothing.
    pub(crate) fn agent(&self) -> AgentConfig {
        AgentConfig { shard: "shard-a".to_owned(), router: self.client(), ..AgentConfig::default() }
    }

    pub(crate) fn receive(
        &self,
        reception: impl Fn(&Hello) -> Result<Welcome, Status> + Send + Sync + 'static,
    ) {
        self.script().reception = Arc::new(reception);
    }

    /// Tells these roles, now and to agents that come.
    pub(crate) fn tell(&self, roles: DesiredRoles) {
        let mut script = self.script();
        for stream in &script.streams {
            let _ = stream
                .send(Ok(AttachResponse { message: Some(Message::DesiredRoles(roles.clone())) }));
        }
        script.roles = Some(roles);
    }

    /// Asks the agents that are there.
    pub(crate) fn inspect(&self, question: &Inspect) {
        for stream in &self.script().streams {
            let message = Some(Message::Inspect(question.clone()));
            let _ = stream.send(Ok(AttachResponse { message }));
        }
    }

    /// Asks for a change.
    pub(crate) fn change(&self, change: &DagChange) {
        for stream in &self.script().streams {
            let message = Some(Message::DagChange(change.clone()));
            let _ = stream.send(Ok(AttachResponse { message }));
        }
    }

    /// What came of changes, in the order in which it was told.
    pub(crate) fn changed(&self) -> Vec<DagChangeResult> {
        self.script().changed.clone()
    }

    pub(crate) fn inspections(&self) -> Vec<Inspection> {
        self.script().inspections.clone()
    }

    /// The transfer that an agent opens.
    pub(crate) async fn transfer(&self) -> Transfer {
        crate::eventually("a transfer", async || self.script().transfers.pop()).await
    }

    /// What was told of moves last.
    pub(crate) fn evidence(&self) -> Option<MoveEvidence> {
        self.script().evidence.last().cloned()
    }

    /// A prefix is of a namespace that another shard has.
    pub(crate) fn own_elsewhere(&self, prefix: &str, namespace: &str) {
        self.script().elsewhere.push(ForeignPrefix {
            prefix: prefix.to_owned(),
            namespace: namespace.to_owned(),
            shard: "shard-z".to_owned(),
        });
    }

    /// Events of a namespace: code and message, in order, each once.
    pub(crate) fn events(&self, namespace: &str) -> Vec<(String, String)> {
        let mut seen = std::collections::HashSet::new();
        let reports = self.reports();
        let events = reports.iter().flat_map(|report| &report.events);
        let of = events.filter(|event| event.namespace == namespace);
        of.filter(|event| seen.insert(event.id.clone()))
            .map(|event| (event.code.clone(), event.message.clone()))
            .collect()
    }

    /// What is told of a namespace, once it is as `wanted` says.
    pub(crate) async fn role(
        &self,
        namespace: &str,
        what: &str,
        wanted: impl Fn(&ObservedRole) -> bool,
    ) -> ObservedRole {
        let of =
            |report: &Report| report.roles.iter().find(|role| role.namespace == namespace).cloned();
        let report = self.when(what, |report| of(report).is_some_and(|role| wanted(&role))).await;
        of(&report).unwrap()
    }

    pub(crate) fn be_silent(&self) {
        self.script().acknowledge = false;
    }

    /// Asks for a full report in the next acknowledgement.
    pub(crate) fn ask_full(&self) {
        self.script().ask_full = true;
    }

    /// Ends all streams with `status`.
    pub(crate) fn hang_up(&self, status: &Status) {
        for stream in self.script().streams.drain(..) {
            let _ = stream.send(Err(status.clone()));
        }
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.script().hellos.clone()
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.script().reports.clone()
    }

    pub(crate) fn goodbyes(&self) -> usize {
        self.script().goodbyes
    }

    /// What all reports add up to, once it is as `wanted` says.
    pub(crate) async fn when(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        self.within(crate::LIMIT, what, wanted).await
    }

    /// The same, for what takes an Airflow longer.
    pub(crate) async fn within(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&Report) -> bool,
    ) -> Report {
        let last = std::cell::RefCell::new(None);
        let look = async || {
            let merged = self.merged();
            last.replace(merged.clone());
            merged.filter(|merged| wanted(merged))
        };
        let told = || format!("{what}; the last report: {:#?}", last.borrow());
        eventually_within(limit, told, look).await
    }

    /// What all reports add up to.
    pub(crate) fn merged(&self) -> Option<Report> {
        let mut merged: Option<Report> = None;
        for report in self.reports() {
            merged = Some(match merged {
                Some(known) if !report.full => merge(known, report),
                _ => report,
            });
        }
        merged
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn take(
        &self,
        message: AttachRequest,
        stream: &mpsc::UnboundedSender<Result<AttachResponse, Status>>,
    ) {
        let mut script = self.script();
        let report = match message.message {
            Some(attach_request::Message::Report(report)) => report,
            Some(attach_request::Message::OwnersQuery(query)) => {
                let starts = |one: &ForeignPrefix| {
                    query.dag_ids.iter().any(|dag_id| dag_id.starts_with(&one.prefix))
                };
                let answer = OwnersAnswer {
                    number: query.number,
                    revision: 1,
                    prefixes: script.elsewhere.iter().filter(|one| starts(one)).cloned().collect(),
                };
                let message = Some(Message::OwnersAnswer(answer));
                let _ = stream.send(Ok(AttachResponse { message }));
                return;
            }
            Some(attach_request::Message::Inspection(found)) => {
                script.inspections.push(found);
                return;
            }
            Some(attach_request::Message::DagChangeResult(result)) => {
                script.changed.push(result);
                return;
            }
            Some(attach_request::Message::MoveEvidence(seen)) => {
                script.evidence.push(seen);
                return;
            }
            _ => panic!("a hello comes but once"),
        };
        if script.acknowledge {
            let ack = ReportAck {
                sequence: report.sequence,
                send_full: std::mem::take(&mut script.ask_full),
                prefixes_revision: script.elsewhere.len() as i64,
                ..ReportAck::default()
            };
            let _ = stream.send(Ok(AttachResponse { message: Some(Message::ReportAck(ack)) }));
        }
        script.reports.push(report);
    }
}

fn merge(mut known: Report, changes: Report) -> Report {
    assert_eq!(changes.sequence, known.sequence + 1, "changes must follow what is known");
    known.sequence = changes.sequence;
    known.observe_time = changes.observe_time;
    known.health = changes.health.or(known.health);
    known.usage = changes.usage.or(known.usage);
    known.capacity = changes.capacity.or(known.capacity);
    known.signals = changes.signals.or(known.signals);
    known.unowned_dags = changes.unowned_dags;
    known.namespaces.retain(|namespace| {
        !changes.removed_namespaces.contains(&namespace.namespace)
            && changes.namespaces.iter().all(|changed| changed.namespace != namespace.namespace)
    });
    known.namespaces.extend(changes.namespaces);
    known.roles.retain(|role| {
        !changes.removed_roles.contains(&role.namespace)
            && changes.roles.iter().all(|changed| changed.namespace != role.namespace)
    });
    known.roles.extend(changes.roles);
    known.namespaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    for (known, changed) in [
        (&mut known.airflow_version, changes.airflow_version),
        (&mut known.schema_revision, changes.schema_revision),
    ] {
        if !changed.is_empty() {
            *known = changed;
        }
    }
    known
}

impl Drop for Script {
    fn drop(&mut self) {
        self.streams.clear();
    }
}

#[tonic::async_trait]
impl AgentService for ScriptedRouter {
    type TransferStream = UnboundedReceiverStream<Result<TransferResponse, Status>>;

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let (say, said) = mpsc::unbounded_channel();
        self.script().transfers.push(Transfer { heard: request.into_inner(), say });
        Ok(Response::new(UnboundedReceiverStream::new(said)))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(10), incoming.message()).await;
        let first = first.expect("an agent speaks first")?;
        let Some(attach_request::Message::Hello(hello)) = first.and_then(|first| first.message)
        else {
            panic!("the first message is a hello");
        };
        let (stream, outgoing) = mpsc::unbounded_channel();
        {
            let mut script = self.script();
            script.hellos.push(hello.clone());
            let welcome = (script.reception.clone())(&hello)?;
            let welcome = Message::Welcome(welcome);
            let _ = stream.send(Ok(AttachResponse { message: Some(welcome) }));
            if let Some(roles) = script.roles.clone() {
                let roles = Message::DesiredRoles(roles);
                let _ = stream.send(Ok(AttachResponse { message: Some(roles) }));
            }
            script.streams.push(stream.clone());
        }
        let router = self.clone();
        tokio::spawn(async move {
            loop {
                match incoming.message().await {
                    Ok(Some(message)) => router.take(message, &stream),
                    Ok(None) => {
                        let mut script = router.script();
                        script.goodbyes += 1;
                        script.streams.retain(|open| !open.same_channel(&stream));
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(outgoing))))
    }
}
