//! What a pass does of a move: what is noted in the transactions that stop, seal and start a
//! namespace, and what is seen of it for the router.

use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    ids::NamespaceName,
    moves::{Drain, Seen, Side, Task},
    roles::Role,
};
use airfleet_proto::{agent::v1 as wire, common::v1 as common};
use airfleet_transfer::{Catalog, Scope, cursor, drain, removal, stranded};
use tokio::time::Instant;

use super::{
    pass::{Memory, Outcome, Pass},
    problem::{Problem, limited},
};
use crate::{
    airflow::metadata::{self, Transaction},
    moves::{End, Happened, Mover, Notes, Transfer, notes, wire as convert},
};

/// Time for a statement that goes through a namespace's runs.
const LONG_STATEMENT: Duration = Duration::from_secs(25);

/// Time for removing rows in one pass: a newer order does not wait for longer.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// Runs that are removed in one transaction.
const BATCH: u32 = 500;

/// DAGs of which evidence can tell.
const DAGS_MAX: usize = 20_000;

/// Inserted runs of which evidence can tell.
const INSERTED_MAX: usize = 10_000;

/// What was seen of a move.
#[derive(Debug)]
pub(super) struct SeenOfMove {
    dag_ids: Vec<String>,
    drain: Option<Drain>,
    notes: Notes,
}

impl SeenOfMove {
    /// What somebody has to hear of.
    pub(super) fn happened(&self) -> &[Happened] {
        &self.notes.happened
    }
}

/// A move that an order names, with what is needed to take part in it.
pub(super) struct Moving<'a> {
    task: &'a Task,
    name: &'a NamespaceName,
    place: Seen,
    mover: &'a Mover,
    catalog: Arc<Catalog>,
    scope: Scope,
}

impl Memory {
    /// What two looks prove, as far as this one and those before it go. A fence that stays closed
    /// keeps what was proved once: what is sealed need not be proved again.
    fn confirm(&mut self, look: drain::Look) -> Drain {
        if !look.is_quiet() {
            self.quiet = None;
            return look.drain;
        }
        let earlier = self.quiet.get_or_insert(look);
        Drain { confirmed: look.confirms(earlier), ..look.drain }
    }
}

impl Pass<'_> {
    /// The move that the order names; none where it names none.
    pub(super) async fn moving(&self) -> Result<Option<Moving<'_>>, Problem> {
        let (Some(task), Some(mover)) = (self.order.task(), &self.shard.mover) else {
            return Ok(None);
        };
        let catalog = mover.catalog().await?;
        let scope = self.scope()?;
        let place = self.order.place();
        Ok(Some(Moving { task, name: self.name, place, mover, catalog, scope }))
    }

    pub(super) fn scope(&self) -> Result<Scope, Problem> {
        Ok(Scope::new(self.name.clone(), self.order.prefixes.clone())?)
    }

    /// Whether nothing of the namespace can change anything any more. In a move, what only waits
    /// for a worker is set back as it is sealed.
    pub(super) async fn is_drained(&self, memory: &mut Memory) -> Result<bool, Problem> {
        let Some(mover) = &self.shard.mover else { return Ok(false) };
        let mut look = self.look_at_tasks(mover).await?;
        if self.order.task().is_some() {
            look.drain.queued = 0;
        }
        Ok(memory.confirm(look).confirmed)
    }

    /// Looks at what runs, and holds what a scheduler might still end once nothing does.
    async fn look_at_tasks(&self, mover: &Mover) -> Result<drain::Look, Problem> {
        let scope = self.scope()?;
        limited(async {
            let catalog = mover.catalog().await?;
            let look = drain::look(mover.database(), &catalog, &scope).await?;
            if look.drain.is_idle() && look.decided > 0 {
                let mut tx = mover.metadata().begin().await?;
                drain::hold(tx.connection(), &catalog, &scope, self.order.place()).await?;
                tx.commit().await?;
            }
            Ok::<_, Problem>(look)
        })
        .await
    }

    /// What is to be said of the move, once a pass is over.
    pub(super) async fn see(
        &self,
        memory: &mut Memory,
        outcome: &Outcome,
    ) -> Result<Option<SeenOfMove>, Problem> {
        let Some(moving) = self.moving().await? else { return Ok(None) };
        let reached = outcome.sight.as_ref().and_then(|sight| sight.reached);
        let drains = self.order.effective().role == Role::Quiesced
            && reached.is_some_and(|(role, ..)| role == Role::Quiesced);
        let drain = if drains {
            let look = self.look_at_tasks(moving.mover).await?;
            Some(memory.confirm(look))
        } else {
            None
        };
        let is_retired = reached.is_some_and(|(role, generation, _)| {
            role == Role::Retired && generation == self.order.effective().generation.0
        });
        if moving.task.side == Side::Source && is_retired {
            limited(moving.look_for_stranded()).await?;
        }
        let prefixes = &self.order.prefixes;
        let reading = limited(async {
            let mut tx = moving.mover.metadata().begin().await?;
            let notes = notes::of(&mut tx, self.name, &moving.task.move_id).await?;
            let dag_ids = crate::airflow::fence::gate::listed(&mut tx, prefixes, DAGS_MAX + 1);
            let dag_ids = dag_ids.await?;
            tx.rollback().await;
            Ok::<_, metadata::Error>((notes, dag_ids))
        });
        let (notes, dag_ids) = reading.await?;
        if dag_ids.len() > DAGS_MAX {
            let message = format!("the namespace has more than {DAGS_MAX} DAGs; split it");
            return Err(Problem::lasting("TOO_MANY_DAGS", message));
        }
        Ok(Some(SeenOfMove { dag_ids, drain, notes }))
    }

    /// What is said of the move.
    pub(super) fn evidence(
        &self,
        outcome: &Outcome,
        obstacle: Option<wire::Obstacle>,
        transfer: Option<&Transfer>,
    ) -> Option<wire::MoveEvidence> {
        let (task, seen) = (self.order.task()?, outcome.seen_of_move.as_ref()?);
        let SeenOfMove { dag_ids, drain, notes } = seen;
        let reached = outcome.sight.as_ref().and_then(|sight| sight.reached);
        let (role, generation) = match reached {
            Some((role, generation, _)) => (common::Role::from(role), generation),
            None => (common::Role::Unspecified, 0),
        };
        let progress = transfer.map(|transfer| (transfer.key(), transfer.progress()));
        let taken = progress.as_ref().and_then(|(key, progress)| match &progress.end {
            Some(End::Done { marks, .. }) if key.side == Side::Target && !marks.is_empty() => {
                Some(marks)
            }
            _ => None,
        });
        let marks = match task.side {
            Side::Source => notes.marks.as_ref(),
            Side::Target => taken,
        };
        let all = |marks: &Vec<_>| wire::Marks { marks: convert::marks(marks) };
        let inserted = notes.inserted.iter().take(INSERTED_MAX);
        Some(wire::MoveEvidence {
            namespace: self.name.to_string(),
            move_id: task.move_id.to_string(),
            revision: self.order.revision.0,
            attempt: i32::try_from(task.attempt).unwrap_or(i32::MAX),
            role: role.into(),
            generation,
            obstacle,
            dag_ids: Some(wire::DagIds { dag_ids: dag_ids.clone() }),
            drain: drain.map(|drain| wire::Drain {
                running: drain.running,
                queued: drain.queued,
                deferred: drain.deferred,
                confirmed: drain.confirmed,
            }),
            marks: marks.map(all),
            transfer: progress.as_ref().map(|(key, progress)| progress.wire(key)),
            stop_time: notes.stopped_at_us.and_then(convert::time),
            start_time: notes.started_at_us.and_then(convert::time),
            inserted_runs: inserted
                .map(|(dag_id, at_us)| wire::InsertedRun {
                    dag_id: dag_id.clone(),
                    logical_date: convert::time(*at_us),
                })
                .collect(),
            start_marks: notes.start_marks.as_ref().map(all),
        })
    }

    /// Removes rows of a namespace that is to be absent, for a while. Says whether none is left, or
    /// none that this agent can remove.
    pub(super) async fn remove_rows(&self, outcome: &mut Outcome) -> Result<bool, Problem> {
        let Some(mover) = &self.shard.mover else { return Ok(true) };
        // An order of a move says that the move is given up: what is kept stays until it has ended.
        if self.order.task().is_some() {
            return Ok(true);
        }
        let catalog = mover.catalog().await?;
        let scope = self.scope()?;
        let until = Instant::now() + REMOVAL_LIMIT;
        let mut rows = 0;
        let kept = loop {
            let place = self.order.place();
            let some = removal::remove_some(mover.database(), &catalog, &scope, place, BATCH);
            match some.await {
                Ok(removed) => {
                    rows += removed.rows;
                    if removed.is_complete {
                        break None;
                    }
                }
                Err(error)
                    if matches!(error.code(), "SCHEMA_NOT_UNDERSTOOD" | "DATABASE_NOT_ALLOWED") =>
                {
                    break Some(error);
                }
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        };
        if let Some(why) = kept {
            let message = format!("its rows stay: {}", crate::words::chain(&why));
            outcome.events.push(("ROWS_KEPT", message, true));
        } else if rows > 0 {
            let message = "its rows were removed from the metadata database".to_owned();
            outcome.events.push(("ROWS_REMOVED", message, false));
        }
        Ok(true)
    }

    /// Forgets what is kept of moves of the namespace, once no order names one any more. Answers what
    /// somebody has to hear of, for a pass that was interrupted may not have told it.
    pub(super) async fn tidy(&self) -> Result<Vec<Happened>, Problem> {
        let Some(mover) = &self.shard.mover else { return Ok(Vec::new()) };
        let mut tx = mover.metadata().begin().await?;
        let Some(noted) = notes::last(&mut tx, self.name).await? else {
            tx.rollback().await;
            return Ok(Vec::new());
        };
        mover.forget(&noted.move_id).await?;
        notes::forget(&mut tx, self.name).await?;
        tx.commit().await?;
        Ok(noted.happened)
    }
}

impl Moving<'_> {
    /// In the transaction that closed the fence: until when runs were made.
    pub(super) async fn note_stop(&self, tx: &mut Transaction) -> Result<(), Problem> {
        if self.task.side != Side::Source {
            return Ok(());
        }
        let mut notes = self.notes(tx).await?;
        if notes.stopped_at_us.is_none() {
            notes.stopped_at_us = Some(self.now_us(tx).await?);
            self.write(tx, &notes).await?;
        }
        Ok(())
    }

    /// In the transaction that seals: what only waited for a worker is set back, and how far each
    /// DAG came is noted.
    pub(super) async fn seal(&self, tx: &mut Transaction) -> Result<(), Problem> {
        let mut notes = self.notes(tx).await?;
        self.take_time(tx).await?;
        let (catalog, scope) = (&self.catalog, &self.scope);
        let reset = drain::reset(tx.connection(), catalog, scope, self.place).await;
        let reset = reset?;
        // A worker may have taken one up in between: what is left is not sealed then.
        let left = drain::look_in(tx.connection(), catalog, scope).await?;
        if !left.drain.is_idle() {
            let Drain { running, queued, deferred, .. } = left.drain;
            return Err(airfleet_transfer::Error::NotDrained { running, queued, deferred }.into());
        }
        let marks = cursor::marks(tx.connection(), catalog, scope).await?;
        tracing::info!(namespace = %self.name, reset, "sealed");
        notes.marks = Some(marks);
        notes.newest_run = Some(stranded::newest_run(tx.connection(), catalog, scope).await?);
        self.write(tx, &notes).await
    }

    /// In the transaction that lifts the fence: runs that came due meanwhile are made up for, and
    /// how far each DAG came is noted.
    pub(super) async fn start(&self, tx: &mut Transaction) -> Result<(), Problem> {
        let mut notes = self.notes(tx).await?;
        self.take_time(tx).await?;
        let now_us = self.now_us(tx).await?;
        let (catalog, scope) = (&self.catalog, &self.scope);
        // Of a source that was lost nobody knows when it stopped.
        if let Some(stopped_at_us) = notes.stopped_at_us {
            let made = cursor::make_up(tx.connection(), catalog, scope, stopped_at_us, now_us);
            let made = made.await?;
            // Told once this is committed, by whichever agent reads it.
            if !made.uncertain.is_empty() {
                notes.tell_uncertain(&made.uncertain);
            }
            let inserted = made.inserted.into_iter();
            notes.inserted = inserted.map(|run| (run.dag_id, run.logical_date_us)).collect();
        }
        let marks = cursor::marks(tx.connection(), catalog, scope).await?;
        notes.start_marks = Some(marks);
        notes.started_at_us = Some(self.now_us(tx).await?);
        self.write(tx, &notes).await
    }

    /// A former owner looks for runs that came after its seal, as long as the order names the move:
    /// Airflow takes triggers for as long as it has rows of a DAG. What comes later is never told.
    async fn look_for_stranded(&self) -> Result<(), Problem> {
        let mut tx = self.mover.metadata().begin().await?;
        let mut notes = self.notes(&mut tx).await?;
        // A source that was lost was never sealed, and one of an earlier version did not note it.
        let found = match notes.newest_run {
            None => None,
            Some(newest) => {
                let (catalog, scope) = (&self.catalog, &self.scope);
                stranded::look(tx.connection(), catalog, scope, self.place, newest).await?
            }
        };
        let Some(found) = found else {
            tx.rollback().await;
            return Ok(());
        };
        notes.tell_stranded(&found, &self.task.peer);
        self.write(&mut tx, &notes).await?;
        Ok(tx.commit().await?)
    }

    async fn notes(&self, tx: &mut Transaction) -> Result<Notes, Problem> {
        Ok(notes::to_change(tx, self.name, &self.task.move_id).await?)
    }

    async fn write(&self, tx: &mut Transaction, noted: &Notes) -> Result<(), Problem> {
        Ok(notes::write(tx, self.name, noted).await?)
    }

    async fn now_us(&self, tx: &mut Transaction) -> Result<i64, Problem> {
        Ok(notes::now_us(tx).await?)
    }

    /// What follows may go through all runs of the namespace.
    async fn take_time(&self, tx: &mut Transaction) -> Result<(), Problem> {
        let limit = format!("SET LOCAL statement_timeout = {}", LONG_STATEMENT.as_millis());
        Ok(tx.batch("allow more time", &limit).await?)
    }
}
