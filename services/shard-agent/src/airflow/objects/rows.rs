//! The rows of pools, variables and connections.

use super::{
    super::metadata::{Bind, Error, Transaction},
    Change, Connection, Declarations, Found, Key, Kind, Owned, Value, own,
};
use crate::secrets::Cipher;

pub(super) async fn look(
    tx: &mut Transaction,
    cipher: &Cipher,
    namespace: &str,
    declared: &Declarations,
) -> Result<Found, Error> {
    let doing = "look at what Airfleet owns";
    let (kinds, names): (Vec<String>, Vec<String>) =
        declared.keys().map(|(kind, name)| (kind.name().to_owned(), name.clone())).unzip();
    let owned: Vec<(String, String, String, String)> = tx
        .query_as(
            "SELECT kind, name, namespace, declared FROM {schema}.airfleet_owned \
             WHERE namespace = $1 OR (kind, name) IN (SELECT * FROM unnest($2, $3))",
        )
        .bind(namespace.to_owned())
        .bind(kinds)
        .bind(names)
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    let mut found = Found::default();
    for (kind, name, namespace, digest) in owned {
        if let Some(kind) = Kind::from_name(&kind) {
            found.owned.insert((kind, name), Owned { namespace, digest });
        }
    }
    let of = |kind: Kind| -> Vec<String> {
        let mut names: Vec<_> = declared
            .keys()
            .chain(found.owned.keys())
            .filter(|key| key.0 == kind)
            .map(|key| key.1.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (pools, variables, connections) =
        (of(Kind::Pool), of(Kind::Variable), of(Kind::Connection));
    if !pools.is_empty() {
        pools_of(tx, &pools, declared, &mut found).await?;
    }
    if !variables.is_empty() {
        variables_of(tx, cipher, &variables, &mut found).await?;
    }
    if !connections.is_empty() {
        connections_of(tx, cipher, &connections, &mut found).await?;
    }
    Ok(found)
}

async fn pools_of(
    tx: &mut Transaction,
    names: &[String],
    declared: &Declarations,
    found: &mut Found,
) -> Result<(), Error> {
    let doing = "look at pools";
    let rows: Vec<(String, i64, String, bool)> = tx
        .query_as(
            "SELECT pool, CAST(slots AS bigint), coalesce(description, ''), \
               coalesce(include_deferred, false) FROM {schema}.slot_pool WHERE pool = ANY ($1)",
        )
        .bind(names.to_vec())
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    for (name, slots, description, include_deferred) in rows {
        let value = Value::Pool { slots, description, include_deferred };
        found.present.insert((Kind::Pool, name), value);
    }
    let leaving: Vec<String> = found
        .owned
        .keys()
        .filter(|key| key.0 == Kind::Pool && !declared.contains_key(*key))
        .map(|key| key.1.clone())
        .collect();
    if leaving.is_empty() {
        return Ok(());
    }
    let busy: Vec<(String,)> = tx
        .query_as(
            "SELECT DISTINCT pool FROM {schema}.task_instance WHERE state IN \
               ('scheduled', 'queued', 'running', 'restarting', 'deferred', 'up_for_retry', \
                'up_for_reschedule') AND pool = ANY ($1)",
        )
        .bind(leaving)
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of(doing))?;
    found.busy_pools = busy.into_iter().map(|(name,)| name).collect();
    Ok(())
}

async fn variables_of(
    tx: &mut Transaction,
    cipher: &Cipher,
    names: &[String],
    found: &mut Found,
) -> Result<(), Error> {
    let rows: Vec<(String, Option<String>, bool)> = tx
        .query_as(
            "SELECT key, val, coalesce(is_encrypted, false) FROM {schema}.variable \
             WHERE key = ANY ($1)",
        )
        .bind(names.to_vec())
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("look at variables"))?;
    for (name, text, is_encrypted) in rows {
        let value = match cipher.open(text.unwrap_or_default(), is_encrypted) {
            Some(text) => Value::Variable(text),
            None => Value::Unreadable,
        };
        found.present.insert((Kind::Variable, name), value);
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ConnectionRow {
    conn_id: String,
    conn_type: String,
    description: String,
    host: String,
    login: String,
    password: String,
    schema_name: String,
    port: Option<i64>,
    extra: String,
    is_encrypted: bool,
    is_extra_encrypted: bool,
}

async fn connections_of(
    tx: &mut Transaction,
    cipher: &Cipher,
    names: &[String],
    found: &mut Found,
) -> Result<(), Error> {
    let rows: Vec<ConnectionRow> = tx
        .query_as(
            "SELECT conn_id, conn_type, coalesce(description, '') AS description, \
               coalesce(host, '') AS host, coalesce(login, '') AS login, \
               coalesce(password, '') AS password, coalesce(c.schema, '') AS schema_name, \
               CAST(port AS bigint) AS port, coalesce(extra, '') AS extra, \
               coalesce(is_encrypted, false) AS is_encrypted, \
               coalesce(is_extra_encrypted, false) AS is_extra_encrypted \
             FROM {schema}.connection c WHERE conn_id = ANY ($1)",
        )
        .bind(names.to_vec())
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("look at connections"))?;
    for row in rows {
        let secrets = cipher
            .open(row.password, row.is_encrypted)
            .zip(cipher.open(row.extra, row.is_extra_encrypted));
        let value = match secrets {
            Some((password, extra)) => Value::Connection(Box::new(Connection {
                conn_type: row.conn_type,
                description: row.description,
                host: row.host,
                login: row.login,
                password,
                schema: row.schema_name,
                port: row.port,
                extra,
            })),
            None => Value::Unreadable,
        };
        found.present.insert((Kind::Connection, row.conn_id), value);
    }
    Ok(())
}

pub(super) async fn apply(
    tx: &mut Transaction,
    cipher: &Cipher,
    namespace: &str,
    change: &Change,
) -> Result<(), Error> {
    match change {
        Change::Note(key, declared) => own(tx, key, namespace, &declared.digest).await,
        Change::Remove(key) => remove(tx, namespace, key).await,
        Change::Create(key, declared) => {
            own(tx, key, namespace, &declared.digest).await?;
            write(tx, cipher, key, &declared.value, true).await
        }
        Change::Update(key, declared) => {
            own(tx, key, namespace, &declared.digest).await?;
            write(tx, cipher, key, &declared.value, false).await
        }
    }
}

async fn remove(tx: &mut Transaction, namespace: &str, key: &Key) -> Result<(), Error> {
    let (table, column) = match key.0 {
        Kind::Pool => ("slot_pool", "pool"),
        Kind::Variable => ("variable", "key"),
        Kind::Connection => ("connection", "conn_id"),
    };
    tx.execute(
        "remove what is no longer declared",
        &format!(
            "DELETE FROM {{schema}}.{table} WHERE {column} = $1 AND EXISTS \
               (SELECT FROM {{schema}}.airfleet_owned WHERE kind = $2 AND name = $1 AND namespace = $3)"
        ),
        &[Bind::Text(&key.1), Bind::Text(key.0.name()), Bind::Text(namespace)],
    )
    .await?;
    tx.execute(
        "forget what is no longer declared",
        "DELETE FROM {schema}.airfleet_owned WHERE kind = $2 AND name = $1 AND namespace = $3",
        &[Bind::Text(&key.1), Bind::Text(key.0.name()), Bind::Text(namespace)],
    )
    .await?;
    Ok(())
}

/// Fails where somebody else made it in between, by the unique key of its table.
async fn write(
    tx: &mut Transaction,
    cipher: &Cipher,
    (kind, name): &Key,
    value: &Value,
    create: bool,
) -> Result<(), Error> {
    let name = Bind::Text(name);
    match value {
        Value::Pool { slots, description, include_deferred } => {
            let sql = if create {
                "INSERT INTO {schema}.slot_pool (pool, slots, description, include_deferred) \
                 VALUES ($1, CAST($2 AS bigint), $3, $4)"
            } else {
                "UPDATE {schema}.slot_pool SET slots = CAST($2 AS bigint), description = $3, \
                 include_deferred = $4 WHERE pool = $1"
            };
            let binds = [
                name,
                Bind::Number(*slots),
                Bind::Text(description),
                Bind::Flag(*include_deferred),
            ];
            tx.execute("write a pool", sql, &binds).await?;
        }
        Value::Variable(text) => {
            let (text, is_encrypted) = cipher.seal(text);
            let sql = if create {
                "INSERT INTO {schema}.variable (key, val, is_encrypted) VALUES ($1, $2, $3)"
            } else {
                "UPDATE {schema}.variable SET val = $2, is_encrypted = $3 WHERE key = $1"
            };
            tx.execute(
                "write a variable",
                sql,
                &[name, Bind::Text(&text), Bind::Flag(is_encrypted)],
            )
            .await?;
        }
        Value::Connection(connection) => {
            let Connection { conn_type, description, host, login, schema, port, .. } =
                &**connection;
            let (password, is_encrypted) = sealed(cipher, &connection.password);
            let (extra, is_extra_encrypted) = sealed(cipher, &connection.extra);
            // -1 stands for none: no port is negative.
            let port = port.unwrap_or(-1);
            let sql = if create {
                "INSERT INTO {schema}.connection (conn_id, conn_type, description, host, login, \
                   password, schema, port, extra, is_encrypted, is_extra_encrypted) \
                 VALUES ($1, $2, nullif($3, ''), nullif($4, ''), nullif($5, ''), nullif($6, ''), \
                   nullif($7, ''), CAST(nullif(CAST($8 AS bigint), -1) AS integer), \
                   nullif($9, ''), $10, $11)"
            } else {
                "UPDATE {schema}.connection SET conn_type = $2, description = nullif($3, ''), \
                   host = nullif($4, ''), login = nullif($5, ''), password = nullif($6, ''), \
                   schema = nullif($7, ''), port = CAST(nullif(CAST($8 AS bigint), -1) AS integer), \
                   extra = nullif($9, ''), is_encrypted = $10, is_extra_encrypted = $11 \
                 WHERE conn_id = $1"
            };
            let binds = [
                name,
                Bind::Text(conn_type),
                Bind::Text(description),
                Bind::Text(host),
                Bind::Text(login),
                Bind::Text(&password),
                Bind::Text(schema),
                Bind::Number(port),
                Bind::Text(&extra),
                Bind::Flag(is_encrypted),
                Bind::Flag(is_extra_encrypted),
            ];
            tx.execute("write a connection", sql, &binds).await?;
        }
        Value::Unreadable => unreachable!("{kind:?} is never declared so"),
    }
    Ok(())
}

/// What is empty is left empty, as Airflow does.
fn sealed(cipher: &Cipher, text: &str) -> (String, bool) {
    if text.is_empty() { (String::new(), false) } else { cipher.seal(text) }
}
