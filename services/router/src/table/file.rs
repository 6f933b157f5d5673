//! The file from which a replica starts while the store is away.
//!
//! A header, then everything in a flat binary form, then a checksum over all of it. It is written
//! beside its place and renamed into it, so there is always a whole one or none. Nothing in it is
//! trusted before the checksum matched, and then only as far as it parses.
//!
//! It holds what every reader of the API may see, and nothing secret.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision, ShardName},
    routing::{Assignment, Entry, State, Table},
};
use xxhash_rust::xxh3::Xxh3;

use super::{Directory, Live, Origin, View};

/// What every such file begins with; the last byte is the version of the form.
const MAGIC: &[u8; 8] = b"AFTABLE\x01";
const CHECKSUM_BYTES: u64 = 8;
const BUFFER_BYTES: usize = 1 << 20;
/// No text in it is longer: prefixes and reasons are the longest.
const TEXT_MAX: usize = 1 << 20;

/// Why a file could not be written or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading or writing failed.
    #[error("cannot {what} the snapshot file {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not such a file, or damaged.
    #[error("the snapshot file {} cannot be used: {detail}; it is written anew", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Saved {
    /// What is served.
    pub(crate) view: View,
    /// When it was last known to be current. Microseconds since 1970-01-01 UTC.
    pub(crate) current_at_us: i64,
    /// Removals are known from here on.
    pub(crate) removals_floor: Revision,
    /// Namespaces that were removed lately.
    pub(crate) removals: Vec<(Revision, NamespaceName)>,
}

impl Saved {
    /// The present table of `live`, which was current `age` ago.
    pub(crate) fn of(live: &Live, now_us: i64) -> Self {
        let age = i64::try_from(live.age().as_micros()).unwrap_or(i64::MAX);
        let (view, removals_floor, removals) = live.with_removals();
        let view = View::clone(&view);
        Self { view, current_at_us: now_us.saturating_sub(age), removals_floor, removals }
    }

    /// Serves from it.
    pub(crate) fn restore(self, live: &Live, now_us: i64) {
        let age = now_us.saturating_sub(self.current_at_us).max(0).unsigned_abs();
        live.replace_view(self.view, self.removals_floor, self.removals);
        live.mark_age(Duration::from_micros(age));
    }

    /// Writes it in place of what is there. Blocks.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let io = |what| move |source| Error::Io { what, path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io("create the folder of"))?;
        }
        let beside = path.with_extension("new");
        let file = File::create(&beside).map_err(io("create"))?;
        let mut out = Out { to: BufWriter::with_capacity(BUFFER_BYTES, file), sum: Xxh3::new() };
        self.encode(&mut out).map_err(io("write"))?;
        let sum = out.sum.digest();
        out.to.write_all(&sum.to_le_bytes()).map_err(io("write"))?;
        let file = out.to.into_inner().map_err(|error| io("write")(error.into_error()))?;
        file.sync_all().map_err(io("sync"))?;
        fs::rename(&beside, path).map_err(io("replace"))
    }

    /// Reads a file; `None` where there is none. Blocks.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let io = |source| Error::Io { what: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let length = file.metadata().map_err(io)?.len();
        let unusable = |detail: String| Error::Unusable { path: path.to_owned(), detail };
        let Some(body) = length.checked_sub(CHECKSUM_BYTES) else {
            return Err(unusable("it is too short".into()));
        };
        let mut from = In {
            from: BufReader::with_capacity(BUFFER_BYTES, file).take(body),
            sum: Xxh3::new(),
            text: Vec::new(),
        };
        let saved = Self::decode(&mut from).map_err(|error| unusable(error.to_string()))?;
        if from.from.limit() > 0 {
            return Err(unusable("it is longer than it says".into()));
        }
        let sum = from.sum.digest();
        let mut written = [0; CHECKSUM_BYTES as usize];
        from.from.into_inner().read_exact(&mut written).map_err(io)?;
        if u64::from_le_bytes(written) == sum {
            Ok(Some(saved))
        } else {
            Err(unusable("its checksum does not match".into()))
        }
    }

    fn encode(&self, out: &mut Out) -> io::Result<()> {
        let View { table, shards, manifest_revision, store_id, origin: _ } = &self.view;
        out.bytes(MAGIC)?;
        out.text(store_id)?;
        out.number(table.revision().0)?;
        out.number(manifest_revision.0)?;
        out.number(self.current_at_us)?;
        out.number(self.removals_floor.0)?;
        out.count(shards.len())?;
        for (name, url) in &**shards {
            out.text(name.as_str())?;
            out.text(url)?;
        }
        out.count(self.removals.len())?;
        for (revision, name) in &self.removals {
            out.number(revision.0)?;
            out.text(name.as_str())?;
        }
        out.count(table.len())?;
        table.iter().try_for_each(|entry| out.entry(entry))
    }

    fn decode(from: &mut In) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        from.bytes(&mut magic)?;
        if magic != *MAGIC {
            return Err(malformed("it is no snapshot of this version"));
        }
        let store_id: Arc<str> = from.text()?.into();
        let revision = Revision(from.number()?);
        let manifest_revision = Revision(from.number()?);
        let current_at_us = from.number()?;
        let removals_floor = Revision(from.number()?);
        let mut shards = Directory::new();
        for _ in 0..from.count()? {
            let name: ShardName = from.parse()?;
            shards.insert(name, from.text()?.into());
        }
        let mut removals = Vec::new();
        for _ in 0..from.count()? {
            removals.push((Revision(from.number()?), from.parse()?));
        }
        let count = from.count()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(from.entry()?);
        }
        let view = View {
            table: Table::build(entries, revision),
            shards: Arc::new(shards),
            origin: Origin::File,
            manifest_revision,
            store_id,
        };
        Ok(Self { view, current_at_us, removals_floor, removals })
    }
}

fn malformed(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

struct Out {
    to: BufWriter<File>,
    sum: Xxh3,
}

impl Out {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }

    fn number(&mut self, number: i64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    fn count(&mut self, count: usize) -> io::Result<()> {
        self.bytes(&u32::try_from(count).map_err(malformed)?.to_le_bytes())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.count(text.len())?;
        self.bytes(text.as_bytes())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.text(entry.namespace())?;
        self.text(entry.namespace_uid())?;
        self.text(entry.shard().unwrap_or_default())?;
        self.text(entry.pinned_shard().unwrap_or_default())?;
        self.text(entry.reason())?;
        self.number(entry.generation().0)?;
        self.number(entry.revision().0)?;
        self.number(entry.update_time_us())?;
        let state = match entry.state() {
            State::Assigned => 1,
            State::Unplaced => 2,
            State::Released => 3,
            State::Moving => 4,
        };
        self.bytes(&[state])?;
        self.count(entry.prefixes().count())?;
        entry.prefixes().try_for_each(|prefix| self.text(prefix))
    }
}

struct In {
    from: io::Take<BufReader<File>>,
    sum: Xxh3,
    text: Vec<u8>,
}

impl In {
    fn bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.sum.update(bytes);
        Ok(())
    }

    fn number(&mut self) -> io::Result<i64> {
        let mut bytes = [0; 8];
        self.bytes(&mut bytes)?;
        Ok(i64::from_le_bytes(bytes))
    }

    fn count(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4];
        self.bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    fn text(&mut self) -> io::Result<&str> {
        let length = self.count()?;
        if length > TEXT_MAX {
            return Err(malformed(format_args!("a text of {length} bytes")));
        }
        let mut text = std::mem::take(&mut self.text);
        text.resize(length, 0);
        self.bytes(&mut text)?;
        self.text = text;
        str::from_utf8(&self.text).map_err(malformed)
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self) -> io::Result<T> {
        self.text()?.parse().map_err(malformed)
    }

    fn shard(&mut self) -> io::Result<Option<ShardName>> {
        match self.text()? {
            "" => Ok(None),
            name => name.parse().map(Some).map_err(malformed),
        }
    }

    fn entry(&mut self) -> io::Result<Entry> {
        let namespace = self.parse()?;
        let namespace_uid = self.text()?.to_owned();
        let shard = self.shard()?;
        let pinned_shard = self.shard()?;
        let reason = self.text()?.to_owned();
        let generation = Generation(self.number()?);
        let revision = Revision(self.number()?);
        let update_time_us = self.number()?;
        let mut state = [0];
        self.bytes(&mut state)?;
        let state = match state {
            [1] => State::Assigned,
            [2] => State::Unplaced,
            [3] => State::Released,
            [4] => State::Moving,
            [other] => return Err(malformed(format_args!("a state {other}"))),
        };
        let mut prefixes = Vec::new();
        for _ in 0..self.count()? {
            prefixes.push(self.parse()?);
        }
        Ok(Entry::new(&Assignment {
            namespace,
            namespace_uid,
            prefixes,
            shard,
            generation,
            state,
            pinned_shard,
            reason,
            revision,
            update_time_us,
        }))
    }
}
