//! One transaction that puts everything in place.

use std::{collections::BTreeMap, fmt::Write as _};

use airfleet_domain::{
    moves::{Part, TableSum},
    roles::Role as ShardRole,
};
use futures::StreamExt as _;

use super::{Import, Installed};
use crate::{
    Catalog, Error, RunName,
    ahead::CHANGED_MAX,
    catalog::{
        Fate, Runs, Table,
        rules::{self, Role},
    },
    copy::{Position, Rows, Sums},
    cursor,
    database::{Tx, name, quoted},
    export::{Trailer, is_compared, tables_of},
    order,
    scope::Scope,
};

/// Rows that the server has to know of.
const MANY: i64 = 1_000;

impl Import {
    /// Checks that all is there, and installs it. Where the answer is lost, opening the same
    /// attempt again says whether it was committed.
    pub async fn install(mut self: Box<Self>, trailer: Trailer) -> Result<Installed, Error> {
        self.flush().await?;
        self.check_complete(&trailer)?;
        let mut tx = match self.writer.take() {
            Some(mut tx) => {
                tx.begin_again().await?;
                tx
            }
            None => self.database.begin().await?,
        };
        let (catalog, scope, part) = (&self.catalog, &self.scope, self.order.part);
        let roles = [ShardRole::Staged];
        order::check(&mut tx.connection, catalog, scope, self.order.place, &roles).await?;
        order::check_fenced(&mut tx.connection, catalog, scope).await?;
        let replaced = if self.keeps_ahead { Some(&*trailer.changed) } else { None };
        for table in catalog.tables.iter().rev() {
            delete(&mut tx, catalog, scope, table, replaced).await?;
        }
        for table in tables_of(catalog, part) {
            if !(self.keeps_ahead && table.role == Role::Definition) {
                self.insert(&mut tx, table).await?;
            }
        }
        order::check_fenced(&mut tx.connection, catalog, scope).await?;
        tx.without_nested_loops().await?;
        let mut sums = Sums::default();
        for table in tables_of(catalog, part).filter(|table| is_compared(table, part)) {
            read_back(&mut tx, catalog, table, scope, &mut sums).await?;
        }
        let tables = sums.told();
        differences(&trailer.tables, &tables).map_err(Error::Differs)?;
        let marks = match part {
            Part::Ahead => Vec::new(),
            Part::Rest => cursor::marks(&mut tx.connection, catalog, scope).await?,
        };
        let installed = Installed { tables, marks };
        self.note(&mut tx, &installed).await?;
        tx.commit().await?;
        Ok(installed)
    }

    fn check_complete(&self, trailer: &Trailer) -> Result<(), Error> {
        let damaged = |table: &str, what: String| Error::Damaged { table: table.to_owned(), what };
        if trailer.last.unwrap_or(Position::first(self.keeps_ahead)) != self.at {
            return Err(damaged("the rows", "some of them are missing".to_owned()));
        }
        if trailer.changed.len() > CHANGED_MAX {
            return Err(damaged("the rows", "too many runs changed".to_owned()));
        }
        if self.keeps_ahead {
            // Not all tables came whole. What is told of them is compared when they are.
            return Ok(());
        }
        let came: Vec<TableSum> = self
            .sums
            .told()
            .into_iter()
            .filter(|sum| {
                let table = self.catalog.table(&sum.table);
                table.is_some_and(|table| is_compared(table, self.order.part))
            })
            .collect();
        differences(&trailer.tables, &came).map_err(|what| damaged("the rows", what))
    }

    async fn insert(&self, tx: &mut Tx, table: &Table) -> Result<(), Error> {
        let staging = format!("{}.{}", self.staging, name(&table.name));
        let made = tx.execute("install rows", &self.catalog.insert(table, &staging)).await?;
        match table.role {
            Role::Anchor => self.set_cursor(tx, table, &staging).await,
            Role::Shared | Role::Found | Role::Stays(_) => Ok(()),
            Role::Definition | Role::History => {
                let came = self.sums.0.get(&table.name).map_or(0, |sum| sum.rows);
                if made == came {
                    return self.analyze(tx, table, made).await;
                }
                Err(Error::Unresolved { table: table.name.clone(), rows: came - made })
            }
        }
    }

    /// Tells the server how many rows a table has, where it knows of far fewer. Each row that refers
    /// to it is looked up by an index that is chosen from that: on a shard that just came, by one that
    /// reads every task of a DAG. A role that does not own the table is only warned.
    async fn analyze(&self, tx: &mut Tx, table: &Table, inserted: i64) -> Result<(), Error> {
        if inserted < MANY {
            return Ok(());
        }
        let of = format!("{{schema}}.{}", name(&table.name));
        let known =
            format!("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = '{of}'::regclass");
        let (known,): (i64,) =
            tx.row("look at what is known of a table", &self.catalog.render(&known)).await?;
        if known < inserted / 2 {
            let analyze = format!("ANALYZE {of}");
            tx.execute("analyze a table", &self.catalog.render(&analyze)).await?;
        }
        Ok(())
    }

    /// What users chose for each DAG is noted for when the fence is lifted, and with the rest each
    /// goes on from where it was. Rows of DAGs that the source has no more of are removed.
    async fn set_cursor(&self, tx: &mut Tx, table: &Table, staging: &str) -> Result<(), Error> {
        let note = format!(
            "INSERT INTO {{schema}}.airfleet_pause (dag_id, is_paused) \
             SELECT dag_id, is_paused FROM {staging} ORDER BY dag_id \
             ON CONFLICT (dag_id) DO UPDATE SET is_paused = EXCLUDED.is_paused, noted_at = now()"
        );
        tx.execute("note pause states", &self.catalog.render(&note)).await?;
        if self.order.part == Part::Ahead {
            return Ok(());
        }
        let cursor: Vec<String> = table
            .columns
            .iter()
            .filter(|column| column.fate == Fate::AsIs && rules::is_cursor(&column.name))
            .map(|column| format!("{0} = s.{0}", name(&column.name)))
            .collect();
        if !cursor.is_empty() {
            let set = format!(
                "UPDATE {{schema}}.dag d SET {} FROM {staging} s WHERE d.dag_id = s.dag_id",
                cursor.join(", ")
            );
            tx.execute("set cursors", &self.catalog.render(&set)).await?;
        }
        let of = self.scope.of("d.dag_id", self.catalog.schema.by_bytes);
        let drop = format!(
            "DELETE FROM {{schema}}.airfleet_pause n USING {{schema}}.dag d \
             WHERE n.dag_id = d.dag_id AND {of} AND d.is_stale \
               AND NOT EXISTS (SELECT FROM {staging} s WHERE s.dag_id = d.dag_id); \
             DELETE FROM {{schema}}.dag d WHERE {of} AND d.is_stale \
               AND NOT EXISTS (SELECT FROM {staging} s WHERE s.dag_id = d.dag_id)"
        );
        tx.execute("drop DAGs that are no more", &self.catalog.render(&drop)).await?;
        Ok(())
    }

    /// Notes what came of this attempt, and drops what it kept.
    async fn note(&self, tx: &mut Tx, installed: &Installed) -> Result<(), Error> {
        let result = serde_json::to_string(installed).expect("plain data");
        let mut sql = format!(
            "INSERT INTO {}.airfleet_result VALUES ({}, {}, {}); DELETE FROM {}.airfleet_progress",
            self.staging,
            quoted(self.order.part.name()),
            self.order.attempt,
            quoted(&result),
            self.staging
        );
        for table in tables_of(&self.catalog, self.order.part) {
            let _ = write!(sql, "; DROP TABLE {}.{}", self.staging, name(&table.name));
        }
        tx.execute("note the result", &sql).await.map(drop)
    }
}

/// Removes what this shard has of the namespace in a table, but for its rows of DAGs. Where these
/// runs are to replace what went ahead, what else did stays.
async fn delete(
    tx: &mut Tx,
    catalog: &Catalog,
    scope: &Scope,
    table: &Table,
    replaced: Option<&[RunName]>,
) -> Result<(), Error> {
    let remove = async |tx: &mut Tx, runs: Runs<'_>, of_none: &str| {
        let sql = format!(
            "DELETE FROM {}.{} t WHERE {}{of_none}",
            catalog.schema.name,
            name(&table.name),
            catalog.condition(table, "t", scope, runs, 0)
        );
        tx.execute("remove rows that are replaced", &sql).await.map(drop)
    };
    match (table.role, replaced) {
        (Role::Definition | Role::History, None) => remove(tx, Runs::All, "").await,
        (Role::History, Some(_)) if !table.names_runs() => remove(tx, Runs::All, "").await,
        (Role::History, Some(replaced)) => {
            if !replaced.is_empty() {
                remove(tx, Runs::Named(replaced), "").await?;
            }
            // Rows of no run never go ahead.
            let run = table.columns.iter().find(|column| column.name == "run_id");
            if run.is_some_and(|run| !run.not_null) {
                remove(tx, Runs::All, " AND t.run_id IS NULL").await?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Sums up what a table has of the namespace.
pub(crate) async fn read_back(
    tx: &mut Tx,
    catalog: &Catalog,
    table: &Table,
    scope: &Scope,
    sums: &mut Sums,
) -> Result<(), Error> {
    let doing = "read back";
    let (fields, summed) = (catalog.fields(table).len(), catalog.summed(table));
    let copy =
        format!("COPY ({}) TO STDOUT (FORMAT binary)", catalog.select(table, scope, Runs::All));
    let sum = sums.0.entry(table.name.clone()).or_default();
    let mut stream = tx.connection.copy_out_raw(&copy).await.map_err(Error::of(doing))?;
    let mut rows = Rows::default();
    let damaged = |what: &str| Error::Damaged { table: table.name.clone(), what: what.to_owned() };
    while let Some(bytes) = stream.next().await {
        rows.push(&bytes.map_err(Error::of(doing))?);
        while let Some(row) = rows.next(fields).map_err(|broken| damaged(broken.words()))? {
            sum.add(&row, &summed);
        }
    }
    if rows.is_over() { Ok(()) } else { Err(damaged("it ends before its end")) }
}

/// What is listed of a difference, at most.
const LISTED_MAX: usize = 5;

/// How what one end has differs from what the other has.
fn differences(told: &[TableSum], found: &[TableSum]) -> Result<(), String> {
    let by_name = |sums: &[TableSum]| -> BTreeMap<String, TableSum> {
        sums.iter().map(|sum| (sum.table.to_string(), sum.clone())).collect()
    };
    let (told, found) = (by_name(told), by_name(found));
    let mut all: Vec<&String> = told.keys().chain(found.keys()).collect();
    all.sort_unstable();
    all.dedup();
    let differing: Vec<String> = all
        .into_iter()
        .filter(|table| told.get(*table) != found.get(*table))
        .map(|table| {
            let rows =
                |sums: &BTreeMap<String, TableSum>| sums.get(table).map_or(0, |sum| sum.rows);
            format!("{table} ({} rows were sent, {} are there)", rows(&told), rows(&found))
        })
        .take(LISTED_MAX)
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(differing.join(", ")) }
}
