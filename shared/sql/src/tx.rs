//! A transaction, as [`write_tx!`](crate::write_tx) and [`Db::read`](crate::Db::read) give it.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::postgres::insert_text;
use crate::value::{Row, Sql, Value};
use crate::{postgres, sqlite};

#[derive(Debug)]
pub(crate) enum Session {
    Sqlite(sqlite::Session),
    Postgres(postgres::Session),
}

// The futures of PostgreSQL's driver are kept out of line: they are ten times as large as those of
// SQLite, and every handler's future would hold one.

/// What a failed statement did to its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoiled {
    /// Nothing: all statements worked.
    No,
    /// It lost against another writer and may work when run again.
    Contended,
    /// A unique index refused a row on PostgreSQL. That may be a lost race too: what the other
    /// writer has committed is not in this transaction's snapshot, but in the index.
    Duplicate,
    /// It failed for good.
    Failed,
}

/// An open transaction. Rows are mapped by a function that runs beside the connection, on
/// SQLite's own thread; it must be quick and must not block on anything else.
///
/// After a statement failed, every further one is refused and nothing can be committed, on
/// either engine: return the error.
#[derive(Debug)]
pub struct Tx {
    session: Session,
    statement_timeout: Duration,
    scan_timeout: Duration,
    spoiled: Spoiled,
}

impl Tx {
    pub(crate) fn new(
        session: Session,
        statement_timeout: Duration,
        scan_timeout: Duration,
    ) -> Self {
        Self { session, statement_timeout, scan_timeout, spoiled: Spoiled::No }
    }

    /// Runs a statement and answers how many rows it changed.
    pub async fn execute(&mut self, sql: impl Into<Sql>, params: Vec<Value>) -> Result<u64> {
        let sql = sql.into();
        self.check(&sql)?;
        let limit = self.statement_timeout;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.execute(limit, &sql, params).await,
            Session::Postgres(session) => Box::pin(session.execute(limit, &sql, params)).await,
        };
        self.note(result)
    }

    /// Inserts many rows of equal width: `<head> VALUES ($1, …) <tail>`, where `head` is
    /// `INSERT INTO table (columns)` and `tail` is empty or `ON CONFLICT …`. Answers how many
    /// rows changed.
    pub async fn insert_many(
        &mut self,
        head: &'static str,
        tail: &'static str,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64> {
        let Some(width) = rows.first().map(Vec::len) else {
            return Ok(0);
        };
        self.check(&Sql::from(head))?;
        let limit = self.statement_timeout;
        let result = match &mut self.session {
            Session::Sqlite(session) => {
                // One prepared statement, run for each row, beats a long one here.
                let sql = Sql::assembled(insert_text(head, tail, width, 1));
                session.execute_many(limit, &sql, rows).await
            }
            Session::Postgres(session) => Box::pin(session.insert(limit, head, tail, rows)).await,
        };
        self.note(result)
    }

    /// All rows of a query. The caller bounds them (`LIMIT`).
    pub async fn fetch_all<T, M>(
        &mut self,
        sql: impl Into<Sql>,
        params: Vec<Value>,
        mut map: M,
    ) -> Result<Vec<T>>
    where
        T: Send + 'static,
        M: FnMut(&Row<'_>) -> Result<T> + Send + 'static,
    {
        let limit = self.statement_timeout;
        self.fold(limit, &sql.into(), params, Vec::new(), move |all, row| {
            all.push(map(row)?);
            Ok(true)
        })
        .await
    }

    /// The first row of a query, if there is one.
    pub async fn fetch_optional<T, M>(
        &mut self,
        sql: impl Into<Sql>,
        params: Vec<Value>,
        map: M,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        M: FnMut(&Row<'_>) -> Result<T> + Send + 'static,
    {
        self.fetch_optional_sql(&sql.into(), params, map).await
    }

    /// The first row of a query that has to find one.
    pub async fn fetch_one<T, M>(
        &mut self,
        sql: impl Into<Sql>,
        params: Vec<Value>,
        map: M,
    ) -> Result<T>
    where
        T: Send + 'static,
        M: FnMut(&Row<'_>) -> Result<T> + Send + 'static,
    {
        let sql = sql.into();
        self.fetch_optional_sql(&sql, params, map)
            .await?
            .ok_or_else(|| Error::MissingRow { statement: crate::error::shorten(sql.as_str()) })
    }

    /// Reads a whole table: folds every row into `state`, without a copy of the row, within the
    /// longer scan timeout. `fold` sees the rows where they are read, so decoding costs no
    /// message and no allocation that it does not make itself.
    ///
    /// ```no_run
    /// # async fn example(tx: &mut airfleet_sql::Tx) -> airfleet_sql::Result<()> {
    /// let owners = tx
    ///     .scan(
    ///         "SELECT namespace, shard FROM assignments",
    ///         airfleet_sql::params![],
    ///         Vec::with_capacity(1_000_000),
    ///         |owners, row| {
    ///             owners.push((row.get::<String>(0)?, row.get::<String>(1)?));
    ///             Ok(())
    ///         },
    ///     )
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub async fn scan<S, F>(
        &mut self,
        sql: impl Into<Sql>,
        params: Vec<Value>,
        state: S,
        mut fold: F,
    ) -> Result<S>
    where
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) -> Result<()> + Send + 'static,
    {
        let limit = self.scan_timeout;
        if let Session::Postgres(session) = &mut self.session {
            let raise = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            let raised = session.batch(self.statement_timeout, raise).await;
            self.note(raised)?;
        }
        self.fold(limit, &sql.into(), params, state, move |state, row| {
            fold(state, row)?;
            Ok(true)
        })
        .await
    }

    /// Folds rows into `state` until `fold` says to stop; for pages that are bounded by size.
    pub async fn fold_until<S, F>(
        &mut self,
        sql: impl Into<Sql>,
        params: Vec<Value>,
        state: S,
        mut fold: F,
    ) -> Result<S>
    where
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) -> Result<ControlFlow<()>> + Send + 'static,
    {
        let limit = self.statement_timeout;
        self.fold(limit, &sql.into(), params, state, move |state, row| {
            Ok(fold(state, row)?.is_continue())
        })
        .await
    }

    async fn fetch_optional_sql<T, M>(
        &mut self,
        sql: &Sql,
        params: Vec<Value>,
        mut map: M,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        M: FnMut(&Row<'_>) -> Result<T> + Send + 'static,
    {
        let limit = self.statement_timeout;
        self.fold(limit, sql, params, None, move |first, row| {
            *first = Some(map(row)?);
            Ok(false)
        })
        .await
    }

    /// Folds rows until `fold` answers false.
    async fn fold<S, F>(
        &mut self,
        limit: Duration,
        sql: &Sql,
        params: Vec<Value>,
        state: S,
        fold: F,
    ) -> Result<S>
    where
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) -> Result<bool> + Send + 'static,
    {
        self.check(sql)?;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.fold(limit, sql, params, state, fold).await,
            Session::Postgres(session) => {
                Box::pin(session.fold(limit, sql, params, state, fold)).await
            }
        };
        self.note(result)
    }

    /// Runs several statements without binds; for migrations.
    pub(crate) async fn batch(&mut self, sql: String) -> Result<()> {
        let limit = self.scan_timeout;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.batch(limit, sql).await,
            Session::Postgres(session) => Box::pin(session.batch(limit, sql)).await,
        };
        self.note(result)
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.session, Session::Postgres(_))
    }

    pub(crate) fn spoiled(&self) -> Spoiled {
        self.spoiled
    }

    pub(crate) async fn commit(self) -> Result<()> {
        match self.session {
            Session::Sqlite(mut session) => session.commit(self.statement_timeout).await,
            Session::Postgres(session) => Box::pin(session.commit(self.statement_timeout)).await,
        }
    }

    fn check(&self, sql: &Sql) -> Result<()> {
        match self.spoiled {
            Spoiled::No => Ok(()),
            Spoiled::Contended => Err(Error::Contention { attempts: 1, source: None }),
            Spoiled::Duplicate | Spoiled::Failed => Err(Error::statement(
                sql.as_str(),
                "an earlier statement of this transaction failed",
            )),
        }
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && self.spoiled == Spoiled::No
            && error.spoils_transaction()
        {
            self.spoiled = if error.is_contention() {
                Spoiled::Contended
            } else if error.is_unique_violation() && self.is_postgres() {
                Spoiled::Duplicate
            } else {
                Spoiled::Failed
            };
        }
        result
    }
}
