//! Connections to a shard's metadata database: one for each thing that is done, closed after it.
//! A killed agent leaves nothing but a transaction that the server rolls back.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, FromRow, PgConnection, Postgres,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgTypeInfo, types::Oid},
    query::QueryAs,
};

use crate::Error;

/// Time to wait for a lock: what waits behind a waiting agent must not wait for long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a shard's metadata is.
#[derive(Debug, Clone)]
pub struct Database {
    options: PgConnectOptions,
}

impl Database {
    /// Connects when it is used.
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options: options.disable_statement_logging() }
    }

    /// A transaction that may write. Each statement sees what is committed when it begins.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let lock_ms = LOCK_TIMEOUT.as_millis();
        self.start(format!("BEGIN; SET LOCAL lock_timeout = {lock_ms}")).await
    }

    /// A transaction that only reads, and sees one state for as long as it lasts.
    pub(crate) async fn snapshot(&self) -> Result<Tx, Error> {
        // A resumed export compares what it reads with what an earlier one read: rows are to come
        // in the order in which they lie, whoever else reads them.
        self.start(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0"
                .to_owned(),
        )
        .await
    }

    async fn start(&self, begin: String) -> Result<Tx, Error> {
        let mut connection = self.options.connect().await.map_err(Error::of("connect"))?;
        // A consumer that is slow holds a statement up; what limits it is the move's deadline.
        let begin = format!(
            "{begin}; SET LOCAL statement_timeout = 0; SET LOCAL standard_conforming_strings = on; \
             SET LOCAL client_encoding = 'UTF8'"
        );
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(&mut connection)
            .await
            .map_err(Error::of("begin a transaction"))?;
        Ok(Tx { connection })
    }
}

/// A transaction. Dropped without a commit it is rolled back by the server.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) connection: PgConnection,
}

/// Rows of a query. Not prepared under a name: a pooler of transactions would lose it.
pub(crate) fn query<T>(sql: &str) -> QueryAs<'_, Postgres, T, PgArguments>
where
    T: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(AssertSqlSafe(sql.to_owned())).persistent(false)
}

/// All rows of a query without parameters.
pub(crate) async fn rows<T>(
    connection: &mut PgConnection,
    doing: &'static str,
    sql: &str,
) -> Result<Vec<T>, Error>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    query(sql).fetch_all(connection).await.map_err(Error::of(doing))
}

/// Statements without parameters, separated by semicolons; rows that they changed.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    doing: &'static str,
    sql: &str,
) -> Result<i64, Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map_err(Error::of(doing))?;
    Ok(done.rows_affected() as i64)
}

impl Tx {
    pub(crate) async fn rows<T>(&mut self, doing: &'static str, sql: &str) -> Result<Vec<T>, Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        rows(&mut self.connection, doing, sql).await
    }

    pub(crate) async fn row<T>(&mut self, doing: &'static str, sql: &str) -> Result<T, Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        query(sql).fetch_one(&mut self.connection).await.map_err(Error::of(doing))
    }

    pub(crate) async fn execute(&mut self, doing: &'static str, sql: &str) -> Result<i64, Error> {
        execute(&mut self.connection, doing, sql).await
    }

    /// Joins by hashing from here on. What a transaction has just written has no statistics: the
    /// planner takes a hundred thousand rows for one, and joins them by nested loops for minutes.
    /// Every join of rows of a namespace is by equal keys, and reads ranges of an index.
    pub(crate) async fn without_nested_loops(&mut self) -> Result<(), Error> {
        self.execute("set the planner", "SET LOCAL enable_nestloop = off").await.map(drop)
    }

    /// Joins by nested loops again: few rows are looked for.
    pub(crate) async fn with_nested_loops(&mut self) -> Result<(), Error> {
        self.execute("set the planner", "SET LOCAL enable_nestloop = on").await.map(drop)
    }

    /// Commits and closes the connection. Where this fails it is not known whether it is
    /// committed; whoever asks again sees.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        self.commit_and_keep().await?;
        // Whatever becomes of the goodbye, it is committed.
        let _ = self.connection.close().await;
        Ok(())
    }

    /// Commits, and keeps the connection for another transaction.
    pub(crate) async fn commit_and_keep(&mut self) -> Result<(), Error> {
        self.execute("commit", "COMMIT").await.map(drop)
    }

    /// Begins another transaction that may write.
    pub(crate) async fn begin_again(&mut self) -> Result<(), Error> {
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = 0; \
             SET LOCAL standard_conforming_strings = on",
            LOCK_TIMEOUT.as_millis()
        );
        self.execute("begin a transaction", &begin).await.map(drop)
    }
}

/// A text as a literal in SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier in SQL.
pub(crate) fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A value as its type writes itself. The server takes the type from the column that it is for.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl sqlx::Type<Postgres> for Raw {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl sqlx::Encode<'_, Postgres> for Raw {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}
