//! Rows in the form of `COPY (FORMAT binary)`, and what is computed over them.

use std::collections::BTreeMap;

use airfleet_domain::moves::TableSum;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// What a chunk has at most, unless one row is larger. Bytes.
pub const CHUNK_MAX: usize = 256 << 10;

/// What a row has at most. Bytes.
pub const ROW_MAX: usize = 16 << 20;

/// How `COPY (FORMAT binary)` begins: a signature, no flags, no extension.
pub(crate) const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// How it ends.
pub(crate) const TRAILER: [u8; 2] = [0xff, 0xff];

/// A column of rows that travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name: `column`, or `column.key` where it stands for a row of another table.
    pub name: String,
    /// Its type, as PostgreSQL's format_type() writes it.
    pub ty: String,
}

/// A place in the order of chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Sequence of the last chunk; 0 before the first.
    pub sequence: i64,
    /// Over all chunks up to it; before the first see [`Position::first`].
    pub digest: u64,
}

impl Position {
    /// The place before the first chunk. Chunks that are sent beyond what went ahead never follow
    /// those of a whole.
    pub fn first(keeps_ahead: bool) -> Self {
        Self { sequence: 0, digest: u64::from(keeps_ahead) }
    }

    /// The place after one more chunk with this checksum.
    pub fn after(self, checksum: u64) -> Self {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&self.digest.to_le_bytes());
        both[8..].copy_from_slice(&checksum.to_le_bytes());
        Self { sequence: self.sequence + 1, digest: xxh3_64(&both) }
    }
}

/// Whole rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The table.
    pub table: String,
    /// The rows, without the header and the trailer of the format.
    pub rows: Bytes,
    /// XXH3, 64 bits, of `rows`.
    pub checksum: u64,
    /// Its place.
    pub position: Position,
}

impl Chunk {
    /// The chunk that follows `last`.
    pub fn new(table: &str, rows: Bytes, last: Position) -> Self {
        let checksum = xxh3_64(&rows);
        Self { table: table.to_owned(), rows, checksum, position: last.after(checksum) }
    }

    /// Whether it is whole and follows `last`.
    pub fn follows(&self, last: Position) -> bool {
        xxh3_64(&self.rows) == self.checksum && self.position == last.after(self.checksum)
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Why bytes are no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// They do not begin as they should.
    Header,
    /// A row has another number of fields.
    Fields,
    /// A length that cannot be.
    Length,
}

impl Broken {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Broken::Header => "it does not begin as rows do",
            Broken::Fields => "a row has another number of columns",
            Broken::Length => "a value has a length that cannot be",
        }
    }
}

/// One step through rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A row of so many bytes.
    Row(usize),
    /// More bytes are needed.
    More,
    /// The end.
    End,
}

/// The values of a whole row, as their types write themselves; none for NULL.
pub(crate) fn values(row: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = &row[2..];
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = after;
            return Some(None);
        };
        let (value, after) = after.split_at_checked(length)?;
        rest = after;
        Some(Some(value))
    })
}

/// The length of the row at the beginning of `bytes`.
pub(crate) fn row(bytes: &[u8], fields: usize) -> Result<Next, Broken> {
    let Some(count) = bytes.first_chunk().map(|count| i16::from_be_bytes(*count)) else {
        return Ok(Next::More);
    };
    if count == -1 {
        return Ok(Next::End);
    }
    if usize::try_from(count) != Ok(fields) {
        return Err(Broken::Fields);
    }
    let mut at = 2;
    for _ in 0..fields {
        let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
            return Ok(Next::More);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| Broken::Length)?,
        }
    }
    Ok(if at <= bytes.len() { Next::Row(at) } else { Next::More })
}

/// Takes rows from a stream that is cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    buffer: BytesMut,
    begun: bool,
    ended: bool,
}

impl Rows {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their row.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn next(&mut self, fields: usize) -> Result<Option<BytesMut>, Broken> {
        if !self.begun {
            if self.buffer.len() < HEADER.len() {
                return Ok(None);
            }
            if self.buffer.split_to(HEADER.len()) != HEADER[..] {
                return Err(Broken::Header);
            }
            self.begun = true;
        }
        if self.ended {
            return Ok(None);
        }
        match row(&self.buffer, fields)? {
            Next::Row(length) => Ok(Some(self.buffer.split_to(length))),
            Next::More => Ok(None),
            Next::End => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// Whether all rows came.
    pub(crate) fn is_over(&self) -> bool {
        self.ended
    }
}

/// What is computed over a table's rows: their number, and the sum of a hash of each, so that
/// their order does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: i64,
    hash: u128,
}

impl Sum {
    /// Takes in a row, and answers its hash. `summed` tells of each field whether it counts.
    pub(crate) fn add(&mut self, row: &[u8], summed: &[bool]) -> u128 {
        self.rows += 1;
        let hash = if summed.iter().all(|counts| *counts) {
            xxh3_128(row)
        } else {
            let (mut hasher, mut at) = (Xxh3::new(), 2);
            for counts in summed {
                let length = i32::from_be_bytes(*row[at..].first_chunk().expect("a whole row"));
                let end = at + 4 + usize::try_from(length).unwrap_or(0);
                if *counts {
                    hasher.update(&row[at..end]);
                }
                at = end;
            }
            hasher.digest128()
        };
        self.hash = self.hash.wrapping_add(hash);
        hash
    }

    fn checksum(self) -> String {
        format!("{:032x}", self.hash)
    }
}

/// Sums of tables, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums(pub(crate) BTreeMap<String, Sum>);

impl Sums {
    pub(crate) fn told(&self) -> Vec<TableSum> {
        let told = |(table, sum): (&String, &Sum)| TableSum {
            table: table.as_str().into(),
            rows: sum.rows,
            checksum: sum.checksum().into(),
        };
        self.0.iter().map(told).collect()
    }

    pub(crate) fn of(told: &[TableSum]) -> Option<Self> {
        let mut sums = BTreeMap::new();
        for sum in told {
            let hash = u128::from_str_radix(&sum.checksum, 16).ok()?;
            sums.insert(sum.table.to_string(), Sum { rows: sum.rows, hash });
        }
        Some(Self(sums))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for field in row {
                match field {
                    None => bytes.extend((-1i32).to_be_bytes()),
                    Some(value) => {
                        bytes.extend((value.len() as i32).to_be_bytes());
                        bytes.extend(value);
                    }
                }
            }
        }
        bytes.extend(TRAILER);
        bytes
    }

    fn rows() -> impl Strategy<Value = Vec<Vec<Option<Vec<u8>>>>> {
        let field = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        prop::collection::vec(prop::collection::vec(field, 3), 0..12)
    }

    proptest! {
        #[test]
        fn rows_are_found_however_the_stream_is_cut(rows in rows(), cut in 1usize..40) {
            let bytes = encode(&rows);
            let (mut parser, mut found) = (Rows::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                parser.push(piece);
                while let Some(row) = parser.next(3).unwrap() {
                    found.extend_from_slice(&row);
                }
            }
            prop_assert!(parser.is_over());
            prop_assert_eq!(&found[..], &bytes[HEADER.len()..bytes.len() - 2]);
        }

        #[test]
        fn a_sum_knows_no_order_but_every_byte(rows in rows(), at in any::<prop::sample::Index>()) {
            let each: Vec<Vec<u8>> = rows
                .iter()
                .map(|row| encode(std::slice::from_ref(row))[19..].to_vec())
                .map(|mut row| { row.truncate(row.len() - 2); row })
                .collect();
            let sum = |rows: &[Vec<u8>]| {
                let mut sum = Sum::default();
                for row in rows {
                    sum.add(row, &[true, true, true]);
                }
                sum
            };
            let mut turned = each.clone();
            turned.reverse();
            prop_assert_eq!(sum(&each), sum(&turned));
            if !each.is_empty() {
                let mut other = each.clone();
                let row = at.index(other.len());
                let byte = at.index(other[row].len() - 2) + 2;
                other[row][byte] ^= 1;
                prop_assert_ne!(sum(&each), sum(&other));
            }
        }

        #[test]
        fn any_bytes_are_rows_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = row(&bytes, 2);
        }
    }

    #[test]
    fn only_what_counts_is_summed() {
        let one = encode(&[vec![Some(b"a".to_vec()), Some(b"x".to_vec()), None]]);
        let two = encode(&[vec![Some(b"a".to_vec()), Some(b"longer".to_vec()), None]]);
        let sum = |bytes: &[u8], summed: &[bool]| {
            let mut sum = Sum::default();
            sum.add(&bytes[19..bytes.len() - 2], summed);
            sum
        };
        assert_eq!(sum(&one, &[true, false, true]), sum(&two, &[true, false, true]));
        assert_ne!(sum(&one, &[true, true, false]), sum(&two, &[true, true, false]));
    }

    #[test]
    fn a_chunk_that_was_changed_or_moved_does_not_follow() {
        let first = Chunk::new("xcom", Bytes::from_static(b"ab"), Position::default());
        let second = Chunk::new("xcom", Bytes::from_static(b"cd"), first.position);
        assert!(first.follows(Position::default()) && second.follows(first.position));
        assert!(!second.follows(Position::default()));
        assert!(!Chunk { rows: Bytes::from_static(b"ce"), ..second }.follows(first.position));
    }
}
