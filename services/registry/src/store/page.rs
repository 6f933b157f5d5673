//! Entries by page, in order of name, that satisfy a filter.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use airfleet_domain::labels::{Operator, Requirement};
use airfleet_sql::{Sql, Tx, Value, params, placeholders};

use super::{ENTRY_COLUMNS, Head, Kind, Result, Store, Stored, entry_row, head};

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Of which kind; namespaces where it is not said.
    pub(crate) kind: Option<Kind>,
    /// Whose labels satisfy all of these.
    pub(crate) selector: Vec<Requirement>,
    /// Of this owner; empty for any.
    pub(crate) owner: String,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// In order of name.
    pub(crate) entries: Vec<Stored>,
    /// After which name the next page starts; `None` on the last.
    pub(crate) next: Option<String>,
}

impl Store {
    /// The entries after the name `after`, at most `limit` and about `max_bytes`, and where the
    /// store stood when they were read.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        after: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Page, Head)> {
        let mut tx = self.read().await?;
        let head = head(&mut tx).await?;
        Ok((read_page(&mut tx, filter, after, limit, max_bytes).await?, head))
    }
}

pub(super) async fn read_page(
    tx: &mut Tx,
    filter: &Filter,
    after: &str,
    limit: usize,
    max_bytes: usize,
) -> Result<Page> {
    let (sql, binds) = query(filter, after, limit);
    let (entries, _, more) = tx
        .fold_until(
            Sql::assembled(sql),
            binds,
            (Vec::<Stored>::new(), 0_usize, false),
            move |(entries, bytes, more), row| {
                if entries.len() == limit || *bytes >= max_bytes {
                    *more = true;
                    return Ok(ControlFlow::Break(()));
                }
                *bytes += row.text(6)?.len();
                entries.push(entry_row(row)?);
                Ok(ControlFlow::Continue(()))
            },
        )
        .await?;
    let next = entries.last().filter(|_| more).map(|last| last.entry.name().to_owned());
    Ok(Page { entries, next })
}

/// Conditions are lists of names out of the indexes, so that a rare label is found without a scan
/// of all entries.
fn query(filter: &Filter, after: &str, limit: usize) -> (String, Vec<Value>) {
    let mut binds =
        params![filter.kind.unwrap_or(Kind::Namespace).as_str(), after, limit as i64 + 1];
    let mut sql =
        format!("SELECT {ENTRY_COLUMNS} FROM registry_entries e WHERE e.kind = $1 AND e.name > $2");
    if !filter.owner.is_empty() {
        binds.push(filter.owner.as_str().into());
        write!(
            sql,
            " AND e.name IN (SELECT o.namespace FROM registry_owners o
                WHERE o.owner = ${} AND o.namespace > $2)",
            binds.len()
        )
        .expect("a String takes everything");
    }
    for Requirement { key, operator, values } in &filter.selector {
        binds.push(key.as_str().into());
        let key = binds.len();
        let (not, values) = match operator {
            Operator::In => ("", values.as_slice()),
            Operator::NotIn => ("NOT ", values.as_slice()),
            Operator::Exists => ("", [].as_slice()),
            Operator::DoesNotExist => ("NOT ", [].as_slice()),
        };
        let mut of_values = String::new();
        if !values.is_empty() {
            let first = binds.len() + 1;
            of_values = format!(" AND l.value IN ({})", placeholders(first, values.len()));
            binds.extend(values.iter().map(Value::from));
        }
        write!(
            sql,
            " AND e.name {not}IN (SELECT l.name FROM registry_labels l
                WHERE l.kind = $1 AND l.key = ${key}{of_values} AND l.name > $2)"
        )
        .expect("a String takes everything");
    }
    sql += " ORDER BY e.name LIMIT $3";
    (sql, binds)
}
