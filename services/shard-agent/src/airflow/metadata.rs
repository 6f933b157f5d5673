//! Writing to a metadata database.
//!
//! Responsible for transactions: few at a time, each with a limit on how long a statement may run
//! and how long it may wait for a lock, so that the scheduler never queues behind the agent for
//! long. A transaction that is dropped before it is committed takes its connection with it, as a
//! killed agent does, and leaves nothing behind.
//!
//! Invariant: nothing is written to a schema that is not known. It must not know what is written.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use airfleet_runtime::config::ConnectionUrl;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, Postgres,
    postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow},
    query::QueryAs,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    dialect::{Line, Schema},
    session::Target,
};

/// Transactions at a time. More would take connections from Airflow, and hurry nothing.
const TRANSACTIONS_MAX: usize = 4;

/// Time to wait for a lock: an Airflow that is in the way is soon done, and what waits behind a
/// waiting agent must not wait for long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why something was not written. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata database is none that can be written to.
    #[error("the shard stands on SQLite, where nothing is fenced or written; use PostgreSQL")]
    Unsupported,
    /// The schema is one that nobody has looked at.
    #[error("the metadata database has the alembic revision {0:?}, which this agent does not know")]
    UnknownRevision(String),
    /// There is a database, but no Airflow in it.
    #[error("the database has no table alembic_version; is it Airflow's, and migrated?")]
    NotAirflow,
    /// The role of the agent may not do it.
    #[error(
        "the agent's role may not {doing}; run airfleet-agent fence install --grant-to ROLE as the \
         owner of Airflow's tables"
    )]
    NotAllowed {
        /// What was tried.
        doing: &'static str,
        /// As the database says it.
        source: sqlx::Error,
    },
    /// The database took too long, or too many wait for it.
    #[error("the metadata database did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The database refused or failed.
    #[error("cannot {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
}

impl Error {
    /// A failure of `doing`, told apart by what the database answered.
    pub(crate) fn of(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match code(&source).as_deref() {
            // insufficient_privilege, read_only_sql_transaction
            Some("42501" | "25006") => Self::NotAllowed { doing, source },
            _ => Self::Database { doing, source },
        }
    }

    /// Whether the agent is not allowed to, so that trying again is no use until somebody helps.
    pub fn is_not_allowed(&self) -> bool {
        matches!(self, Self::NotAllowed { .. })
    }
}

/// SQLSTATE of a failure.
fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// A metadata database that may be written to. Clones share connections.
#[derive(Debug, Clone)]
pub struct Metadata(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Option<PgConnectOptions>,
    statement_timeout: Duration,
    /// Connections that nobody uses, at most [`TRANSACTIONS_MAX`].
    idle: Mutex<Vec<PgConnection>>,
    permits: Arc<Semaphore>,
}

/// A transaction. Dropped without a commit it is rolled back, and its connection closed.
#[derive(Debug)]
pub struct Transaction {
    shared: Arc<Shared>,
    connection: PgConnection,
    line: Line,
    /// Name of the schema of Airflow's tables, quoted.
    schema: String,
    _permit: OwnedSemaphorePermit,
}

impl Metadata {
    /// How to connect to it; none where it is not PostgreSQL.
    pub(crate) fn options(&self) -> Option<PgConnectOptions> {
        self.0.options.clone()
    }

    /// Connects when it is first used. No statement runs longer than `timeout`.
    pub fn new(url: &ConnectionUrl, timeout: Duration) -> Result<Self, super::Error> {
        let options = match Target::parse(url, timeout)? {
            Target::Postgres(options) => Some(*options),
            Target::Sqlite(_) => None,
        };
        Ok(Self(Arc::new(Shared {
            options,
            statement_timeout: timeout,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(TRANSACTIONS_MAX)),
        })))
    }

    /// Begins a transaction: read committed, so that each statement sees what is committed then.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let shared = &self.0;
        let Some(options) = &shared.options else { return Err(Error::Unsupported) };
        let permit = shared.permits.clone().acquire_owned().await.expect("it is never closed");
        let idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let begun = match idle {
            // The server may have closed it since: that is no news about the database yet.
            Some(connection) => shared.start(connection).await.ok(),
            None => None,
        };
        let connection = match begun {
            Some(connection) => connection,
            None => {
                let connection = options.connect().await.map_err(Error::of("connect"))?;
                shared.start(connection).await.map_err(Error::of("begin a transaction"))?
            }
        };
        let mut transaction = Transaction {
            shared: shared.clone(),
            connection,
            line: Line::Three,
            schema: String::new(),
            _permit: permit,
        };
        transaction.look_around().await?;
        Ok(transaction)
    }
}

impl Shared {
    async fn start(&self, mut connection: PgConnection) -> Result<PgConnection, sqlx::Error> {
        // Local to the transaction, so that it holds behind a pooler of transactions too.
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
            self.statement_timeout.as_millis().max(1),
            LOCK_TIMEOUT.as_millis(),
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await?;
        Ok(connection)
    }
}

impl Transaction {
    /// Recognises the schema, anew each time: it may be migrated while the agent runs.
    async fn look_around(&mut self) -> Result<(), Error> {
        let sql = "SELECT quote_ident(n.nspname) FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.oid = to_regclass('alembic_version') AND to_regclass('dag') IS NOT NULL";
        let schema: Option<(String,)> = self
            .query_as(sql)
            .fetch_optional(self.connection())
            .await
            .map_err(Error::of("look"))?;
        let (schema,) = schema.ok_or(Error::NotAirflow)?;
        let revisions: Vec<(String,)> = self
            .query_as(super::dialect::REVISION)
            .fetch_all(self.connection())
            .await
            .map_err(Error::of("read the alembic revision"))?;
        let known = match revisions.as_slice() {
            [] => return Err(Error::NotAirflow),
            [(revision,)] => Schema::of(revision),
            _ => None,
        };
        let Some(known) = known else {
            let all: Vec<_> = revisions.iter().map(|(revision,)| revision.as_str()).collect();
            return Err(Error::UnknownRevision(all.join(", ")));
        };
        (self.schema, self.line) = (schema, known.line);
        Ok(())
    }

    /// The connection, to run statements on.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Which releases of Airflow have this schema.
    pub(crate) fn line(&self) -> Line {
        self.line
    }

    /// A text in which `{schema}` stands for the schema of Airflow's tables.
    pub(crate) fn render(&self, sql: &str) -> String {
        sql.replace("{schema}", &self.schema)
    }

    /// A query for rows of `T`. Not prepared under a name: a pooler of transactions would lose it.
    pub(crate) fn query_as<'q, T>(&self, sql: &str) -> QueryAs<'q, Postgres, T, PgArguments>
    where
        T: for<'r> sqlx::FromRow<'r, PgRow>,
    {
        sqlx::query_as(AssertSqlSafe(self.render(sql))).persistent(false)
    }

    /// Runs a statement with these texts, numbers and lists.
    pub(crate) async fn execute(
        &mut self,
        doing: &'static str,
        sql: &str,
        binds: &[Bind<'_>],
    ) -> Result<PgQueryResult, Error> {
        let mut query = sqlx::query(AssertSqlSafe(self.render(sql))).persistent(false);
        for bind in binds {
            query = match *bind {
                Bind::Text(text) => query.bind(text.to_owned()),
                Bind::Texts(texts) => query.bind(texts.to_vec()),
                Bind::Number(number) => query.bind(number),
                Bind::Flag(flag) => query.bind(flag),
            };
        }
        query.execute(&mut self.connection).await.map_err(Error::of(doing))
    }

    /// Runs statements without parameters, one after the other.
    pub(crate) async fn batch(&mut self, doing: &'static str, sql: &str) -> Result<(), Error> {
        let text = self.render(sql);
        sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&mut self.connection)
            .await
            .map_err(Error::of(doing))?;
        Ok(())
    }

    /// Commits. Where this fails it is not known whether it is committed; whoever asks again sees.
    pub async fn commit(mut self) -> Result<(), Error> {
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(Error::of("commit"))?;
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < TRANSACTIONS_MAX {
            idle.push(self.connection);
        }
        Ok(())
    }

    /// Rolls back and keeps the connection.
    pub async fn rollback(mut self) {
        if sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.is_ok() {
            let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < TRANSACTIONS_MAX {
                idle.push(self.connection);
            }
        }
    }
}

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bind<'a> {
    /// A text.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [String]),
    /// A number.
    Number(i64),
    /// A flag.
    Flag(bool),
}
