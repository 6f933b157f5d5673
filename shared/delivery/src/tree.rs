//! Folders of files on this machine: what is in one, and whether it is what it should be.
//!
//! Invariant: a file is never written in place. Releases share unchanged files as hard links, so
//! writing into one would change others, and what Airflow reads this moment; every change here
//! removes a name and gives it to another file.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read as _},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use cap_std::{ambient_authority, fs::Dir};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use crate::{
    bundle::{ContentHash, Entry, InOrder},
    error::{Code, Error, Refusal},
    path::{BundlePath, is_left_out},
};

/// Threads that look through a folder at once.
const THREADS_MAX: usize = 4;
/// What is read at once.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// A regular file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: BundlePath,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) modified_ns: i64,
    /// When anything about it changed last. Cannot be set, unlike the time of modification.
    pub(crate) changed_ns: i64,
    pub(crate) executable: bool,
}

impl Seen {
    pub(crate) fn new(path: BundlePath, stat: &Stat) -> Self {
        Self {
            path,
            inode: stat.st_ino,
            size_bytes: stat.st_size as u64,
            modified_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: changed_ns(stat),
            executable: stat.st_mode & 0o100 != 0,
        }
    }
}

fn nanos(seconds: i64, nanos: u64) -> i64 {
    seconds * 1_000_000_000 + nanos as i64
}

/// When anything about a file or folder changed last.
pub(crate) fn changed_ns(stat: &Stat) -> i64 {
    nanos(stat.st_ctime, stat.st_ctime_nsec)
}

/// What a folder holds, but for what bundles leave out.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Regular files, sorted by path.
    pub(crate) files: Vec<Seen>,
    /// Folders, sorted.
    pub(crate) folders: Vec<BundlePath>,
    /// Symbolic links.
    pub(crate) links: Vec<BundlePath>,
    /// Pipes, sockets, devices.
    pub(crate) others: Vec<BundlePath>,
}

impl Walk {
    fn absorb(&mut self, other: Walk) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.links.extend(other.links);
        self.others.extend(other.others);
    }
}

/// Opens a folder so that nothing outside it can be reached.
pub(crate) fn open(folder: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(folder, ambient_authority())
}

/// Looks through a folder, following no links. More than `most` files or folders are refused.
pub(crate) fn walk(root: &Dir, shown: &Path, most: usize) -> Result<Walk, Error> {
    let walker =
        Walker { root, shown, most, files: AtomicUsize::new(0), folders: AtomicUsize::new(0) };
    let mut found = Walk::default();
    walker.look(None, &mut found)?;
    let tops = found.folders.clone();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut mine = Walk::default();
        while let Some(top) = tops.get(next.fetch_add(1, Ordering::Relaxed)) {
            walker.descend(top, &mut mine)?;
        }
        Ok(mine)
    };
    let parts: Vec<Result<Walk, Error>> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(tops.len())).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        let joined = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        parts.extend(joined);
        parts
    });
    for part in parts {
        found.absorb(part?);
    }
    found.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.folders.sort_unstable();
    Ok(found)
}

/// Looks through some folders, and through what is new in them; not through folders in them that
/// are `known`. `None` is the root.
pub(crate) fn walk_again(
    root: &Dir,
    shown: &Path,
    folders: &[Option<BundlePath>],
    known: &HashSet<&str>,
) -> Result<Walk, Error> {
    let (files, most) = (AtomicUsize::new(0), usize::MAX);
    let walker = Walker { root, shown, most, files, folders: AtomicUsize::new(0) };
    let mut found = Walk::default();
    for folder in folders {
        let before = found.folders.len();
        walker.look(folder.as_ref(), &mut found)?;
        for inner in found.folders.split_off(before) {
            if !known.contains(inner.as_str()) {
                found.folders.push(inner.clone());
                walker.descend(&inner, &mut found)?;
            }
        }
    }
    Ok(found)
}

struct Walker<'a> {
    root: &'a Dir,
    shown: &'a Path,
    most: usize,
    files: AtomicUsize,
    folders: AtomicUsize,
}

impl Walker<'_> {
    fn descend(&self, folder: &BundlePath, found: &mut Walk) -> Result<(), Error> {
        let mut open = vec![folder.clone()];
        while let Some(folder) = open.pop() {
            let known = found.folders.len();
            self.look(Some(&folder), found)?;
            open.extend_from_slice(&found.folders[known..]);
        }
        Ok(())
    }

    fn look(&self, folder: Option<&BundlePath>, found: &mut Walk) -> Result<(), Error> {
        let name = folder.map_or("", BundlePath::as_str);
        let failed = |error: io::Error| Error::local("read", self.shown.join(name))(error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = folder.map_or(".", BundlePath::as_str);
        let dir = match openat(self.root, at, flags, Mode::empty()) {
            Ok(dir) => dir,
            // Gone, or something else, since it was listed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if folder.is_some() => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        let look = dir.try_clone().map_err(failed)?;
        let entries = rustix::fs::Dir::new(look).map_err(|e| failed(e.into()))?;
        let mut path = Vec::with_capacity(64);
        for entry in entries {
            let entry = entry.map_err(|e| failed(e.into()))?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") || std::str::from_utf8(bytes).is_ok_and(is_left_out) {
                continue;
            }
            path.clear();
            if !name.is_empty() {
                path.extend_from_slice(name.as_bytes());
                path.push(b'/');
            }
            path.extend_from_slice(bytes);
            let path = BundlePath::parse_bytes(&path)?;
            let mut kind = entry.file_type();
            let mut seen = None;
            if matches!(kind, FileType::RegularFile | FileType::Unknown) {
                let stat = match statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(error.into())),
                };
                kind = FileType::from_raw_mode(stat.st_mode);
                seen = Some(stat);
            }
            match (kind, seen) {
                (FileType::RegularFile, Some(stat)) => {
                    self.count(&self.files, "files")?;
                    found.files.push(Seen::new(path, &stat));
                }
                (FileType::Directory, _) => {
                    self.count(&self.folders, "folders")?;
                    found.folders.push(path);
                }
                (FileType::Symlink, _) => {
                    self.count(&self.files, "files")?;
                    found.links.push(path);
                }
                _ => found.others.push(path),
            }
        }
        Ok(())
    }

    fn count(&self, counter: &AtomicUsize, what: &str) -> Result<(), Error> {
        if counter.fetch_add(1, Ordering::Relaxed) < self.most {
            return Ok(());
        }
        let rule = format!("more than {} {what}; split the namespace or its source", self.most);
        Err(Refusal::new(Code::TooManyFiles, "", rule).into())
    }
}

/// What became of a release's files.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// What is there.
    pub(crate) walk: Walk,
    /// Files that are missing or hold something else.
    pub(crate) damaged: HashSet<BundlePath>,
    /// What does not belong there.
    pub(crate) extra: Vec<BundlePath>,
}

impl Inspection {
    pub(crate) fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.extra.is_empty()
    }
}

/// Compares a folder with what it should hold. Files that did not change since `sealed_ns` are
/// taken to be what they were then; all others are read.
pub(crate) fn inspect(
    folder: &Path,
    entries: &[Entry],
    sealed_ns: Option<i64>,
) -> Result<Inspection, Error> {
    let root = match open(folder) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let damaged = entries.iter().map(|entry| entry.path.clone()).collect();
            return Ok(Inspection { damaged, ..Inspection::default() });
        }
        Err(error) => return Err(Error::local("open", folder)(error)),
    };
    let walk = walk(&root, folder, usize::MAX)?;
    let mut damaged = HashSet::new();
    let mut files = InOrder::new(&walk.files, |seen: &Seen| seen.path.as_str());
    for entry in entries {
        let sound = match files.find(entry.path.as_str()) {
            Some(seen) if seen.size_bytes != entry.size_bytes => false,
            Some(seen) if seen.executable != entry.executable => false,
            Some(seen) if sealed_ns.is_some_and(|sealed| seen.changed_ns <= sealed) => true,
            Some(_) => hash_of(&root, &entry.path).is_ok_and(|hash| hash == entry.hash),
            None => false,
        };
        if !sound {
            damaged.insert(entry.path.clone());
        }
    }
    let mut extra: Vec<BundlePath> =
        [&walk.links, &walk.others].into_iter().flatten().cloned().collect();
    if walk.files.len() + damaged.len() != entries.len() || !damaged.is_empty() {
        let mut known = InOrder::new(entries, |entry: &Entry| entry.path.as_str());
        let strange = walk.files.iter().filter(|seen| known.find(seen.path.as_str()).is_none());
        extra.extend(strange.map(|seen| seen.path.clone()));
    }
    extra.retain(|path| !path.is_left_out());
    Ok(Inspection { walk, damaged, extra })
}

fn hash_of(root: &Dir, path: &BundlePath) -> io::Result<ContentHash> {
    let mut file = root.open(path.as_str())?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(ContentHash(hasher.finalize().into()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// A folder that Airflow's user may look into, whatever the agent's umask is.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;

    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            return Ok(());
        }
        Err(error) => return Err(Error::local("create", path)(error)),
    }
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, readable).map_err(Error::local("change", path))
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::local("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::local("remove", path)(error))
        }
        _ => Ok(()),
    }
}
