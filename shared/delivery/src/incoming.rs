//! Files on their way in: written aside, measured and hashed as they come, remembered so that an
//! interrupted sync goes on where it was.
//!
//! Invariant: what the journal names was read to its end, has the size that the source lists, and
//! lies in a file of its own that nothing else refers to. A journal of an earlier boot is not
//! believed: after a power cut a file may have its size and not its content.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};

use crate::{
    bundle::{ContentHash, Entry, Listed},
    error::{Code, Error},
    path::BundlePath,
    release::{read_entry, write_entry},
    tree::{make_folder, remove_folder},
};

/// Lines of the journal that a kill may cost.
const UNWRITTEN_MAX: u64 = 32;

/// The folder of files that are fetched.
#[derive(Debug)]
pub(crate) struct Incoming {
    folder: PathBuf,
    journal: Mutex<Journal>,
    number: AtomicU64,
    fetched: AtomicU64,
    /// Read by an earlier attempt.
    known: HashMap<BundlePath, (Entry, PathBuf)>,
}

#[derive(Debug)]
struct Journal {
    file: BufWriter<fs::File>,
    unwritten: u64,
    files: HashMap<BundlePath, PathBuf>,
}

impl Incoming {
    pub(crate) fn open(staging: &Path) -> Result<Self, Error> {
        let folder = staging.join("incoming");
        let path = staging.join("journal");
        let boot = boot_id();
        make_folder(staging)?;
        let known = match fs::read(&path) {
            Ok(bytes) => recall(&bytes, &boot, staging),
            Err(_) => HashMap::new(),
        };
        if known.is_empty() {
            remove_folder(&folder)?;
        }
        make_folder(&folder)?;
        let next = next_number(&folder).map_err(Error::local("read", &folder))?;
        let failed = |error| Error::local("write", &path)(error);
        // Written anew, so that it does not grow from attempt to attempt.
        let new = staging.join("journal.new");
        let begin = || -> io::Result<BufWriter<fs::File>> {
            let mut file = BufWriter::new(fs::File::create(&new)?);
            writeln!(file, "{boot}")?;
            for (entry, path) in known.values() {
                write_line(&mut file, path, entry)?;
            }
            file.flush()?;
            fs::rename(&new, &path)?;
            Ok(file)
        };
        let file = begin().map_err(failed)?;
        let journal = Journal { file, unwritten: 0, files: HashMap::new() };
        Ok(Self {
            folder,
            journal: Mutex::new(journal),
            number: AtomicU64::new(next),
            fetched: AtomicU64::new(0),
            known,
        })
    }

    /// What an earlier attempt fetched of `listed`, if it is still what the source has.
    pub(crate) fn recall(&self, listed: &Listed) -> Option<Entry> {
        let (entry, file) = self.known.get(&listed.path)?;
        let same = entry.tag == listed.tag
            && entry.size_bytes == listed.size_bytes
            && entry.executable == listed.executable;
        if !same {
            return None;
        }
        self.lock().files.insert(entry.path.clone(), file.clone());
        Some(entry.clone())
    }

    /// Begins to take a file in.
    pub(crate) fn begin(&self, listed: &Listed) -> Result<Sink, Error> {
        use std::os::unix::fs::OpenOptionsExt as _;

        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        let mode = if listed.executable { 0o755 } else { 0o644 };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let file = options.open(&path).map_err(Error::local("write", &path))?;
        let python = listed.path.is_python();
        Ok(Sink {
            file,
            path,
            mode,
            left_bytes: listed.size_bytes,
            hasher: Sha256::new(),
            words: python.then(Words::default),
        })
    }

    /// Takes note of a file that is whole.
    pub(crate) fn finish(&self, listed: &Listed, sink: Sink) -> Result<Entry, Error> {
        if sink.left_bytes > 0 {
            return Err(shorter(&listed.path));
        }
        let inode = sink.make_readable()?;
        let holds_dags = match &sink.words {
            Some(words) => words.are_of_a_dag_file(),
            None => listed.path.may_be_parsed(),
        };
        let entry = Entry {
            path: listed.path.clone(),
            size_bytes: listed.size_bytes,
            hash: sink.hash(),
            tag: listed.tag.clone(),
            executable: listed.executable,
            holds_dags,
            inode,
        };
        self.fetched.fetch_add(entry.size_bytes, Ordering::Relaxed);
        let mut line = Vec::with_capacity(256);
        write_line(&mut line, &sink.path, &entry).map_err(Error::local("write", &self.folder))?;
        // Of this file nothing more is written.
        drop(sink.file);
        let mut journal = self.lock();
        journal.file.write_all(&line).map_err(Error::local("write", &self.folder))?;
        journal.unwritten += 1;
        if journal.unwritten >= UNWRITTEN_MAX {
            journal.file.flush().map_err(Error::local("write", &self.folder))?;
            journal.unwritten = 0;
        }
        journal.files.insert(entry.path.clone(), sink.path);
        Ok(entry)
    }

    /// Bytes that this attempt fetched.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Where the files are that were taken in.
    pub(crate) fn into_files(self) -> HashMap<BundlePath, PathBuf> {
        let mut journal = self.journal.into_inner().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut journal.files)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being written.
pub(crate) struct Sink {
    file: fs::File,
    path: PathBuf,
    mode: u32,
    left_bytes: u64,
    hasher: Sha256,
    words: Option<Words>,
}

impl Sink {
    /// Of what was written so far.
    pub(crate) fn hash(&self) -> ContentHash {
        ContentHash(self.hasher.clone().finalize().into())
    }

    /// How many bytes are to come.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// Gives the file its mode, whatever the umask says: Airflow runs as somebody else. Answers its
    /// inode.
    fn make_readable(&self) -> Result<u64, Error> {
        use std::os::unix::fs::PermissionsExt as _;

        let failed = |error| Error::local("write", &self.path)(error);
        let stat = rustix::fs::fstat(&self.file).map_err(|error| failed(error.into()))?;
        if stat.st_mode & 0o7777 != self.mode {
            self.file.set_permissions(fs::Permissions::from_mode(self.mode)).map_err(failed)?;
        }
        Ok(stat.st_ino)
    }

    /// Writes the next piece. More than the source listed is refused.
    pub(crate) fn write(&mut self, bytes: &[u8], listed: &Listed) -> Result<(), Error> {
        self.left_bytes = match self.left_bytes.checked_sub(bytes.len() as u64) {
            Some(left) => left,
            None => return Err(shorter(&listed.path)),
        };
        self.hasher.update(bytes);
        if let Some(words) = &mut self.words {
            words.read(bytes);
        }
        self.file.write_all(bytes).map_err(Error::local("write", &self.path))
    }
}

fn shorter(path: &BundlePath) -> Error {
    let message = format!("{path} has another size than the source lists; it is read again");
    Error::source(Code::SourceChanging, message)
}

/// Airflow's own first look at a Python file: does it speak of Airflow, and of DAGs or assets?
#[derive(Debug, Default)]
struct Words {
    airflow: bool,
    dag: bool,
    lower: Vec<u8>,
}

impl Words {
    /// One less than the longest word: what a piece may share with the next one.
    const OVERLAP: usize = 6;

    fn read(&mut self, bytes: &[u8]) {
        if self.are_of_a_dag_file() {
            return;
        }
        let keep = self.lower.len().saturating_sub(Self::OVERLAP);
        self.lower.drain(..keep);
        self.lower.extend(bytes.iter().map(u8::to_ascii_lowercase));
        let has = |word: &[u8]| memchr::memmem::find(&self.lower, word).is_some();
        self.airflow = self.airflow || has(b"airflow");
        self.dag = self.dag || has(b"dag") || has(b"asset");
    }

    fn are_of_a_dag_file(&self) -> bool {
        self.airflow && self.dag
    }
}

fn write_line(file: &mut impl io::Write, path: &Path, entry: &Entry) -> io::Result<()> {
    write!(file, "{} ", number_of(path).unwrap_or_default())?;
    write_entry(file, entry)
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The first number that no file has.
fn next_number(folder: &Path) -> io::Result<u64> {
    let mut next = 0;
    for entry in fs::read_dir(folder)? {
        next = next.max(number_of(&entry?.path()).map_or(0, |number| number + 1));
    }
    Ok(next)
}

/// What a journal says that can be believed. A file may have been moved into the tree already; its
/// inode tells it from one that an older release had there.
fn recall(bytes: &[u8], boot: &str, staging: &Path) -> HashMap<BundlePath, (Entry, PathBuf)> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if boot.is_empty() || lines.next() != Some(boot.as_bytes()) {
        return HashMap::new();
    }
    let known = lines.filter_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let number: u64 = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
        let entry = read_entry(&line[space + 1..])?;
        let places = [
            staging.join("incoming").join(number.to_string()),
            staging.join("tree").join(entry.path.as_str()),
        ];
        let path = places.into_iter().find(|path| {
            fs::symlink_metadata(path).is_ok_and(|found| {
                found.is_file() && found.len() == entry.size_bytes && found.ino() == entry.inode
            })
        })?;
        Some((entry.path.clone(), (entry, path)))
    });
    known.collect()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(path: &str, size_bytes: u64) -> Listed {
        let path = BundlePath::parse(path).expect("is plain");
        Listed { path, size_bytes, tag: "1".into(), executable: false }
    }

    fn take(incoming: &Incoming, listed: &Listed, bytes: &[u8]) -> Entry {
        let mut sink = incoming.begin(listed).expect("begins");
        for piece in bytes.chunks(3) {
            sink.write(piece, listed).expect("is written");
        }
        incoming.finish(listed, sink).expect("is whole")
    }

    #[test]
    fn what_was_whole_is_recalled_and_nothing_else() {
        let staging = tempfile::tempdir().expect("a folder");
        let (whole, other, short) = (listed("a.py", 4), listed("b.py", 4), listed("c.py", 4));
        let first = Incoming::open(staging.path()).expect("opens");
        let entry = take(&first, &whole, b"1234");
        take(&first, &other, b"5678");
        let mut sink = first.begin(&short).expect("begins");
        sink.write(b"12", &short).expect("is written");
        drop(first);

        let second = Incoming::open(staging.path()).expect("opens");
        assert_eq!(second.recall(&whole), Some(entry));
        assert_eq!(second.recall(&short), None);
        assert_eq!(second.recall(&Listed { tag: "2".into(), ..other.clone() }), None);
        let files = second.into_files();
        let path = files.get("a.py").expect("was recalled");
        assert_eq!(fs::read(path).expect("is there"), b"1234");

        let journal = staging.path().join("journal");
        let text = fs::read_to_string(&journal).expect("is there");
        let of_another_boot = text.replacen(&boot_id(), "another boot", 1);
        fs::write(&journal, of_another_boot).expect("is written");
        let third = Incoming::open(staging.path()).expect("opens");
        assert_eq!(third.recall(&whole), None);
    }

    #[test]
    fn more_or_less_than_listed_is_refused() {
        let staging = tempfile::tempdir().expect("a folder");
        let incoming = Incoming::open(staging.path()).expect("opens");
        let file = listed("a.py", 4);
        let mut sink = incoming.begin(&file).expect("begins");
        assert_eq!(sink.write(b"12345", &file).expect_err("too long").code(), Code::SourceChanging);
        let mut sink = incoming.begin(&file).expect("begins");
        sink.write(b"123", &file).expect("fits");
        let error = incoming.finish(&file, sink).expect_err("too short");
        assert_eq!(error.code(), Code::SourceChanging);
    }

    #[test]
    fn dag_files_are_told_as_airflow_tells_them() {
        let staging = tempfile::tempdir().expect("a folder");
        let incoming = Incoming::open(staging.path()).expect("opens");
        for (path, text, holds_dags) in [
            ("a.py", "from AirFlow import DAG", true),
            ("b.py", "import airflow", false),
            ("c.py", "dags = asset", false),
            ("d.py", "from airflow.sdk import Asset", true),
            ("e.sql", "airflow dag", false),
            ("f.zip", "anything", true),
        ] {
            let file = listed(path, text.len() as u64);
            assert_eq!(take(&incoming, &file, text.as_bytes()).holds_dags, holds_dags, "{path}");
        }
    }
}
