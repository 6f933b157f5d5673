//! Runs that a user made at a source after it was sealed: they are in no copy, and nobody runs them.

use airfleet_domain::{moves::Seen, roles::Role};
use sqlx::PgConnection;

use crate::{Catalog, Error, Scope, database, order};

/// Runs that are named, at most.
const NAMED_MAX: u32 = 5;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// Runs. Count.
    pub runs: i64,
    /// The greatest number of one.
    pub newest: i64,
    /// DAG and run_id of the first few.
    pub named: Vec<(String, String)>,
}

/// The greatest number of a run of the namespace; 0 where it has none. To be called in the
/// transaction that seals. A run whose number was drawn before, and that was committed after it, is
/// not found later if a run with a greater number is there already; Airflow commits a run at once.
pub async fn newest_run(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<i64, Error> {
    let of = scope.of("r.dag_id", catalog.schema.by_bytes);
    let sql = format!(
        "SELECT CAST(coalesce(max(r.id), 0) AS bigint) FROM {{schema}}.dag_run r WHERE {of}"
    );
    let rows: Vec<(i64,)> =
        database::rows(connection, "look for the newest run", &catalog.render(&sql)).await?;
    Ok(rows.first().map_or(0, |(newest,)| *newest))
}

/// Runs with a number above `newest`. Where there are any, the namespace is locked against other
/// orders until the transaction ends, so that its caller can note what it tells of.
pub async fn look(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
    place: Seen,
    newest: i64,
) -> Result<Option<Stranded>, Error> {
    let doing = "look for runs after the seal";
    let of = scope.of("r.dag_id", catalog.schema.by_bytes);
    let late = format!("FROM {{schema}}.dag_run r WHERE r.id > {newest} AND {of}");
    let count = format!("SELECT count(*), CAST(coalesce(max(r.id), 0) AS bigint) {late}");
    let found: Vec<(i64, i64)> = database::rows(connection, doing, &catalog.render(&count)).await?;
    let Some(&(runs, newest)) = found.first().filter(|(runs, _)| *runs > 0) else {
        return Ok(None);
    };
    order::check(connection, catalog, scope, place, &[Role::Retired]).await?;
    let named = format!(
        "SELECT CAST(r.dag_id AS text), CAST(r.run_id AS text) {late} ORDER BY r.id LIMIT {NAMED_MAX}"
    );
    let named = database::rows(connection, doing, &catalog.render(&named)).await?;
    Ok(Some(Stranded { runs, newest, named }))
}
