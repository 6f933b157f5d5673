//! The handle: opens an engine by URL, runs transactions, retries the ones that lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::error::{Error, Outage, Result};
use crate::options::Options;
use crate::postgres::Isolation;
use crate::tx::{Session, Spoiled, Tx};
use crate::{postgres, sqlite};

/// First pause after a lost write; doubles up to [`MAX_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause after a lost write.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Which engine serves a [`Db`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One file, one process.
    Sqlite,
    /// A server, several replicas.
    Postgres,
}

/// What happened to writes since the start. Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tries that lost against another writer and were run again.
    pub write_retries: u64,
    /// Writes that gave up.
    pub write_give_ups: u64,
}

/// A database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Db {
    pool: Pool,
    options: Arc<Options>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held by a write that is run again: losers of one process go one by one instead of making
    /// each other lose again. Speeds things up; correctness is the engine's.
    second_tries: tokio::sync::Mutex<()>,
    write_retries: AtomicU64,
    write_give_ups: AtomicU64,
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(sqlite::Pool),
    Postgres(postgres::Pool),
}

enum Try<T, E> {
    Done(T),
    Refused(E),
    Contended(Error),
}

impl Db {
    /// Opens `sqlite:<path>`, `sqlite::memory:`, or `postgres://user:password@host/database`.
    ///
    /// SQLite's file and folder are created. PostgreSQL is connected to at the first use, so that
    /// a service starts while its server is away.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        let pool = if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path.split('?').next().unwrap_or(path);
            let path = match path {
                "" => {
                    return Err(Error::Config {
                        detail: "the URL names no file; use sqlite:folder/file.db".to_owned(),
                        source: None,
                    });
                }
                ":memory:" => None,
                path => Some(Path::new(path)),
            };
            Pool::Sqlite(sqlite::Pool::open(path, &options).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Pool::Postgres(postgres::Pool::open(url, &options)?)
        } else {
            return Err(Error::Config {
                detail: "the URL has to start with sqlite: or postgres://".to_owned(),
                source: None,
            });
        };
        Ok(Self { pool, options: Arc::new(options), shared: Arc::default() })
    }

    /// Which engine this is; for logs, never to choose SQL by.
    pub fn engine(&self) -> Engine {
        match self.pool {
            Pool::Sqlite(_) => Engine::Sqlite,
            Pool::Postgres(_) => Engine::Postgres,
        }
    }

    /// What happened to writes since the start.
    pub fn counters(&self) -> Counters {
        Counters {
            write_retries: self.shared.write_retries.load(Ordering::Relaxed),
            write_give_ups: self.shared.write_give_ups.load(Ordering::Relaxed),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.read(async |tx: &mut Tx| {
            tx.fetch_one("SELECT 1", Vec::new(), |row| row.get::<i64>(0)).await
        })
        .await
        .map(|_| ())
    }

    /// Runs `work` over one snapshot of the database. It cannot write.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
        E: From<Error>,
    {
        let mut tx = self.begin(Isolation::ReadOnly).await?;
        let value = work(&mut tx).await?;
        // Nothing to make durable: dropping it rolls back, which costs as much as a commit.
        drop(tx);
        Ok(value)
    }

    /// Runs `work` as one serializable transaction and commits it where it answers `Ok`.
    ///
    /// `work` runs again when the transaction lost against another writer, at most
    /// [`Options::write_attempts`] times within [`Options::write_budget`]; so it must have no
    /// effect but through its [`Tx`], and must not wait for anything else while it holds it.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: AsyncFn(&mut Tx) -> Result<T, E>,
        E: From<Error>,
    {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut turn = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let lost = match self.try_write(&work).await {
                Try::Done(value) => return Ok(value),
                Try::Refused(error) => return Err(error),
                Try::Contended(error) => error,
            };
            let left = self.options.write_budget.saturating_sub(started.elapsed());
            if attempts >= self.options.write_attempts || left.is_zero() {
                self.shared.write_give_ups.fetch_add(1, Ordering::Relaxed);
                let source = match lost {
                    Error::Contention { source, .. } => source,
                    other => Some(other.into()),
                };
                return Err(Error::Contention { attempts, source }.into());
            }
            self.shared.write_retries.fetch_add(1, Ordering::Relaxed);
            if turn.is_none() {
                turn = tokio::time::timeout(left, self.shared.second_tries.lock()).await.ok();
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.0..1.0));
            tokio::time::sleep(jittered.min(left)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn try_write<T, E, F>(&self, work: &F) -> Try<T, E>
    where
        F: AsyncFn(&mut Tx) -> Result<T, E>,
        E: From<Error>,
    {
        let sort = |error: Error| {
            if error.is_contention() { Try::Contended(error) } else { Try::Refused(error.into()) }
        };
        let mut tx = match self.begin(Isolation::Serializable).await {
            Ok(tx) => tx,
            Err(error) => return sort(error),
        };
        let result = work(&mut tx).await;
        match (result, tx.spoiled()) {
            (Ok(value), Spoiled::No) => match tx.commit().await {
                Ok(()) => Try::Done(value),
                Err(error) => sort(error),
            },
            // What `work` made of the engine's error does not matter: it lost.
            (_, Spoiled::Contended) => {
                Try::Contended(Error::Contention { attempts: 1, source: None })
            }
            (Err(error), _) => Try::Refused(error),
            (Ok(_), Spoiled::Failed) => Try::Refused(
                Error::statement(
                    "COMMIT",
                    "a statement failed and its error was swallowed; return it",
                )
                .into(),
            ),
        }
    }

    pub(crate) fn scan_timeout(&self) -> Duration {
        self.options.scan_timeout
    }

    pub(crate) async fn begin(&self, isolation: Isolation) -> Result<Tx> {
        let session = match &self.pool {
            Pool::Sqlite(pool) => {
                Session::Sqlite(pool.begin(isolation != Isolation::ReadOnly).await?)
            }
            Pool::Postgres(pool) => Session::Postgres(pool.begin(isolation).await?),
        };
        Ok(Tx::new(session, self.options.statement_timeout, self.options.scan_timeout))
    }

    /// Ends all connections, waiting for running transactions no longer than the acquire
    /// timeout. Later calls fail as unavailable.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    /// Waits until the database answers or `limit` has passed.
    pub async fn wait_until_available(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.ping().await {
                Err(error) if error.is_unavailable() && started.elapsed() + pause < limit => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(Error::Unavailable { source, .. }) => {
                    return Err(Error::Unavailable { reason: Outage::Connection, source });
                }
                other => return other,
            }
        }
    }
}
