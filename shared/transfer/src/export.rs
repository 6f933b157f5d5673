//! A namespace's rows as a stream of bounded pieces, from one snapshot of the source.
//!
//! A task of its own reads; whoever holds the [`Export`] pulls. At most [`AHEAD`] pieces wait
//! between the two, and a chunk is cut at 256 KiB, so memory stays the same whatever the namespace
//! holds. Dropping the export ends the task and its connection.
//!
//! # Going on after a break
//! The target says which chunk it kept last. The source reads again from the beginning, without
//! sending, up to there, and compares digests: under seal nothing changes, and rows come in the
//! order in which they lie, so it goes on behind that chunk. Where the digests differ it begins
//! from the start. Reading costs a tenth of sending and taking in, and no place has to be kept.

use airfleet_domain::moves::{History, Mark, Part, TableSum};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    Catalog, Database, Error,
    catalog::{Table, rules::Role},
    copy::{CHUNK_MAX, Chunk, Field, Position, ROW_MAX, Rows, Sums},
    cursor,
    database::Tx,
    scope::Scope,
};

/// Pieces that wait to be pulled.
const AHEAD: usize = 2;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOptions {
    /// Which part.
    pub part: Part,
    /// How much of what happened goes along, with the part REST.
    pub history: History,
    /// What the target kept of this attempt.
    pub kept: Option<Position>,
}

/// What the target hears, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// First, once: where it goes on; none where it begins from the start.
    Begin {
        /// What was kept, if its digest is the same.
        after: Option<Position>,
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
}

/// Rows on their way.
#[derive(Debug)]
pub struct Export {
    pieces: mpsc::Receiver<Result<Piece, Error>>,
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
        let (sender, pieces) = mpsc::channel(AHEAD);
        let mut reading =
            Reading { tx, catalog: catalog.clone(), scope: scope.clone(), options, sender };
        let reader = tokio::spawn(async move {
            if let Err(error) = reading.run().await {
                // Nobody listens any more where this fails.
                let _ = reading.sender.send(Err(error)).await;
            }
        });
        Ok(Self { pieces, reader })
    }

    /// The next piece; none after the trailer.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        self.pieces.recv().await.transpose()
    }
}

/// The tables of a part, in the order in which they travel.
pub(crate) fn tables_of(catalog: &Catalog, part: Part) -> impl Iterator<Item = &Table> {
    catalog.tables.iter().filter(move |table| part == Part::Rest || table.role != Role::History)
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
}

/// Where a pass over all rows stands.
struct Pass {
    /// Chunks up to this one were kept; none where everything is sent.
    skip: Option<Position>,
    at: Position,
    sums: Sums,
}

impl Reading {
    async fn run(&mut self) -> Result<(), Error> {
        let kept = self.options.kept.filter(|kept| kept.sequence > 0);
        let mut done = None;
        if kept.is_some() {
            done = self.pass(kept).await?;
        }
        let (sums, last) = match done {
            Some(done) => done,
            None => self.pass(None).await?.ok_or(Error::Interrupted("nothing was read"))?,
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
        self.send(Piece::Trailer(Trailer { last, tables, marks })).await
    }

    async fn send(&self, piece: Piece) -> Result<(), Error> {
        self.sender.send(Ok(piece)).await.map_err(|_| Error::Interrupted("nobody takes the rows"))
    }

    /// Reads everything once. None where what was kept is not what is read.
    async fn pass(&mut self, kept: Option<Position>) -> Result<Option<(Sums, Position)>, Error> {
        let mut pass = Pass { skip: kept, at: Position::default(), sums: Sums::default() };
        if kept.is_none() {
            self.send(Piece::Begin { after: None }).await?;
        }
        let tables: Vec<Table> = tables_of(&self.catalog, self.options.part).cloned().collect();
        for table in &tables {
            if !self.table(table, &mut pass).await? {
                return Ok(None);
            }
        }
        // Everything was read, and what was kept lies beyond it.
        Ok(pass.skip.is_none().then_some((pass.sums, pass.at)))
    }

    /// Reads a table. False where what was kept is not what is read.
    async fn table(&mut self, table: &Table, pass: &mut Pass) -> Result<bool, Error> {
        let Self { tx, catalog, scope, options, sender } = self;
        let fields = catalog.fields(table);
        let summed = catalog.summed(table);
        let select = catalog.select(table, scope, options.history);
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
        let sum = pass.sums.0.entry(table.name.clone()).or_default();
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
                            let begin = Piece::Begin { after: Some(kept) };
                            sender.send(Ok(begin)).await.map_err(gone)?;
                            sender.send(Ok(head.clone())).await.map_err(gone)?;
                        }
                        Step::Differs => return Ok(false),
                    }
                }
                let Some(row) = row else { break };
                sum.add(&row, &summed);
                chunk.extend_from_slice(&row);
            }
            if rows.pending() > ROW_MAX {
                return Err(too_large(rows.pending()));
            }
            if is_last {
                break;
            }
        }
        if rows.is_over() { Ok(true) } else { Err(damaged("it ends before its end")) }
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
