//! No pool, variable or connection may be two namespaces': any two may come to lie on one shard,
//! where both would write it.
//!
//! A variable or connection whose value the shard's secrets backend has is nobody's: no agent writes
//! it, so any number of namespaces may name it.

use std::collections::{BTreeMap, BTreeSet};

use airfleet_domain::manifest::Entry;
use airfleet_sql::{Result, Sql, Tx, Value, params, placeholders};

use super::{NAMES_MAX, Stored};

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// A pool.
    Pool,
    /// A variable.
    Variable,
    /// A connection.
    Connection,
}

impl Sort {
    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Variable => "variable",
            Self::Connection => "connection",
        }
    }
}

/// A name that two namespaces want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What it is of.
    pub(crate) sort: Sort,
    /// The name.
    pub(crate) name: String,
    /// The namespace that wants it.
    pub(crate) namespace: String,
    /// The namespace that has it.
    pub(crate) other_namespace: String,
}

/// The names that an entry has.
pub(super) fn names(stored: &Stored) -> BTreeSet<(Sort, String)> {
    let Entry::Namespace(namespace) = &stored.entry else { return BTreeSet::new() };
    let spec = &namespace.spec;
    let pools = spec.pools.iter().map(|pool| (Sort::Pool, pool.name.clone()));
    let variables = spec
        .variables
        .iter()
        .filter(|variable| !variable.secret.is_empty())
        .map(|variable| (Sort::Variable, variable.key.clone()));
    let connections = spec
        .connections
        .iter()
        .filter(|connection| !connection.secret.is_empty())
        .map(|connection| (Sort::Connection, connection.id.clone()));
    pools.chain(variables).chain(connections).collect()
}

/// Gives the names to these namespaces, if nobody has them; else answers who has. What the
/// namespaces themselves had must be given up already.
pub(super) async fn claim(
    tx: &mut Tx,
    claims: &[(String, BTreeSet<(Sort, String)>)],
) -> Result<Vec<Taken>> {
    let mut owners: BTreeMap<(Sort, &str), &str> = BTreeMap::new();
    let mut taken = Vec::new();
    let all =
        claims.iter().flat_map(|(namespace, names)| names.iter().map(move |n| (namespace, n)));
    for (namespace, (sort, name)) in all {
        match owners.get(&(*sort, name.as_str())) {
            Some(other) => taken.push(Taken {
                sort: *sort,
                name: name.clone(),
                namespace: namespace.clone(),
                other_namespace: (*other).to_owned(),
            }),
            None => drop(owners.insert((*sort, name), namespace)),
        }
    }
    for sort in [Sort::Pool, Sort::Variable, Sort::Connection] {
        let wanted: Vec<&str> =
            owners.keys().filter(|(of, _)| *of == sort).map(|(_, name)| *name).collect();
        for chunk in wanted.chunks(NAMES_MAX) {
            let sql = format!(
                "SELECT name, namespace FROM registry_names WHERE kind = $1 AND name IN ({})",
                placeholders(2, chunk.len())
            );
            let mut binds = params![sort.as_str()];
            binds.extend(chunk.iter().map(|name| Value::from(*name)));
            let found: Vec<(String, String)> = tx
                .fetch_all(Sql::assembled(sql), binds, |row| Ok((row.get(0)?, row.get(1)?)))
                .await?;
            taken.extend(found.into_iter().map(|(name, other_namespace)| Taken {
                sort,
                namespace: owners[&(sort, name.as_str())].to_owned(),
                name,
                other_namespace,
            }));
        }
    }
    if taken.is_empty() {
        let rows = owners
            .iter()
            .map(|((sort, name), namespace)| params![sort.as_str(), *name, *namespace]);
        tx.insert_many("INSERT INTO registry_names (kind, name, namespace)", "", rows.collect())
            .await?;
    }
    Ok(taken)
}
