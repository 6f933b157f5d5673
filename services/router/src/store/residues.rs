//! What namespaces left behind on shards that no longer own them.

use airfleet_domain::{
    ids::{Generation, NamespaceName, Prefix, Revision, ShardName},
    roles::{Fence, Residue, Role},
};
use airfleet_sql::{Row, Tx, params};

use super::{Batch, Result, Store};

pub(super) async fn write(tx: &mut Tx, batch: &Batch) -> Result<()> {
    for (namespace, shard) in &batch.removed_residues {
        tx.execute(
            "DELETE FROM router_residues WHERE namespace = $1 AND shard = $2",
            params![namespace.as_str(), shard.as_str()],
        )
        .await?;
    }
    let rows = batch.residues.iter().map(|residue| {
        let prefixes: Vec<&str> = residue.prefixes.iter().map(Prefix::as_str).collect();
        params![
            residue.namespace.as_str(),
            residue.shard.as_str(),
            serde_json::to_string(&prefixes).expect("texts always serialize"),
            residue.generation.0,
            residue.role.name(),
            residue.fence.name(),
            &residue.reason,
            residue.left_at_us,
            residue.purge_at_us,
            residue.revision.0,
        ]
    });
    tx.insert_many(
        "INSERT INTO router_residues (namespace, shard, prefixes, generation, role, fence, reason, \
         left_at, purge_at, revision)",
        "ON CONFLICT (namespace, shard) DO UPDATE SET
            prefixes = excluded.prefixes, generation = excluded.generation,
            role = excluded.role, fence = excluded.fence, reason = excluded.reason,
            left_at = excluded.left_at, purge_at = excluded.purge_at,
            revision = excluded.revision",
        rows.collect(),
    )
    .await?;
    Ok(())
}

impl Store {
    /// All of them. They are few: what was taken from a shard lately.
    pub(crate) async fn residues(&self) -> Result<Vec<Residue>> {
        let mut tx = self.db.read().await?;
        let residues = tx
            .scan(
                "SELECT namespace, shard, prefixes, generation, role, fence, reason, left_at,
                    purge_at, revision
                 FROM router_residues",
                params![],
                Vec::new(),
                |residues, row| {
                    residues.push(residue(row)?);
                    Ok(())
                },
            )
            .await?;
        Ok(residues)
    }
}

fn residue(row: &Row<'_>) -> airfleet_sql::Result<Residue> {
    let no = |column: usize, what: &str| row.corrupt(column, format_args!("names no {what}"));
    let namespace: NamespaceName = row.parse(0)?;
    let shard: ShardName = row.parse(1)?;
    Ok(Residue {
        namespace,
        shard,
        prefixes: row.json(2)?,
        generation: Generation(row.get(3)?),
        role: Role::from_name(row.text(4)?).ok_or_else(|| no(4, "role"))?,
        fence: Fence::from_name(row.text(5)?).ok_or_else(|| no(5, "state of a fence"))?,
        reason: row.get(6)?,
        left_at_us: row.get(7)?,
        purge_at_us: row.get(8)?,
        revision: Revision(row.get(9)?),
    })
}
