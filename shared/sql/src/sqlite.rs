//! SQLite: one thread per connection, one writer and several readers over one file.
//!
//! Statements are closures sent to the connection's thread; rows are mapped there, so that a
//! table of a million rows costs no message per row. Invariant: whoever holds a [`Session`] is
//! alone on its connection, and a session that ends without commit is rolled back before the
//! connection serves the next one, also when its future was dropped halfway.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, OpenFlags, Statement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Outage, Result, from_sqlite};
use crate::options::{Durability, Options};
use crate::value::{Row, Sql, Value};

/// Statements a connection keeps prepared.
const PREPARED: usize = 128;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    writer: Arc<Slots>,
    /// The writer itself for a database in memory, which has only one connection.
    readers: Arc<Slots>,
}

#[derive(Debug)]
struct Slots {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Worker>>,
    acquire_timeout: Duration,
}

struct Worker {
    /// Holds at most the statement that runs and the rollback that follows it.
    jobs: mpsc::Sender<Job>,
    interrupt: InterruptHandle,
}

impl Pool {
    /// Opens or creates the file with its folder; `None` is a database in memory.
    pub(crate) async fn open(path: Option<&Path>, options: &Options) -> Result<Self> {
        let path = path.map(Path::to_owned);
        let options = options.clone();
        tokio::task::spawn_blocking(move || Self::open_blocking(path.as_deref(), &options))
            .await
            .map_err(|error| Error::Config {
                detail: "opening it was interrupted".to_owned(),
                source: Some(error.into()),
            })?
    }

    fn open_blocking(path: Option<&Path>, options: &Options) -> Result<Self> {
        let Some(path) = path else {
            let connection = Connection::open_in_memory().map_err(|e| from_sqlite("open", e))?;
            prepare(&connection, options, false).map_err(|e| from_sqlite("open", e))?;
            let writer = Slots::new(vec![connection], options)?;
            return Ok(Self { readers: writer.clone(), writer });
        };
        let unusable = |source: crate::error::Source| Error::Config {
            detail: format!("cannot open or create `{}`", path.display()),
            source: Some(source),
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| unusable(error.into()))?;
        }
        let open = |read_only| -> Result<Connection> {
            let connection = Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE
                    | OpenFlags::SQLITE_OPEN_CREATE
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )
            .map_err(|error| unusable(error.into()))?;
            prepare(&connection, options, read_only).map_err(|error| {
                match from_sqlite("open", error) {
                    Error::Statement { source, .. } => Error::Config {
                        detail: format!("`{}` is not a usable SQLite file", path.display()),
                        source,
                    },
                    other => other,
                }
            })?;
            Ok(connection)
        };
        let writer = Slots::new(vec![open(false)?], options)?;
        let readers =
            (0..options.max_connections.max(1)).map(|_| open(true)).collect::<Result<Vec<_>>>()?;
        Ok(Self { writer, readers: Slots::new(readers, options)? })
    }

    pub(crate) async fn begin(&self, write: bool) -> Result<Session> {
        let (slots, begin) =
            if write { (&self.writer, "BEGIN IMMEDIATE") } else { (&self.readers, "BEGIN") };
        let mut session = slots.acquire().await?;
        session.open = true;
        session
            // SQLite itself waits for another process no longer than the acquire timeout.
            .call(slots.acquire_timeout + Duration::from_secs(1), begin, move |connection| {
                connection.execute_batch(begin).map_err(|error| from_sqlite(begin, error))
            })
            .await?;
        Ok(session)
    }

    /// Waits for every session to end and closes all connections.
    pub(crate) async fn close(&self) {
        for slots in [&self.writer, &self.readers] {
            slots.close().await;
        }
    }
}

/// Sets up a connection.
fn prepare(
    connection: &Connection,
    options: &Options,
    read_only: bool,
) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(options.acquire_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match options.durability {
        Durability::PowerLoss => "FULL",
        Durability::ProcessCrash => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // KiB; the pages of a million assignments would not fit the default 2 MB.
    connection.pragma_update(None, "cache_size", if read_only { -8_000 } else { -64_000 })?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.pragma_update(None, "query_only", read_only)?;
    Ok(())
}

impl Slots {
    fn new(connections: Vec<Connection>, options: &Options) -> Result<Arc<Self>> {
        let permits = Arc::new(Semaphore::new(connections.len()));
        let idle = connections.into_iter().map(Worker::start).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            permits,
            idle: Mutex::new(idle),
            acquire_timeout: options.acquire_timeout,
        }))
    }

    async fn acquire(self: &Arc<Self>) -> Result<Session> {
        let permit =
            tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.permits).acquire_owned())
                .await
                .map_err(|_| Error::unavailable(Outage::Busy))?
                .map_err(|_| Error::unavailable(Outage::Server))?;
        let worker = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Session {
            worker,
            slots: Arc::clone(self),
            _permit: permit,
            open: false,
            running: false,
        })
    }

    async fn close(&self) {
        let all = self.idle.lock().map_or(0, |idle| idle.len());
        let wait = self.permits.acquire_many(u32::try_from(all).unwrap_or(u32::MAX));
        let _ = tokio::time::timeout(self.acquire_timeout, wait).await;
        self.permits.close();
        // Ends the threads, which close their connections.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Worker {
    fn start(mut connection: Connection) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let interrupt = connection.get_interrupt_handle();
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    // A panic of a row mapping is reported to its caller, who sees its answer
                    // channel closed; the connection stays usable.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        job(&mut connection);
                    }));
                }
            })
            .map_err(|error| Error::Config {
                detail: "cannot start a thread for SQLite".to_owned(),
                source: Some(error.into()),
            })?;
        Ok(Self { jobs, interrupt })
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// A transaction on one connection, held alone.
#[derive(Debug)]
pub(crate) struct Session {
    /// None only once the pool was closed.
    worker: Option<Worker>,
    slots: Arc<Slots>,
    _permit: OwnedSemaphorePermit,
    /// A transaction is open.
    open: bool,
    /// A statement is under way.
    running: bool,
}

impl Session {
    /// Runs `work` on the connection's thread.
    async fn call<T, F>(&mut self, limit: Duration, sql: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let closed = || Error::unavailable(Outage::Server);
        let worker = self.worker.as_ref().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(work(connection));
        });
        worker.jobs.send(job).map_err(|_| closed())?;
        self.running = true;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => {
                self.running = false;
                answer
            }
            Ok(Err(_)) => {
                self.running = false;
                Err(Error::statement(sql, "mapping its rows panicked"))
            }
            // `running` stays set: dropping the session interrupts the statement.
            Err(_) => Err(Error::unavailable(Outage::Timeout)),
        }
    }

    pub(crate) async fn execute(
        &mut self,
        limit: Duration,
        sql: &Sql,
        params: Vec<Value>,
    ) -> Result<u64> {
        let text = sql.clone();
        self.call(limit, sql.as_str(), move |connection| {
            let run = || {
                let mut statement = connection.prepare_cached(text.as_str())?;
                bind(&mut statement, &params)?;
                statement.raw_execute()
            };
            run().map(|count| count as u64).map_err(|error| from_sqlite(text.as_str(), error))
        })
        .await
    }

    /// Runs one statement with each of `rows`.
    pub(crate) async fn execute_many(
        &mut self,
        limit: Duration,
        sql: &Sql,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64> {
        let text = sql.clone();
        self.call(limit, sql.as_str(), move |connection| {
            let run = || {
                let mut statement = connection.prepare_cached(text.as_str())?;
                let mut count = 0;
                for params in &rows {
                    bind(&mut statement, params)?;
                    count += statement.raw_execute()?;
                }
                Ok(count as u64)
            };
            run().map_err(|error| from_sqlite(text.as_str(), error))
        })
        .await
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
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) -> Result<bool> + Send + 'static,
    {
        let text = sql.clone();
        self.call(limit, sql.as_str(), move |connection| {
            let failed = |error| from_sqlite(text.as_str(), error);
            let mut statement = connection.prepare_cached(text.as_str()).map_err(failed)?;
            bind(&mut statement, &params).map_err(failed)?;
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failed)? {
                if !fold(&mut state, &Row::sqlite(row))? {
                    break;
                }
            }
            Ok(state)
        })
        .await
    }

    pub(crate) async fn batch(&mut self, limit: Duration, sql: String) -> Result<()> {
        let label = crate::error::shorten(&sql);
        self.call(limit, &label, move |connection| {
            connection.execute_batch(&sql).map_err(|error| from_sqlite(&sql, error))
        })
        .await
    }

    pub(crate) async fn commit(&mut self, limit: Duration) -> Result<()> {
        self.batch(limit, "COMMIT".to_owned()).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        if self.running {
            worker.interrupt.interrupt();
        }
        if self.open {
            // Runs before whatever the next holder of this connection sends.
            let rollback: Job = Box::new(|connection| {
                if !connection.is_autocommit()
                    && let Err(error) = connection.execute_batch("ROLLBACK")
                {
                    tracing::warn!(%error, "cannot roll back an abandoned transaction");
                }
            });
            let _ = worker.jobs.send(rollback);
        }
        if !self.slots.permits.is_closed() {
            self.slots.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        }
    }
}

/// Binds `params[n - 1]` to `$n`. SQLite takes `$n` for a name and numbers names by appearance.
fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), rusqlite::Error> {
    for index in 1..=statement.parameter_count() {
        let number = match statement.parameter_name(index) {
            Some(name) => name[1..]
                .parse::<usize>()
                .map_err(|_| rusqlite::Error::InvalidParameterName(name.to_owned()))?,
            None => index,
        };
        let value = number
            .checked_sub(1)
            .and_then(|at| params.get(at))
            .ok_or(rusqlite::Error::InvalidParameterCount(params.len(), number))?;
        match value {
            Value::Int(value) => statement.raw_bind_parameter(index, value)?,
            Value::Text(value) => statement.raw_bind_parameter(index, value)?,
            Value::Bytes(value) => statement.raw_bind_parameter(index, value)?,
        }
    }
    Ok(())
}
