//! Which order is obeyed, checked in the transaction that obeys it.

use airfleet_domain::{
    ids::{Generation, Revision},
    moves::Seen,
    roles::Role,
};
use sqlx::PgConnection;

use crate::{
    Catalog, Error,
    database::{self, quoted},
    scope::Scope,
};

/// Locks the namespace's row in the fence's tables and fails where a later order was obeyed, or the
/// shard is not in one of `roles` at this generation. Nothing that is written after it in the same
/// transaction is done by an agent that was overtaken.
pub(crate) async fn check(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
    told: Seen,
    roles: &[Role],
) -> Result<(), Error> {
    if !catalog.has_fence() {
        return Err(Error::NoFence);
    }
    let sql = catalog.render(
        "SELECT role, generation, revision FROM {schema}.airfleet_role WHERE namespace = $1 FOR UPDATE",
    );
    let found: Option<(String, i64, i64)> = database::query(&sql)
        .bind(scope.namespace().as_str())
        .fetch_optional(connection)
        .await
        .map_err(Error::of("lock a namespace in the fence"))?;
    let needed = roles[0];
    let Some((role, generation, revision)) = found else {
        return Err(Error::NotInRole { found: "unknown".to_owned(), needed });
    };
    let seen = Seen { generation: Generation(generation), revision: Revision(revision) };
    if !seen.admits(told) {
        return Err(Error::Overtaken { told, seen });
    }
    // An order of a later generation that was not obeyed yet is none to act on.
    if told.generation != seen.generation || !roles.iter().any(|is| is.name() == role) {
        return Err(Error::NotInRole { found: role, needed });
    }
    Ok(())
}

/// Fails unless every DAG of the namespace is paused and its fence closed. Locks the rows of its
/// DAGs, so that neither Airflow's scheduler nor whoever parses its files changes them meanwhile.
pub(crate) async fn check_fenced(
    connection: &mut PgConnection,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<(), Error> {
    let of = scope.of("d.dag_id", catalog.schema.by_bytes);
    let lock = format!(
        "SELECT dag_id FROM {{schema}}.dag d WHERE {of} ORDER BY dag_id COLLATE \"C\" FOR UPDATE"
    );
    database::execute(connection, "lock DAGs", &catalog.render(&lock)).await?;
    let sql = format!(
        "SELECT (SELECT count(*) FROM {{schema}}.dag d WHERE {of} AND NOT d.is_paused) \
         + (SELECT count(*) FROM {{schema}}.airfleet_fence f WHERE f.namespace = {} AND f.open) \
         + (SELECT count(*) FROM unnest({}) p (prefix) WHERE NOT EXISTS (\
             SELECT FROM {{schema}}.airfleet_fence f WHERE starts_with(p.prefix, f.prefix)))",
        quoted(scope.namespace().as_str()),
        list(scope.prefixes()),
    );
    let found: Vec<(i64,)> =
        database::rows(connection, "look at the fence", &catalog.render(&sql)).await?;
    let open = found.first().map_or(0, |(open,)| *open);
    if open == 0 { Ok(()) } else { Err(Error::NotFenced(open)) }
}

/// Texts as an array in SQL.
pub(crate) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let all: Vec<_> = texts.into_iter().map(|text| quoted(text.as_ref())).collect();
    format!("CAST(ARRAY[{}] AS text[])", all.join(", "))
}
