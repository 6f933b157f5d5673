//! Hands rows of a move on from its source's agent to its target's.
//!
//! Invariants: the two streams that are joined are ends of one transfer, which is wanted as it is;
//! between them wait a few messages each way and no more (two, unless set otherwise): an end that does not read keeps the other
//! from being read. Nothing is kept here over a broken stream: the ends know where they were.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use airfleet_domain::{
    ids::{MoveId, NamespaceName},
    moves::{Part, Side},
};
use airfleet_proto::agent::v1::{
    TransferJoined, TransferOpen, TransferPosition, TransferRequest, TransferResponse,
    transfer_request::Message as Said, transfer_response::Message as Heard,
};
use airfleet_runtime::status::{Failure, Kind};
use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{config::MovesConfig, convert, leader::Transfer, service::Service};

/// How often it is looked whether the transfer is still wanted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When an end that is alone may try again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

type Key = (MoveId, Part, u32);

/// What joins the ends. As many entries as there are streams, at most.
#[derive(Debug)]
pub(super) struct Relay {
    slots: Mutex<HashMap<Key, Slot>>,
    /// One for each stream that there may be.
    streams: Arc<Semaphore>,
    /// Messages that wait between two ends, each way.
    waiting: usize,
    /// How long one end waits for the other.
    patience: Duration,
}

/// Of one transfer.
#[derive(Debug)]
enum Slot {
    /// One end is there.
    Waits { side: Side, kept: Option<TransferPosition>, joint: oneshot::Sender<Joint> },
    /// Both are.
    Joined(CancellationToken),
}

/// What one end has of the other.
#[derive(Debug)]
struct Joint {
    to: mpsc::Sender<Heard>,
    from: mpsc::Receiver<Heard>,
    kept: Option<TransferPosition>,
    /// An end came again: the one that it replaces and that one's peer are over.
    over: CancellationToken,
}

impl Relay {
    pub(super) fn new(config: &MovesConfig) -> Self {
        Self {
            slots: Mutex::default(),
            streams: Arc::new(Semaphore::new(config.transfer_streams_max)),
            waiting: config.transfer_waiting,
            patience: config.transfer_patience,
        }
    }

    /// Takes an end in. The joint comes once the other end is there.
    fn enter(
        &self,
        key: Key,
        side: Side,
        kept: Option<TransferPosition>,
    ) -> oneshot::Receiver<Joint> {
        let (joint, comes) = oneshot::channel();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| match slot {
            Slot::Waits { joint, .. } => !joint.is_closed(),
            Slot::Joined(over) => !over.is_cancelled(),
        });
        match slots.remove(&key) {
            Some(Slot::Waits { side: other, kept: others, joint: waiting }) if other != side => {
                let over = CancellationToken::new();
                let (to_one, from_other) = mpsc::channel(self.waiting);
                let (to_other, from_one) = mpsc::channel(self.waiting);
                // Only a target has kept anything.
                let kept = if side == Side::Target { kept } else { others };
                let mine = Joint { to: to_other, from: from_other, kept, over: over.clone() };
                let theirs = Joint { to: to_one, from: from_one, kept, over: over.clone() };
                if waiting.send(theirs).is_ok() {
                    let _ = joint.send(mine);
                    slots.insert(key, Slot::Joined(over));
                } else {
                    // It left in this moment: this one waits for the next.
                    slots.insert(key, Slot::Waits { side, kept, joint });
                }
            }
            before => {
                // Of two streams for one end the later stays.
                if let Some(Slot::Joined(over)) = before {
                    over.cancel();
                }
                slots.insert(key, Slot::Waits { side, kept, joint });
            }
        }
        comes
    }
}

/// One end's stream.
pub(super) struct End {
    service: Arc<Service>,
    shard: String,
    namespace: NamespaceName,
    transfer: Transfer,
    inbound: Streaming<TransferRequest>,
    joint: Step,
    /// Read from this end and not taken by the other yet.
    pending: Option<Heard>,
    /// The result passed: what follows is the regular end.
    settled: bool,
    /// This end has said all.
    silent: bool,
    /// Of the streams that there may be; free again when this one ends.
    room: Option<OwnedSemaphorePermit>,
    look: Interval,
}

enum Step {
    Waits(oneshot::Receiver<Joint>, Instant),
    Joined(Joint),
    Over,
}

impl Drop for End {
    fn drop(&mut self) {
        // The slot is free for whoever comes next; the other end learns it by its channel.
        if let Step::Joined(joint) = &self.joint {
            joint.over.cancel();
        }
    }
}

impl End {
    /// Takes a stream in whose first message was `open`.
    pub(super) fn open(
        service: &Arc<Service>,
        relay: &Relay,
        open: TransferOpen,
        inbound: Streaming<TransferRequest>,
    ) -> Result<Self, Failure> {
        let (namespace, transfer) = convert::moves::opened(&open)
            .ok_or_else(|| Failure::invalid_field("open", "MALFORMED", "names no transfer"))?;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let key = (transfer.move_id.clone(), transfer.part, transfer.attempt);
        let side = transfer.side;
        let mut end = Self {
            service: service.clone(),
            shard: open.shard,
            namespace,
            transfer,
            inbound,
            joint: Step::Over,
            pending: None,
            settled: false,
            silent: false,
            room: None,
            look,
        };
        end.check()?;
        end.room = Some(relay.streams.clone().try_acquire_owned().map_err(|_| {
            Failure::exhausted("transfers", "the router hands on as many transfers as it may")
                .with_retry_after(AGAIN_AFTER)
        })?);
        let comes = relay.enter(key, side, open.kept);
        end.joint = Step::Waits(comes, Instant::now() + relay.patience);
        Ok(end)
    }

    /// What the agent hears.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<TransferResponse, Status>> + Send {
        stream::unfold(self, async |mut end: Self| {
            let heard = end.next().await.transpose()?;
            if heard.is_err() {
                end.joint = match std::mem::replace(&mut end.joint, Step::Over) {
                    Step::Joined(joint) => {
                        joint.over.cancel();
                        Step::Over
                    }
                    _ => Step::Over,
                };
            }
            let heard = heard.map(|message| TransferResponse { message: Some(message) });
            Some((heard.map_err(Status::from), end))
        })
    }

    fn check(&self) -> Result<(), Failure> {
        let leader = self.service.leadership.leader();
        let leader = leader.map_err(crate::service::Error::from)?;
        if leader.wants_transfer(&self.shard, self.namespace.as_str(), &self.transfer) {
            return Ok(());
        }
        let why = "this is not the part and attempt of the move as it is now";
        Err(Failure::new(Kind::Precondition, "TRANSFER_NOT_WANTED", why))
    }

    async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        loop {
            match &mut self.joint {
                Step::Over => return Ok(None),
                Step::Waits(comes, until) => {
                    let until = *until;
                    tokio::select! {
                        joint = comes => match joint {
                            Ok(joint) => {
                                let kept = joint.kept;
                                self.joint = Step::Joined(joint);
                                return Ok(Some(Heard::Joined(TransferJoined { kept })));
                            }
                            Err(_) => return Err(away("another stream took this one's place")),
                        },
                        () = tokio::time::sleep_until(until) => {
                            return Err(away("the other end did not come"));
                        }
                        _ = self.look.tick() => {}
                    }
                    self.check()?;
                }
                Step::Joined(joint) => {
                    let mut looks = false;
                    tokio::select! {
                        biased;
                        heard = joint.from.recv() => match heard {
                            Some(heard) => {
                                self.settled |= matches!(heard, Heard::Result(_));
                                return Ok(Some(heard));
                            }
                            None if self.settled => return Ok(None),
                            None => return Err(away("the other end left")),
                        },
                        () = joint.over.cancelled() => {
                            // What it said last comes first, if anything does.
                            if let Ok(heard) = joint.from.try_recv() {
                                self.settled |= matches!(heard, Heard::Result(_));
                                return Ok(Some(heard));
                            }
                            if self.settled { return Ok(None) }
                            return Err(away("the other end left"));
                        }
                        slot = joint.to.reserve(), if self.pending.is_some() => match slot {
                            Ok(slot) => {
                                let said = self.pending.take().expect("it was looked at");
                                self.settled |= matches!(said, Heard::Result(_));
                                slot.send(said);
                            }
                            Err(_) if self.settled => return Ok(None),
                            Err(_) => return Err(away("the other end left")),
                        },
                        said = self.inbound.message(), if self.pending.is_none() && !self.silent => {
                            match said {
                                Ok(Some(said)) => self.pending = heard(said, self.transfer.side)?,
                                Ok(None) => self.silent = true,
                                // It is gone; so is what it waits for.
                                Err(_) => return Ok(None),
                            }
                        }
                        _ = self.look.tick() => looks = true,
                    }
                    if self.silent && self.settled && self.pending.is_none() {
                        return Ok(None);
                    }
                    if looks && !self.settled {
                        self.check()?;
                    }
                }
            }
        }
    }
}

/// What the other end hears of what one said; each says only what is its part.
fn heard(said: TransferRequest, side: Side) -> Result<Option<Heard>, Failure> {
    let heard = match (said.message, side) {
        (Some(Said::Begin(begin)), Side::Source) => Heard::Begin(begin),
        (Some(Said::Table(table)), Side::Source) => Heard::Table(table),
        (Some(Said::Chunk(chunk)), Side::Source) => Heard::Chunk(chunk),
        (Some(Said::Trailer(trailer)), Side::Source) => Heard::Trailer(trailer),
        (Some(Said::Ack(ack)), Side::Target) => Heard::Ack(ack),
        (Some(Said::Result(result)), Side::Target) => Heard::Result(result),
        // A message of a later version.
        (None, _) => return Ok(None),
        _ => {
            let why = "this is not for this end of a transfer to say";
            return Err(Failure::invalid_field("message", "UNEXPECTED", why));
        }
    };
    Ok(Some(heard))
}

fn away(why: &str) -> Failure {
    Failure::unavailable(why, AGAIN_AFTER).with_reason("PEER_AWAY")
}
