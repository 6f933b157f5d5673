//! One end of a transfer: rows from the source's database into the target's, over a router.
//!
//! Each end comes again after a break, with what it knows; the target alone knows how far rows are
//! kept, and goes on to tell that it has all. What comes of a transfer is in the target's database before it is told, so an end that was
//! killed finds it there. An end that fails for good says so, and the router orders another attempt.

mod ends;
mod passed;

use std::time::Duration;

use airfleet_domain::{
    ids::{MoveId, NamespaceName},
    moves::{Mark, Seen, Side, TableSum, TransferTask},
};
use airfleet_proto::agent::v1 as wire;
use airfleet_runtime::client::Transport;
use airfleet_transfer::Scope;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use self::passed::Passed;
use super::{Mover, wire as convert};
use crate::backoff::Backoff;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Short: under seal nobody runs the namespace meanwhile, and transfers are few.
const BACKOFF_MOST: Duration = Duration::from_secs(1);

/// A stream that lasted so long was no failure to connect.
const LASTED: Duration = Duration::from_secs(5);

/// Which transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The move.
    pub(crate) move_id: MoveId,
    /// Which end this shard is.
    pub(crate) side: Side,
    /// Which try.
    pub(crate) attempt: u32,
    /// What travels.
    pub(crate) task: TransferTask,
}

/// How it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Passed so far.
    passed: Passed,
    /// How it ended; none while it goes on.
    pub(crate) end: Option<End>,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything arrived and is committed.
    Done {
        /// What this end has of each table.
        tables: Vec<TableSum>,
        /// Up to where each DAG came, as this end has it.
        marks: Vec<Mark>,
    },
    /// This attempt is over.
    Failed {
        /// Stable code.
        code: String,
        /// In words.
        message: String,
    },
}

impl Progress {
    /// As it is told.
    pub(crate) fn wire(&self, key: &Key) -> wire::TransferProgress {
        let mut told = wire::TransferProgress {
            part: convert::part(key.task.part).into(),
            attempt: i32::try_from(key.attempt).unwrap_or(i32::MAX),
            state: wire::TransferState::Running.into(),
            ..wire::TransferProgress::default()
        };
        match &self.end {
            None => self.passed.wire(&mut told),
            Some(End::Done { tables, .. }) => {
                told.state = wire::TransferState::Done.into();
                told.tables = convert::sums(tables);
            }
            Some(End::Failed { code, message }) => {
                told.state = wire::TransferState::Failed.into();
                told.obstacle = Some(wire::Obstacle {
                    code: code.clone(),
                    message: message.clone(),
                    attempts: 1,
                    since_time: None,
                });
            }
        }
        told
    }
}

/// A transfer that is under way, or over. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Transfer {
    key: Key,
    progress: watch::Receiver<Progress>,
    place: watch::Sender<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Transfer {
    /// Begins one.
    pub(crate) fn begin(mover: &Mover, scope: Scope, key: Key, place: Seen) -> Self {
        let (progress, told) = watch::channel(Progress::default());
        let (place, places) = watch::channel(place);
        let end = ThisEnd { mover: mover.clone(), scope, key: key.clone(), progress, places };
        Self { key, progress: told, place, task: tokio::spawn(end.run()) }
    }

    /// Which one it is.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The order came again, at this place.
    pub(crate) fn ordered(&self, place: Seen) {
        self.place.send_replace(place);
    }

    /// How it goes.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) {
        if self.progress.wait_for(|progress| progress.end.is_some()).await.is_err() {
            // A defect ended it: whoever looks sees that nothing goes on.
            std::future::pending::<()>().await;
        }
    }
}

/// This end of a transfer.
struct ThisEnd {
    mover: Mover,
    scope: Scope,
    key: Key,
    progress: watch::Sender<Progress>,
    places: watch::Receiver<Seen>,
}

/// Why a stream was no success.
enum Broken {
    /// Try again.
    Again(String),
    /// This attempt is over.
    ForGood(airfleet_transfer::Error),
}

impl From<airfleet_transfer::Error> for Broken {
    fn from(error: airfleet_transfer::Error) -> Self {
        // An order at another place came meanwhile, of which this end hears in a moment.
        if error.is_transient() || error.code() == "ORDER_OVERTAKEN" {
            Self::Again(crate::words::chain(&error))
        } else {
            Self::ForGood(error)
        }
    }
}

impl From<tonic::Status> for Broken {
    fn from(status: tonic::Status) -> Self {
        Self::Again(status.message().to_owned())
    }
}

impl ThisEnd {
    fn namespace(&self) -> &NamespaceName {
        self.scope.namespace()
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MOST);
        loop {
            let began = Instant::now();
            let outcome = match self.key.side {
                Side::Source => self.send().await,
                // The move waits for the word of both ends. A source that was killed before it heard
                // comes again, and a target is there to tell it for as long as it is ordered to.
                Side::Target if self.has_all() => self.tell_done().await,
                Side::Target => self.take_in().await,
            };
            match outcome {
                Ok(()) if self.key.side == Side::Source => return,
                Ok(()) => {}
                Err(Broken::ForGood(error)) => {
                    let (code, message) = (error.code().to_owned(), crate::words::chain(&error));
                    tracing::warn!(namespace = %self.namespace(), code, "transfer: {message}");
                    self.end(End::Failed { code, message });
                    return;
                }
                Err(Broken::Again(why)) => {
                    tracing::debug!(namespace = %self.namespace(), why, "a transfer broke off");
                }
            }
            if began.elapsed() > LASTED {
                backoff.reset();
            }
            sleep(backoff.next_wait()).await;
        }
    }

    fn has_all(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Done { .. }))
    }

    fn end(&self, end: End) {
        // What was told once stands.
        self.progress.send_if_modified(|progress| {
            let is_news = progress.end.is_none();
            if is_news {
                progress.end = Some(end);
            }
            is_news
        });
    }

    fn passed(&self, passed: Passed) {
        self.progress.send_modify(|progress| progress.passed = passed);
    }

    /// The router that took the agent in.
    async fn router(&mut self) -> Result<Transport, Broken> {
        let gone = |_| Broken::Again("the agent stops".to_owned());
        let router = self.mover.router.wait_for(Option::is_some).await.map_err(gone)?.clone();
        router.ok_or_else(|| Broken::Again("no router took the agent in".to_owned()))
    }

    fn open(&self) -> wire::TransferOpen {
        wire::TransferOpen {
            shard: self.mover.shard.to_string(),
            namespace: self.namespace().to_string(),
            move_id: self.key.move_id.to_string(),
            side: convert::side(self.key.side).into(),
            part: convert::part(self.key.task.part).into(),
            attempt: i32::try_from(self.key.attempt).unwrap_or(i32::MAX),
            kept: None,
        }
    }
}
