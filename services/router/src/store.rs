//! What the router must not forget: the rows of assignments and shards, what namespaces bring to
//! their shards and leave behind on others, and what happened to them.
//!
//! Responsible for the tables in `migrations/`, for the one transaction in which a leader writes
//! ([`Store::commit`]), and for reading everything, or everything after a revision.
//!
//! Invariants: a commit takes effect only in the leader's term and directly after the revision that
//! the leader believes to be the latest; a row's owner changes only when its generation grows by one,
//! which otherwise only a move that is given up makes it do; a row that a shard owns is never removed. Each is checked by the statement that writes.
//!
//! It must not know why anything is written. No row type leaves this module; what does is a
//! [`Record`] or [`ShardRecord`].

mod commit;
mod events;
mod moves;
mod plans;
mod read;
mod record;
mod residues;
mod workloads;

#[cfg(test)]
pub(crate) mod tests;

use airfleet_domain::ids::{Generation, Revision, Term};
use airfleet_sql::{Db, Migration, Tx, lease::Lease, params, write_tx};

pub(crate) use self::{
    commit::{Batch, Override},
    events::{Event, Recorded, Source},
    moves::{Moved, Which},
    plans::{Freeze, Kept, State as PlanState},
    read::{Changes, Contents, Removal},
    record::{Cordon, Needs, Record, Rules, ShardRecord},
    workloads::{Declared, NewWorkload},
};

/// The tables, in order of version.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "assignments, shards, removals and overrides",
        sql: include_str!("../migrations/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "workloads, residues and events",
        sql: include_str!("../migrations/0002_roles_and_events.sql"),
    },
    Migration {
        version: 3,
        name: "plans and the freeze",
        sql: include_str!("../migrations/0003_plans.sql"),
    },
    Migration { version: 4, name: "moves", sql: include_str!("../migrations/0004_moves.sql") },
    Migration {
        version: 5,
        name: "move attempts and proofs",
        sql: include_str!("../migrations/0005_move_attempts_and_proofs.sql"),
    },
];

/// Name under which the tables' versions and the lease are kept.
const SERVICE: &str = "router";

/// Why a write or read of the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database could not do it.
    #[error("the router's store failed")]
    Database(#[source] airfleet_sql::Error),
    /// The store is at another revision than the leader believes: an earlier commit of its own
    /// took effect although it was not answered.
    #[error("the store is at revision {found}, not {expected}; read what is newer and try again")]
    Diverged {
        /// What the leader believed.
        expected: Revision,
        /// What the store has.
        found: Revision,
    },
    /// A statement changed fewer rows than it was given: one of them broke a rule of ownership.
    #[error("refused to write: {rule} ({written} of {wanted} rows keep to it)")]
    Rule {
        /// The rule.
        rule: &'static str,
        /// Rows given.
        wanted: u64,
        /// Rows that keep to the rule.
        written: u64,
    },
}

impl From<airfleet_sql::Error> for Error {
    fn from(error: airfleet_sql::Error) -> Self {
        Self::Database(error)
    }
}

impl Error {
    /// Whether the caller no longer leads.
    pub(crate) fn is_stale_term(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_stale_term())
    }

    /// Whether the same call may work later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_unavailable() || error.is_contention(),
            Self::Diverged { .. } => true,
            Self::Rule { .. } => false,
        }
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Where the store stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Tells this store from others.
    pub(crate) store_id: String,
    /// The latest revision.
    pub(crate) revision: Revision,
    /// Removals after this revision are known.
    pub(crate) removals_floor: Revision,
    /// The generation that a new namespace starts from.
    pub(crate) generation_floor: Generation,
    /// The manifest is taken into account up to here.
    pub(crate) manifest_revision: Revision,
}

/// The rows of a router.
#[derive(Debug)]
pub(crate) struct Store {
    db: Db,
    lease: Lease,
}

impl Store {
    /// The store in this database, whose leader `lease` elects.
    pub(crate) fn new(db: Db, lease: Lease) -> Self {
        Self { db, lease }
    }

    /// The name to elect a leader under.
    pub(crate) const LEASE: &'static str = SERVICE;

    /// The election of the leader.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Creates what is missing. Several replicas may do so at once.
    pub(crate) async fn prepare(&self) -> airfleet_sql::Result<()> {
        self.db.migrate(SERVICE, MIGRATIONS).await?;
        self.lease.migrate().await?;
        let store_id = uuid::Uuid::new_v4().to_string();
        write_tx!(self.db, |tx| -> airfleet_sql::Result<()> {
            tx.execute(
                "INSERT INTO router_state
                    (id, store_id, revision, removals_floor, generation_floor, manifest_revision)
                 VALUES (1, $1, 0, 0, 0, 0)
                 ON CONFLICT (id) DO NOTHING",
                params![&store_id],
            )
            .await?;
            Ok(())
        })
    }

    /// Forgets the removals before the latest `keep`, so that they do not pile up. Answers how many
    /// were forgotten.
    pub(crate) async fn forget_removals(&self, term: Term, keep: u32) -> Result<u64> {
        write_tx!(self.db, |tx| -> Result<u64> {
            self.lease.check_term(tx, term.0).await?;
            let floor = tx
                .fetch_optional(
                    "SELECT revision FROM router_removals ORDER BY revision DESC LIMIT 1 OFFSET $1",
                    params![keep],
                    |row| row.get::<i64>(0),
                )
                .await?;
            let Some(floor) = floor else { return Ok(0) };
            tx.execute(
                "UPDATE router_state SET removals_floor = $1
                 WHERE id = 1 AND removals_floor < $1",
                params![floor],
            )
            .await?;
            let forgotten = tx
                .execute("DELETE FROM router_removals WHERE revision <= $1", params![floor])
                .await?;
            Ok(forgotten)
        })
    }

    /// What was overridden: action, subject, actor, reason; in order.
    #[cfg(test)]
    pub(crate) async fn overrides(&self) -> Vec<(String, String, String, String)> {
        let mut tx = self.db.read().await.unwrap();
        tx.fetch_all(
            "SELECT action, subject, actor, reason FROM router_overrides ORDER BY revision",
            params![],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .await
        .unwrap()
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.db.close().await;
    }
}

async fn head(tx: &mut Tx) -> Result<Head> {
    let head = tx
        .fetch_one(
            "SELECT store_id, revision, removals_floor, generation_floor, manifest_revision
             FROM router_state WHERE id = 1",
            params![],
            |row| {
                Ok(Head {
                    store_id: row.get(0)?,
                    revision: Revision(row.get(1)?),
                    removals_floor: Revision(row.get(2)?),
                    generation_floor: Generation(row.get(3)?),
                    manifest_revision: Revision(row.get(4)?),
                })
            },
        )
        .await?;
    Ok(head)
}
