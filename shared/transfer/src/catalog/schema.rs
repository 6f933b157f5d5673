//! What a database says of its own tables.

use std::collections::BTreeMap;

use crate::{Error, database::Tx};

/// The tables of Airflow's schema, as the database describes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schema {
    /// Name of the schema, quoted.
    pub(crate) name: String,
    /// Alembic revisions, joined where there are several.
    pub(crate) revision: String,
    /// Whether texts are sorted by bytes.
    pub(crate) by_bytes: bool,
    /// Whether the ownership fence keeps pause states.
    pub(crate) has_fence: bool,
    pub(crate) tables: BTreeMap<String, TableShape>,
}

/// One table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableShape {
    /// In their order.
    pub(crate) columns: Vec<ColumnShape>,
    /// Columns of the primary key.
    pub(crate) primary: Vec<String>,
    /// Columns of each further unique key that holds for all rows.
    pub(crate) unique: Vec<Vec<String>>,
    pub(crate) references: Vec<Reference>,
}

/// One column.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact that the database tells")]
#[derive(Debug, Clone)]
pub(crate) struct ColumnShape {
    pub(crate) name: String,
    /// As format_type() writes it.
    pub(crate) ty: String,
    pub(crate) not_null: bool,
    /// Whether the database numbers it.
    pub(crate) numbered: bool,
    /// Whether the database computes it.
    pub(crate) generated: bool,
    /// Whether its type is one of PostgreSQL's own.
    pub(crate) built_in: bool,
}

/// A foreign key.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) table: String,
    pub(crate) keys: Vec<String>,
}

impl TableShape {
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl ColumnShape {
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.ty.as_str(), "smallint" | "integer" | "bigint")
    }
}

const COLUMNS: &str = "\
    SELECT CAST(c.relname AS text), CAST(a.attname AS text), format_type(a.atttypid, a.atttypmod), \
      a.attnotnull, \
      a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false), \
      a.attgenerated <> '', t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace \
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
    WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('dag')) \
      AND c.relkind IN ('r', 'p') ORDER BY c.relname, a.attnum";

const KEYS: &str = "\
    SELECT CAST(c.relname AS text), i.indisprimary, ARRAY(SELECT CAST(a.attname AS text) \
      FROM unnest(i.indkey) WITH ORDINALITY k (num, at) \
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num \
      WHERE k.at <= i.indnkeyatts ORDER BY k.at) \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
    WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('dag')) \
      AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
    ORDER BY c.relname, i.indexrelid";

const REFERENCES: &str = "\
    SELECT CAST(c.relname AS text), CAST(k.conname AS text), \
      ARRAY(SELECT CAST(a.attname AS text) FROM unnest(k.conkey) WITH ORDINALITY u (num, at) \
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.at), \
      CAST(f.relname AS text), \
      ARRAY(SELECT CAST(a.attname AS text) FROM unnest(k.confkey) WITH ORDINALITY u (num, at) \
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.at) \
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid \
    WHERE k.contype = 'f' \
      AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('dag')) \
    ORDER BY c.relname, k.conname";

impl Schema {
    pub(crate) async fn read(tx: &mut Tx) -> Result<Self, Error> {
        type Column = (String, String, String, bool, bool, bool, bool);
        type Facts = (Option<String>, bool, bool, bool);
        let doing = "read the schema";
        let (name, is_airflow, by_bytes, has_fence): Facts = tx
            .row(
                doing,
                "SELECT (SELECT quote_ident(n.nspname) FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('dag')), \
                 to_regclass('alembic_version') IS NOT NULL, \
                 (SELECT datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8') AND datlocprovider = 'c' \
                   FROM pg_database WHERE datname = current_database()), \
                 to_regclass('airfleet_pause') IS NOT NULL AND to_regclass('airfleet_role') IS NOT NULL",
            )
            .await?;
        let Some(name) = name.filter(|_| is_airflow) else { return Err(Error::NotAirflow) };
        let mut revisions: Vec<(String,)> =
            tx.rows(doing, "SELECT version_num FROM alembic_version ORDER BY 1").await?;
        let revision = revisions.drain(..).map(|(one,)| one).collect::<Vec<_>>().join(", ");
        let mut schema = Self { name, revision, by_bytes, has_fence, ..Self::default() };
        for (table, name, ty, not_null, numbered, generated, built_in) in
            tx.rows::<Column>(doing, COLUMNS).await?
        {
            let column = ColumnShape { name, ty, not_null, numbered, generated, built_in };
            schema.tables.entry(table).or_default().columns.push(column);
        }
        for (table, primary, columns) in tx.rows::<(String, bool, Vec<String>)>(doing, KEYS).await?
        {
            let shape = schema.tables.entry(table).or_default();
            if primary {
                shape.primary = columns;
            } else {
                shape.unique.push(columns);
            }
        }
        for (table, name, columns, to, keys) in
            tx.rows::<(String, String, Vec<String>, String, Vec<String>)>(doing, REFERENCES).await?
        {
            let reference = Reference { name, columns, table: to, keys };
            schema.tables.entry(table).or_default().references.push(reference);
        }
        Ok(schema)
    }
}
