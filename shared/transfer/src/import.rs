//! Rows that arrive: kept in tables of their own until all are there, then installed at once.
//!
//! # What holds
//! - What arrives is kept in unlogged tables of a schema of its own, with how far it came, in one
//!   transaction: a server that crashes forgets both, an agent that does forgets neither.
//! - Nothing of Airflow's is touched before every chunk was checked, and every table that came whole
//!   has the rows and the sum that the source told.
//! - Installing is one transaction. It obeys only the order that was last obeyed, and only while
//!   the fence is closed and every DAG is paused; it replaces whatever this shard had of the
//!   namespace, but for what went ahead and did not change, reads back all in the form that it was
//!   sent in, and compares.
//! - What came of it stays in the schema until [`forget`]: an attempt that was done is not done
//!   again, whoever asks.

mod install;

use std::collections::BTreeMap;

use airfleet_domain::{
    ids::MoveId,
    moves::{Mark, Part, Seen, TableSum},
};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::install::read_back;
use crate::{
    Catalog, Database, Error,
    catalog::Table,
    copy::{Chunk, Field, HEADER, Next, Position, Sums, TRAILER, row, values},
    database::{Raw, Tx, name, quoted},
    estimate::TableSize,
    export::{Piece, tables_of},
    scope::Scope,
};

/// What is gathered before it is written. Bytes.
const FLUSH: usize = 2 << 20;

/// What one statement writes at most: bytes, and values (the protocol has room for 65,535).
const FEW_BYTES: usize = 64 << 10;
const FEW_VALUES: usize = 8_192;

/// Which rows are taken in, and by whose order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOrder {
    /// The move.
    pub move_id: MoveId,
    /// Which part.
    pub part: Part,
    /// Which attempt.
    pub attempt: u32,
    /// Place of the order.
    pub place: Seen,
}

/// What was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Every table that went along, as this shard has it now, sorted by name.
    pub tables: Vec<TableSum>,
    /// Up to where each DAG came, sorted by dag_id. With the part REST only.
    pub marks: Vec<Mark>,
}

/// How an import begins.
#[derive(Debug)]
pub enum Opened {
    /// This attempt was committed before; there is nothing to do.
    Done(Installed),
    /// Rows are waited for.
    Import(Box<Import>),
}

/// Rows that arrive.
#[derive(Debug)]
pub struct Import {
    database: Database,
    catalog: Catalog,
    scope: Scope,
    order: ImportOrder,
    /// Name of the schema that rows are kept in, quoted.
    staging: String,
    /// What is kept over a restart.
    kept: Kept,
    /// Where what is gathered leads to.
    at: Position,
    sums: Sums,
    /// Bytes that came of each table.
    bytes: BTreeMap<String, i64>,
    table: Option<Table>,
    fields: usize,
    summed: Vec<bool>,
    gathered: BytesMut,
    begun: bool,
    /// Whether what went ahead, and is as it was, stays.
    keeps_ahead: bool,
    writer: Option<Tx>,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default)]
struct Kept {
    position: Position,
    sums: Sums,
    bytes: BTreeMap<String, i64>,
}

/// What is kept of a table, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct KeptTable {
    #[serde(flatten)]
    sum: TableSum,
    #[serde(default)]
    bytes: i64,
}

impl Kept {
    /// As JSON.
    fn text(sums: &Sums, bytes: &BTreeMap<String, i64>) -> String {
        let table = |sum: TableSum| {
            let bytes = bytes.get(&*sum.table).copied().unwrap_or(0);
            KeptTable { sum, bytes }
        };
        let tables: Vec<KeptTable> = sums.told().into_iter().map(table).collect();
        serde_json::to_string(&tables).expect("plain data")
    }

    fn parse(position: Position, text: &str) -> Option<Self> {
        let tables: Vec<KeptTable> = serde_json::from_str(text).ok()?;
        let bytes = tables.iter().map(|table| (table.sum.table.to_string(), table.bytes)).collect();
        let sums: Vec<TableSum> = tables.into_iter().map(|table| table.sum).collect();
        Some(Self { position, sums: Sums::of(&sums)?, bytes })
    }
}

/// Name of the schema in which rows of a move are kept.
pub(crate) fn staging_schema(move_id: &MoveId) -> String {
    format!("airfleet_move_{:016x}", xxh3_64(move_id.as_str().as_bytes()))
}

impl Import {
    /// Makes place for rows, or finds what was kept of the same attempt. What is left of another
    /// attempt is dropped.
    pub async fn open(
        database: &Database,
        catalog: &Catalog,
        scope: &Scope,
        order: ImportOrder,
    ) -> Result<Opened, Error> {
        catalog.check()?;
        let staging = name(&staging_schema(&order.move_id));
        let mut tx = database.begin().await?;
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext({}))", quoted(&staging));
        tx.execute("wait for another import", &lock).await?;
        let make = format!(
            "CREATE SCHEMA IF NOT EXISTS {staging}; \
             CREATE TABLE IF NOT EXISTS {staging}.airfleet_result (\
               part text NOT NULL, attempt bigint NOT NULL, result text NOT NULL, \
               PRIMARY KEY (part, attempt)); \
             CREATE UNLOGGED TABLE IF NOT EXISTS {staging}.airfleet_progress (\
               part text NOT NULL, attempt bigint NOT NULL, sequence bigint NOT NULL, \
               digest bigint NOT NULL, sums text NOT NULL)"
        );
        tx.execute("make place for rows", &make).await?;
        let (part, attempt) = (order.part.name(), i64::from(order.attempt));
        let of = format!("part = {} AND attempt = {attempt}", quoted(part));
        let done: Vec<(String,)> = tx
            .rows(
                "look for a result",
                &format!("SELECT result FROM {staging}.airfleet_result WHERE {of}"),
            )
            .await?;
        if let Some(installed) = done.first().and_then(|(text,)| serde_json::from_str(text).ok()) {
            tx.commit().await?;
            return Ok(Opened::Done(installed));
        }
        let found: Vec<(i64, i64, String)> = tx
            .rows(
                "look for what was kept",
                &format!(
                    "SELECT sequence, digest, sums FROM {staging}.airfleet_progress WHERE {of}"
                ),
            )
            .await?;
        let kept = found.first().and_then(|(sequence, digest, sums)| {
            Kept::parse(Position { sequence: *sequence, digest: *digest as u64 }, sums)
        });
        let mut import = Self {
            database: database.clone(),
            catalog: catalog.clone(),
            scope: scope.clone(),
            order,
            staging,
            at: kept.as_ref().map(|kept| kept.position).unwrap_or_default(),
            sums: kept.as_ref().map(|kept| kept.sums.clone()).unwrap_or_default(),
            bytes: kept.as_ref().map(|kept| kept.bytes.clone()).unwrap_or_default(),
            kept: kept.clone().unwrap_or_default(),
            table: None,
            fields: 0,
            summed: Vec::new(),
            gathered: BytesMut::new(),
            begun: false,
            keeps_ahead: false,
            writer: None,
        };
        if kept.is_none() {
            import.make_tables(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(Opened::Import(Box::new(import)))
    }

    /// The order came again, at this place: what is installed is installed by it.
    pub fn ordered(&mut self, place: Seen) {
        self.order.place = place;
    }

    /// What was kept of this attempt, for the source.
    pub fn kept(&self) -> Option<Position> {
        Some(self.kept.position).filter(|position| position.sequence > 0)
    }

    /// Rows taken in so far. Bytes.
    pub fn bytes(&self) -> i64 {
        self.bytes.values().sum()
    }

    /// What came of each table so far, sorted by name. Of one that is named nothing more comes but
    /// for [`Import::coming`].
    pub fn came(&self) -> Vec<TableSize> {
        let table = |(table, sum): (&String, &crate::copy::Sum)| TableSize {
            table: table.clone(),
            rows: sum.rows,
            bytes: self.bytes.get(table).copied().unwrap_or(0),
        };
        self.sums.0.iter().map(table).collect()
    }

    /// The table whose rows come at present.
    pub fn coming(&self) -> Option<&str> {
        self.table.as_ref().map(|table| table.name.as_str())
    }

    /// Takes in a piece. Where everything up to a chunk is now kept over a restart, says which; the
    /// trailer is for [`Import::install`].
    pub async fn take(&mut self, piece: Piece) -> Result<Option<i64>, Error> {
        match piece {
            Piece::Begin { after, keeps_ahead } => {
                if self.begun {
                    return Err(Error::Interrupted("the rows begin twice"));
                }
                if after != self.kept() {
                    let mut tx = self.database.begin().await?;
                    self.make_tables(&mut tx).await?;
                    tx.commit().await?;
                    (self.kept, self.sums, self.bytes) = Default::default();
                }
                if after.is_none() {
                    self.at = Position::first(keeps_ahead);
                }
                self.begun = true;
                self.keeps_ahead = keeps_ahead;
                Ok(None)
            }
            Piece::Table { table, fields } => self.next_table(&table, &fields).await,
            Piece::Chunk(chunk) => self.chunk(chunk).await,
            Piece::Trailer(_) => Err(Error::Interrupted("the rows are over: install them")),
        }
    }

    async fn next_table(&mut self, table: &str, fields: &[Field]) -> Result<Option<i64>, Error> {
        let acknowledged = self.flush().await?;
        let known = tables_of(&self.catalog, self.order.part).find(|known| known.name == table);
        let known = known.filter(|_| self.begun).cloned();
        let Some(known) = known.filter(|known| self.catalog.fields(known) == fields) else {
            return Err(Error::SchemaDiffers { table: table.to_owned() });
        };
        self.sums.0.entry(known.name.clone()).or_default();
        self.fields = fields.len();
        self.summed = self.catalog.summed(&known);
        self.table = Some(known);
        Ok(acknowledged)
    }

    async fn chunk(&mut self, chunk: Chunk) -> Result<Option<i64>, Error> {
        let damaged =
            |what: &str| Error::Damaged { table: chunk.table.clone(), what: what.to_owned() };
        if self.table.as_ref().is_none_or(|table| table.name != chunk.table) {
            return Err(damaged("it comes without its columns"));
        }
        if !chunk.follows(self.at) {
            return Err(damaged("a checksum differs, or a chunk is missing"));
        }
        let mut lengths = Vec::new();
        let mut at = 0;
        while at < chunk.rows.len() {
            match row(&chunk.rows[at..], self.fields).map_err(|broken| damaged(broken.words()))? {
                Next::Row(length) => {
                    lengths.push(length);
                    at += length;
                }
                Next::More | Next::End => return Err(damaged("a row is cut")),
            }
        }
        // What is gathered is written before it grows beyond its bound: a large row waits alone.
        let is_full = !self.gathered.is_empty() && self.gathered.len() + chunk.rows.len() > FLUSH;
        let acknowledged = if is_full { self.flush().await? } else { None };
        let (table, summed) = (chunk.table.clone(), &self.summed);
        *self.bytes.entry(table.clone()).or_default() += chunk.rows.len() as i64;
        let sum = self.sums.0.entry(table).or_default();
        let mut rest = chunk.rows.clone();
        for length in lengths {
            sum.add(&rest.split_to(length), summed);
        }
        self.at = chunk.position;
        self.gathered.extend_from_slice(&chunk.rows);
        Ok(acknowledged)
    }

    /// Writes what is gathered, and how far it came, in one transaction. Says up to which chunk.
    async fn flush(&mut self) -> Result<Option<i64>, Error> {
        let Some(table) = self.table.as_ref().filter(|_| !self.gathered.is_empty()) else {
            return Ok(None);
        };
        let doing = "keep rows";
        let mut tx = match self.writer.take() {
            Some(mut tx) => {
                tx.begin_again().await?;
                tx
            }
            None => self.database.begin().await?,
        };
        // A server that crashes empties these tables whatever it has written of them: nothing is
        // gained by waiting for its disk.
        tx.execute("wait for no disk", "SET LOCAL synchronous_commit = off").await?;
        let kept = format!("{}.{}", self.staging, name(&table.name));
        if !insert_few(&mut tx, &kept, self.fields, &self.gathered).await? {
            let copy = format!("COPY {kept} FROM STDIN (FORMAT binary)");
            let mut sink = tx.connection.copy_in_raw(&copy).await.map_err(Error::of(doing))?;
            let whole = [&HEADER[..], &self.gathered, &TRAILER].concat();
            sink.send(whole).await.map_err(Error::of(doing))?;
            sink.finish().await.map_err(Error::of(doing))?;
        }
        let sums = Kept::text(&self.sums, &self.bytes);
        let progress = format!(
            "UPDATE {}.airfleet_progress SET sequence = {}, digest = {}, sums = {} \
             WHERE part = {} AND attempt = {} AND sequence = {}",
            self.staging,
            self.at.sequence,
            self.at.digest as i64,
            quoted(&sums),
            quoted(self.order.part.name()),
            self.order.attempt,
            self.kept.position.sequence,
        );
        if tx.execute(doing, &progress).await? != 1 {
            return Err(Error::Interrupted("somebody else takes in the same rows"));
        }
        tx.commit_and_keep().await?;
        self.writer = Some(tx);
        let (sums, bytes) = (self.sums.clone(), self.bytes.clone());
        self.kept = Kept { position: self.at, sums, bytes };
        self.gathered.clear();
        Ok(Some(self.at.sequence))
    }

    /// Empty tables for rows, and nothing kept.
    async fn make_tables(&mut self, tx: &mut Tx) -> Result<(), Error> {
        use std::fmt::Write as _;

        let staging = &self.staging;
        let mut sql = String::new();
        for table in &self.catalog.tables {
            let _ = write!(sql, "DROP TABLE IF EXISTS {staging}.{}; ", name(&table.name));
        }
        for table in tables_of(&self.catalog, self.order.part) {
            let columns: Vec<String> = self
                .catalog
                .fields(table)
                .iter()
                .map(|Field { name: field, ty }| format!("{} {ty}", name(field)))
                .collect();
            let _ = write!(
                sql,
                "CREATE UNLOGGED TABLE {staging}.{} ({}); ",
                name(&table.name),
                columns.join(", ")
            );
        }
        let _ = write!(
            sql,
            "DELETE FROM {staging}.airfleet_progress; \
             INSERT INTO {staging}.airfleet_progress VALUES ({}, {}, 0, 0, '[]')",
            quoted(self.order.part.name()),
            self.order.attempt,
        );
        tx.execute("make tables for rows", &sql).await.map(drop)
    }
}

/// Writes rows by one statement where they are few; says whether they were.
///
/// Most tables of a namespace have a handful of rows, and a COPY ends with a message of its own,
/// which waits behind the rows until the server acknowledges them: 40 ms, since the driver's sockets
/// do not set `TCP_NODELAY`.
async fn insert_few(tx: &mut Tx, table: &str, columns: usize, rows: &[u8]) -> Result<bool, Error> {
    if rows.len() > FEW_BYTES {
        return Ok(false);
    }
    let mut found = Vec::new();
    let mut rest = rows;
    while let Ok(Next::Row(length)) = row(rest, columns) {
        let (one, after) = rest.split_at(length);
        found.extend(values(one).map(|value| value.map(|bytes| Raw(bytes.to_vec()))));
        rest = after;
    }
    if found.len() > FEW_VALUES {
        return Ok(false);
    }
    let tuples: Vec<String> = (0..found.len() / columns)
        .map(|row| {
            let numbers: Vec<String> =
                (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
            format!("({})", numbers.join(", "))
        })
        .collect();
    let sql = format!("INSERT INTO {table} VALUES {}", tuples.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for value in found {
        query = query.bind(value);
    }
    query.execute(&mut tx.connection).await.map_err(Error::of("keep rows"))?;
    Ok(true)
}

/// Drops what is kept of a move, once it has ended.
pub async fn forget(database: &Database, move_id: &MoveId) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", name(&staging_schema(move_id)));
    tx.execute("drop what is kept of a move", &drop).await?;
    tx.commit().await
}
