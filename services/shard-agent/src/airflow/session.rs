//! Connections to a metadata database, each used for one snapshot or one transaction at a time.
//!
//! Responsible for connecting, for bounding what the database spends on a statement, and for never
//! waiting on a connection that hangs: a snapshot that is dropped before it is finished takes its
//! connection with it, and the next one connects anew. A pool would keep such a connection until
//! TCP gives up on it, which is why there is none.
//!
//! A [`Session`] never writes: every snapshot is a read-only transaction. What writes is
//! [`super::metadata`]. It must not know what is read.

use std::{str::FromStr as _, time::Duration};

use airfleet_runtime::config::ConnectionUrl;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, FromRow, PgConnection, SqliteConnection,
    postgres::{PgConnectOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{Error, dialect::Engine};

const APPLICATION_NAME: &str = "airfleet-agent";

/// A row that both engines can give: in practice a tuple of texts, integers and options of them.
pub(super) trait Row:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{}

#[derive(Debug)]
pub(super) struct Session {
    target: Target,
    /// Longest that one statement may run.
    statement_timeout: Duration,
    idle: Option<Connection>,
}

#[derive(Debug, Clone)]
pub(super) enum Target {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

#[derive(Debug)]
enum Connection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// A read-only transaction. Drop it unfinished and its connection is closed.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    session: &'a mut Session,
    connection: Connection,
}

impl Target {
    /// Takes URLs as sqlx and as SQLAlchemy write them (`postgresql+psycopg2://…`). SQLite is
    /// opened for reading alone.
    pub(super) fn parse(url: &ConnectionUrl, busy_timeout: Duration) -> Result<Self, Error> {
        let text = without_driver(url.expose());
        let unreadable = || Error::Url(url.to_string());
        Ok(match text.split_once(':').map_or("", |(scheme, _)| scheme) {
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(&text).map_err(|_| unreadable())?;
                let options =
                    options.application_name(APPLICATION_NAME).disable_statement_logging();
                Target::Postgres(Box::new(options))
            }
            "sqlite" => {
                let options = SqliteConnectOptions::from_str(&text).map_err(|_| unreadable())?;
                let options =
                    options.read_only(true).busy_timeout(busy_timeout).disable_statement_logging();
                Target::Sqlite(Box::new(options))
            }
            _ => return Err(unreadable()),
        })
    }
}

impl Session {
    /// Connects later.
    pub(super) fn new(url: &ConnectionUrl, statement_timeout: Duration) -> Result<Self, Error> {
        let target = Target::parse(url, statement_timeout)?;
        Ok(Self { target, statement_timeout, idle: None })
    }

    pub(super) fn engine(&self) -> Engine {
        match self.target {
            Target::Postgres(_) => Engine::Postgres,
            Target::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// Begins a snapshot, on a new connection where none is left from before.
    pub(super) async fn snapshot(&mut self) -> Result<Snapshot<'_>, Error> {
        if let Some(connection) = self.idle.take() {
            // The server may have closed it since: that is no news about the database yet.
            if let Ok(connection) = self.begin(connection).await {
                return Ok(Snapshot { session: self, connection });
            }
        }
        let connection = match &self.target {
            Target::Postgres(options) => options.connect().await.map(Connection::Postgres),
            Target::Sqlite(options) => options.connect().await.map(Connection::Sqlite),
        };
        let connection = connection.map_err(Error::database("connect"))?;
        let connection = self.begin(connection).await.map_err(Error::database("begin"))?;
        Ok(Snapshot { session: self, connection })
    }

    async fn begin(&self, mut connection: Connection) -> Result<Connection, sqlx::Error> {
        match &mut connection {
            Connection::Postgres(postgres) => {
                // Local to the transaction, so that it holds behind a pooler of transactions too.
                let begin = format!(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                     SET LOCAL statement_timeout = {}",
                    self.statement_timeout.as_millis().max(1)
                );
                sqlx::raw_sql(AssertSqlSafe(begin)).execute(postgres).await?;
            }
            Connection::Sqlite(sqlite) => {
                sqlx::raw_sql("BEGIN").execute(sqlite).await?;
            }
        }
        Ok(connection)
    }
}

impl Snapshot<'_> {
    /// All rows of a query.
    pub(super) async fn rows<T: Row>(&mut self, sql: &str) -> Result<Vec<T>, sqlx::Error> {
        // Not prepared under a name: a pooler of transactions would lose it.
        match &mut self.connection {
            Connection::Postgres(postgres) => {
                let query = sqlx::query_as::<_, T>(AssertSqlSafe(sql.to_owned()));
                query.persistent(false).fetch_all(postgres).await
            }
            Connection::Sqlite(sqlite) => {
                let query = sqlx::query_as::<_, T>(AssertSqlSafe(sql.to_owned()));
                query.persistent(false).fetch_all(sqlite).await
            }
        }
    }

    /// Ends the snapshot and keeps the connection for the next one.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        let ended = match &mut self.connection {
            Connection::Postgres(postgres) => {
                sqlx::raw_sql("COMMIT").execute(postgres).await.map(drop)
            }
            Connection::Sqlite(sqlite) => sqlx::raw_sql("COMMIT").execute(sqlite).await.map(drop),
        };
        ended.map_err(Error::database("end the snapshot"))?;
        self.session.idle = Some(self.connection);
        Ok(())
    }

    /// Closes the connection in good order.
    pub(super) async fn close(self) {
        // What remains is a connection that nobody uses; the server sees it end either way.
        let _ = match self.connection {
            Connection::Postgres(postgres) => postgres.close().await,
            Connection::Sqlite(sqlite) => sqlite.close().await,
        };
    }
}

/// `postgresql+psycopg2://…` is how SQLAlchemy names the driver; the rest is the same.
fn without_driver(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, rest)) if scheme.contains('+') => {
            let scheme = scheme.split('+').next().unwrap_or_default();
            format!("{scheme}:{rest}")
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(url: &str) -> Result<Session, Error> {
        Session::new(&ConnectionUrl::new(url).unwrap(), Duration::from_secs(1))
    }

    #[test]
    fn urls_of_airflow_itself_are_understood() {
        for url in ["postgresql+psycopg2://u:p@db:5433/airflow", "postgres://u@db/airflow"] {
            assert_eq!(session(url).unwrap().engine(), Engine::Postgres, "{url}");
        }
        for url in ["sqlite:////var/lib/airflow.db", "sqlite+aiosqlite:////var/lib/airflow.db"] {
            assert_eq!(session(url).unwrap().engine(), Engine::Sqlite, "{url}");
        }
    }

    #[test]
    fn other_databases_are_refused_without_their_password() {
        let error = session("mysql+mysqldb://airflow:hunter2@db/airflow").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("mysql") && !text.contains("hunter2"), "{text}");
    }
}
