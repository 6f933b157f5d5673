//! Releases: what one is, and the file in which its content is remembered.

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    str::FromStr,
};

use airfleet_domain::{ids::NamespaceName, manifest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    bundle::{ContentHash, Entries, Entry},
    error::{Code, Error},
    path::BundlePath,
};

const FORMAT: u32 = 2;
const EXECUTABLE: u8 = 1;
const HOLDS_DAGS: u8 = 2;

/// Names a release: the commit of a git repository, or the hash of all content.
///
/// A commit is followed by `-` and eight characters of a hash where only a folder of the repository
/// is delivered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first characters, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for ReleaseId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (8..=100).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        let text: String = text.chars().take(100).flat_map(char::escape_debug).collect();
        Err(Error::here(
            Code::ReleaseUnknown,
            format!("{text:?} is no release; they are named by a commit or a hash, in hexadecimal"),
        ))
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A release that lies on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// Whose files it holds.
    pub namespace: NamespaceName,
    /// Where they came from.
    pub source: manifest::Source,
    /// The commit, where they came from a git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When they were fetched.
    pub fetched_at: Timestamp,
    /// How many files.
    pub files: usize,
    /// Their sizes, added up.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_ns: Option<i64>,
    #[serde(flatten)]
    release: Release,
}

/// A release with all its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) release: Release,
    pub(crate) entries: Entries,
    /// When its folders were last changed by us. Nanoseconds on the file system's clock.
    pub(crate) sealed_ns: Option<i64>,
}

/// A line of the file. Short, for there are many.
type Line<'a> =
    (std::borrow::Cow<'a, str>, u64, std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>, u8, u64);

impl Index {
    /// Writes it to a file that is not there yet: the release, then a line a file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |error| Error::local("write", path)(error);
        let write = || -> io::Result<()> {
            let mut file = BufWriter::with_capacity(1 << 16, fs::File::create_new(path)?);
            let header =
                Header { format: FORMAT, sealed_ns: self.sealed_ns, release: self.release.clone() };
            serde_json::to_writer(&mut file, &header)?;
            file.write_all(b"\n")?;
            for entry in &self.entries {
                write_entry(&mut file, entry)?;
            }
            file.flush()
        };
        write().map_err(failed)
    }

    /// Reads what [`Index::write`] wrote. `None` where there is no such file, or none that can be
    /// used: what it described is then fetched anew.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let file = match fs::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::local("read", path)(error)),
        };
        let parsed = Self::parse(&file);
        if parsed.is_none() {
            tracing::warn!(path = %path.display(), "an index cannot be read; its release is not used");
        }
        Ok(parsed)
    }

    fn parse(file: &[u8]) -> Option<Self> {
        let mut lines = file.split(|byte| *byte == b'\n');
        let header: Header = serde_json::from_slice(lines.next()?).ok()?;
        if header.format != FORMAT {
            return None;
        }
        let mut entries = Vec::with_capacity(header.release.files.min(1 << 20));
        for line in lines.filter(|line| !line.is_empty()) {
            entries.push(read_entry(line)?);
        }
        let sorted = entries.is_sorted_by(|a: &Entry, b: &Entry| a.path < b.path);
        (entries.len() == header.release.files && sorted).then_some(Self {
            release: header.release,
            entries,
            sealed_ns: header.sealed_ns,
        })
    }

    /// Reads only what the release is.
    pub(crate) fn read_release(path: &Path) -> Option<Release> {
        let file = fs::File::open(path).ok()?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line).ok()?;
        let header: Header = serde_json::from_slice(&line).ok()?;
        (header.format == FORMAT).then_some(header.release)
    }
}

pub(crate) fn write_entry(file: &mut impl io::Write, entry: &Entry) -> io::Result<()> {
    let flags = u8::from(entry.executable) * EXECUTABLE + u8::from(entry.holds_dags) * HOLDS_DAGS;
    let line: Line<'_> = (
        entry.path.as_str().into(),
        entry.size_bytes,
        entry.hash.to_string().into(),
        (&*entry.tag).into(),
        flags,
        entry.inode,
    );
    serde_json::to_writer(&mut *file, &line)?;
    file.write_all(b"\n")
}

pub(crate) fn read_entry(line: &[u8]) -> Option<Entry> {
    let (path, size_bytes, hash, tag, flags, inode): Line<'_> =
        serde_json::from_slice(line).ok()?;
    Some(Entry {
        path: BundlePath::parse(&path).ok()?,
        size_bytes,
        hash: parse_hash(&hash)?,
        tag: tag.into(),
        executable: flags & EXECUTABLE != 0,
        holds_dags: flags & HOLDS_DAGS != 0,
        inode,
    })
}

fn parse_hash(text: &str) -> Option<ContentHash> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(ContentHash(hash))
}
