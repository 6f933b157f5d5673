//! What one end finds before a move, as facts: `airfleet_domain::moves::preflight` judges them.

use std::collections::{BTreeMap, BTreeSet};

use airfleet_domain::moves::{Side, preflight::Inspection};
use sha2::{Digest as _, Sha256};

use crate::{
    Catalog, Database, Error, Scope,
    catalog::{
        Table,
        rules::{self, Role},
        schema::Schema,
    },
    copy,
    database::{Tx, name, quoted},
};

/// What is listed of anything, at most.
const LISTED_MAX: usize = 100;

/// What the database does not know of an Airflow: its agent has it from Airflow's configuration.
#[derive(Debug, Clone, Default)]
pub struct Airflow {
    /// Version of Airflow.
    pub version: String,
    /// `core.dags_folder`.
    pub dags_folder: String,
    /// Providers with their versions.
    pub providers: BTreeMap<String, String>,
    /// `core.fernet_key`; empty where there is none. Only a digest of it leaves.
    pub fernet_key: String,
    /// Class of the secrets backend; empty where there is none.
    pub secrets_backend: String,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The namespace.
    pub scope: &'a Scope,
    /// Which end the shard would be.
    pub side: Side,
    /// What the agent knows of its Airflow.
    pub airflow: &'a Airflow,
}

/// Looks at one end. Changes nothing.
pub async fn inspect(database: &Database, look: Look<'_>) -> Result<Inspection, Error> {
    let Look { scope, side, airflow } = look;
    let mut tx = database.snapshot().await?;
    let catalog = Catalog::of(Schema::read(&mut tx).await?);
    let mut found = Inspection {
        airflow_version: airflow.version.clone(),
        schema_revision: catalog.revision().to_owned(),
        schema_digest: catalog.digest().to_owned(),
        not_understood: catalog.not_understood().iter().take(LISTED_MAX).cloned().collect(),
        database: "postgresql".to_owned(),
        dags_folder: airflow.dags_folder.clone(),
        providers: airflow.providers.clone(),
        fernet_digest: fernet_digest(&airflow.fernet_key),
        secrets_backend: airflow.secrets_backend.clone(),
        ..Inspection::default()
    };
    // What is not understood cannot be asked.
    if catalog.not_understood().is_empty() {
        count(&mut tx, &catalog, scope, &mut found).await?;
        found.pools = pools(&mut tx, &catalog, scope, side).await?;
        if side == Side::Source {
            let of = scope.of("b.dag_id", catalog.schema.by_bytes);
            let sql = format!(
                "SELECT DISTINCT CAST(b.dag_id AS text) FROM {{schema}}.backfill b \
                 WHERE b.completed_at IS NULL AND {of} ORDER BY 1 LIMIT {LISTED_MAX}"
            );
            found.open_backfills = texts(&mut tx, &catalog, "look for backfills", &sql).await?;
            found.asset_crossings = crossings(&mut tx, &catalog, scope).await?;
            found.obstacles = losses(&mut tx, &catalog, scope).await?;
        }
    }
    if !catalog.has_fence() {
        found.obstacles.push(Error::NoFence.to_string());
    }
    found.obstacles.extend(rights(&mut tx, &catalog, side).await?);
    tx.commit().await?;
    Ok(found)
}

/// Over a key, so that two can be compared, and that tells nothing of it.
fn fernet_digest(key: &str) -> String {
    if key.is_empty() {
        return String::new();
    }
    // A key has 256 random bits, so nobody finds it by trying; the purpose keeps the digest from
    // meaning anything elsewhere.
    let digest = Sha256::digest(format!("airfleet fernet key comparison 1\n{key}"));
    copy::hex(&digest[..16])
}

async fn texts(
    tx: &mut Tx,
    catalog: &Catalog,
    doing: &'static str,
    sql: &str,
) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = tx.rows(doing, &catalog.render(sql)).await?;
    Ok(rows.into_iter().map(|(text,)| text).collect())
}

async fn count(
    tx: &mut Tx,
    catalog: &Catalog,
    scope: &Scope,
    found: &mut Inspection,
) -> Result<(), Error> {
    let of = |column: &str| scope.of(column, catalog.schema.by_bytes);
    let sql = format!(
        "SELECT (SELECT count(*) FROM {{schema}}.dag d WHERE NOT d.is_stale AND {}), \
           (SELECT count(*) FROM {{schema}}.dag_run r WHERE {}), count(*), \
           count(*) FILTER (WHERE t.state IN ('running', 'restarting')), \
           count(*) FILTER (WHERE t.state = 'deferred') \
         FROM {{schema}}.task_instance t WHERE {}",
        of("d.dag_id"),
        of("r.dag_id"),
        of("t.dag_id")
    );
    (found.dags, found.runs, found.task_instances, found.running, found.deferred) =
        tx.row("count what a namespace has", &catalog.render(&sql)).await?;
    Ok(())
}

/// At the source those that its tasks use, at the target all.
async fn pools(
    tx: &mut Tx,
    catalog: &Catalog,
    scope: &Scope,
    side: Side,
) -> Result<BTreeSet<String>, Error> {
    let of = |column: &str| scope.of(column, catalog.schema.by_bytes);
    let sql = match side {
        Side::Target => "SELECT CAST(pool AS text) FROM {schema}.slot_pool".to_owned(),
        // Of the tasks that there are now, and of those that may still run.
        Side::Source => format!(
            "SELECT DISTINCT task -> '__var' ->> 'pool' FROM (\
               SELECT DISTINCT ON (s.dag_id) s.data FROM {{schema}}.serialized_dag s \
               JOIN {{schema}}.dag_version v ON v.id = s.dag_version_id WHERE {} \
               ORDER BY s.dag_id, v.version_number DESC) latest, \
               jsonb_array_elements(CASE jsonb_typeof(latest.data -> 'dag' -> 'tasks') \
                 WHEN 'array' THEN latest.data -> 'dag' -> 'tasks' ELSE '[]' END) task \
             WHERE task -> '__var' ->> 'pool' IS NOT NULL \
             UNION SELECT DISTINCT CAST(t.pool AS text) FROM {{schema}}.task_instance t \
             JOIN {{schema}}.dag_run r ON r.dag_id = t.dag_id AND r.run_id = t.run_id \
             WHERE r.state IN ('queued', 'running') AND {}",
            of("s.dag_id"),
            of("r.dag_id")
        ),
    };
    Ok(texts(tx, catalog, "look at pools", &sql).await?.into_iter().collect())
}

/// Assets by which a DAG of the namespace starts one of another, or is started by one.
async fn crossings(tx: &mut Tx, catalog: &Catalog, scope: &Scope) -> Result<Vec<String>, Error> {
    let of = |column: &str| scope.of(column, catalog.schema.by_bytes);
    let sql = format!(
        "SELECT DISTINCT format('%s: %s -> %s', a.uri, p.dag_id, c.dag_id) \
         FROM {{schema}}.task_outlet_asset_reference p \
         JOIN {{schema}}.dag_schedule_asset_reference c ON c.asset_id = p.asset_id \
         JOIN {{schema}}.asset a ON a.id = p.asset_id \
         JOIN {{schema}}.dag pd ON pd.dag_id = p.dag_id AND NOT pd.is_stale \
         JOIN {{schema}}.dag cd ON cd.dag_id = c.dag_id AND NOT cd.is_stale \
         WHERE {} <> {} ORDER BY 1 LIMIT {LISTED_MAX}",
        of("p.dag_id"),
        of("c.dag_id")
    );
    texts(tx, catalog, "look for assets that cross", &sql).await
}

/// Rows that a move would lose.
async fn losses(tx: &mut Tx, catalog: &Catalog, scope: &Scope) -> Result<Vec<String>, Error> {
    let mut lost = Vec::new();
    for table in catalog.schema.tables.keys() {
        let Some(Role::Stays(Some(pending))) = rules::role(table) else { continue };
        let mut sql = catalog.render(pending.sql);
        while let Some((before, rest)) = sql.split_once("{of:") {
            let Some((column, after)) = rest.split_once('}') else { break };
            sql = format!("{before}{}{after}", scope.of(column, catalog.schema.by_bytes));
        }
        let (rows,): (i64,) = tx.row("look for what would be lost", &sql).await?;
        if rows > 0 {
            lost.push(format!("{rows} {} would be lost ({table})", pending.what));
        }
    }
    Ok(lost)
}

/// What the agent's role may not do.
async fn rights(tx: &mut Tx, catalog: &Catalog, side: Side) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for table in &catalog.tables {
        for right in needed(table, side) {
            let sql = format!(
                "SELECT has_table_privilege({}, '{right}')",
                quoted(&format!("{}.{}", catalog.schema.name, name(&table.name)))
            );
            let (may,): (bool,) = tx.row("look at rights", &sql).await?;
            if !may {
                missing.push(format!("{right} on {}", table.name));
            }
        }
    }
    if side == Side::Target {
        let sql = "SELECT has_database_privilege(current_database(), 'CREATE')";
        let (may,): (bool,) = tx.row("look at rights", sql).await?;
        if !may {
            missing.push("CREATE on the database".to_owned());
        }
    }
    if missing.is_empty() {
        return Ok(missing);
    }
    missing.truncate(LISTED_MAX);
    Ok(vec![format!("the agent's role needs {}", missing.join(", "))])
}

/// What an agent needs of a table: tasks that were about to run are set back at the source.
fn needed(table: &Table, side: Side) -> &'static [&'static str] {
    match side {
        Side::Target => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        Side::Source if table.name == "task_instance" => &["SELECT", "UPDATE"],
        Side::Source => &["SELECT"],
    }
}

impl Catalog {
    /// Statements that give a role what an agent needs at either end of a move, beyond what the
    /// fence's installation grants; separated by semicolons.
    pub fn grants(&self, role: &str) -> String {
        let tables: Vec<String> = self
            .tables
            .iter()
            .map(|table| format!("{}.{}", self.schema.name, name(&table.name)))
            .collect();
        let (raw, role) = (role, name(role));
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {role}; \
             DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), {}); \
             END $$",
            tables.join(", "),
            quoted(raw)
        )
    }
}
