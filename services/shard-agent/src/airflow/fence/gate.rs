//! Closing and opening the fence for a namespace.
//!
//! Each function is one part of a transaction that its caller commits, and may be repeated: done
//! twice it is done once. What is written is read back before the commit, because a trigger or a
//! rule of somebody else may have changed it.
//!
//! # A race, and how it is closed
//! A transaction of Airflow that read the fence as open may commit an unpaused row after the fence
//! was closed. Where the row was there before, closing waits for its lock and overrides it. A row
//! that such a transaction *inserts* is seen by nobody until then. So [`close`] notes its own
//! transaction id, and [`Sight::is_settled`] says whether everything that was under way at that time
//! has ended; only a look after that proves that nothing is unpaused.
//!
//! The order of locks is always: the row of the namespace, its prefixes, its DAGs by id.

use airfleet_domain::roles::Role;

use super::super::metadata::{Bind, Error, Transaction};

/// What to be for a namespace, as far as the fence is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// dag_id prefixes that are its own.
    pub prefixes: &'a [String],
    /// The role that it is to have.
    pub role: Role,
    /// Place of the order: (generation, revision).
    pub place: Place,
}

/// Place of an order among all of a namespace: generation, then revision. Both only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Generation of the assignment.
    pub generation: i64,
    /// Revision at which the order was committed.
    pub revision: i64,
}

/// Why the fence was not changed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A later order was obeyed already, by this agent or by another one.
    #[error(
        "generation {} (revision {}) of the namespace was obeyed before; {} ({}) is overtaken",
        seen.generation, seen.revision, told.generation, told.revision
    )]
    Overtaken {
        /// The order.
        told: Place,
        /// The one that was obeyed.
        seen: Place,
    },
    /// What was written is not what is there.
    #[error(
        "{dags} DAGs are not {what} although they were just made so; does another trigger interfere?"
    )]
    NotKept {
        /// How many. Count.
        dags: i64,
        /// What they are to be.
        what: &'static str,
    },
    /// The database refused or failed.
    #[error(transparent)]
    Metadata(#[from] Error),
}

/// What the fence and the table of DAGs say of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The last order that was obeyed, or begun to be.
    pub order: Option<(Role, Place)>,
    /// The last role that was reached completely, its generation, and when, in microseconds since
    /// 1970-01-01 UTC.
    pub reached: Option<(Role, i64, i64)>,
    /// Prefixes that the fence has for it, sorted, and whether each is open.
    pub prefixes: Vec<(String, bool)>,
    /// Whether every transaction that was under way when the fence was closed has ended.
    pub is_settled: bool,
    /// DAGs with a row that is not stale. Count.
    pub listed: i64,
    /// DAGs that are not paused, stale or not. Count.
    pub unpaused: i64,
    /// DAGs of which a pause state is noted. Count.
    pub noted: i64,
}

impl Sight {
    /// Whether its DAGs may be unpaused.
    pub fn is_open(&self) -> bool {
        self.prefixes.iter().any(|(_, open)| *open)
    }

    /// Whether the fence has just these prefixes for it, all open or all closed.
    pub fn has(&self, prefixes: &[String], open: bool) -> bool {
        self.prefixes.len() == prefixes.len()
            && self.prefixes.iter().all(|(prefix, is)| *is == open && prefixes.contains(prefix))
    }
}

/// Rows of `dag` of a namespace; `$1` are its prefixes.
const OF_NAMESPACE: &str = "EXISTS (SELECT FROM unnest($1) p WHERE starts_with(d.dag_id, p))";

/// Looks at a namespace. `prefixes` are those that count for the DAGs.
pub async fn look(
    tx: &mut Transaction,
    namespace: &str,
    prefixes: &[String],
) -> Result<Sight, Error> {
    type Row = (String, i64, i64, Option<String>, Option<i64>, Option<i64>, bool);
    let doing = "look at a namespace in the fence";
    let row: Option<Row> = tx
        .query_as(
            "SELECT role, generation, revision, reached_role, reached_generation, \
               CAST(extract(epoch FROM reached_at) * 1000000 AS bigint), \
               coalesce(closed_txid < txid_snapshot_xmin(txid_current_snapshot()) \
                 OR closed_txid >= txid_snapshot_xmax(txid_current_snapshot()), true) \
             FROM {schema}.airfleet_role WHERE namespace = $1",
        )
        .bind(namespace.to_owned())
        .fetch_optional(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    let mut sight = Sight { is_settled: true, ..Sight::default() };
    if let Some((role, generation, revision, reached, reached_generation, at, settled)) = row {
        sight.order = Role::from_name(&role).map(|role| (role, Place { generation, revision }));
        sight.reached = reached
            .and_then(|reached| Role::from_name(&reached))
            .zip(reached_generation)
            .map(|(role, generation)| (role, generation, at.unwrap_or_default()));
        sight.is_settled = settled;
    }
    sight.prefixes = tx
        .query_as(
            "SELECT prefix, open FROM {schema}.airfleet_fence WHERE namespace = $1 ORDER BY prefix",
        )
        .bind(namespace.to_owned())
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    let is_listed = tx.line().listed();
    let (listed, unpaused, noted): (i64, i64, i64) = tx
        .query_as(&format!(
            "SELECT count(*) FILTER (WHERE {is_listed}), \
               count(*) FILTER (WHERE d.is_paused IS DISTINCT FROM true), count(n.dag_id) \
             FROM {{schema}}.dag d LEFT JOIN {{schema}}.airfleet_pause n ON n.dag_id = d.dag_id \
             WHERE {OF_NAMESPACE}"
        ))
        .bind(prefixes.to_vec())
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    (sight.listed, sight.unpaused, sight.noted) = (listed, unpaused, noted);
    Ok(sight)
}

/// Pauses all DAGs of a namespace, notes the state that each had, and keeps them so. Returns how
/// many ran.
pub async fn close(tx: &mut Transaction, order: Order<'_>) -> Result<i64, GateError> {
    lock_namespace(tx, order).await?;
    let was_open = write_prefixes(tx, order, false).await?;
    tx.execute(
        "note when the fence was closed",
        "UPDATE {schema}.airfleet_role SET closed_txid = txid_current() WHERE namespace = $1",
        &[Bind::Text(order.namespace)],
    )
    .await?;
    // All of them, for whoever unpauses one at this moment has its row locked.
    lock_dags(tx, order.prefixes).await?;
    // While the fence was open what is noted is of an earlier time; while it was closed, it is what
    // users chose, and the rows are what the fence forced.
    let conflict = if was_open {
        "DO UPDATE SET is_paused = EXCLUDED.is_paused, noted_at = now()"
    } else {
        "DO NOTHING"
    };
    tx.execute(
        "note pause states",
        &format!(
            "INSERT INTO {{schema}}.airfleet_pause (dag_id, is_paused) \
             SELECT d.dag_id, coalesce(d.is_paused, false) FROM {{schema}}.dag d \
             WHERE {OF_NAMESPACE} ON CONFLICT (dag_id) {conflict}"
        ),
        &[Bind::Texts(order.prefixes)],
    )
    .await?;
    let (running,) = count(tx, order.prefixes, "d.is_paused IS DISTINCT FROM true").await?;
    tx.execute(
        "pause DAGs",
        &format!("UPDATE {{schema}}.dag d SET is_paused = true WHERE {OF_NAMESPACE}"),
        &[Bind::Texts(order.prefixes)],
    )
    .await?;
    match count(tx, order.prefixes, "d.is_paused IS DISTINCT FROM true").await? {
        (0,) => Ok(running),
        (dags,) => Err(GateError::NotKept { dags, what: "paused" }),
    }
}

/// Lifts the fence and gives each DAG the pause state that is noted for it; one that nothing is
/// noted of stays as it is. Returns how many run then.
pub async fn open(tx: &mut Transaction, order: Order<'_>) -> Result<i64, GateError> {
    lock_namespace(tx, order).await?;
    write_prefixes(tx, order, true).await?;
    lock_dags(tx, order.prefixes).await?;
    // Done again, nothing is noted any more and nothing is changed.
    tx.execute(
        "restore pause states",
        &format!(
            "UPDATE {{schema}}.dag d SET is_paused = n.is_paused \
             FROM {{schema}}.airfleet_pause n WHERE n.dag_id = d.dag_id AND {OF_NAMESPACE}"
        ),
        &[Bind::Texts(order.prefixes)],
    )
    .await?;
    let differs = "EXISTS (SELECT FROM {schema}.airfleet_pause n WHERE n.dag_id = d.dag_id \
                   AND n.is_paused IS DISTINCT FROM d.is_paused)";
    let (dags,) = count(tx, order.prefixes, differs).await?;
    if dags > 0 {
        return Err(GateError::NotKept { dags, what: "in the state that users gave them" });
    }
    forget(tx, order.prefixes).await?;
    let (running,) = count(tx, order.prefixes, "d.is_paused IS DISTINCT FROM true").await?;
    Ok(running)
}

/// Forgets the pause states that are noted of a namespace.
pub async fn forget(tx: &mut Transaction, prefixes: &[String]) -> Result<(), Error> {
    tx.execute(
        "forget pause states",
        "DELETE FROM {schema}.airfleet_pause n \
         WHERE EXISTS (SELECT FROM unnest($1) p WHERE starts_with(n.dag_id, p))",
        &[Bind::Texts(prefixes)],
    )
    .await?;
    Ok(())
}

/// Takes away all that the fence knows of a namespace. Its DAGs stay as they are; whoever owns their
/// prefixes then decides about them.
pub async fn let_go(tx: &mut Transaction, order: Order<'_>) -> Result<(), GateError> {
    lock_namespace(tx, order).await?;
    forget(tx, order.prefixes).await?;
    for table in ["airfleet_fence", "airfleet_role"] {
        tx.execute(
            "let a namespace go",
            &format!("DELETE FROM {{schema}}.{table} WHERE namespace = $1"),
            &[Bind::Text(order.namespace)],
        )
        .await?;
    }
    Ok(())
}

/// DAGs of a namespace that are not stale, sorted by bytes, at most so many.
pub(crate) async fn listed(
    tx: &mut Transaction,
    prefixes: &[String],
    at_most: usize,
) -> Result<Vec<String>, Error> {
    let is_listed = tx.line().listed();
    let rows: Vec<(String,)> = tx
        .query_as(&format!(
            "SELECT CAST(d.dag_id AS text) FROM {{schema}}.dag d \
             WHERE {OF_NAMESPACE} AND {is_listed} \
             ORDER BY d.dag_id COLLATE \"C\" LIMIT {at_most}"
        ))
        .bind(prefixes.to_vec())
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("list DAGs"))?;
    Ok(rows.into_iter().map(|(dag_id,)| dag_id).collect())
}

/// Writes that the role of the last order is reached completely.
pub async fn reached(tx: &mut Transaction, order: Order<'_>) -> Result<(), GateError> {
    lock_namespace(tx, order).await?;
    tx.execute(
        "note the role that was reached",
        "UPDATE {schema}.airfleet_role SET reached_role = $2, reached_generation = $3, \
           reached_at = now() WHERE namespace = $1",
        &[
            Bind::Text(order.namespace),
            Bind::Text(order.role.name()),
            Bind::Number(order.place.generation),
        ],
    )
    .await?;
    Ok(())
}

/// Whether the shard is ACTIVE for a namespace at that generation. Where it is, it stays so until the
/// end of the transaction: whoever obeys another order waits for it.
pub(crate) async fn hold(
    tx: &mut Transaction,
    namespace: &str,
    generation: i64,
) -> Result<bool, Error> {
    let doing = "hold a namespace in the fence";
    // Shared with others who change something, and not with whoever gives another order.
    let order: Option<(String, i64)> = tx
        .query_as(
            "SELECT role, generation FROM {schema}.airfleet_role WHERE namespace = $1 FOR SHARE",
        )
        .bind(namespace.to_owned())
        .fetch_optional(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    Ok(order.is_some_and(|(role, at)| role == Role::Active.name() && at == generation))
}

/// Whether a DAG is paused; none where there is no such DAG.
pub(crate) async fn is_paused(tx: &mut Transaction, dag_id: &str) -> Result<Option<bool>, Error> {
    let row: Option<(Option<bool>,)> = tx
        .query_as("SELECT is_paused FROM {schema}.dag WHERE dag_id = $1")
        .bind(dag_id.to_owned())
        .fetch_optional(tx.connection())
        .await
        .map_err(Error::of("look at a DAG"))?;
    Ok(row.map(|(paused,)| paused.unwrap_or(false)))
}

/// Fences these prefixes, and no others, of namespaces that this shard has no role for.
pub async fn set_elsewhere(
    tx: &mut Transaction,
    prefixes: &[(String, String)],
) -> Result<(), Error> {
    let (keys, owners): (Vec<_>, Vec<_>) = prefixes.iter().cloned().unzip();
    tx.execute(
        "drop foreign prefixes",
        "DELETE FROM {schema}.airfleet_fence WHERE elsewhere AND prefix <> ALL ($1)",
        &[Bind::Texts(&keys)],
    )
    .await?;
    tx.execute(
        "fence foreign prefixes",
        "INSERT INTO {schema}.airfleet_fence (prefix, namespace, elsewhere) \
         SELECT prefix, namespace, true FROM unnest($1, $2) AS f (prefix, namespace) \
         ON CONFLICT (prefix) DO UPDATE SET namespace = EXCLUDED.namespace \
           WHERE airfleet_fence.elsewhere AND airfleet_fence.namespace <> EXCLUDED.namespace",
        &[Bind::Texts(&keys), Bind::Texts(&owners)],
    )
    .await?;
    Ok(())
}

/// Pauses every DAG that is fenced and yet not paused, and notes the state that it had where
/// nothing is noted. Returns which.
pub async fn enforce(tx: &mut Transaction) -> Result<Vec<String>, Error> {
    let leaks = "SELECT d.dag_id FROM {schema}.dag d WHERE d.is_paused IS DISTINCT FROM true \
                 AND {schema}.airfleet_fenced(d.dag_id) ORDER BY d.dag_id FOR UPDATE";
    let leaks: Vec<(String,)> = tx
        .query_as(leaks)
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("look for DAGs that the fence missed"))?;
    let leaks: Vec<_> = leaks.into_iter().map(|(dag_id,)| dag_id).collect();
    if leaks.is_empty() {
        return Ok(leaks);
    }
    tx.execute(
        "note pause states",
        "INSERT INTO {schema}.airfleet_pause (dag_id, is_paused) \
         SELECT dag_id, false FROM unnest($1) AS d (dag_id) ON CONFLICT DO NOTHING",
        &[Bind::Texts(&leaks)],
    )
    .await?;
    tx.execute(
        "pause DAGs",
        "UPDATE {schema}.dag SET is_paused = true WHERE dag_id = ANY ($1)",
        &[Bind::Texts(&leaks)],
    )
    .await?;
    Ok(leaks)
}

/// Locks the row of a namespace, and refuses an order that was overtaken. Writes the order down.
async fn lock_namespace(tx: &mut Transaction, order: Order<'_>) -> Result<(), GateError> {
    let doing = "lock a namespace in the fence";
    let Order { namespace, role, place: told, .. } = order;
    tx.execute(
        doing,
        "INSERT INTO {schema}.airfleet_role (namespace, role, generation, revision) \
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &[
            Bind::Text(namespace),
            Bind::Text(role.name()),
            Bind::Number(told.generation),
            Bind::Number(told.revision),
        ],
    )
    .await?;
    let (generation, revision): (i64, i64) = tx
        .query_as(
            "SELECT generation, revision FROM {schema}.airfleet_role WHERE namespace = $1 FOR UPDATE",
        )
        .bind(namespace.to_owned())
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    let seen = Place { generation, revision };
    if told < seen {
        return Err(GateError::Overtaken { told, seen });
    }
    tx.execute(
        doing,
        "UPDATE {schema}.airfleet_role SET role = $2, generation = $3, revision = $4 \
         WHERE namespace = $1",
        &[
            Bind::Text(namespace),
            Bind::Text(role.name()),
            Bind::Number(told.generation),
            Bind::Number(told.revision),
        ],
    )
    .await?;
    Ok(())
}

/// Gives the namespace these prefixes and no others, open or closed. Returns whether any was open.
async fn write_prefixes(
    tx: &mut Transaction,
    order: Order<'_>,
    open: bool,
) -> Result<bool, GateError> {
    let doing = "write the prefixes of a namespace";
    let before: (bool,) = tx
        .query_as(
            "SELECT coalesce(bool_or(open), false) FROM {schema}.airfleet_fence WHERE namespace = $1",
        )
        .bind(order.namespace.to_owned())
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    tx.execute(
        doing,
        "DELETE FROM {schema}.airfleet_fence WHERE namespace = $1 AND prefix <> ALL ($2)",
        &[Bind::Text(order.namespace), Bind::Texts(order.prefixes)],
    )
    .await?;
    // No two namespaces of a fleet overlap, so a row that does is of one that is no longer.
    tx.execute(
        doing,
        "DELETE FROM {schema}.airfleet_fence f USING unnest($2) AS mine (prefix) \
         WHERE f.namespace <> $1 AND (starts_with(f.prefix, mine.prefix) \
           OR starts_with(mine.prefix, f.prefix))",
        &[Bind::Text(order.namespace), Bind::Texts(order.prefixes)],
    )
    .await?;
    tx.execute(
        doing,
        "INSERT INTO {schema}.airfleet_fence (prefix, namespace, open) \
         SELECT prefix, $1, $3 FROM unnest($2) AS f (prefix) ORDER BY prefix \
         ON CONFLICT (prefix) DO UPDATE SET namespace = $1, open = $3, elsewhere = false",
        &[Bind::Text(order.namespace), Bind::Texts(order.prefixes), Bind::Flag(open)],
    )
    .await?;
    Ok(before.0)
}

async fn lock_dags(tx: &mut Transaction, prefixes: &[String]) -> Result<(), Error> {
    tx.execute(
        "lock DAGs",
        &format!(
            "SELECT d.dag_id FROM {{schema}}.dag d WHERE {OF_NAMESPACE} ORDER BY d.dag_id FOR UPDATE"
        ),
        &[Bind::Texts(prefixes)],
    )
    .await?;
    Ok(())
}

async fn count(tx: &mut Transaction, prefixes: &[String], which: &str) -> Result<(i64,), Error> {
    tx.query_as(&format!("SELECT count(*) FROM {{schema}}.dag d WHERE {OF_NAMESPACE} AND {which}"))
        .bind(prefixes.to_vec())
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of("count DAGs"))
}
