//! Moves, and the phases that each went through.
//!
//! Invariants: a namespace has at most one move that has not ended; what has ended does not change.
//! A row is written in the transaction that changes the assignment with it, before the assignment:
//! only a move that is given up there lets an owner stay with another generation.

use airfleet_domain::{
    ids::{Generation, MoveId, Revision, Term},
    moves::{Move, Phase, Proof},
};
use airfleet_sql::{Row, Tx, Value, params, write_tx};

use super::{Batch, Result, Store, commit::keep_to};

const COLUMNS: &str = "id, namespace, source, target, generation, began_revision, phase, \
                       phase_began_at, deadline_at, attempt, next_attempt_at, last_error, cancel, \
                       options, requested_by, reason, created_at, staged_at, quiesced_at, \
                       flipped_at, finished_at, sealed, revision, \
                       dark_from, dark_until, proof";

const ON_CONFLICT: &str = "ON CONFLICT (id) DO UPDATE SET
     phase = excluded.phase, phase_began_at = excluded.phase_began_at,
     deadline_at = excluded.deadline_at, attempt = excluded.attempt,
     next_attempt_at = excluded.next_attempt_at, last_error = excluded.last_error,
     cancel = excluded.cancel, staged_at = excluded.staged_at,
     quiesced_at = excluded.quiesced_at, flipped_at = excluded.flipped_at,
     finished_at = excluded.finished_at, sealed = excluded.sealed, revision = excluded.revision,
     dark_from = excluded.dark_from, dark_until = excluded.dark_until, proof = excluded.proof
   WHERE router_moves.finished_at IS NULL AND router_moves.revision < excluded.revision";

/// A move as it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The row.
    pub(crate) row: Move,
    /// What the caller that asked for it chose; only counts where the move is new.
    pub(crate) request_id: String,
}

/// Which moves are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Which {
    /// Of this namespace; empty for all.
    pub(crate) namespace: String,
    /// With this shard at either end; empty for all.
    pub(crate) shard: String,
    /// Those that have ended too.
    pub(crate) ended: bool,
    /// Before this one; empty for the latest.
    pub(crate) before: String,
}

pub(super) async fn write(tx: &mut Tx, batch: &Batch, now_us: i64) -> Result<()> {
    let rows = batch.moves.iter().map(values).collect();
    let insert = "INSERT INTO router_moves (id, namespace, source, target, generation, \
                  began_revision, phase, phase_began_at, deadline_at, attempt, next_attempt_at, \
                  last_error, cancel, options, requested_by, reason, created_at, staged_at, \
                  quiesced_at, flipped_at, finished_at, sealed, revision, request_id, dark_from, \
                  dark_until, proof)";
    let written = tx.insert_many(insert, ON_CONFLICT, rows).await?;
    keep_to("a move that has ended does not change", batch.moves.len() as u64, written)?;
    let rows = batch.moves.iter().map(|Moved { row, .. }| {
        let why = row.last_error.as_ref().filter(|error| error.at_us == now_us);
        let why = why.map_or("", |error| error.message.as_str());
        let attempt = i64::from(row.attempt);
        params![row.id.as_str(), row.revision.0, row.phase.name(), attempt, why, now_us]
    });
    let insert = "INSERT INTO router_move_phases (move_id, revision, phase, attempt, reason, \
                  happened_at)";
    tx.insert_many(insert, "", rows.collect()).await?;
    Ok(())
}

impl Store {
    /// All that have not ended.
    pub(crate) async fn open_moves(&self) -> Result<Vec<Move>> {
        let mut tx = self.db.read().await?;
        let sql = format!("SELECT {COLUMNS} FROM router_moves WHERE finished_at IS NULL");
        let sql = airfleet_sql::Sql::assembled(sql);
        Ok(tx.fetch_all(sql, params![], read).await?)
    }

    /// Some, the latest first.
    pub(crate) async fn moves(&self, which: &Which, limit: u32) -> Result<Vec<Move>> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM router_moves
             WHERE ($1 = '' OR namespace = $1) AND ($2 = '' OR source = $2 OR target = $2)
               AND ($3 = 1 OR finished_at IS NULL) AND ($4 = '' OR id < $4)
             ORDER BY id DESC LIMIT $5"
        );
        let Which { namespace, shard, ended, before } = which;
        let bound = params![namespace, shard, i64::from(*ended), before, limit];
        Ok(tx.fetch_all(airfleet_sql::Sql::assembled(sql), bound, read).await?)
    }

    /// The move of that id, else the latest of that namespace.
    pub(crate) async fn move_named(&self, name: &str) -> Result<Option<Move>> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM router_moves WHERE id = $1 OR namespace = $1
             ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END, id DESC LIMIT 1"
        );
        Ok(tx.fetch_optional(airfleet_sql::Sql::assembled(sql), params![name], read).await?)
    }

    /// The latest move that was asked for with this.
    pub(crate) async fn move_requested(&self, request_id: &str) -> Result<Option<Move>> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM router_moves WHERE request_id = $1
             ORDER BY id DESC LIMIT 1"
        );
        Ok(tx.fetch_optional(airfleet_sql::Sql::assembled(sql), params![request_id], read).await?)
    }

    /// Forgets what has ended: all but the latest `keep`, and what ended before `before_us`.
    pub(crate) async fn forget_moves(&self, term: Term, keep: u32, before_us: i64) -> Result<u64> {
        write_tx!(self.db, |tx| -> Result<u64> {
            self.lease.check_term(tx, term.0).await?;
            let newest = tx
                .fetch_optional(
                    "SELECT id FROM router_moves WHERE finished_at IS NOT NULL
                     ORDER BY id DESC LIMIT 1 OFFSET $1",
                    params![keep],
                    |row| row.get::<String>(0),
                )
                .await?;
            // No id is below the empty one.
            let newest = newest.unwrap_or_default();
            tx.execute(
                "DELETE FROM router_move_phases WHERE move_id IN
                    (SELECT id FROM router_moves
                     WHERE finished_at IS NOT NULL AND (id <= $1 OR finished_at < $2))",
                params![&newest, before_us],
            )
            .await?;
            let forgotten = tx
                .execute(
                    "DELETE FROM router_moves
                     WHERE finished_at IS NOT NULL AND (id <= $1 OR finished_at < $2)",
                    params![&newest, before_us],
                )
                .await?;
            Ok(forgotten)
        })
    }

    /// What a move went through: phase, attempt, why; in order.
    #[cfg(test)]
    pub(crate) async fn move_phases(&self, id: &MoveId) -> Vec<(String, i64, String)> {
        let mut tx = self.db.read().await.unwrap();
        tx.fetch_all(
            "SELECT phase, attempt, reason FROM router_move_phases WHERE move_id = $1
             ORDER BY revision",
            params![id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .await
        .unwrap()
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("parts of moves always serialize")
}

fn values(Moved { row, request_id }: &Moved) -> Vec<Value> {
    params![
        row.id.as_str(),
        row.namespace.as_str(),
        row.source.as_str(),
        row.target.as_str(),
        row.generation.0,
        row.began_revision.0,
        row.phase.name(),
        row.phase_began_at_us,
        row.deadline_at_us,
        i64::from(row.attempt),
        row.next_attempt_at_us,
        row.last_error.as_ref().map(json),
        row.cancel.as_ref().map(json),
        json(&row.options),
        &row.requested_by,
        &row.reason,
        row.created_at_us,
        row.staged_at_us,
        row.quiesced_at_us,
        row.flipped_at_us,
        row.finished_at_us,
        row.sealed.as_deref().map(|marks| json(&marks)),
        row.revision.0,
        request_id,
        row.dark_from_us,
        row.dark_until_us,
        row.proof.as_deref().map(json),
    ]
}

fn read(row: &Row<'_>) -> airfleet_sql::Result<Move> {
    fn maybe<T: serde::de::DeserializeOwned>(
        row: &Row<'_>,
        column: usize,
    ) -> airfleet_sql::Result<Option<T>> {
        if row.is_null(column)? { Ok(None) } else { row.json(column).map(Some) }
    }
    let phase = Phase::from_name(row.text(6)?).ok_or_else(|| row.corrupt(6, "names no phase"))?;
    Ok(Move {
        id: row.parse::<MoveId>(0)?,
        namespace: row.parse(1)?,
        source: row.parse(2)?,
        target: row.parse(3)?,
        generation: Generation(row.get(4)?),
        began_revision: Revision(row.get(5)?),
        phase,
        phase_began_at_us: row.get(7)?,
        deadline_at_us: row.get(8)?,
        attempt: u32::try_from(row.get::<i64>(9)?).map_err(|error| row.corrupt(9, error))?,
        next_attempt_at_us: row.get(10)?,
        last_error: maybe(row, 11)?,
        cancel: maybe(row, 12)?,
        options: row.json(13)?,
        requested_by: row.get(14)?,
        reason: row.get(15)?,
        created_at_us: row.get(16)?,
        staged_at_us: row.get(17)?,
        quiesced_at_us: row.get(18)?,
        flipped_at_us: row.get(19)?,
        finished_at_us: row.get(20)?,
        sealed: maybe::<Vec<airfleet_domain::moves::Mark>>(row, 21)?.map(Into::into),
        revision: Revision(row.get(22)?),
        dark_from_us: row.get(23)?,
        dark_until_us: row.get(24)?,
        proof: maybe::<Proof>(row, 25)?.map(Into::into),
    })
}
