//! What can go wrong in a database, by what the caller can do about it.
//!
//! Both engines' codes are sorted here and nowhere else. Invariant: an error never carries the
//! connection URL, which may hold a password.

use std::fmt;

/// Answer of a database call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the database cannot serve now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No connection could be made, or it broke.
    Connection,
    /// The server is starting or stopping, or takes no more connections.
    Server,
    /// No connection came free in time.
    Busy,
    /// A statement took longer than it may.
    Timeout,
    /// The disk is full, failing or read-only.
    Storage,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "no connection to it",
            Self::Server => "it is starting, stopping or full of connections",
            Self::Busy => "no connection came free in time",
            Self::Timeout => "a statement took longer than allowed",
            Self::Storage => "its disk is full, failing or read-only",
        })
    }
}

/// Which kind of constraint refused a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// Primary key or unique index.
    Unique,
    /// Foreign key.
    ForeignKey,
    /// Check.
    Check,
    /// A value that must not be NULL.
    NotNull,
}

impl fmt::Display for ConstraintKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unique => "unique",
            Self::ForeignKey => "foreign key",
            Self::Check => "check",
            Self::NotNull => "not null",
        })
    }
}

/// Failure of a database call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot serve now. Whether a write whose commit was under way took effect is
    /// unknown; repeat it only where that is harmless.
    #[error("the database is unavailable: {reason}; try again")]
    Unavailable {
        /// Why.
        reason: Outage,
        /// What the engine said.
        source: Option<Source>,
    },
    /// The write lost against other writers on every try.
    #[error("gave up after {attempts} tries against concurrent writers; try again")]
    Contention {
        /// How often it was tried.
        attempts: u32,
        /// What the engine said last.
        source: Option<Source>,
    },
    /// A constraint refused the row. The transaction is lost; where a duplicate is expected, ask
    /// with `ON CONFLICT DO NOTHING` instead.
    #[error("a {kind} constraint of table `{table}` refused the row")]
    Constraint {
        /// Which kind.
        kind: ConstraintKind,
        /// The table, where the engine tells; else empty.
        table: String,
        /// What the engine said.
        source: Option<Source>,
    },
    /// A stored row is not what this program writes. The query itself worked.
    #[error("a stored row does not decode: column `{column}`: {detail}")]
    Corrupt {
        /// The column.
        column: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A query that has to find a row found none.
    #[error("no row where there has to be one: {statement}")]
    MissingRow {
        /// The statement, shortened.
        statement: String,
    },
    /// The caller was leader once and is no more.
    #[error("term {held} has ended, the leader's term is {current}")]
    StaleTerm {
        /// Term the caller wrote for.
        held: i64,
        /// Term of the lease; 0 where there is none.
        current: i64,
    },
    /// The database URL or file cannot be used.
    #[error("cannot use the configured database: {detail}")]
    Config {
        /// What is wrong and what to do.
        detail: String,
        /// What the engine said.
        source: Option<Source>,
    },
    /// The tables cannot be brought up to date.
    #[error("migration {version} of {service}: {detail}")]
    Migration {
        /// Whose tables.
        service: String,
        /// Which migration.
        version: i64,
        /// What is wrong.
        detail: String,
    },
    /// The engine refused the statement: a defect of this program, or of the database file.
    #[error("the database refused a statement: {statement}")]
    Statement {
        /// The statement, shortened.
        statement: String,
        /// What the engine said.
        source: Option<Source>,
    },
}

impl Error {
    /// A column whose value is not what this program writes.
    pub fn corrupt(column: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Corrupt { column: column.into(), detail: detail.to_string() }
    }

    pub(crate) fn unavailable(reason: Outage) -> Self {
        Self::Unavailable { reason, source: None }
    }

    pub(crate) fn statement(sql: &str, source: impl Into<Source>) -> Self {
        Self::Statement { statement: shorten(sql), source: Some(source.into()) }
    }

    /// Whether the same call may work later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the write lost against others and may be tried again.
    pub fn is_contention(&self) -> bool {
        matches!(self, Self::Contention { .. })
    }

    /// Whether a primary key or unique index refused the row.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Constraint { kind: ConstraintKind::Unique, .. })
    }

    /// Whether the caller is no longer leader.
    pub fn is_stale_term(&self) -> bool {
        matches!(self, Self::StaleTerm { .. })
    }

    /// Whether a statement failed in such a way that its transaction is lost.
    pub(crate) fn spoils_transaction(&self) -> bool {
        !matches!(self, Self::Corrupt { .. } | Self::MissingRow { .. } | Self::StaleTerm { .. })
    }
}

/// The start of a statement on one line, for messages.
pub(crate) fn shorten(sql: &str) -> String {
    const LIMIT: usize = 120;
    let mut line = String::with_capacity(LIMIT + 4);
    for word in sql.split_whitespace() {
        if line.len() + word.len() > LIMIT {
            line.push_str(" …");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// Sorts a failure of SQLite.
pub(crate) fn from_sqlite(sql: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ffi::{self, ErrorCode};

    let (code, message) = match &error {
        rusqlite::Error::SqliteFailure(code, message) => (*code, message.clone()),
        _ => return Error::statement(sql, error),
    };
    let outage = |reason| Error::Unavailable { reason, source: None };
    let failure = match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SchemaChanged => {
            Error::Contention { attempts: 1, source: None }
        }
        ErrorCode::OperationInterrupted => outage(Outage::Timeout),
        ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::OutOfMemory => outage(Outage::Storage),
        ErrorCode::ConstraintViolation => {
            let kind = match code.extended_code {
                ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
                ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
                ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
                _ => ConstraintKind::Unique,
            };
            // The table is told nowhere but in "UNIQUE constraint failed: table.column". It is
            // shown to people, never decided on.
            let table = message
                .as_deref()
                .and_then(|text| text.split_once(": "))
                .and_then(|(_, columns)| columns.split('.').next())
                .unwrap_or_default();
            Error::Constraint { kind, table: table.to_owned(), source: None }
        }
        _ => return Error::statement(sql, error),
    };
    with_source(failure, error)
}

/// Sorts a failure of PostgreSQL or of the way to it.
pub(crate) fn from_postgres(sql: &str, error: sqlx::Error) -> Error {
    use sqlx::error::ErrorKind;

    let outage = |reason| Error::Unavailable { reason, source: None };
    let failure = match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => outage(Outage::Connection),
        sqlx::Error::PoolTimedOut => outage(Outage::Busy),
        sqlx::Error::PoolClosed => outage(Outage::Server),
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            let constraint = |kind| Error::Constraint {
                kind,
                table: database.table().unwrap_or_default().to_owned(),
                source: None,
            };
            match (&*code, database.kind()) {
                // serialization_failure, deadlock_detected, lock_not_available
                ("40001" | "40P01" | "55P03", _) => Error::Contention { attempts: 1, source: None },
                // query_canceled, transaction_timeout
                ("57014" | "25P04", _) => outage(Outage::Timeout),
                // disk_full, out_of_memory, read_only_sql_transaction (a standby), io_error
                ("53100" | "53200" | "25006" | "58030", _) => outage(Outage::Storage),
                // too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now,
                // database_dropped, idle_in_transaction_session_timeout
                ("53300" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03", _) => {
                    outage(Outage::Server)
                }
                (code, _) if code.starts_with("08") => outage(Outage::Connection),
                // Wrong password, unknown role or database: needs a person.
                (code, _) if code.starts_with("28") || code == "3D000" => Error::Config {
                    detail: "the server refuses this user, password or database name".to_owned(),
                    source: None,
                },
                (_, ErrorKind::UniqueViolation) => constraint(ConstraintKind::Unique),
                (_, ErrorKind::ForeignKeyViolation) => constraint(ConstraintKind::ForeignKey),
                (_, ErrorKind::NotNullViolation) => constraint(ConstraintKind::NotNull),
                (_, ErrorKind::CheckViolation) => constraint(ConstraintKind::Check),
                _ => return Error::statement(sql, error),
            }
        }
        _ => return Error::statement(sql, error),
    };
    with_source(failure, error)
}

fn with_source(mut failure: Error, engine: impl Into<Source>) -> Error {
    if let Error::Unavailable { source, .. }
    | Error::Contention { source, .. }
    | Error::Constraint { source, .. }
    | Error::Config { source, .. } = &mut failure
    {
        *source = Some(engine.into());
    }
    failure
}
