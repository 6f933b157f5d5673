//! Statements, binds and rows, the same for both engines.

use std::borrow::Cow;
use std::str::FromStr;

use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use crate::error::{Error, Result};

/// The text of a statement. A literal converts by itself; text put together at run time has to
/// pass through [`Sql::assembled`], whose caller vouches that every value is bound, not written.
#[derive(Clone, Debug)]
pub struct Sql(Cow<'static, str>);

impl Sql {
    /// Text put together from literals of this program. Values must be bound.
    pub fn assembled(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// `$first, $first+1, …` for `count` binds, to assemble `IN (…)`.
pub fn placeholders(first: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for number in first..first + count {
        if number > first {
            text.push_str(", ");
        }
        text.push('$');
        text.push_str(&number.to_string());
    }
    text
}

/// The least text that is greater than every text that starts with `prefix`, in byte order; to
/// ask `column >= $1 AND column < $2`, which uses an index where `LIKE` does not. `None` where no
/// such text is.
pub fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Byte order of UTF-8 is the order of code points; surrogates are not characters.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A value bound to `$n`. NULL keeps its type, which PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// BIGINT.
    Int(Option<i64>),
    /// TEXT.
    Text(Option<String>),
    /// BLOB or BYTEA.
    Bytes(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($type:ty => |$name:ident| $value:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($name: $type) -> Self { $value }
        }
        impl From<Option<$type>> for Value {
            fn from(option: Option<$type>) -> Self {
                match option {
                    Some($name) => $value,
                    // Any value of the type tells which kind of NULL it is.
                    None => null_like(&{ let $name = <$type>::default(); $value }),
                }
            }
        }
    )*};
}

fn null_like(value: &Value) -> Value {
    match value {
        Value::Int(_) => Value::Int(None),
        Value::Text(_) => Value::Text(None),
        Value::Bytes(_) => Value::Bytes(None),
    }
}

value_from! {
    i64 => |value| Value::Int(Some(value));
    i32 => |value| Value::Int(Some(value.into()));
    u32 => |value| Value::Int(Some(value.into()));
    bool => |value| Value::Int(Some(value.into()));
    &str => |value| Value::Text(Some(value.to_owned()));
    String => |value| Value::Text(Some(value));
    Vec<u8> => |value| Value::Bytes(Some(value));
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

/// Counters and sizes. A number above `i64::MAX` is stored as that; no counter gets there.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

/// The binds of a statement, in order: `params![name, 3, None::<i64>]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec![$($crate::Value::from($value)),*]
    };
}

/// A row under the cursor. Columns go by position; the statement names them explicitly.
pub struct Row<'r>(Inner<'r>);

enum Inner<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r sqlx::postgres::PgRow),
}

impl<'r> Row<'r> {
    pub(crate) fn sqlite(row: &'r rusqlite::Row<'r>) -> Self {
        Self(Inner::Sqlite(row))
    }

    pub(crate) fn postgres(row: &'r sqlx::postgres::PgRow) -> Self {
        Self(Inner::Postgres(row))
    }

    /// The value of a column: integers, `bool` (0 or 1), `String`, `Vec<u8>`, or an `Option`.
    pub fn get<T: FromColumn>(&self, column: usize) -> Result<T> {
        T::from_column(self, column)
    }

    /// The text of a column, without a copy.
    pub fn text(&self, column: usize) -> Result<&str> {
        self.opt_text(column)?.ok_or_else(|| self.corrupt(column, "is NULL"))
    }

    /// Whether a column is NULL.
    pub fn is_null(&self, column: usize) -> Result<bool> {
        match self.0 {
            Inner::Sqlite(row) => row
                .get_ref(column)
                .map(|value| value == rusqlite::types::ValueRef::Null)
                .map_err(|error| self.corrupt(column, error)),
            Inner::Postgres(row) => row
                .try_get_raw(column)
                .map(|value| value.is_null())
                .map_err(|error| self.corrupt(column, error)),
        }
    }

    /// A column's text, parsed.
    pub fn parse<T>(&self, column: usize) -> Result<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.text(column)?.parse().map_err(|error| self.corrupt(column, error))
    }

    /// A column's JSON text, decoded.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T> {
        serde_json::from_str(self.text(column)?).map_err(|error| self.corrupt(column, error))
    }

    /// The error that says what is wrong with a column of this row.
    pub fn corrupt(&self, column: usize, detail: impl std::fmt::Display) -> Error {
        let name = match self.0 {
            Inner::Sqlite(row) => row.as_ref().column_name(column).ok().map(str::to_owned),
            Inner::Postgres(row) => {
                row.columns().get(column).map(|column| column.name().to_owned())
            }
        };
        Error::corrupt(name.unwrap_or_else(|| format!("#{column}")), detail)
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>> {
        match self.0 {
            Inner::Sqlite(row) => row
                .get_ref(column)
                .map_err(|error| self.corrupt(column, error))?
                .as_str_or_null()
                .map_err(|error| self.corrupt(column, error)),
            Inner::Postgres(row) => {
                row.try_get::<Option<&str>, _>(column).map_err(|error| self.corrupt(column, error))
            }
        }
    }

    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>> {
        match self.0 {
            Inner::Sqlite(row) => row
                .get_ref(column)
                .map_err(|error| self.corrupt(column, error))?
                .as_blob_or_null()
                .map_err(|error| self.corrupt(column, error)),
            Inner::Postgres(row) => {
                row.try_get::<Option<&[u8]>, _>(column).map_err(|error| self.corrupt(column, error))
            }
        }
    }

    fn opt_int(&self, column: usize) -> Result<Option<i64>> {
        match self.0 {
            Inner::Sqlite(row) => row
                .get_ref(column)
                .map_err(|error| self.corrupt(column, error))?
                .as_i64_or_null()
                .map_err(|error| self.corrupt(column, error)),
            Inner::Postgres(row) => {
                opt_int_postgres(row, column).map_err(|error| self.corrupt(column, error))
            }
        }
    }
}

/// PostgreSQL answers a comparison with BOOL and a literal with INT4 where SQLite has one integer.
fn opt_int_postgres(
    row: &sqlx::postgres::PgRow,
    column: usize,
) -> Result<Option<i64>, sqlx::Error> {
    let raw = row.try_get_raw(column)?;
    if raw.is_null() {
        return Ok(None);
    }
    let value = match raw.type_info().name() {
        "INT2" => i64::from(row.try_get::<i16, _>(column)?),
        "INT4" => i64::from(row.try_get::<i32, _>(column)?),
        "BOOL" => i64::from(row.try_get::<bool, _>(column)?),
        _ => row.try_get::<i64, _>(column)?,
    };
    Ok(Some(value))
}

/// A type that a column can be read as.
pub trait FromColumn: Sized {
    /// Reads column number `column`, counted from 0.
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self>;
}

impl FromColumn for Option<i64> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        row.opt_int(column)
    }
}

impl FromColumn for Option<String> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(row.opt_text(column)?.map(str::to_owned))
    }
}

impl FromColumn for Option<Vec<u8>> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(row.opt_bytes(column)?.map(<[u8]>::to_vec))
    }
}

impl FromColumn for bool {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
        match row.get::<i64>(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(row.corrupt(column, format_args!("{other} is neither 0 nor 1"))),
        }
    }
}

macro_rules! from_not_null {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
                row.get::<Option<$type>>(column)?.ok_or_else(|| row.corrupt(column, "is NULL"))
            }
        }
    )*};
}
from_not_null!(i64, String, Vec<u8>);

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(row: &Row<'_>, column: usize) -> Result<Self> {
                let number: i64 = row.get(column)?;
                <$type>::try_from(number)
                    .map_err(|_| row.corrupt(column, format_args!("{number} is out of range")))
            }
        }
    )*};
}
from_integer!(i32, u32, u64, usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_start_with_it_and_before_the_rest() {
        assert_eq!(prefix_end("payments."), Some("payments/".to_owned()));
        assert_eq!(prefix_end("a\u{7f}"), Some("a\u{80}".to_owned()));
        assert_eq!(prefix_end("\u{D7FF}"), Some("\u{E000}".to_owned()));
        assert_eq!(prefix_end("a\u{10FFFF}"), Some("b".to_owned()));
        assert_eq!(prefix_end("\u{10FFFF}"), None);
        assert_eq!(prefix_end(""), None);
        for (prefix, inside, outside) in [("ab", "ab\u{10FFFF}z", "ac"), ("_", "__", "`")] {
            let end = prefix_end(prefix).expect("has one");
            assert!(prefix <= inside && inside < end.as_str() && end.as_str() <= outside);
        }
    }

    #[test]
    fn null_keeps_its_type() {
        let binds = crate::params![None::<i64>, None::<String>, None::<&str>, Some(true), 3_u64];
        assert_eq!(
            binds,
            [
                Value::Int(None),
                Value::Text(None),
                Value::Text(None),
                Value::Int(Some(1)),
                Value::Int(Some(3)),
            ]
        );
    }

    #[test]
    fn placeholders_count_on() {
        assert_eq!(placeholders(3, 3), "$3, $4, $5");
        assert_eq!(placeholders(1, 0), "");
    }
}
