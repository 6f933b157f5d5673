//! Which rows of a shard are of a namespace, and how each column of them travels: decided from the
//! shard's own schema and the rules of [`rules`].
//!
//! # The canonical form of a row
//! A row travels, and is summed up, without anything that means something on one shard only:
//! - a number that the database gives to the row itself is left out, and given anew;
//! - a number of another row is replaced by what that row is known by (a run by its dag_id and
//!   run_id), and looked up on the target;
//! - numbers of jobs and triggers are left out, and empty there.
//!
//! So the same query gives the same bytes on both ends, and what the target has taken in can be
//! read back and compared with what the source sent.

pub(crate) mod rules;
pub(crate) mod schema;
mod select;

pub(crate) use self::select::Runs;

use std::collections::{BTreeMap, BTreeSet};

use airfleet_domain::moves::Part;
use sha2::{Digest as _, Sha256};

use self::{
    rules::Role,
    schema::{ColumnShape, Schema, TableShape},
};
use crate::{Database, Error, copy, export::tables_of};

/// What a shard's database says of its tables, and what follows for moves.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(crate) schema: Schema,
    /// Tables that travel, each after those that it refers to.
    pub(crate) tables: Vec<Table>,
    not_understood: Vec<String>,
    digest: String,
}

/// A table that travels.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) columns: Vec<Column>,
    belongs: Belongs,
}

impl Table {
    /// Whether its rows are history, each of a run that it names, or of none.
    pub(crate) fn names_runs(&self) -> bool {
        let has = |name: &str| {
            self.columns.iter().any(|column| column.name == name && column.fate == Fate::AsIs)
        };
        let is_its_dags = matches!(&self.belongs, Belongs::To(column) if column == "dag_id");
        self.role == Role::History && is_its_dags && has("run_id")
    }
}

/// A column, and how it travels.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) not_null: bool,
    pub(crate) fate: Fate,
}

/// How a column travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it is.
    AsIs,
    /// Not: the target gives a number of its own.
    Own,
    /// Not: it is empty there.
    Empty,
    /// Not: it is the newest row of that table there.
    Newest(&'static str),
    /// As what the row of that table is known by.
    Link(String),
}

/// How it is decided whether a row is of a namespace.
#[derive(Debug, Clone)]
enum Belongs {
    /// By a column that holds a dag_id.
    To(String),
    /// As the row of that table does which these columns (own, its) name.
    With(String, Vec<(String, String)>),
    /// By being referred to: (table, its column, own column).
    For(Vec<(String, String, String)>),
}

impl Catalog {
    /// Reads what the database says.
    pub async fn read(database: &Database) -> Result<Self, Error> {
        let mut tx = database.snapshot().await?;
        let schema = Schema::read(&mut tx).await?;
        tx.commit().await?;
        Ok(Self::of(schema))
    }

    pub(crate) fn of(schema: Schema) -> Self {
        let mut not_understood = BTreeSet::new();
        let mut tables = BTreeMap::new();
        for required in ["dag", "dag_version", "dag_run", "task_instance"] {
            if !schema.tables.contains_key(required) {
                not_understood.insert(format!("{required} (missing)"));
            }
        }
        for (name, shape) in &schema.tables {
            match rules::role(name) {
                Some(Role::Stays(_) | Role::Found) => {}
                Some(role) => {
                    let (table, strange) = understand(&schema, name, shape, role);
                    not_understood.extend(strange);
                    tables.extend(table.map(|table| (name.clone(), table)));
                }
                None if rules::is_foreign(name) => {}
                None => not_understood.extend(tells_of_a_dag(name, shape)),
            }
        }
        let tables = in_order(tables, &schema, &mut not_understood);
        let digest = digest(&schema, &tables);
        let not_understood = not_understood.into_iter().collect();
        let mut catalog = Self { schema, tables, not_understood, digest };
        let unreachable: Vec<String> = catalog.without_key();
        catalog.not_understood.extend(unreachable);
        catalog
    }

    /// Over names, types and order of all columns that travel, the schema's revision, and how agents
    /// of this version exchange rows. Two shards with the same may.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Alembic revision of the database.
    pub fn revision(&self) -> &str {
        &self.schema.revision
    }

    /// Tables, columns and foreign keys that say something of a DAG and that no rule explains,
    /// sorted: "table", "table.column" or "table (what about it)".
    pub fn not_understood(&self) -> &[String] {
        &self.not_understood
    }

    /// Whether the ownership fence is installed.
    pub fn has_fence(&self) -> bool {
        self.schema.has_fence
    }

    /// Tables whose rows travel, each after those that it refers to.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.name.as_str())
    }

    /// Whether rows of a table travel while the source runs, all of them or those of some runs.
    pub fn goes_ahead(&self, table: &str) -> bool {
        tables_of(self, Part::Ahead).any(|ahead| ahead.name == table)
    }

    /// Fails unless everything is understood and the fence is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.not_understood.is_empty() {
            return Err(Error::NotUnderstood(self.not_understood.clone()));
        }
        if self.schema.has_fence { Ok(()) } else { Err(Error::NoFence) }
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// A text in which `{schema}` stands for the schema of Airflow's tables.
    pub(crate) fn render(&self, sql: &str) -> String {
        sql.replace("{schema}", &self.schema.name)
    }

    /// Links to tables whose rows nothing tells apart.
    fn without_key(&self) -> Vec<String> {
        let mut found = Vec::new();
        for table in &self.tables {
            for column in &table.columns {
                if let Fate::Link(to) = &column.fate
                    && key_of(&self.schema, to).is_none()
                {
                    found.push(format!(
                        "{}.{} (rows of {to} have no name)",
                        table.name, column.name
                    ));
                }
            }
        }
        found
    }
}

fn tells_of_a_dag(name: &str, shape: &TableShape) -> Option<String> {
    let refers = shape.references.iter().any(|reference| {
        !matches!(
            rules::role(&reference.table),
            None | Some(Role::Shared | Role::Found | Role::Stays(_))
        )
    });
    let tells = shape.columns.iter().any(|column| rules::TELLING.contains(&column.name.as_str()));
    (refers || tells).then(|| name.to_owned())
}

/// How a table travels, and what of it is not understood.
fn understand(
    schema: &Schema,
    name: &str,
    shape: &TableShape,
    role: Role,
) -> (Option<Table>, Vec<String>) {
    let mut strange = Vec::new();
    let mut columns = Vec::new();
    for column in &shape.columns {
        match fate(schema, shape, column) {
            Ok(fate) => columns.push(Column {
                name: column.name.clone(),
                ty: column.ty.clone(),
                not_null: column.not_null,
                fate,
            }),
            Err(why) => strange.push(format!("{name}.{} ({why})", column.name)),
        }
    }
    for reference in &shape.references {
        let explained = match rules::role(&reference.table) {
            Some(Role::Stays(_)) | None => reference
                .columns
                .iter()
                .all(|column| rules::is_emptied(column) || rules::newest_of(column).is_some()),
            Some(_) => true,
        };
        if !explained {
            strange.push(format!("{name} (foreign key {} to {})", reference.name, reference.table));
        }
    }
    let belongs = belongs(schema, name, shape, role);
    if belongs.is_none() {
        strange.push(format!("{name} (nothing says whose its rows are)"));
    }
    let table = belongs.map(|belongs| Table { name: name.to_owned(), role, columns, belongs });
    (table, strange)
}

/// Types whose binary form means the same everywhere.
fn is_portable(column: &ColumnShape) -> bool {
    let base = column.ty.split('(').next().unwrap_or_default();
    column.built_in
        && matches!(
            base,
            "smallint"
                | "integer"
                | "bigint"
                | "boolean"
                | "text"
                | "character varying"
                | "character"
                | "double precision"
                | "real"
                | "numeric"
                | "uuid"
                | "json"
                | "jsonb"
                | "bytea"
                | "date"
                | "interval"
                | "timestamp with time zone"
                | "timestamp without time zone"
                | "time without time zone"
        )
}

fn fate(schema: &Schema, shape: &TableShape, column: &ColumnShape) -> Result<Fate, &'static str> {
    if column.generated {
        return Err("the database computes it");
    }
    if !is_portable(column) {
        return Err("its type is not known to mean the same on another shard");
    }
    let name = column.name.as_str();
    if column.is_integer() && shape.primary == [name] && column.numbered {
        return Ok(Fate::Own);
    }
    if rules::is_emptied(name) {
        return if column.not_null { Err("it cannot be empty") } else { Ok(Fate::Empty) };
    }
    if let Some(table) = rules::newest_of(name) {
        return Ok(Fate::Newest(table));
    }
    if !column.is_integer() {
        return Ok(Fate::AsIs);
    }
    let single = shape.references.iter().find(|reference| reference.columns == [name]);
    if let Some(table) =
        single.map(|reference| reference.table.as_str()).or(rules::soft_reference(name))
    {
        let known = matches!(
            rules::role(table),
            Some(Role::Shared | Role::Found | Role::Anchor | Role::Definition | Role::History)
        );
        return if known && schema.tables.get(table).is_some_and(|to| to.primary.len() == 1) {
            Ok(Fate::Link(table.to_owned()))
        } else {
            Err("it is a number of something that stays")
        };
    }
    if name.ends_with("_id") || column.numbered {
        return Err("it looks like a number that one shard gave");
    }
    Ok(Fate::AsIs)
}

fn belongs(schema: &Schema, name: &str, shape: &TableShape, role: Role) -> Option<Belongs> {
    if role == Role::Shared {
        let mut from = Vec::new();
        for (table, other) in &schema.tables {
            if !matches!(rules::role(table), Some(Role::Anchor | Role::Definition)) {
                continue;
            }
            for column in &other.columns {
                let named = column.name == "bundle_name" && name == "dag_bundle";
                let reference = other
                    .references
                    .iter()
                    .find(|to| to.table == name && to.columns == [column.name.as_str()]);
                if let Some(key) =
                    reference.map(|to| to.keys[0].clone()).or(named.then(|| "name".into()))
                {
                    from.push((table.clone(), column.name.clone(), key));
                }
            }
        }
        return (!from.is_empty()).then_some(Belongs::For(from));
    }
    if let Some(column) = rules::DAG_COLUMNS.iter().find(|c| shape.column(c).is_some()) {
        return Some(Belongs::To((*column).to_owned()));
    }
    let parent = shape.references.iter().find(|reference| {
        matches!(rules::role(&reference.table), Some(Role::Definition | Role::History))
    })?;
    let columns = parent.columns.iter().cloned().zip(parent.keys.iter().cloned()).collect();
    Some(Belongs::With(parent.table.clone(), columns))
}

/// What rows of a table are known by on any shard.
pub(crate) fn key_of<'a>(schema: &'a Schema, table: &str) -> Option<Vec<&'a ColumnShape>> {
    let shape = schema.tables.get(table)?;
    if let Some(known) = rules::known_key(table) {
        return known.iter().map(|column| shape.column(column)).collect();
    }
    let is_name = |columns: &&Vec<String>| {
        columns.iter().all(|name| {
            shape.column(name).is_some_and(|column| column.not_null && !column.numbered)
        })
    };
    let columns = shape.unique.iter().find(is_name).or(Some(&shape.primary).filter(is_name))?;
    (!columns.is_empty()).then(|| columns.iter().filter_map(|name| shape.column(name)).collect())
}

/// Each table after those that it refers to.
fn in_order(
    mut tables: BTreeMap<String, Table>,
    schema: &Schema,
    not_understood: &mut BTreeSet<String>,
) -> Vec<Table> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, table) in &tables {
        let linked = table.columns.iter().filter_map(|column| match &column.fate {
            Fate::Link(to) => Some(to.clone()),
            _ => None,
        });
        let referred = schema.tables[name].references.iter().map(|to| to.table.clone());
        let all = linked.chain(referred).filter(|to| to != name && tables.contains_key(to));
        needs.insert(name.clone(), all.collect());
    }
    let mut ordered = Vec::with_capacity(tables.len());
    while !needs.is_empty() {
        let Some(next) =
            needs.iter().find(|(_, before)| before.is_empty()).map(|(name, _)| name.clone())
        else {
            not_understood.extend(needs.keys().map(|name| format!("{name} (refers in a circle)")));
            break;
        };
        needs.remove(&next);
        for before in needs.values_mut() {
            before.remove(&next);
        }
        ordered.extend(tables.remove(&next));
    }
    ordered
}

fn digest(schema: &Schema, tables: &[Table]) -> String {
    let mut hasher = Sha256::new();
    // Another number where agents of two versions would not understand each other's rows.
    hasher.update(format!("airfleet-transfer 2\n{}\n", schema.revision));
    let mut sorted: Vec<&Table> = tables.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for table in sorted {
        hasher.update(format!("{}\n", table.name));
        for column in &table.columns {
            let Column { name, ty, not_null, fate } = column;
            hasher.update(format!(" {name}|{ty}|{not_null}|{fate:?}\n"));
        }
    }
    copy::hex(&hasher.finalize()[..16])
}
