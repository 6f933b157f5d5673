//! The handle: opens an engine by URL, runs transactions, retries the ones that lost.

use std::ops::ControlFlow;
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

/// How often a write is run again because a unique index refused a row, before that is believed.
const DUPLICATE_RETRIES: u32 = 5;

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
    second_tries: Arc<tokio::sync::Mutex<()>>,
    write_retries: AtomicU64,
    write_give_ups: AtomicU64,
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(sqlite::Pool),
    Postgres(postgres::Pool),
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
        self.read()
            .await?
            .fetch_one("SELECT 1", Vec::new(), |row| row.get::<i64>(0))
            .await
            .map(|_| ())
    }

    /// One snapshot of the database. Writes through it are refused; dropping it ends it.
    pub async fn read(&self) -> Result<Tx> {
        self.begin(Isolation::ReadOnly).await
    }

    /// The tries of one write; [`write_tx!`](crate::write_tx) drives them.
    pub fn attempts(&self) -> Attempts {
        Attempts {
            db: self.clone(),
            started: Instant::now(),
            count: 0,
            pause: FIRST_PAUSE,
            duplicates: 0,
            turn: None,
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
            Pool::Postgres(pool) => Session::Postgres(Box::pin(pool.begin(isolation)).await?),
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

/// Runs a block as one serializable transaction and commits it where it answers `Ok`.
///
/// `write_tx!(db, |tx| { … })` evaluates to the block's `Result<T, E>`, where `E: From<Error>`;
/// where the compiler cannot tell which, say it: `|tx| -> Result<u64> { … }`. Inside, `tx` is a `&mut` [`Tx`](crate::Tx), and `?` and `return` leave the block. The block
/// runs again when its transaction lost against another writer, at most
/// [`Options::write_attempts`](crate::Options::write_attempts) times within
/// [`Options::write_budget`](crate::Options::write_budget). So it must have no effect but
/// through `tx`, must not move anything out of its surroundings, and must not wait for anything
/// else while it holds the transaction.
///
/// ```no_run
/// use airfleet_sql::{Db, Result, params, write_tx};
///
/// async fn rename(db: &Db, from: &str, to: &str) -> Result<bool> {
///     write_tx!(db, |tx| {
///         let changed = tx
///             .execute("UPDATE things SET name = $1 WHERE name = $2", params![to, from])
///             .await?;
///         Ok(changed == 1)
///     })
/// }
/// ```
///
/// A macro, because the future of a closure that borrows its surroundings cannot be shown to be
/// `Send` for every lifetime, and handlers have to be.
#[macro_export]
macro_rules! write_tx {
    ($db:expr, |$tx:ident| -> $result:ty $body:block) => {{
        let mut attempts = $db.attempts();
        let result: $result = loop {
            let mut transaction = match attempts.begin().await {
                Ok(transaction) => transaction,
                Err(error) => break Err(::std::convert::From::from(error)),
            };
            let result: $result = async {
                let $tx: &mut $crate::Tx = &mut transaction;
                $body
            }
            .await;
            match attempts.settle(transaction, result).await {
                ::std::ops::ControlFlow::Break(result) => break result,
                ::std::ops::ControlFlow::Continue(()) => {}
            }
        };
        result
    }};
    ($db:expr, |$tx:ident| $body:expr) => {
        $crate::write_tx!($db, |$tx| -> ::std::result::Result<_, _> { $body })
    };
}

/// The tries of one write, see [`write_tx!`](crate::write_tx).
#[derive(Debug)]
pub struct Attempts {
    db: Db,
    started: Instant,
    count: u32,
    pause: Duration,
    duplicates: u32,
    /// Held from the first loss on.
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Attempts {
    /// Begins the next try.
    pub async fn begin(&mut self) -> Result<Tx> {
        if self.count == 0 && self.db.engine() == Engine::Postgres {
            // Behind those that lost already, so that they are not overtaken for ever. Only a
            // courtesy: where it takes too long, this one begins all the same.
            let behind = self.db.shared.second_tries.lock();
            let _ = tokio::time::timeout(self.db.options.acquire_timeout, behind).await;
        }
        loop {
            self.count += 1;
            match self.db.begin(Isolation::Serializable).await {
                Err(error) if error.is_contention() => self.wait_for_another_try(error).await?,
                other => return other,
            }
        }
    }

    /// Ends a try with what its block answered: commits, gives up, or says to go on.
    pub async fn settle<T, E>(&mut self, tx: Tx, result: Result<T, E>) -> ControlFlow<Result<T, E>>
    where
        E: From<Error>,
    {
        let lost = match (result, tx.spoiled()) {
            (Ok(value), Spoiled::No) => match tx.commit().await {
                Ok(()) => return ControlFlow::Break(Ok(value)),
                Err(error) if error.is_contention() => error,
                Err(error) => return ControlFlow::Break(Err(error.into())),
            },
            // What the block made of the engine's error does not matter: it lost.
            (_, Spoiled::Contended) => {
                drop(tx);
                Error::Contention { attempts: self.count, source: None }
            }
            // What is a duplicate with several fresh snapshots is one for good.
            (_, Spoiled::Duplicate) if self.duplicates < DUPLICATE_RETRIES => {
                self.duplicates += 1;
                drop(tx);
                Error::Contention { attempts: self.count, source: None }
            }
            (Err(error), _) => return ControlFlow::Break(Err(error)),
            (Ok(_), Spoiled::Duplicate | Spoiled::Failed) => {
                return ControlFlow::Break(Err(Error::statement(
                    "COMMIT",
                    "a statement failed and its error was swallowed; return it",
                )
                .into()));
            }
        };
        match self.wait_for_another_try(lost).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error.into())),
        }
    }

    async fn wait_for_another_try(&mut self, lost: Error) -> Result<()> {
        let Db { options, shared, .. } = &self.db;
        let left = options.write_budget.saturating_sub(self.started.elapsed());
        if self.count >= options.write_attempts || left.is_zero() {
            shared.write_give_ups.fetch_add(1, Ordering::Relaxed);
            let source = match lost {
                Error::Contention { source, .. } => source,
                other => Some(other.into()),
            };
            return Err(Error::Contention { attempts: self.count, source });
        }
        shared.write_retries.fetch_add(1, Ordering::Relaxed);
        if self.turn.is_none() {
            let turn = Arc::clone(&shared.second_tries).lock_owned();
            self.turn = tokio::time::timeout(left, turn).await.ok();
        }
        let jittered = self.pause.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::time::sleep(jittered.min(left)).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}
