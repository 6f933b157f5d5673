//! The SQL of a table's canonical form: read on either end, and looked up again on the target.

use std::fmt::Write as _;

use super::{Belongs, Catalog, Column, Fate, Table, key_of, rules, rules::Role};
use crate::{RunName, copy::Field, database::name, order, scope::Scope};

/// How deep rows may be known by rows that are known by rows.
const DEPTH_MAX: usize = 4;

/// Of which runs rows are read, in tables whose rows name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs<'a> {
    /// Of all, and those of none.
    All,
    /// Of those that schedules go on from, and that have not ended. In all tables of history.
    Needed,
    /// Of those that have ended.
    Ended,
    /// Of these.
    Named(&'a [RunName]),
    /// Of none.
    None,
}

/// Runs from which schedules go on, and that have not ended.
const KEPT: &str = "\
    WITH kept AS MATERIALIZED (\
      (SELECT DISTINCT ON (r.dag_id) r.dag_id, r.run_id FROM {schema}.dag_run r \
        WHERE {of} AND r.run_type IN ('scheduled', 'backfill') \
        ORDER BY r.dag_id, r.logical_date DESC NULLS LAST, r.run_after DESC) \
      UNION SELECT r.dag_id, r.run_id FROM {schema}.dag_run r \
        WHERE {of} AND r.state IS DISTINCT FROM 'success' AND r.state IS DISTINCT FROM 'failed') ";

/// One column of the canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// `column`, or `column.key` where it stands for a row of another table.
    pub(crate) field: Field,
    expression: String,
}

impl Catalog {
    /// The columns of a table's canonical form, and the joins that they need.
    fn sent(&self, table: &Table) -> (Vec<Sent>, String) {
        let (mut sent, mut joins) = (Vec::new(), String::new());
        for column in &table.columns {
            match &column.fate {
                Fate::AsIs => {
                    let mut expression = format!("t.{}", name(&column.name));
                    if table.role == Role::Anchor && column.name == "is_paused" {
                        // What its users chose; the fence does not count.
                        expression = format!("coalesce(noted.is_paused, {expression}, false)");
                        let _ = write!(
                            joins,
                            " LEFT JOIN {}.airfleet_pause noted ON noted.dag_id = t.dag_id",
                            self.schema.name
                        );
                    }
                    let field = Field { name: column.name.clone(), ty: column.ty.clone() };
                    sent.push(Sent { field, expression });
                }
                Fate::Link(to) => {
                    self.known_by(column, to, &mut sent, &mut joins);
                }
                Fate::Own | Fate::Empty | Fate::Newest(_) => {}
            }
        }
        (sent, joins)
    }

    fn known_by(&self, column: &Column, to: &str, sent: &mut Vec<Sent>, joins: &mut String) {
        let kind = if column.not_null { "JOIN" } else { "LEFT JOIN" };
        let mut step = (to.to_owned(), "t".to_owned(), column.name.clone(), kind);
        let mut pending = vec![];
        for depth in 0..DEPTH_MAX {
            let (to, from, via, kind) = &step;
            let alias = format!("{}_{depth}", column.name);
            let number = &self.schema.tables[to].primary[0];
            let _ = write!(
                joins,
                " {kind} {}.{} {} ON {}.{} = {from}.{}",
                self.schema.name,
                name(to),
                name(&alias),
                name(&alias),
                name(number),
                name(via)
            );
            let path = |key: &str| match depth {
                0 => format!("{}.{key}", column.name),
                _ => format!("{}.{via}.{key}", column.name),
            };
            let mut next = None;
            for key in key_of(&self.schema, to).expect("checked when the catalog was made") {
                // A number of a row that is itself known by something.
                let beyond = rules::soft_reference(&key.name).filter(|_| key.is_integer());
                match beyond {
                    Some(beyond) => {
                        next = Some((beyond.to_owned(), name(&alias), key.name.clone(), *kind));
                    }
                    None => pending.push(Sent {
                        field: Field { name: path(&key.name), ty: key.ty.clone() },
                        expression: format!("{}.{}", name(&alias), name(&key.name)),
                    }),
                }
            }
            match next {
                Some(next) => step = next,
                None => break,
            }
        }
        sent.append(&mut pending);
    }

    /// The columns in which a table's rows travel.
    pub(crate) fn fields(&self, table: &Table) -> Vec<Field> {
        self.sent(table).0.into_iter().map(|sent| sent.field).collect()
    }

    /// Which fields count for a table's sum: all, but for what a parse of the target changes.
    pub(crate) fn summed(&self, table: &Table) -> Vec<bool> {
        let is_summed = |field: &Field| {
            table.role != Role::Anchor
                || matches!(field.name.as_str(), "dag_id" | "is_paused")
                || rules::is_cursor(&field.name)
        };
        self.fields(table).iter().map(is_summed).collect()
    }

    /// Reads a table's rows of a namespace in their canonical form.
    pub(crate) fn select(&self, table: &Table, scope: &Scope, runs: Runs<'_>) -> String {
        let (sent, joins) = self.sent(table);
        let mut columns = String::new();
        for (n, sent) in sent.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let _ = write!(columns, "{comma}{}", sent.expression);
        }
        let kept = if runs == Runs::Needed {
            let of = scope.of("r.dag_id", self.schema.by_bytes);
            self.render(KEPT).replace("{of}", &of)
        } else {
            String::new()
        };
        format!(
            "{kept}SELECT {columns} FROM {}.{} t{joins} WHERE {}{}",
            self.schema.name,
            name(&table.name),
            self.condition(table, "t", scope, runs, 0),
            self.linked_within(table, scope)
        )
    }

    /// The order in which rows are sent that get new numbers: in that of their old ones, so that
    /// what is sorted by them stays sorted.
    pub(crate) fn sorted(table: &Table) -> String {
        let own = table.columns.iter().find(|column| column.fate == Fate::Own);
        own.map(|own| format!(" ORDER BY t.{}", name(&own.name))).unwrap_or_default()
    }

    /// Whether a row, known by `alias`, is of the namespace.
    pub(crate) fn condition(
        &self,
        table: &Table,
        alias: &str,
        scope: &Scope,
        runs: Runs<'_>,
        depth: usize,
    ) -> String {
        let by_bytes = self.schema.by_bytes;
        match &table.belongs {
            Belongs::To(column) => {
                let of = scope.of(&format!("{alias}.{}", name(column)), by_bytes);
                if !table.names_runs() {
                    return of;
                }
                let run = format!("({alias}.dag_id, {alias}.run_id)");
                match runs {
                    Runs::All => of,
                    Runs::None => format!("{of} AND false"),
                    Runs::Needed => format!("{of} AND {run} IN (SELECT dag_id, run_id FROM kept)"),
                    Runs::Ended => format!(
                        "{of} AND {run} IN (SELECT r.dag_id, r.run_id FROM {}.dag_run r \
                         WHERE {} AND r.state IN ('success', 'failed'))",
                        self.schema.name,
                        scope.of("r.dag_id", by_bytes)
                    ),
                    Runs::Named(names) => format!(
                        "{of} AND {run} IN (SELECT * FROM unnest({}, {}))",
                        order::list(names.iter().map(|run| &run.dag_id)),
                        order::list(names.iter().map(|run| &run.run_id))
                    ),
                }
            }
            Belongs::With(parent, columns) => {
                let inner = format!("p{depth}");
                let mut on = String::new();
                for (own, key) in columns {
                    let _ = write!(on, "{inner}.{} = {alias}.{} AND ", name(key), name(own));
                }
                let parent = self.table(parent).expect("tables that rows go with travel too");
                format!(
                    "EXISTS (SELECT FROM {}.{} {inner} WHERE {on}{})",
                    self.schema.name,
                    name(&parent.name),
                    self.condition(parent, &inner, scope, runs, depth + 1)
                )
            }
            Belongs::For(from) => {
                let mut any = Vec::new();
                for (table, column, key) in from {
                    let of = scope.of("x.dag_id", by_bytes);
                    any.push(format!(
                        "{alias}.{} IN (SELECT x.{} FROM {}.{} x WHERE {of})",
                        name(key),
                        name(column),
                        self.schema.name,
                        name(table)
                    ));
                }
                format!("({})", any.join(" OR "))
            }
        }
    }

    /// That rows which a row refers to travel as well: a run of this namespace may have been
    /// started by an event of another, which stays.
    fn linked_within(&self, table: &Table, scope: &Scope) -> String {
        let mut text = String::new();
        for column in &table.columns {
            if let Fate::Link(to) = &column.fate
                && let Some(to) = self.table(to)
                && let Belongs::To(of) = &to.belongs
            {
                let path = format!("{}.{}", name(&format!("{}_0", column.name)), name(of));
                let within = scope.of(&path, self.schema.by_bytes);
                let own = name(&column.name);
                let _ = if column.not_null {
                    write!(text, " AND {within}")
                } else {
                    write!(text, " AND (t.{own} IS NULL OR {within})")
                };
            }
        }
        text
    }

    /// Puts staged rows, in `staging` under the alias `s`, into a table.
    pub(crate) fn insert(&self, table: &Table, staging: &str) -> String {
        let (mut into, mut values, mut joins) = (Vec::new(), Vec::new(), String::new());
        for column in &table.columns {
            let value = match &column.fate {
                Fate::Own | Fate::Empty => continue,
                Fate::Newest(of) => {
                    format!("(SELECT max(n.id) FROM {}.{} n)", self.schema.name, name(of))
                }
                Fate::AsIs if table.role == Role::Anchor && column.name == "is_paused" => {
                    "true".into()
                }
                Fate::AsIs if table.role == Role::Anchor && column.name == "is_stale" => {
                    "true".into()
                }
                Fate::AsIs => format!("s.{}", name(&column.name)),
                Fate::Link(to) => self.looked_up(column, to, &mut joins),
            };
            into.push(name(&column.name));
            values.push(value);
        }
        format!(
            "INSERT INTO {}.{} ({}) SELECT {} FROM {staging} s{joins}{}{}",
            self.schema.name,
            name(&table.name),
            into.join(", "),
            values.join(", "),
            if Self::sorted(table).is_empty() { "" } else { " ORDER BY s.ctid" },
            match table.role {
                Role::Shared | Role::Anchor => " ON CONFLICT DO NOTHING",
                _ => "",
            }
        )
    }

    /// The number of the row of `to` that a staged row names.
    fn looked_up(&self, column: &Column, to: &str, joins: &mut String) -> String {
        let alias = name(&format!("{}_0", column.name));
        let number = name(&self.schema.tables[to].primary[0]);
        // A real key names one row: a join is quicker then, and cannot double any.
        let is_key = rules::known_key(to).is_none();
        let (mut froms, mut on) = (String::new(), Vec::new());
        let mut step = (to.to_owned(), None::<(String, String)>);
        for depth in 0..DEPTH_MAX {
            let (to, via) = &step;
            let here = name(&format!("{}_{depth}", column.name));
            let comma = if depth == 0 { "" } else { ", " };
            let _ = write!(froms, "{comma}{}.{} {here}", self.schema.name, name(to));
            if let Some((from, key)) = via {
                let number = name(&self.schema.tables[to].primary[0]);
                on.push(format!("{here}.{number} = {from}.{}", name(key)));
            }
            let mut next = None;
            for key in key_of(&self.schema, to).expect("checked when the catalog was made") {
                match rules::soft_reference(&key.name).filter(|_| key.is_integer()) {
                    Some(beyond) => {
                        next = Some((beyond.to_owned(), Some((here.clone(), key.name.clone()))));
                    }
                    None => {
                        let path = match via {
                            None => format!("{}.{}", column.name, key.name),
                            Some((_, via)) => format!("{}.{via}.{}", column.name, key.name),
                        };
                        let is = if key.not_null { "=" } else { "IS NOT DISTINCT FROM" };
                        on.push(format!("{here}.{} {is} s.{}", name(&key.name), name(&path)));
                    }
                }
            }
            match next {
                Some(next) => step = next,
                None => break,
            }
        }
        if is_key && froms.matches(", ").count() == 0 {
            let kind = if column.not_null { "JOIN" } else { "LEFT JOIN" };
            let _ = write!(joins, " {kind} {froms} ON {}", on.join(" AND "));
            return format!("{alias}.{number}");
        }
        format!("(SELECT min({alias}.{number}) FROM {froms} WHERE {})", on.join(" AND "))
    }
}
