//! The one way in which rows change.

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision, ShardName, Term},
    roles::Residue,
};
use airfleet_sql::{Sql, Tx, params, placeholders, write_tx};

use super::{
    Error, Event, Moved, NewWorkload, Record, Result, ShardRecord, Store, events, head, moves,
    record::{record_values, shard_values},
    residues, workloads,
};

/// Names in one statement; PostgreSQL and SQLite take far more binds.
pub(super) const NAMES_PER_STATEMENT: usize = 500;

const INSERT_ASSIGNMENTS: &str = "INSERT INTO router_assignments (namespace, uid, shard, \
     generation, state, pinned_shard, reason, prefixes, revision, updated_at, demand, placement, \
     manifest_revision, orphaned, workload_digest)";

/// An owner and its generation change together or not at all; a row that differs is left alone,
/// which the count of changed rows then tells. A move that is given up renews the generation of the
/// owner that stays, so that orders of the move are outdated.
const ON_ASSIGNMENT_CONFLICT: &str = "ON CONFLICT (namespace) DO UPDATE SET
     uid = excluded.uid, shard = excluded.shard, generation = excluded.generation,
     state = excluded.state, pinned_shard = excluded.pinned_shard, reason = excluded.reason,
     prefixes = excluded.prefixes, revision = excluded.revision, updated_at = excluded.updated_at,
     demand = excluded.demand, placement = excluded.placement,
     manifest_revision = excluded.manifest_revision, orphaned = excluded.orphaned,
     workload_digest = excluded.workload_digest
   WHERE (router_assignments.shard = excluded.shard
          AND router_assignments.generation = excluded.generation)
      OR (router_assignments.shard <> excluded.shard
          AND router_assignments.generation = excluded.generation - 1)
      OR (router_assignments.shard = excluded.shard
          AND router_assignments.generation = excluded.generation - 1
          AND EXISTS (SELECT 1 FROM router_moves
                      WHERE router_moves.namespace = excluded.namespace
                        AND router_moves.revision = excluded.revision
                        AND router_moves.phase = 'aborting'))";

const INSERT_SHARDS: &str = "INSERT INTO router_shards (name, uid, manifest, manifest_revision, \
     registered, cordoned_at, cordoned_by, cordon_reason, barred_revision, agent_seen_at, \
     revision, updated_at)";

const ON_SHARD_CONFLICT: &str = "ON CONFLICT (name) DO UPDATE SET
     uid = excluded.uid, manifest = excluded.manifest,
     manifest_revision = excluded.manifest_revision, registered = excluded.registered,
     cordoned_at = excluded.cordoned_at, cordoned_by = excluded.cordoned_by,
     cordon_reason = excluded.cordon_reason, barred_revision = excluded.barred_revision,
     agent_seen_at = excluded.agent_seen_at, revision = excluded.revision,
     updated_at = excluded.updated_at";

/// What somebody overrode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    /// What was done: "force-pin", "force-activate" or "force-release".
    pub(crate) action: &'static str,
    /// What it was done to.
    pub(crate) subject: String,
    /// By whom.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: String,
}

/// What one transaction writes. All rows carry the revision that it makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Namespaces that are new or changed.
    pub(crate) records: Vec<Record>,
    /// Namespaces to remove; no shard owns any of them.
    pub(crate) removed: Vec<NamespaceName>,
    /// The highest generation of those removed.
    pub(crate) removed_generation: Generation,
    /// Shards that are new or changed.
    pub(crate) shards: Vec<ShardRecord>,
    /// Shards to remove; they own nothing.
    pub(crate) removed_shards: Vec<ShardName>,
    /// The manifest is taken into account up to here; unset leaves it.
    pub(crate) manifest_revision: Option<Revision>,
    /// What was overridden.
    pub(crate) overrides: Vec<Override>,
    /// Workloads that are new or changed; each of a record whose digest says so.
    pub(crate) workloads: Vec<NewWorkload>,
    /// What is left behind on shards, new or changed.
    pub(crate) residues: Vec<Residue>,
    /// What is no longer left behind. Removed before others are written.
    pub(crate) removed_residues: Vec<(NamespaceName, ShardName)>,
    /// Moves that are new or changed. Each with the record of its namespace.
    pub(crate) moves: Vec<Moved>,
    /// What happened by all this.
    pub(crate) events: Vec<Event>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Store {
    /// Writes a batch as the leader of `term`, making the revision after `expected`.
    pub(crate) async fn commit(
        &self,
        term: Term,
        expected: Revision,
        batch: &Batch,
        now_us: i64,
    ) -> Result<Revision> {
        write_tx!(self.db, |tx| -> Result<Revision> {
            self.lease.check_term(tx, term.0).await?;
            let revision = advance(tx, expected, batch).await?;
            moves::write(tx, batch, now_us).await?;
            write_assignments(tx, batch).await?;
            remove_assignments(tx, revision, batch).await?;
            write_shards(tx, revision, batch, now_us).await?;
            workloads::write(tx, batch).await?;
            residues::write(tx, batch).await?;
            events::write(tx, &batch.events, now_us).await?;
            for Override { action, subject, actor, reason } in &batch.overrides {
                tx.execute(
                    "INSERT INTO router_overrides
                        (revision, action, subject, actor, reason, happened_at)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                    params![revision.0, *action, subject, actor, reason, now_us],
                )
                .await?;
            }
            Ok(revision)
        })
    }
}

async fn advance(tx: &mut Tx, expected: Revision, batch: &Batch) -> Result<Revision> {
    let next = expected.next();
    let changed = tx
        .execute(
            "UPDATE router_state SET
                revision = $1,
                manifest_revision = COALESCE($2, manifest_revision),
                generation_floor =
                    CASE WHEN generation_floor < $3 THEN $3 ELSE generation_floor END
             WHERE id = 1 AND revision = $4",
            params![
                next.0,
                batch.manifest_revision.map(|revision| revision.0),
                batch.removed_generation.0,
                expected.0
            ],
        )
        .await?;
    if changed == 1 {
        return Ok(next);
    }
    Err(Error::Diverged { expected, found: head(tx).await?.revision })
}

async fn write_assignments(tx: &mut Tx, batch: &Batch) -> Result<()> {
    let rows = batch.records.iter().map(record_values).collect();
    let written = tx.insert_many(INSERT_ASSIGNMENTS, ON_ASSIGNMENT_CONFLICT, rows).await?;
    keep_to(
        "an owner and its generation change together, by one",
        batch.records.len() as u64,
        written,
    )
}

async fn remove_assignments(tx: &mut Tx, revision: Revision, batch: &Batch) -> Result<()> {
    let mut removed = 0;
    for names in batch.removed.chunks(NAMES_PER_STATEMENT) {
        let sql = Sql::assembled(format!(
            "DELETE FROM router_assignments WHERE shard = '' AND namespace IN ({})",
            placeholders(1, names.len())
        ));
        let names = names.iter().map(|name| name.as_str().into()).collect();
        removed += tx.execute(sql, names).await?;
    }
    keep_to("what a shard owns is not removed", batch.removed.len() as u64, removed)?;
    let names = batch.removed.iter().map(NamespaceName::as_str);
    remember_removal(tx, revision, "namespace", names).await
}

async fn write_shards(tx: &mut Tx, revision: Revision, batch: &Batch, now_us: i64) -> Result<()> {
    let rows = batch.shards.iter().map(|shard| shard_values(shard, now_us)).collect();
    tx.insert_many(INSERT_SHARDS, ON_SHARD_CONFLICT, rows).await?;
    let mut removed = 0;
    for name in &batch.removed_shards {
        // No index serves the inner question; shards are removed rarely.
        removed += tx
            .execute(
                "DELETE FROM router_shards WHERE name = $1
                 AND NOT EXISTS (SELECT 1 FROM router_assignments WHERE shard = $1)",
                params![name.as_str()],
            )
            .await?;
    }
    keep_to(
        "a shard that owns something is not removed",
        batch.removed_shards.len() as u64,
        removed,
    )?;
    let names = batch.removed_shards.iter().map(ShardName::as_str);
    remember_removal(tx, revision, "shard", names).await
}

async fn remember_removal(
    tx: &mut Tx,
    revision: Revision,
    kind: &str,
    names: impl Iterator<Item = &str>,
) -> Result<()> {
    let rows = names.map(|name| params![revision.0, kind, name]).collect();
    tx.insert_many("INSERT INTO router_removals (revision, kind, name)", "", rows).await?;
    Ok(())
}

pub(super) fn keep_to(rule: &'static str, wanted: u64, written: u64) -> Result<()> {
    if wanted == written { Ok(()) } else { Err(Error::Rule { rule, wanted, written }) }
}
