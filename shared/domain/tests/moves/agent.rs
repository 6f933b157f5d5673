//! A shard's agent: takes orders in, and brings its shard to them one durable write at a time.
//!
//! Several processes of one agent may live at once: one that was replaced and does not know it yet
//! goes on with the order that it had. What keeps it from doing harm is the record in the shard's
//! database, which every write compares in its own transaction.

use airfleet_domain::{
    moves::{Drain, Evidence, Order, Part, Seen, Side, Transfer, TransferState},
    roles::{Observed, Role},
};

use crate::{
    shard::{DAGS, Dag, Database, Receipt, Rows, Run},
    world::{Mutation, Tally},
};

/// One process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agent {
    /// Replaced by another; hears of nothing any more.
    pub(crate) zombie: bool,
    order: Option<Order>,
    /// Heartbeats of the scheduler when nothing was found for the first time.
    idle_at_beat: Option<u64>,
    /// Rows that came in and are not committed.
    received: Option<Parcel>,
}

/// Rows on their way.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) receipt: Receipt,
    pub(crate) rows: Rows,
}

impl Agent {
    /// Takes an order in, if it is not behind what the shard has seen. Answers whether it was.
    pub(crate) fn hear(&mut self, order: Order, db: &mut Database, mutation: Mutation) -> bool {
        let seen = db.record.seen;
        let admitted = match mutation {
            Mutation::ObeyLateOrders => true,
            Mutation::OrderByGeneration => order.desired.generation >= seen.generation,
            _ => order.follows(seen),
        };
        if !admitted {
            return false;
        }
        if self.order.as_ref() == Some(&order) {
            return true;
        }
        // Seen first, obeyed after: a crash in between leaves a shard that does nothing new.
        db.record.seen = order.place();
        db.record.move_id = order.task.as_ref().map(|task| task.move_id.clone());
        self.idle_at_beat = None;
        self.order = Some(order);
        true
    }

    /// Whether it still speaks for its shard.
    fn holds(order: &Order, db: &Database, mutation: Mutation) -> bool {
        mutation == Mutation::EffectsUnguarded || db.record.seen == order.place()
    }

    /// Rows came in from the other end.
    pub(crate) fn receive(&mut self, parcel: Parcel) {
        self.received = Some(parcel);
    }

    /// One step towards the order: one transaction, or one change of files.
    pub(crate) fn act(
        &mut self,
        db: &mut Database,
        beats: u64,
        now_us: i64,
        mutation: Mutation,
        tally: &mut Tally,
    ) {
        let Some(order) = self.order.clone() else { return };
        if !Self::holds(&order, db, mutation) {
            // Somebody newer has taken over.
            if !(mutation == Mutation::ImportUnguarded && self.received.is_some()) {
                self.order = None;
                return;
            }
        }
        if self.import(&order, db, mutation) {
            return;
        }
        let role = order.desired.role;
        let done = Some((role, order.desired.generation));
        match role {
            Role::Staged | Role::Absent | Role::Retired if db.record.unfenced => {
                db.record.unfenced = false;
                db.record.stopped_at_us = Some(now_us);
                db.record.reached = None;
            }
            Role::Staged if !db.files => db.files = true,
            Role::Staged if db.dags.values().any(|dag| dag.stale) || db.dags.is_empty() => {
                parse(db);
            }
            Role::Absent | Role::Retired if db.files => db.files = false,
            Role::Absent if !db.dags.is_empty() || !db.runs.is_empty() => {
                db.dags.clear();
                db.runs.clear();
            }
            Role::Retired if db.dags.values().any(|dag| !dag.stale) => {
                db.dags.values_mut().for_each(|dag| dag.stale = true);
            }
            Role::Staged | Role::Absent | Role::Retired => db.record.reached = done,
            Role::Active => Self::activate(&order, db, now_us, mutation, tally),
            Role::Quiesced | Role::Sealed if db.record.unfenced => {
                db.record.unfenced = false;
                db.record.stopped_at_us = Some(now_us);
                db.record.drained = false;
                db.record.marks = None;
            }
            Role::Quiesced => {
                db.record.reached = done;
                self.drain(db, beats, mutation);
            }
            Role::Sealed if !db.record.drained => self.drain(db, beats, mutation),
            Role::Sealed if db.record.reached != done => {
                // A generation that only goes on says nothing new of where the source came to.
                if db.record.marks.is_none() {
                    db.record.marks = Some(db.marks());
                }
                db.record.reached = done;
            }
            Role::Sealed => {}
        }
    }

    fn activate(
        order: &Order,
        db: &mut Database,
        now_us: i64,
        mutation: Mutation,
        tally: &mut Tally,
    ) {
        let done = Some((Role::Active, order.desired.generation));
        if !db.files {
            db.files = true;
        } else if db.dags.values().any(|dag| dag.stale) || db.dags.is_empty() {
            parse(db);
        } else if db.record.reached != done || !db.record.unfenced {
            // In the transaction that lifts the fence: later, more would have come due.
            if !db.record.unfenced && mutation != Mutation::NothingMadeUp {
                tally.made_up += db.make_up(now_us);
            }
            if mutation == Mutation::ForgetPauses {
                db.dags.values_mut().for_each(|dag| dag.paused = false);
            }
            db.record.unfenced = true;
            db.record.stopped_at_us = None;
            db.record.drained = false;
            db.record.marks = None;
            db.record.receipt = None;
            db.record.reached = done;
        }
    }

    /// Looks whether something runs: what the scheduler had picked shows after its next beat.
    fn drain(&mut self, db: &mut Database, beats: u64, mutation: Mutation) {
        if db.running() > 0 {
            self.idle_at_beat = None;
            return;
        }
        match self.idle_at_beat {
            _ if mutation == Mutation::LookOnce => db.record.drained = true,
            None => self.idle_at_beat = Some(beats),
            Some(first) if beats > first => db.record.drained = true,
            Some(_) => {}
        }
    }

    /// Commits what came in, in one transaction that holds the record. Answers whether it did.
    fn import(&mut self, order: &Order, db: &mut Database, mutation: Mutation) -> bool {
        let Some(Parcel { receipt, rows }) = self.received.take() else { return false };
        let unguarded = matches!(mutation, Mutation::ImportUnguarded | Mutation::EffectsUnguarded);
        let wanted = unguarded
            || (order.desired.role == Role::Staged
                && !db.record.unfenced
                && order.task.as_ref().is_some_and(|task| {
                    task.side == Side::Target
                        && task.move_id == receipt.move_id
                        && task.attempt == receipt.attempt
                        && task.transfer.is_some_and(|transfer| transfer.part == receipt.part)
                }));
        // What was committed has been praised: the same attempt is not taken in again, lest it come
        // out otherwise.
        let known = db.record.receipt.as_ref() == Some(&receipt);
        if !wanted || (known && mutation != Mutation::ImportTwice) {
            return false;
        }
        for (name, dag) in &rows.dags {
            let known = db.dags.entry(name).or_insert_with(|| Dag { stale: true, ..dag.clone() });
            known.paused = dag.paused;
        }
        if receipt.part == Part::Rest {
            db.runs = rows.runs;
            db.record.stopped_at_us = rows.stopped_at_us;
            db.record.marks = Some(db.marks());
        }
        db.record.receipt = Some(receipt);
        true
    }

    /// What it sends to the other end, if it has to.
    pub(crate) fn send(&self, db: &Database) -> Option<Parcel> {
        self.sends(db).map(|receipt| Parcel { receipt, rows: db.rows() })
    }

    fn sends(&self, db: &Database) -> Option<Receipt> {
        let order = self.order.as_ref().filter(|order| db.record.seen == order.place())?;
        let task = order.task.as_ref().filter(|task| task.side == Side::Source)?;
        let transfer = task.transfer?;
        if transfer.part == Part::Rest && db.record.reached.is_none_or(|(r, _)| r != Role::Sealed) {
            return None;
        }
        let (move_id, part, attempt) = (task.move_id.clone(), transfer.part, task.attempt);
        Some(Receipt { move_id, part, attempt })
    }

    /// What it tells the router of a move.
    pub(crate) fn evidence(&self, db: &Database) -> Option<Evidence> {
        let order = self.order.as_ref().filter(|order| db.record.seen == order.place())?;
        let task = order.task.as_ref();
        let move_id = match task {
            Some(task) => task.move_id.clone(),
            None => "none".parse().expect("a valid id"),
        };
        let done = |part, attempt| Transfer {
            part,
            attempt,
            state: TransferState::Done,
            // What goes ahead is not compared: the source runs on.
            tables: if part == Part::Rest { db.tables().into() } else { [].into() },
            total_bytes: 0,
            running: [].into(),
        };
        let transfer = match task {
            Some(task) if task.side == Side::Source => {
                self.send(db).map(|parcel| done(parcel.receipt.part, parcel.receipt.attempt))
            }
            _ => db
                .record
                .receipt
                .as_ref()
                .filter(|receipt| receipt.move_id == move_id)
                .map(|receipt| done(receipt.part, receipt.attempt)),
        };
        let dags = db.dags.iter().filter(|(_, dag)| !dag.stale).map(|(name, _)| (*name).into());
        Some(Evidence {
            move_id,
            revision: order.revision,
            attempt: task.map_or(1, |task| task.attempt),
            observed: db.record.reached.map(|(role, generation)| Observed { role, generation }),
            obstacle: None,
            dag_ids: Some(dags.collect()),
            drain: Some(Drain {
                running: db.running(),
                confirmed: db.record.drained,
                ..Drain::default()
            }),
            marks: db.record.marks.clone().map(Into::into),
            transfer,
            stopped_at_us: db.record.stopped_at_us,
            started_at_us: None,
            start_marks: None,
            inserted: [].into(),
        })
    }

    /// The last order that it obeyed or began to.
    pub(crate) fn place(&self) -> Option<Seen> {
        self.order.as_ref().map(Order::place)
    }
}

/// The DAG processor finds the files.
fn parse(db: &mut Database) {
    for (name, catchup, paused) in DAGS {
        let new = Dag { catchup, paused, stale: false };
        db.dags.entry(name).or_insert(new).stale = false;
    }
}

/// A fresh run of a shard that owns the namespace from the start.
pub(crate) fn owner(db: &mut Database, order: &Order) {
    db.files = true;
    parse(db);
    db.record.seen = order.place();
    db.record.unfenced = true;
    db.record.reached = Some((Role::Active, order.desired.generation));
    debug_assert!(db.runs.values().all(|run| *run == Run::Queued));
}
