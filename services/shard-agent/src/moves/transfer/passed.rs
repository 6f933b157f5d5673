//! How far a transfer is: what passed, and what was estimated to.

use airfleet_domain::moves::TableProgress;
use airfleet_proto::agent::v1 as wire;
use airfleet_transfer::{Import, TableSize};

/// Tables that are told of, at most.
pub(super) const TABLES_MAX: usize = 1_000;

/// What passed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Of the rows' own bytes.
    bytes: i64,
    /// Of so many; 0 where that is not known.
    total_bytes: i64,
    /// The target: of each table, in the order in which they travel.
    tables: Vec<TableProgress>,
}

impl Passed {
    /// What a source has sent.
    pub(super) fn sent(bytes: i64, estimate: &[TableSize]) -> Self {
        let total_bytes = total(estimate.iter().map(|size| size.bytes), bytes);
        Self { bytes, total_bytes, tables: Vec::new() }
    }

    /// What a target has taken in.
    pub(super) fn taken(import: &Import, estimate: &[TableSize]) -> Self {
        Self::of(&import.came(), import.coming(), estimate)
    }

    fn of(came: &[TableSize], coming: Option<&str>, estimate: &[TableSize]) -> Self {
        let nothing = TableSize::default();
        let mut totals = Vec::with_capacity(estimate.len());
        let mut tables = Vec::with_capacity(estimate.len());
        for size in estimate {
            let found = came.iter().find(|one| one.table == size.table);
            let here = found.unwrap_or(&nothing);
            // Of a table behind which another one comes it is known how much it was.
            let is_whole = found.is_some() && coming.is_some_and(|table| table != size.table);
            let at_least = |estimated: i64, came: i64| estimated.max(came);
            let (total_rows, total_bytes) = if is_whole {
                (here.rows, here.bytes)
            } else {
                (at_least(size.rows, here.rows), at_least(size.bytes, here.bytes))
            };
            totals.push(total_bytes);
            tables.push(TableProgress {
                table: size.table.as_str().into(),
                rows: here.rows,
                total_rows,
                bytes: here.bytes,
            });
        }
        let unknown = came.iter().filter(|one| estimate.iter().all(|size| size.table != one.table));
        tables.extend(unknown.map(|one| TableProgress {
            table: one.table.as_str().into(),
            rows: one.rows,
            total_rows: 0,
            bytes: one.bytes,
        }));
        let bytes = came.iter().map(|one| one.bytes).sum();
        Self { bytes, total_bytes: total(totals.into_iter(), bytes), tables }
    }

    /// As it is told while the transfer is under way.
    pub(super) fn wire(&self, told: &mut wire::TransferProgress) {
        told.bytes = self.bytes;
        told.total_bytes = self.total_bytes;
        let table = |table: &TableProgress| wire::TableProgress {
            table: table.table.to_string(),
            rows: table.rows,
            total_rows: table.total_rows,
            bytes: table.bytes,
        };
        told.running = self.tables.iter().take(TABLES_MAX).map(table).collect();
    }
}

/// Never less than what passed; 0 where nothing was estimated.
fn total(of_tables: impl ExactSizeIterator<Item = i64>, passed: i64) -> i64 {
    if of_tables.len() == 0 { 0 } else { of_tables.sum::<i64>().max(passed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(table: &str, rows: i64, bytes: i64) -> TableSize {
        TableSize { table: table.to_owned(), rows, bytes }
    }

    fn told(passed: &Passed) -> Vec<(&str, i64, i64)> {
        passed.tables.iter().map(|table| (&*table.table, table.rows, table.total_rows)).collect()
    }

    #[test]
    fn tables_that_came_whole_correct_what_was_estimated() {
        let estimate = [size("dag", 2, 100), size("dag_run", 10, 1_000), size("xcom", 5, 5_000)];
        let passed = Passed::of(&[size("dag", 3, 80)], None, &estimate);
        assert_eq!(passed.total_bytes, 6_100, "nothing says yet that it is whole");

        let came = [size("dag", 3, 80), size("dag_run", 4, 400)];
        let passed = Passed::of(&came, Some("dag_run"), &estimate);
        assert_eq!(told(&passed), [("dag", 3, 3), ("dag_run", 4, 10), ("xcom", 0, 5)]);
        assert_eq!((passed.bytes, passed.total_bytes), (480, 6_080));

        // There was more than estimated.
        let came = [size("dag", 3, 80), size("dag_run", 12, 1_300), size("xcom", 6, 6_000)];
        let passed = Passed::of(&came, Some("xcom"), &estimate);
        assert_eq!(told(&passed), [("dag", 3, 3), ("dag_run", 12, 12), ("xcom", 6, 6)]);
        assert_eq!((passed.bytes, passed.total_bytes), (7_380, 7_380));
    }

    #[test]
    fn without_an_estimate_what_came_is_told() {
        let passed = Passed::of(&[size("dag", 3, 80)], Some("dag"), &[]);
        assert_eq!(told(&passed), [("dag", 3, 0)]);
        assert_eq!((passed.bytes, passed.total_bytes), (80, 0));
        assert_eq!(Passed::sent(80, &[]).total_bytes, 0);
        assert_eq!(Passed::sent(80, &[size("dag", 3, 70)]).total_bytes, 80);
    }
}
