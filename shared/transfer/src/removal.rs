//! Clearing up: rows of a namespace that this shard no longer runs, in batches, whenever their
//! retention is over.
//!
//! Each batch is a transaction of its own that looks at the last order first. Stopped anywhere,
//! it goes on with what is left; what came back to this shard meanwhile is not touched.

use airfleet_domain::{moves::Seen, roles::Role as ShardRole};

use crate::{
    Catalog, Database, Error, Scope,
    catalog::{Runs, rules::Role},
    database::{Tx, name},
    order,
};

/// What one batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows. Count.
    pub rows: i64,
    /// Whether nothing is left.
    pub is_complete: bool,
}

/// Removes up to `at_most` runs with all that hangs on them, or as many rows of another table.
pub async fn remove_some(
    database: &Database,
    catalog: &Catalog,
    scope: &Scope,
    place: Seen,
    at_most: u32,
) -> Result<Removed, Error> {
    catalog.check()?;
    let mut tx = database.begin().await?;
    let gone = [ShardRole::Retired, ShardRole::Absent];
    order::check(&mut tx.connection, catalog, scope, place, &gone).await?;
    order::check_fenced(&mut tx.connection, catalog, scope).await?;
    let runs = format!(
        "DELETE FROM {{schema}}.dag_run t WHERE t.id IN (SELECT r.id FROM {{schema}}.dag_run r \
           WHERE {} ORDER BY r.id LIMIT {at_most})",
        scope.of("r.dag_id", catalog.schema.by_bytes)
    );
    let mut rows = tx.execute("remove runs", &catalog.render(&runs)).await?;
    if rows == 0 {
        rows = rest(&mut tx, catalog, scope, at_most).await?;
    }
    tx.commit().await?;
    Ok(Removed { rows, is_complete: rows == 0 })
}

/// What does not hang on a run.
async fn rest(tx: &mut Tx, catalog: &Catalog, scope: &Scope, at_most: u32) -> Result<i64, Error> {
    let tables = catalog.tables.iter().rev();
    let ours = |role| matches!(role, Role::History | Role::Definition | Role::Anchor);
    for table in tables.filter(|table| ours(table.role)) {
        let schema = &catalog.schema.name;
        let own = name(&table.name);
        let of = catalog.condition(table, "t", scope, Runs::All, 0);
        let sql = format!(
            "DELETE FROM {schema}.{own} WHERE ctid = ANY (ARRAY(\
               SELECT t.ctid FROM {schema}.{own} t WHERE {of} LIMIT {at_most}))"
        );
        let rows = tx.execute("remove rows", &sql).await?;
        if rows > 0 {
            return Ok(rows);
        }
    }
    let noted = format!(
        "DELETE FROM {{schema}}.airfleet_pause n WHERE {}",
        scope.of("n.dag_id", catalog.schema.by_bytes)
    );
    tx.execute("forget pause states", &catalog.render(&noted)).await?;
    Ok(0)
}
