//! PostgreSQL, through sqlx's pool.
//!
//! Invariant: no answer is waited for longer than its limit, also when the server's machine
//! vanished without a word; a session that ends without commit is rolled back by the pool.

use std::str::FromStr;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Postgres, Transaction};

use crate::error::{Error, Outage, Result, from_postgres};
use crate::options::Options;
use crate::value::{Row, Sql, Value};

/// Added to the server's own limit before the client gives up on an answer.
const GRACE: Duration = Duration::from_secs(2);

/// Most binds of one statement; the protocol counts them in 16 bits.
const MAX_BINDS: usize = 30_000;

/// How a transaction is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// One snapshot, no writes.
    ReadOnly,
    /// As if it ran alone.
    Serializable,
    /// Sees what others commit meanwhile; for migrations, which take a lock instead.
    ReadCommitted,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pool: PgPool,
    acquire_timeout: Duration,
}

impl Pool {
    /// Checks the URL; connects at the first use, so that a service starts while the server is
    /// away.
    pub(crate) fn open(url: &str, options: &Options) -> Result<Self> {
        // sqlx's message may quote the URL with its password; only its kind is told.
        let connect = PgConnectOptions::from_str(url).map_err(|_| Error::Config {
            detail: "the URL does not parse; use postgres://user:password@host:port/database"
                .to_owned(),
            source: None,
        })?;
        let millis = |limit: Duration| limit.as_millis().to_string();
        let connect = connect
            .application_name(&options.application_name)
            .statement_cache_capacity(256)
            .options([
                ("statement_timeout", millis(options.statement_timeout)),
                ("lock_timeout", millis(options.acquire_timeout)),
                // A replica that froze inside a transaction must not hold its locks for ever.
                ("idle_in_transaction_session_timeout", millis(options.statement_timeout * 3)),
            ])
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_mins(5))
            .max_lifetime(Duration::from_mins(30))
            .connect_lazy_with(connect);
        Ok(Self { pool, acquire_timeout: options.acquire_timeout })
    }

    pub(crate) async fn begin(&self, isolation: Isolation) -> Result<Session> {
        let begin = match isolation {
            Isolation::ReadOnly => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
        };
        let transaction =
            within(self.acquire_timeout + GRACE, begin, self.pool.begin_with(begin)).await?;
        Ok(Session { transaction })
    }

    pub(crate) async fn close(&self) {
        let _ = tokio::time::timeout(self.acquire_timeout, self.pool.close()).await;
    }
}

/// A transaction on one connection.
#[derive(Debug)]
pub(crate) struct Session {
    transaction: Transaction<'static, Postgres>,
}

impl Session {
    pub(crate) async fn execute(
        &mut self,
        limit: Duration,
        sql: &Sql,
        params: Vec<Value>,
    ) -> Result<u64> {
        let query = query(sql, params);
        let done =
            within(limit + GRACE, sql.as_str(), query.execute(&mut *self.transaction)).await?;
        Ok(done.rows_affected())
    }

    /// `<head> VALUES (…), (…) <tail>`, in as few statements as the protocol allows.
    pub(crate) async fn insert(
        &mut self,
        limit: Duration,
        head: &str,
        tail: &str,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64> {
        let width = rows.first().map_or(1, Vec::len).max(1);
        let mut count = 0;
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<Vec<Value>> = rows.by_ref().take(MAX_BINDS / width).collect();
            let sql = Sql::assembled(insert_text(head, tail, width, chunk.len()));
            let query = query(&sql, chunk.into_iter().flatten().collect()).persistent(false);
            let done = within(limit + GRACE, head, query.execute(&mut *self.transaction)).await?;
            count += done.rows_affected();
        }
        Ok(count)
    }

    pub(crate) async fn fold<S, F>(
        &mut self,
        limit: Duration,
        sql: &Sql,
        params: Vec<Value>,
        mut state: S,
        mut fold: F,
    ) -> Result<S>
    where
        F: FnMut(&mut S, &Row<'_>) -> Result<bool>,
    {
        let mut rows = query(sql, params).fetch(&mut *self.transaction);
        let all = async {
            while let Some(row) =
                rows.try_next().await.map_err(|error| from_postgres(sql.as_str(), error))?
            {
                if !fold(&mut state, &Row::postgres(&row))? {
                    break;
                }
            }
            Ok(())
        };
        tokio::time::timeout(limit + GRACE, all)
            .await
            .map_err(|_| Error::unavailable(Outage::Timeout))??;
        drop(rows);
        Ok(state)
    }

    pub(crate) async fn batch(&mut self, limit: Duration, sql: String) -> Result<()> {
        let label = crate::error::shorten(&sql);
        within(
            limit + GRACE,
            &label,
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *self.transaction),
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn commit(self, limit: Duration) -> Result<()> {
        within(limit + GRACE, "COMMIT", self.transaction.commit()).await
    }
}

/// `head VALUES ($1, $2), ($3, $4) tail`
pub(crate) fn insert_text(head: &str, tail: &str, width: usize, rows: usize) -> String {
    let mut text = String::with_capacity(head.len() + tail.len() + rows * width * 8);
    text.push_str(head);
    text.push_str(" VALUES ");
    for row in 0..rows {
        if row > 0 {
            text.push_str(", ");
        }
        text.push('(');
        text.push_str(&crate::value::placeholders(row * width + 1, width));
        text.push(')');
    }
    text.push(' ');
    text.push_str(tail);
    text
}

fn query(sql: &Sql, params: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.as_str().to_owned()));
    for value in params {
        query = match value {
            Value::Int(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        };
    }
    query
}

async fn within<T>(
    limit: Duration,
    sql: &str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Error::unavailable(Outage::Timeout))?
        .map_err(|error| from_postgres(sql, error))
}
