//! The table of assignments, followed as it changes, without a gap.
//!
//! [`Table`] takes in what the stream says and tells what changed by it; [`Follower`] keeps a
//! stream open and resumes where the last one ended. Invariant: the changes that are told turn one
//! complete table into the next; a stream that skips a revision is left and begun anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use airfleet_proto::router::v1::{
    WatchAssignmentsRequest, WatchAssignmentsResponse, watch_assignments_response::Event as Said,
};
use airfleet_runtime::{client::Backoff, status::Problem};
use tonic::{Status, Streaming};

use crate::{client::Router, document::Assignment, error::Result};

/// A stream that is silent for so long is dead: progress marks come every few seconds.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Pauses between attempts to connect again.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What taking in a piece of the stream led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first whole table was read.
    Ready {
        /// Its revision.
        revision: i64,
    },
    /// An assignment changed.
    Changed(Box<Change>),
}

/// One assignment before and after a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Revision of the table that it led to.
    pub revision: i64,
    /// The namespace.
    pub namespace: String,
    /// As it was; `None` where it is new.
    pub before: Option<Assignment>,
    /// As it became; `None` where it is gone.
    pub after: Option<Assignment>,
}

/// The assignments as of a revision.
#[derive(Debug, Default)]
pub struct Table {
    assignments: BTreeMap<String, Assignment>,
    /// Of the last complete table; 0 before there is one.
    revision: i64,
    is_complete: bool,
    snapshot: Option<BTreeMap<String, Assignment>>,
}

/// A stream that skipped something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl Table {
    /// The revision to go on from.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// All assignments by namespace.
    pub fn assignments(&self) -> &BTreeMap<String, Assignment> {
        &self.assignments
    }

    /// Takes in the next piece of a stream.
    pub fn take(&mut self, response: WatchAssignmentsResponse) -> Result<Vec<Event>, Gap> {
        let revision = response.revision;
        match response.event {
            Some(Said::Snapshot(piece)) => {
                let snapshot = match (&mut self.snapshot, piece.first) {
                    (snapshot, true) => snapshot.insert(BTreeMap::new()),
                    (Some(snapshot), false) => snapshot,
                    (None, false) => return Err(Gap),
                };
                snapshot.extend(piece.assignments.into_iter().map(named));
                if !piece.last {
                    return Ok(Vec::new());
                }
                let whole = self.snapshot.take().unwrap_or_default();
                Ok(self.replace(whole, revision))
            }
            Some(Said::Change(change)) => {
                if self.snapshot.is_some() || change.previous_revision != self.revision {
                    return Err(Gap);
                }
                self.revision = revision;
                let mut events = Vec::new();
                for (namespace, after) in change.upserts.into_iter().map(named) {
                    events.extend(self.set(namespace, Some(after), revision));
                }
                for namespace in change.deleted {
                    events.extend(self.set(namespace, None, revision));
                }
                Ok(events)
            }
            Some(Said::Progress(_)) => {
                if self.snapshot.is_some() || revision < self.revision {
                    return Err(Gap);
                }
                self.revision = revision;
                Ok(Vec::new())
            }
            // A kind of event that is newer than this command.
            None => Ok(Vec::new()),
        }
    }

    /// Forgets the pieces of a snapshot whose stream ended.
    fn interrupt(&mut self) {
        self.snapshot = None;
    }

    /// Puts a whole table in the place of this one. The first one is no change.
    fn replace(&mut self, whole: BTreeMap<String, Assignment>, revision: i64) -> Vec<Event> {
        self.revision = revision;
        if !self.is_complete {
            (self.assignments, self.is_complete) = (whole, true);
            return vec![Event::Ready { revision }];
        }
        let names: BTreeSet<String> =
            self.assignments.keys().chain(whole.keys()).cloned().collect();
        let mut whole = whole;
        names
            .into_iter()
            .filter_map(|name| {
                let after = whole.remove(&name);
                self.set(name, after, revision)
            })
            .collect()
    }

    fn set(
        &mut self,
        namespace: String,
        after: Option<Assignment>,
        revision: i64,
    ) -> Option<Event> {
        let before = match &after {
            Some(after) => self.assignments.insert(namespace.clone(), after.clone()),
            None => self.assignments.remove(&namespace),
        };
        let revision = after.as_ref().map_or(revision, |after| after.revision);
        let change = Change { revision, namespace, before, after };
        (change.before != change.after).then(|| Event::Changed(Box::new(change)))
    }
}

fn named(wire: airfleet_proto::router::v1::Assignment) -> (String, Assignment) {
    (wire.namespace.clone(), wire.into())
}

/// Follows the table over streams that come and go.
#[derive(Debug)]
pub struct Follower<'a> {
    router: &'a Router,
    table: Table,
    stream: Option<Streaming<WatchAssignmentsResponse>>,
    backoff: Backoff,
    pause: Duration,
}

/// What a follower has to tell.
#[derive(Clone, Debug)]
pub enum News {
    /// The table changed or became whole; no events where it is only known to be current.
    Events(Vec<Event>),
    /// The stream ended, and why; the next call resumes it.
    Interrupted(String),
}

impl<'a> Follower<'a> {
    /// Connects. Fails where nobody answers.
    pub async fn start(router: &'a Router) -> Result<Self> {
        let mut follower = Self {
            router,
            table: Table::default(),
            stream: None,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            pause: Duration::ZERO,
        };
        follower.stream = Some(follower.open().await?);
        Ok(follower)
    }

    /// The table as it is known.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The next thing that happens; waits as long as nothing does. Fails where trying again will
    /// not help. Nothing is lost when it is cancelled.
    pub async fn next(&mut self) -> Result<News> {
        let Some(stream) = &mut self.stream else {
            tokio::time::sleep(self.pause).await;
            match self.open().await {
                Ok(stream) => self.stream = Some(stream),
                Err(error) if error.is_passing() => self.pause = self.backoff.next_pause(None),
                Err(error) => return Err(error),
            }
            return Ok(News::Events(Vec::new()));
        };
        let status = match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(response))) => match self.table.take(response) {
                Ok(events) => {
                    self.backoff.reset();
                    return Ok(News::Events(events));
                }
                Err(Gap) => Status::aborted("it skipped a revision"),
            },
            Ok(Ok(None)) => Status::unavailable("it was closed"),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable("it was silent for too long"),
        };
        self.stream = None;
        self.table.interrupt();
        let problem = Problem::from(&status);
        if !is_passing(&problem) {
            return Err(self.router.refused("cannot follow the assignments", &problem));
        }
        self.router.stream_ended(&status);
        self.pause = self.backoff.next_pause(problem.retry_after);
        Ok(News::Interrupted(problem.message))
    }

    async fn open(&self) -> Result<Streaming<WatchAssignmentsResponse>> {
        let request = WatchAssignmentsRequest { resume_revision: self.table.revision };
        self.router
            .open("cannot follow the assignments", async |mut client| {
                client.watch_assignments(request).await
            })
            .await
    }
}

/// Whether a stream that ended so is worth resuming.
fn is_passing(problem: &Problem) -> bool {
    use tonic::Code;
    problem.is_transient()
        || matches!(
            problem.code,
            Code::Cancelled
                | Code::Unknown
                | Code::Aborted
                | Code::OutOfRange
                | Code::DeadlineExceeded
        )
}

#[cfg(test)]
mod tests {
    use airfleet_proto::router::v1::{
        Assignment as Wire, AssignmentChange, AssignmentSnapshot, AssignmentState, ProgressMark,
    };

    use super::*;

    fn wire(namespace: &str, shard: &str, revision: i64) -> Wire {
        Wire {
            namespace: namespace.into(),
            shard: shard.into(),
            state: AssignmentState::Assigned.into(),
            revision,
            ..Wire::default()
        }
    }

    fn snapshot(
        revision: i64,
        assignments: Vec<Wire>,
        first: bool,
        last: bool,
    ) -> WatchAssignmentsResponse {
        let snapshot = AssignmentSnapshot { assignments, first, last };
        WatchAssignmentsResponse { revision, event: Some(Said::Snapshot(snapshot)) }
    }

    fn change(
        previous: i64,
        revision: i64,
        upserts: Vec<Wire>,
        deleted: &[&str],
    ) -> WatchAssignmentsResponse {
        let deleted = deleted.iter().map(ToString::to_string).collect();
        let change = AssignmentChange { previous_revision: previous, upserts, deleted };
        WatchAssignmentsResponse { revision, event: Some(Said::Change(change)) }
    }

    fn told(events: &[Event]) -> Vec<String> {
        let shard = |a: &Option<Assignment>| a.as_ref().map_or("-".to_owned(), |a| a.shard.clone());
        events
            .iter()
            .map(|event| match event {
                Event::Ready { revision } => format!("ready {revision}"),
                Event::Changed(c) => {
                    format!(
                        "{} {} {}>{}",
                        c.revision,
                        c.namespace,
                        shard(&c.before),
                        shard(&c.after)
                    )
                }
            })
            .collect()
    }

    fn ready() -> Table {
        let mut table = Table::default();
        assert_eq!(table.take(snapshot(7, vec![wire("aaa", "one", 3)], true, false)), Ok(vec![]));
        assert_eq!(table.revision(), 0);
        let events = table.take(snapshot(7, vec![wire("bbb", "two", 7)], false, true)).unwrap();
        assert_eq!(told(&events), ["ready 7"]);
        table
    }

    #[test]
    fn changes_tell_before_and_after() {
        let mut table = ready();
        let events =
            table.take(change(7, 9, vec![wire("aaa", "two", 8)], &["bbb", "ghost"])).unwrap();
        assert_eq!(told(&events), ["8 aaa one>two", "9 bbb two>-"]);
        assert_eq!(table.revision(), 9);
        let mark =
            WatchAssignmentsResponse { revision: 12, event: Some(Said::Progress(ProgressMark {})) };
        assert_eq!(table.take(mark), Ok(vec![]));
        let events = table.take(change(12, 13, vec![wire("ccc", "one", 13)], &[])).unwrap();
        assert_eq!(told(&events), ["13 ccc ->one"]);
    }

    #[test]
    fn a_skipped_revision_is_noticed() {
        let mut table = ready();
        assert_eq!(table.take(change(8, 9, vec![], &[])), Err(Gap));
        assert_eq!(table.take(snapshot(9, vec![], false, true)), Err(Gap));
        assert_eq!(table.revision(), 7);
    }

    #[test]
    fn a_new_snapshot_is_told_as_its_difference() {
        let mut table = ready();
        let whole = vec![wire("aaa", "two", 20), wire("ccc", "one", 21)];
        let events = table.take(snapshot(30, whole, true, true)).unwrap();
        assert_eq!(told(&events), ["20 aaa one>two", "30 bbb two>-", "21 ccc ->one"]);
        assert_eq!(table.revision(), 30);
    }

    #[test]
    fn a_snapshot_cut_off_leaves_the_table_as_it_was() {
        let mut table = ready();
        table.take(snapshot(30, vec![], true, false)).unwrap();
        assert_eq!(table.take(change(7, 8, vec![], &[])), Err(Gap));
        table.interrupt();
        assert_eq!(table.revision(), 7);
        assert_eq!(table.assignments().len(), 2);
        let events = table.take(change(7, 8, vec![wire("aaa", "two", 8)], &[])).unwrap();
        assert_eq!(told(&events), ["8 aaa one>two"]);
    }
}
