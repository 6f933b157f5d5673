//! How much will travel, told before it does. Nothing is decided by it: whoever waits wants to know
//! for how long.
//!
//! Rows are counted, over the same conditions that they are read by. What a row takes is the mean of
//! [`SAMPLE`] rows, as they come first, so a table whose rows differ much is estimated badly until
//! it has travelled.

use std::time::Duration;

use airfleet_domain::moves::{History, Part};

use crate::{
    Catalog, Database, Error, Scope,
    database::name,
    export::{runs_of, tables_of},
};

/// Rows of a table whose size is looked at. Enough for a mean, few enough where each is large.
const SAMPLE: u32 = 200;

/// How much a table is, or is thought to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSize {
    /// The table.
    pub table: String,
    /// Rows. Count.
    pub rows: i64,
    /// Bytes of these rows as they travel.
    pub bytes: i64,
}

/// How much each table of a part is, in the order in which they travel. An error where a table
/// takes longer than `at_most`.
pub async fn estimate(
    database: &Database,
    catalog: &Catalog,
    scope: &Scope,
    (part, history): (Part, History),
    at_most: Duration,
) -> Result<Vec<TableSize>, Error> {
    catalog.check()?;
    let mut tx = database.snapshot().await?;
    let limit = format!("SET LOCAL statement_timeout = {}", at_most.as_millis().max(1));
    tx.execute("limit the time", &limit).await?;
    tx.without_nested_loops().await?;
    let mut sizes = Vec::new();
    for table in tables_of(catalog, part) {
        let select = catalog.select(table, scope, runs_of(table, part, history));
        let fields = catalog.fields(table);
        let columns: Vec<String> = (0..fields.len()).map(|n| name(&format!("c{n}"))).collect();
        let each = fields.iter().zip(&columns).map(|(field, column)| bytes_of(&field.ty, column));
        // A row begins with its number of columns, a column with its length.
        let frame = 2 + 4 * fields.len();
        let sql = format!(
            "SELECT (SELECT count(*) FROM ({select}) t), \
               (SELECT CAST(coalesce(avg({frame} + {}), 0) AS double precision) \
                FROM ({select} LIMIT {SAMPLE}) t ({}))",
            each.collect::<Vec<_>>().join(" + "),
            columns.join(", ")
        );
        let (rows, mean): (i64, f64) = tx.row("estimate how much there is", &sql).await?;
        let bytes = (rows as f64 * mean).round() as i64;
        sizes.push(TableSize { table: table.name.clone(), rows, bytes });
    }
    tx.commit().await?;
    Ok(sizes)
}

/// Bytes of a value in the binary form, as an expression.
fn bytes_of(ty: &str, column: &str) -> String {
    let length = if ty == "bytea" {
        format!("octet_length({column})")
    } else if ty == "text" || ty.starts_with("character") || ty.starts_with("json") {
        // Not as it is stored, which may be compressed.
        format!("octet_length(CAST({column} AS text))")
    } else {
        format!("pg_column_size({column})")
    };
    format!("coalesce({length}, 0)")
}
