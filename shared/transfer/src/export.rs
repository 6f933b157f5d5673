//! A namespace's rows as a stream of bounded pieces, from one snapshot of the source.
//!
//! A task of its own reads; whoever holds the [`Export`] pulls. At most [`WAITING`] pieces wait
//! between the two, and a chunk is cut at 256 KiB, so memory stays the same whatever the namespace
//! holds. Dropping the export ends the task and its connection.
//!
//! # Going on after a break
//! The target says which chunk it kept last. The source reads again from the beginning, without
//! sending, up to there, and compares digests: under seal nothing changes, and rows come in the
//! order in which they lie, so it goes on behind that chunk. Where the digests differ it begins
//! from the start. Reading costs a tenth of sending and taking in, and no place has to be kept.
//!
//! # Beyond what went ahead
//! Runs that have ended go ahead while the source runs. Under seal every row is read, and what
//! remains of each run's sum says whether it changed ([`Ahead`]): rows of runs that did not go ahead
//! are sent as they are read, those of runs that changed behind them. Everything is sent where DAGs
//! themselves changed.

use std::sync::Arc;

use airfleet_domain::moves::{History, Mark, Part, TableSum};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, future::ready};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    Catalog, Database, Error,
    ahead::{Ahead, CHANGED_MAX, NameAt, RunName},
    catalog::{Runs, Table, rules::Role},
    copy::{CHUNK_MAX, Chunk, Field, Position, ROW_MAX, Rows, Sum, Sums},
    cursor,
    database::{Tx, query},
    import::read_back,
    scope::Scope,
};

/// Pieces that wait to be pulled.
const WAITING: usize = 2;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOptions {
    /// Which part.
    pub part: Part,
    /// How much of what happened goes along, with the part REST.
    pub history: History,
    /// What the target kept of this attempt.
    pub kept: Option<Position>,
    /// What went ahead, with the part REST; none where everything is to be sent.
    pub ahead: Option<Arc<Ahead>>,
}

/// What the target hears, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// First, once: where it goes on; none where it begins from the start.
    Begin {
        /// What was kept, if its digest is the same.
        after: Option<Position>,
        /// Whether rows that went ahead, and are as they were, do not come again.
        keeps_ahead: bool,
    },
    /// Rows of this table follow.
    Table {
        /// The table.
        table: String,
        /// Its columns, in the order in which each row has them.
        fields: Vec<Field>,
    },
    /// Rows.
    Chunk(Chunk),
    /// Last, once.
    Trailer(Trailer),
}

/// That was all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailer {
    /// The last chunk; none where there was none.
    pub last: Option<Position>,
    /// Every table of the namespace that went along, as the target has to have it, sorted by name.
    pub tables: Vec<TableSum>,
    /// Up to where each DAG came, sorted by dag_id. With the part REST only.
    pub marks: Vec<Mark>,
    /// Runs that went ahead and came again, since they changed; sorted.
    pub changed: Vec<RunName>,
}

/// Rows on their way.
#[derive(Debug)]
pub struct Export {
    pieces: mpsc::Receiver<Result<Piece, Error>>,
    ahead: oneshot::Receiver<Ahead>,
    reader: JoinHandle<()>,
}

impl Drop for Export {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Export {
    /// Begins to read. Everything is seen as it is at this moment.
    pub async fn begin(
        database: &Database,
        catalog: &Catalog,
        scope: &Scope,
        options: ExportOptions,
    ) -> Result<Self, Error> {
        catalog.check()?;
        let mut tx = database.snapshot().await?;
        // The snapshot is taken by the first statement.
        let _: (bool,) = tx.row("take a snapshot", "SELECT true").await?;
        // A shard that took the namespace in not long ago may not have counted its rows yet.
        tx.without_nested_loops().await?;
        let (sender, pieces) = mpsc::channel(WAITING);
        let (tell, ahead) = oneshot::channel();
        let mut reading = Reading {
            tx,
            catalog: catalog.clone(),
            scope: scope.clone(),
            options,
            sender,
            tell: Some(tell),
        };
        let reader = tokio::spawn(async move {
            if let Err(error) = reading.run().await {
                // Nobody listens any more where this fails.
                let _ = reading.sender.send(Err(error)).await;
            }
        });
        Ok(Self { pieces, ahead, reader })
    }

    /// What was read of a part that goes ahead, once its trailer came: for the part REST. None where
    /// it is too much to be remembered.
    pub fn ahead(&mut self) -> Option<Ahead> {
        self.ahead.try_recv().ok()
    }

    /// The next piece; none after the trailer.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        self.pieces.recv().await.transpose()
    }
}

/// The tables of a part, in the order in which they travel.
pub(crate) fn tables_of(catalog: &Catalog, part: Part) -> impl Iterator<Item = &Table> {
    catalog.tables.iter().filter(move |table| {
        part == Part::Rest || table.role != Role::History || table.names_runs()
    })
}

/// Of which runs rows of a table travel with a part.
pub(crate) fn runs_of(table: &Table, part: Part, history: History) -> Runs<'static> {
    match (part, history) {
        (Part::Ahead, _) if !table.names_runs() => Runs::All,
        (Part::Ahead, History::Full) => Runs::Ended,
        // What is needed is little, and known under seal.
        (Part::Ahead, History::Minimal) => Runs::None,
        (Part::Rest, History::Full) => Runs::All,
        (Part::Rest, History::Minimal) => Runs::Needed,
    }
}

/// Whether both ends must have the same of a table once a part was taken in. What is shared with
/// others, and what a live source still changes, need not be.
pub(crate) fn is_compared(table: &Table, part: Part) -> bool {
    match table.role {
        Role::Definition | Role::History => true,
        Role::Anchor => part == Part::Rest,
        Role::Shared | Role::Found | Role::Stays(_) => false,
    }
}

struct Reading {
    tx: Tx,
    catalog: Catalog,
    scope: Scope,
    options: ExportOptions,
    sender: mpsc::Sender<Result<Piece, Error>>,
    tell: Option<oneshot::Sender<Ahead>>,
}

/// Where a pass over all rows stands.
struct Pass {
    /// Chunks up to this one were kept; none where everything is sent.
    skip: Option<Position>,
    at: Position,
    sums: Sums,
    runs: Known,
    /// Runs that changed since they went ahead.
    changed: Vec<RunName>,
}

/// What is known of runs that go ahead, or went.
enum Known {
    /// Nothing: all rows are sent.
    Nothing,
    /// They go ahead now, and are noted.
    Going(Ahead),
    /// They went, and are taken away as they are read; what remains has changed.
    Gone(Ahead),
    /// They are sent once more, and were read before.
    Again,
}

impl Known {
    /// A row was read. Says whether it is sent.
    fn is_sent(&mut self, name: Option<NameAt>, row: &[u8], hash: u128) -> bool {
        let Some(name) = name else { return true };
        match self {
            Known::Nothing | Known::Again => true,
            Known::Going(ahead) => {
                if !ahead.add(name, row, hash) {
                    *self = Known::Nothing;
                }
                true
            }
            Known::Gone(ahead) => !ahead.take(name, row, hash),
        }
    }
}

impl Reading {
    async fn run(&mut self) -> Result<(), Error> {
        let ahead = self.still_ahead().await?;
        let kept = self.options.kept.filter(|kept| kept.sequence > 0);
        let mut done = None;
        if kept.is_some() {
            done = self.pass(kept, ahead.as_deref()).await?;
        }
        if done.is_none() {
            done = self.pass(None, ahead.as_deref()).await?;
        }
        let Some(Pass { sums, at: last, runs, changed, .. }) = done else {
            return Err(Error::Interrupted("nothing was read"));
        };
        let marks = match self.options.part {
            Part::Ahead => Vec::new(),
            Part::Rest => cursor::marks_in(&mut self.tx, &self.catalog, &self.scope).await?,
        };
        let last = (last.sequence > 0).then_some(last);
        let compared = |sum: &TableSum| {
            let table = self.catalog.table(&sum.table);
            table.is_some_and(|table| is_compared(table, self.options.part))
        };
        let tables = sums.told().into_iter().filter(compared).collect();
        if let (Known::Going(mut ahead), Some(tell)) = (runs, self.tell.take()) {
            ahead.definitions = sums;
            ahead.definitions.0.retain(|table, _| self.is_definition(table));
            // Whoever does not wait for it sends everything under seal.
            let _ = tell.send(ahead);
        }
        self.send(Piece::Trailer(Trailer { last, tables, marks, changed })).await
    }

    fn is_definition(&self, table: &str) -> bool {
        self.catalog.table(table).is_some_and(|table| table.role == Role::Definition)
    }

    /// What went ahead, if DAGs are still what they were then: history refers to their versions.
    async fn still_ahead(&mut self) -> Result<Option<Arc<Ahead>>, Error> {
        let Some(ahead) = self.options.ahead.clone() else { return Ok(None) };
        let mut sums = Sums::default();
        for table in self.catalog.tables.iter().filter(|table| table.role == Role::Definition) {
            read_back(&mut self.tx, &self.catalog, table, &self.scope, &mut sums).await?;
        }
        Ok((sums == ahead.definitions).then_some(ahead))
    }

    async fn send(&self, piece: Piece) -> Result<(), Error> {
        self.sender.send(Ok(piece)).await.map_err(|_| Error::Interrupted("nobody takes the rows"))
    }

    /// Reads everything once. None where what was kept is not what is read.
    async fn pass(
        &mut self,
        kept: Option<Position>,
        ahead: Option<&Ahead>,
    ) -> Result<Option<Pass>, Error> {
        let ExportOptions { part, history, .. } = self.options;
        self.tx.without_nested_loops().await?;
        let mut pass = Pass {
            skip: kept,
            at: Position::first(ahead.is_some()),
            sums: ahead.map(|ahead| ahead.definitions.clone()).unwrap_or_default(),
            runs: match (part, ahead) {
                (Part::Ahead, _) => Known::Going(Ahead::default()),
                (Part::Rest, Some(ahead)) => Known::Gone(ahead.clone()),
                (Part::Rest, None) => Known::Nothing,
            },
            changed: Vec::new(),
        };
        if kept.is_none() {
            self.send(Piece::Begin { after: None, keeps_ahead: ahead.is_some() }).await?;
        }
        let tables: Vec<Table> = tables_of(&self.catalog, part).cloned().collect();
        for table in &tables {
            let is_known = ahead.is_some() && table.role == Role::Definition;
            if !is_known && !self.table(table, runs_of(table, part, history), &mut pass).await? {
                return Ok(None);
            }
        }
        if let Known::Gone(left) = &pass.runs
            && left.changed() > 0
        {
            let changed = self.names_of_changed(left).await?;
            pass.changed.clone_from(&changed);
            pass.runs = Known::Again;
            self.tx.with_nested_loops().await?;
            for table in tables.iter().filter(|table| table.names_runs()) {
                if !self.table(table, Runs::Named(&changed), &mut pass).await? {
                    return Ok(None);
                }
            }
            self.tx.without_nested_loops().await?;
        }
        // Everything was read, and what was kept lies beyond it.
        Ok(pass.skip.is_none().then_some(pass))
    }

    /// Names of runs that went ahead and are not what they were, sorted.
    async fn names_of_changed(&mut self, left: &Ahead) -> Result<Vec<RunName>, Error> {
        let changed = left.changed();
        if changed > CHANGED_MAX {
            return Err(Error::AheadOutdated("too many runs changed"));
        }
        let of = self.scope.of("dag_id", self.catalog.schema.by_bytes);
        let sql = format!("SELECT dag_id, run_id FROM {{schema}}.dag_run WHERE {of}");
        let sql = self.catalog.render(&sql);
        let failed = Error::of("look for runs that changed");
        let names = query::<(String, String)>(&sql)
            .fetch(&mut self.tx.connection)
            .try_filter(|(dag_id, run_id)| ready(left.has_changed(dag_id, run_id)))
            .map_ok(|(dag_id, run_id)| RunName { dag_id, run_id })
            .try_collect();
        let mut names: Vec<RunName> = names.await.map_err(failed)?;
        names.sort_unstable();
        // One that was removed has no name here by which the target could remove it.
        if names.len() == changed {
            Ok(names)
        } else {
            Err(Error::AheadOutdated("a run was removed"))
        }
    }

    /// Reads a table. False where what was kept is not what is read.
    async fn table(
        &mut self,
        table: &Table,
        runs: Runs<'_>,
        pass: &mut Pass,
    ) -> Result<bool, Error> {
        let Self { tx, catalog, scope, sender, .. } = self;
        let keeps_ahead = matches!(pass.runs, Known::Gone(_) | Known::Again);
        let fields = catalog.fields(table);
        let summed = catalog.summed(table);
        let name = if table.names_runs() { NameAt::of(&fields) } else { None };
        let select = catalog.select(table, scope, runs);
        let head = Piece::Table { table: table.name.clone(), fields: fields.clone() };
        let gone = |_| Error::Interrupted("nobody takes the rows");
        if pass.skip.is_none() {
            sender.send(Ok(head.clone())).await.map_err(gone)?;
        }
        let sorted = Catalog::sorted(table);
        let copy = format!("COPY ({select}{sorted}) TO STDOUT (FORMAT binary)");
        let doing = "read rows";
        let mut stream = tx.connection.copy_out_raw(&copy).await.map_err(Error::of(doing))?;
        let mut rows = Rows::default();
        let mut chunk = BytesMut::with_capacity(CHUNK_MAX);
        let mut read = Sum::default();
        let damaged = |what: &str| Error::Damaged { table: table.name.clone(), what: what.into() };
        let too_large = |bytes| Error::RowTooLarge { table: table.name.clone(), bytes };
        loop {
            let bytes = stream.next().await.transpose().map_err(Error::of(doing))?;
            let is_last = bytes.is_none();
            if let Some(bytes) = bytes {
                rows.push(&bytes);
            }
            loop {
                let row = rows.next(fields.len()).map_err(|broken| damaged(broken.words()))?;
                let next = row.as_ref().map_or(0, BytesMut::len);
                if next > ROW_MAX {
                    return Err(too_large(next));
                }
                let is_full = !chunk.is_empty() && chunk.len() + next > CHUNK_MAX;
                let is_rest = is_last && row.is_none() && !chunk.is_empty();
                if is_full || is_rest {
                    let ready = chunk.split().freeze();
                    match step(pass.skip, &mut pass.at, &table.name, ready) {
                        Step::Send(chunk) => {
                            sender.send(Ok(Piece::Chunk(chunk))).await.map_err(gone)?;
                        }
                        Step::Skip => {}
                        Step::GoOn(kept) => {
                            pass.skip = None;
                            let begin = Piece::Begin { after: Some(kept), keeps_ahead };
                            sender.send(Ok(begin)).await.map_err(gone)?;
                            sender.send(Ok(head.clone())).await.map_err(gone)?;
                        }
                        Step::Differs => return Ok(false),
                    }
                }
                let Some(row) = row else { break };
                let hash = read.add(&row, &summed);
                if pass.runs.is_sent(name, &row, hash) {
                    chunk.extend_from_slice(&row);
                }
            }
            if rows.pending() > ROW_MAX {
                return Err(too_large(rows.pending()));
            }
            if is_last {
                break;
            }
        }
        if !rows.is_over() {
            return Err(damaged("it ends before its end"));
        }
        if !matches!(pass.runs, Known::Again) {
            pass.sums.0.insert(table.name.clone(), read);
        }
        Ok(true)
    }
}

enum Step {
    /// It is new to the target.
    Send(Chunk),
    /// It was kept, and so was a later one.
    Skip,
    /// It is the last that was kept.
    GoOn(Position),
    /// It is not what was kept.
    Differs,
}

fn step(skip: Option<Position>, at: &mut Position, table: &str, rows: Bytes) -> Step {
    let chunk = Chunk::new(table, rows, *at);
    *at = chunk.position;
    match skip {
        None => Step::Send(chunk),
        Some(kept) if chunk.position.sequence < kept.sequence => Step::Skip,
        Some(kept) if chunk.position == kept => Step::GoOn(kept),
        Some(_) => Step::Differs,
    }
}
