//! What goes out: a Hello, then reports.
//!
//! A report is made at the moment at which the transport takes it, from the newest state and from
//! what went out before it. So a slow router gets fewer reports, never older ones, and one that
//! was replaced by a newer one leaves no gap.
//!
//! A change of a role goes out at once and not with the next look at the shard, for somebody may be
//! waiting for it. Events wait until the router has kept them; of too many the oldest are dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use airfleet_proto::agent::v1::{
    AttachRequest, DagChangeResult, Event, Hello, Inspection, MoveEvidence, OwnersQuery, ReportAck,
    Welcome, attach_request::Message,
};
use futures::Stream;

use crate::{
    metrics::AgentMetrics,
    report::{ObservedRoles, State, Tracker},
};

/// Most events in one report.
const EVENTS_MAX: usize = 100;

/// Most events that wait for a router. They take at most about 600 bytes each.
const WAITING_MAX: usize = 10_000;

/// Shared by who observes, who sends and who receives. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tracker: Tracker,
    newest: Option<State>,
    /// Whether `newest` was not sent yet on this stream.
    unsent: bool,
    /// Number of the stream that may take something.
    stream: u64,
    hello: Option<Hello>,
    /// Whether the router welcomed the agent on this stream.
    welcomed: bool,
    roles: Arc<ObservedRoles>,
    /// What happened and is not known to be kept, the oldest first.
    events: VecDeque<Event>,
    /// Events at the front of it that went out, and the report that they went out with.
    told: Option<(usize, i64)>,
    /// What is to be asked next.
    query: Option<OwnersQuery>,
    /// Answers to what the router of this stream asked, by namespace.
    inspections: BTreeMap<String, Inspection>,
    /// What came of changes that the router of this stream asked for: no more than it waits for.
    changes: VecDeque<DagChangeResult>,
    /// What is known of moves by namespace, and whether it was told on this stream.
    evidence: BTreeMap<String, (MoveEvidence, bool)>,
    waker: Option<Waker>,
    metrics: AgentMetrics,
}

/// The outgoing half of one stream. Ends when another stream begins or the outbox is closed.
#[derive(Debug)]
pub(super) struct Outgoing {
    outbox: Outbox,
    stream: u64,
}

impl Outbox {
    pub(crate) fn new(full_interval: Duration, metrics: AgentMetrics) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            tracker: Tracker::new(full_interval),
            newest: None,
            unsent: false,
            stream: 0,
            hello: None,
            welcomed: false,
            roles: Arc::default(),
            events: VecDeque::new(),
            told: None,
            query: None,
            inspections: BTreeMap::new(),
            changes: VecDeque::new(),
            evidence: BTreeMap::new(),
            waker: None,
            metrics,
        })))
    }

    /// A new state to report. It takes the place of one that was not sent yet.
    pub(crate) fn put(&self, state: State) {
        let mut inner = self.lock();
        inner.newest = Some(state);
        inner.unsent = true;
        inner.wake();
    }

    /// What the shard is for each namespace now. Told at once.
    pub(crate) fn put_roles(&self, roles: Arc<ObservedRoles>) {
        let mut inner = self.lock();
        inner.roles = roles;
        inner.unsent = inner.newest.is_some();
        inner.wake();
    }

    /// Something happened.
    pub(crate) fn put_event(&self, event: Event) {
        let mut inner = self.lock();
        if inner.events.len() == WAITING_MAX {
            inner.events.pop_front();
            inner.metrics.events_dropped.inc();
            inner.told = inner.told.map(|(count, sequence)| (count.saturating_sub(1), sequence));
        }
        inner.events.push_back(event);
        inner.unsent = inner.newest.is_some();
        inner.wake();
    }

    /// Asks whose DAGs some are. A question that was not sent yet is dropped.
    pub(crate) fn ask(&self, query: OwnersQuery) {
        let mut inner = self.lock();
        inner.query = Some(query);
        inner.wake();
    }

    /// What is seen of a move. Told at once where it is news, and first thing on a new stream.
    pub(crate) fn put_evidence(&self, seen: MoveEvidence) {
        let mut inner = self.lock();
        if inner.evidence.get(&seen.namespace).is_some_and(|(known, _)| *known == seen) {
            return;
        }
        inner.evidence.insert(seen.namespace.clone(), (seen, false));
        inner.wake();
    }

    /// The namespace is not moved any more.
    pub(crate) fn drop_evidence(&self, namespace: &str) {
        self.lock().evidence.remove(namespace);
    }

    /// Number of the stream that there is.
    pub(super) fn stream(&self) -> u64 {
        self.lock().stream
    }

    /// What was found on the shard for a move, for whoever asked on `stream`. It takes the place of one of the same namespace that
    /// was not sent yet, so there are no more than questions wait.
    pub(crate) fn put_inspection(&self, found: Inspection, stream: u64) {
        let mut inner = self.lock();
        if inner.stream != stream {
            return;
        }
        inner.inspections.insert(found.namespace.clone(), found);
        inner.wake();
    }

    /// What came of a change, for whoever asked on `stream`.
    pub(crate) fn put_change(&self, result: DagChangeResult, stream: u64) {
        let mut inner = self.lock();
        if inner.stream != stream {
            return;
        }
        inner.changes.push_back(result);
        inner.wake();
    }

    /// Whether a router listens.
    pub(crate) fn is_welcome(&self) -> bool {
        self.lock().welcomed
    }

    /// Versions as last observed, for a Hello: of Airflow and of its schema.
    pub(crate) fn versions(&self) -> (String, String) {
        let inner = self.lock();
        let state = inner.newest.as_ref();
        state.map_or_else(Default::default, |state| {
            (state.airflow_version.clone(), state.schema_revision.clone())
        })
    }

    /// Begins a stream with `hello`; the one before it ends.
    pub(super) fn begin(&self, hello: Hello) -> Outgoing {
        let mut inner = self.lock();
        inner.stream += 1;
        inner.hello = Some(hello);
        inner.welcomed = false;
        inner.told = None;
        inner.query = None;
        // Whoever asked is gone.
        inner.inspections.clear();
        inner.changes.clear();
        inner.evidence.values_mut().for_each(|(_, told)| *told = false);
        inner.wake();
        Outgoing { outbox: self.clone(), stream: inner.stream }
    }

    /// The router took the agent in: reports may follow, the newest state at once.
    pub(super) fn welcome(&self, welcome: &Welcome) {
        let full_interval = Duration::from_millis(welcome.full_report_interval_ms.unsigned_abs());
        // A router that does not say gets what the protocol promises.
        let full_interval =
            if full_interval.is_zero() { super::attach::FULL_INTERVAL } else { full_interval };
        let mut inner = self.lock();
        inner.tracker.restart(full_interval);
        inner.welcomed = true;
        inner.unsent = inner.newest.is_some();
        inner.wake();
    }

    /// The router took a report in.
    pub(super) fn acknowledge(&self, ack: &ReportAck) {
        let mut inner = self.lock();
        inner.tracker.acknowledge(ack, Instant::now());
        if let Some((count, _)) = inner.told.take_if(|(_, sequence)| *sequence <= ack.sequence) {
            if !ack.keep_events {
                inner.events.drain(..count);
            }
            // The next ones, or the same again, with the next report.
            if !inner.events.is_empty() && !ack.keep_events {
                inner.unsent = inner.newest.is_some();
                inner.wake();
            }
        }
    }

    /// How long the router has owed an acknowledgement.
    pub(super) fn waited(&self) -> Duration {
        self.lock().tracker.waited(Instant::now())
    }

    /// Ends the stream in good order.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.stream += 1;
        inner.welcomed = false;
        inner.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn take(&mut self) -> Option<Message> {
        if let Some(hello) = self.hello.take() {
            return Some(Message::Hello(hello));
        }
        if !self.welcomed {
            return None;
        }
        if let Some((seen, told)) = self.evidence.values_mut().find(|(_, told)| !told) {
            *told = true;
            return Some(Message::MoveEvidence(seen.clone()));
        }
        if let Some(result) = self.changes.pop_front() {
            return Some(Message::DagChangeResult(result));
        }
        if let Some(query) = self.query.take() {
            return Some(Message::OwnersQuery(query));
        }
        if let Some((_, found)) = self.inspections.pop_first() {
            return Some(Message::Inspection(found));
        }
        if !self.unsent {
            return None;
        }
        let newest = self.newest.as_mut()?;
        newest.roles = self.roles.clone();
        let mut report = self.tracker.next(newest, Instant::now());
        if self.told.is_none() && !self.events.is_empty() {
            report.events = self.events.iter().take(EVENTS_MAX).cloned().collect();
            self.told = Some((report.events.len(), report.sequence));
        }
        self.unsent = false;
        self.metrics.reported(report.full);
        Some(Message::Report(report))
    }
}

impl Stream for Outgoing {
    type Item = AttachRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AttachRequest>> {
        let mut inner = self.outbox.lock();
        if inner.stream != self.stream {
            return Poll::Ready(None);
        }
        if let Some(message) = inner.take() {
            return Poll::Ready(Some(AttachRequest { message: Some(message) }));
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::metrics::Metrics;
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(Duration::from_mins(1), AgentMetrics::new(&Metrics::new()))
    }

    fn next(outgoing: &mut Outgoing) -> Option<Message> {
        outgoing
            .next()
            .now_or_never()
            .map(|item| item.expect("the stream goes on").message.unwrap())
    }

    fn state(unowned_dags: i64) -> State {
        State { unowned_dags, ..State::default() }
    }

    fn welcome() -> Welcome {
        Welcome { term: 1, report_interval_ms: 5_000, full_report_interval_ms: 60_000 }
    }

    #[test]
    fn hello_comes_first_and_reports_wait_for_the_welcome() {
        let outbox = outbox();
        outbox.put(state(1));
        let mut outgoing = outbox.begin(Hello::default());
        assert!(matches!(next(&mut outgoing), Some(Message::Hello(_))));
        assert_eq!(next(&mut outgoing), None);
        outbox.welcome(&welcome());
        assert!(matches!(next(&mut outgoing), Some(Message::Report(report)) if report.full));
        assert_eq!(next(&mut outgoing), None);
    }

    #[test]
    fn a_newer_state_takes_the_place_of_an_unsent_one() {
        let outbox = outbox();
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        for unowned_dags in 1..=3 {
            outbox.put(state(unowned_dags));
        }
        let Some(Message::Report(report)) = next(&mut outgoing) else { panic!("no report") };
        assert_eq!((report.sequence, report.unowned_dags), (1, 3));
        assert_eq!(next(&mut outgoing), None);
    }

    #[test]
    fn what_was_found_is_for_whoever_asked() {
        let outbox = outbox();
        let found = |number| Inspection { number, ..Inspection::default() };
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        outbox.put_inspection(found(1), 1);
        outbox.put_inspection(found(2), 1);
        assert_eq!(next(&mut outgoing), Some(Message::Inspection(found(2))));
        outbox.put_inspection(found(3), 1);
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        outbox.put_inspection(found(4), 1);
        assert_eq!(next(&mut outgoing), None);
    }

    #[test]
    fn what_is_seen_of_a_move_comes_first_and_once_on_each_stream() {
        let outbox = outbox();
        outbox.put(state(1));
        let seen = |revision| MoveEvidence { revision, ..MoveEvidence::default() };
        outbox.put_evidence(seen(1));
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        assert_eq!(next(&mut outgoing), Some(Message::MoveEvidence(seen(1))));
        assert!(matches!(next(&mut outgoing), Some(Message::Report(_))));
        outbox.put_evidence(seen(1));
        assert_eq!(next(&mut outgoing), None);
        outbox.put_evidence(seen(2));
        assert_eq!(next(&mut outgoing), Some(Message::MoveEvidence(seen(2))));
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        assert_eq!(next(&mut outgoing), Some(Message::MoveEvidence(seen(2))));
        outbox.drop_evidence("");
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        assert!(matches!(next(&mut outgoing), Some(Message::Report(_))));
    }

    fn event(id: usize) -> Event {
        Event { id: id.to_string(), ..Event::default() }
    }

    #[test]
    fn events_are_told_until_they_are_kept() {
        let outbox = outbox();
        outbox.put(state(1));
        (0..150).for_each(|id| outbox.put_event(event(id)));
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        let told = |outgoing: &mut Outgoing| match next(outgoing) {
            Some(Message::Report(report)) => {
                let ids: Vec<usize> =
                    report.events.iter().map(|event| event.id.parse().unwrap()).collect();
                (report.sequence, ids)
            }
            other => panic!("{other:?}"),
        };
        let (sequence, ids) = told(&mut outgoing);
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        // While it is not known what became of them, they are not told again.
        outbox.put(state(2));
        assert_eq!(told(&mut outgoing).1, Vec::<usize>::new());
        outbox.acknowledge(&ReportAck { sequence, keep_events: true, ..Default::default() });
        outbox.put(state(3));
        let (sequence, ids) = told(&mut outgoing);
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        outbox.acknowledge(&ReportAck { sequence, ..Default::default() });
        assert_eq!(told(&mut outgoing).1, (100..150).collect::<Vec<_>>());
        // A stream that broke before the router said so: again.
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        let (sequence, ids) = told(&mut outgoing);
        assert_eq!(ids, (100..150).collect::<Vec<_>>());
        outbox.acknowledge(&ReportAck { sequence, ..Default::default() });
        outbox.put(state(4));
        assert_eq!(told(&mut outgoing).1, Vec::<usize>::new());
    }

    #[test]
    fn a_role_is_told_at_once() {
        let outbox = outbox();
        outbox.put(state(1));
        let mut outgoing = outbox.begin(Hello::default());
        next(&mut outgoing);
        outbox.welcome(&welcome());
        assert!(matches!(next(&mut outgoing), Some(Message::Report(report)) if report.full));
        let role = airfleet_proto::agent::v1::ObservedRole {
            namespace: "pay".to_owned(),
            generation: 4,
            ..Default::default()
        };
        let roles = ObservedRoles::from([("pay".parse().unwrap(), Arc::new(role.clone()))]);
        outbox.put_roles(Arc::new(roles));
        let Some(Message::Report(report)) = next(&mut outgoing) else { panic!("no report") };
        assert_eq!((report.full, report.roles), (false, vec![role]));
        outbox.put_roles(Arc::default());
        let Some(Message::Report(report)) = next(&mut outgoing) else { panic!("no report") };
        assert_eq!((report.roles.len(), report.removed_roles), (0, vec!["pay".to_owned()]));
    }

    #[tokio::test]
    async fn a_new_stream_or_the_end_ends_the_old_one() {
        let outbox = outbox();
        let mut first = outbox.begin(Hello::default());
        assert!(first.next().await.is_some());
        let waiting = tokio::spawn(async move { first.next().await });
        tokio::task::yield_now().await;
        let mut second = outbox.begin(Hello::default());
        assert_eq!(waiting.await.unwrap(), None);
        assert!(second.next().await.is_some());

        // Sequences go on, and what was known is told anew.
        outbox.put(state(1));
        outbox.welcome(&welcome());
        let Some(Message::Report(report)) = next(&mut second) else { panic!("no report") };
        assert!(report.full && report.sequence == 1);
        let mut third = outbox.begin(Hello::default());
        next(&mut third);
        outbox.welcome(&welcome());
        let Some(Message::Report(report)) = next(&mut third) else { panic!("no report") };
        assert!(report.full && report.sequence == 2);

        outbox.close();
        assert_eq!(third.next().await, None);
    }
}
