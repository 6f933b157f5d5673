//! What goes out: a Hello, then reports.
//!
//! A report is made at the moment at which the transport takes it, from the newest state and from
//! what went out before it. So a slow router gets fewer reports, never older ones, and one that
//! was replaced by a newer one leaves no gap.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use airfleet_proto::agent::v1::{
    AttachRequest, Hello, ReportAck, Welcome, attach_request::Message,
};
use futures::Stream;

use crate::{
    metrics::AgentMetrics,
    report::{State, Tracker},
};

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

    /// Versions as last observed, for a Hello: of Airflow and of its schema.
    pub(super) fn versions(&self) -> (String, String) {
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
        self.lock().tracker.acknowledge(ack, Instant::now());
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
        if !(self.welcomed && self.unsent) {
            return None;
        }
        let report = self.tracker.next(self.newest.as_ref()?, Instant::now());
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
