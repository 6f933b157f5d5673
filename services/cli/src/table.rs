//! Tables for people: aligned columns, no borders, as `kubectl` prints them.

use std::fmt::Write as _;

use console::measure_text_width;

use crate::screen::{Paint, Tone};

/// Between columns.
const GAP: &str = "   ";

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text of some meaning.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// Text, or `<none>` where there is none.
pub fn or_none(text: &str) -> Cell {
    if text.is_empty() { Cell::toned(Tone::Dim, "<none>") } else { text.into() }
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// No rows yet. Columns whose name ends in a space are aligned to the right.
    pub fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as the header has.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.header.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The header and the rows, each ending in a line end and starting with `indent`.
    pub fn render(&self, paint: Paint, indent: &str) -> String {
        let header: Vec<Cell> =
            self.header.iter().map(|name| Cell::toned(Tone::Dim, name.trim_end())).collect();
        let right: Vec<bool> = self.header.iter().map(|name| name.ends_with(' ')).collect();
        let mut widths = vec![0; header.len()];
        for row in std::iter::once(&header).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = measure_text_width(&one_line(&cell.text)).max(*width);
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::from(indent);
            for (column, cell) in row.iter().enumerate() {
                let shown = one_line(&cell.text);
                let space = " ".repeat(widths[column] - measure_text_width(&shown));
                let painted = paint.tone(cell.tone, &shown);
                if column > 0 {
                    line.push_str(GAP);
                }
                let _ = if right[column] {
                    write!(line, "{space}{painted}")
                } else {
                    write!(line, "{painted}{space}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Control characters would break the alignment, or the terminal; services' texts may hold some.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `Name:   value` lines with the values aligned, as `describe` prints them.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(&'static str, Vec<Cell>)>);

impl Fields {
    /// Adds a field.
    pub fn add(&mut self, name: &'static str, value: impl Into<Cell>) {
        self.0.push((name, vec![value.into()]));
    }

    /// Adds a field unless its value is empty.
    pub fn add_some(&mut self, name: &'static str, value: impl Into<Cell>) {
        let value = value.into();
        if !value.text.is_empty() {
            self.add(name, value);
        }
    }

    /// Adds a field of several lines; `<none>` where there is none.
    pub fn add_lines(&mut self, name: &'static str, values: impl IntoIterator<Item = Cell>) {
        let mut values: Vec<Cell> = values.into_iter().collect();
        if values.is_empty() {
            values.push(or_none(""));
        }
        self.0.push((name, values));
    }

    /// Adds a field of several lines, unless there is none.
    pub fn add_lines_some(&mut self, name: &'static str, values: impl IntoIterator<Item = Cell>) {
        let values: Vec<Cell> = values.into_iter().collect();
        if !values.is_empty() {
            self.0.push((name, values));
        }
    }

    /// The lines, each ending in a line end and starting with `indent`.
    pub fn render(&self, paint: Paint, indent: &str) -> String {
        let width = self.0.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0) + 2;
        let mut text = String::new();
        for (name, values) in &self.0 {
            for (index, value) in values.iter().enumerate() {
                let is_named = index == 0 && !name.is_empty();
                let name = if is_named { format!("{name}:") } else { String::new() };
                let value = paint.tone(value.tone, &one_line(&value.text));
                let line = format!("{indent}{name:width$}{value}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(["NAME", "DAGS ", "STATE"]);
        table.row(["payments".into(), "7".into(), Cell::toned(Tone::Good, "Assigned")]);
        table.row(["zoë".into(), "1200".into(), or_none("")]);
        assert_eq!(
            table.render(Paint::PLAIN, ""),
            "NAME       DAGS   STATE\n\
             payments      7   Assigned\n\
             zoë        1200   <none>\n"
        );
        let colored = table.render(Paint::COLORED, "");
        assert!(colored.contains("      7   \x1b[32mAssigned\x1b[0m\n"), "{colored:?}");
    }

    #[test]
    fn hostile_text_stays_in_its_line() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\nb\x1b[31m".into()]);
        assert_eq!(table.render(Paint::PLAIN, "  "), "  NAME\n  a b [31m\n");
    }

    #[test]
    fn fields_line_up_and_go_on() {
        let mut fields = Fields::default();
        fields.add("Name", "payments");
        fields.add_some("Description", "");
        fields.add_lines("Prefixes", ["a.".into(), "b.".into()]);
        fields.add_lines("Labels", []);
        assert_eq!(
            fields.render(Paint::PLAIN, ""),
            "Name:      payments\n\
             Prefixes:  a.\n           b.\n\
             Labels:    <none>\n"
        );
    }
}
