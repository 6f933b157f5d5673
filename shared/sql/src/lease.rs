//! One leader among the replicas of a service, by a row in their database.
//!
//! The row holds (holder, address, term, beat). The leader raises `beat` at every renewal; each
//! new leader raises `term`. Nobody compares wall clocks: a candidate takes over only after it
//! has itself watched the same (term, beat) for the whole time to live, and a leader counts
//! itself out, by its own monotonic clock, a margin before any candidate could be done watching.
//!
//! That only decides who tries. What keeps a paused or partitioned leader from doing harm is
//! [`Lease::check_term`], which belongs into every transaction that writes as leader: it locks
//! the lease row against a change until the transaction ends, and fails where the term is over.
//!
//! The decision is [`election::decide`], a pure function; this module does its reading and
//! writing, in one transaction each time.

pub mod election;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::migrate::Migration;
use crate::tx::Tx;
use crate::value::Sql;
use crate::{params, write_tx};
use election::{Candidate, Entry, Memory, Step};

pub use election::{Standing, Timing};

/// A replica's part in the election of a service. Call [`Lease::tick`] every
/// [`Timing::interval`], and [`Lease::standing`] whenever it matters.
#[derive(Debug)]
pub struct Lease {
    db: Db,
    table: String,
    candidate: Candidate,
    timing: Timing,
    started: Instant,
    memory: Mutex<Memory>,
}

impl Lease {
    /// Takes part in the election of `service` (`a-z` and `_`; its table is `<service>_leader`).
    ///
    /// `holder` names this replica and `address` is where others reach it. Where both equal the
    /// row's, the row is this replica's own from before a restart, because two processes cannot
    /// listen on one address; it is then taken over at once.
    pub fn new(db: Db, service: &str, holder: &str, address: &str, timing: Timing) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        if service.is_empty() || !service.chars().all(plain) {
            return Err(Error::Config {
                detail: format!("`{service}` cannot name a lease; use a-z and _"),
                source: None,
            });
        }
        if holder.is_empty() {
            return Err(Error::Config {
                detail: "a replica that takes part in an election needs a name".to_owned(),
                source: None,
            });
        }
        Ok(Self {
            db,
            table: format!("{service}_leader"),
            candidate: Candidate { holder: holder.to_owned(), address: address.to_owned() },
            timing,
            started: Instant::now(),
            memory: Mutex::new(Memory::default()),
        })
    }

    /// Creates the lease's table.
    pub async fn migrate(&self) -> Result<()> {
        // Migrations are literals; a table's name is one of a few and lives as long as the
        // process, so one leaked line per lease is the simplest way to have one.
        let sql: &'static str = Box::leak(
            format!(
                "CREATE TABLE {} (
                    id BIGINT PRIMARY KEY CHECK (id = 1),
                    holder TEXT NOT NULL,
                    address TEXT NOT NULL,
                    term BIGINT NOT NULL,
                    beat BIGINT NOT NULL
                )",
                self.table
            )
            .into_boxed_str(),
        );
        self.db.migrate(&self.table, &[Migration { version: 1, name: "leader lease", sql }]).await
    }

    /// Looks at the lease once and takes, renews or watches it. After an error the standing goes
    /// by what was known before: a leader stays one only until its own time runs out.
    pub async fn tick(&self) -> Result<Standing> {
        // Before the transaction: a renewal counts from here, so that the leader's own time ends
        // before that of whoever sees the renewal.
        let asked = self.now();
        let before = self.memory().clone();
        let (step, entry, seen) = write_tx!(self.db, |tx| -> Result<_> {
            let entry = self.entry(tx).await?;
            // After the read: watching counts from here.
            let seen = self.now();
            let step =
                election::decide(&before, &self.candidate, &self.timing, entry.as_ref(), seen);
            match &step {
                Step::Watch => {}
                Step::TakeOver { term } => self.take(tx, *term).await?,
                Step::Renew { beat } => self.beat(tx, *beat).await?,
            }
            Ok((step, entry, seen))
        })?;
        let mut memory = self.memory();
        memory.record(&self.candidate, &step, entry.as_ref(), asked, seen);
        Ok(memory.standing(&self.timing, self.now()))
    }

    /// What this replica is at this moment, by its own clock.
    pub fn standing(&self) -> Standing {
        self.memory().standing(&self.timing, self.now())
    }

    /// Gives the lease up, so that another replica takes it at its next look.
    pub async fn release(&self) -> Result<()> {
        let Some(term) = self.memory().forget_leadership() else {
            return Ok(());
        };
        let sql = Sql::assembled(format!(
            "UPDATE {} SET holder = '', beat = beat + 1 WHERE id = 1 AND term = $1 AND holder = $2",
            self.table
        ));
        write_tx!(self.db, |tx| {
            tx.execute(sql.clone(), params![term, &self.candidate.holder]).await?;
            Ok(())
        })
    }

    /// Fails with [`Error::StaleTerm`] unless the lease is at `term`, and keeps it there until
    /// the transaction ends.
    pub async fn check_term(&self, tx: &mut Tx, term: i64) -> Result<()> {
        // On SQLite a writer is alone. On PostgreSQL a plain read would let this transaction be
        // ordered before a takeover that has committed already; the row lock makes it fail, and
        // its second try sees the new term.
        let lock = if tx.is_postgres() { " FOR SHARE" } else { "" };
        let sql = Sql::assembled(format!("SELECT term FROM {} WHERE id = 1{lock}", self.table));
        let current =
            tx.fetch_optional(sql, Vec::new(), |row| row.get::<i64>(0)).await?.unwrap_or(0);
        if current == term { Ok(()) } else { Err(Error::StaleTerm { held: term, current }) }
    }

    async fn entry(&self, tx: &mut Tx) -> Result<Option<Entry>> {
        let sql = Sql::assembled(format!(
            "SELECT holder, address, term, beat FROM {} WHERE id = 1",
            self.table
        ));
        tx.fetch_optional(sql, Vec::new(), |row| {
            Ok(Entry {
                holder: row.get(0)?,
                address: row.get(1)?,
                term: row.get(2)?,
                beat: row.get(3)?,
            })
        })
        .await
    }

    async fn take(&self, tx: &mut Tx, term: i64) -> Result<()> {
        let sql = Sql::assembled(format!(
            "INSERT INTO {} (id, holder, address, term, beat) VALUES (1, $1, $2, $3, 0)
             ON CONFLICT (id) DO UPDATE SET
                holder = excluded.holder, address = excluded.address,
                term = excluded.term, beat = excluded.beat",
            self.table
        ));
        let Candidate { holder, address } = &self.candidate;
        tx.execute(sql, params![holder, address, term]).await.map(|_| ())
    }

    async fn beat(&self, tx: &mut Tx, beat: i64) -> Result<()> {
        let sql = Sql::assembled(format!("UPDATE {} SET beat = $1 WHERE id = 1", self.table));
        tx.execute(sql, params![beat]).await.map(|_| ())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
