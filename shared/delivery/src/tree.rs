//! Folders of files on this machine: what is in one, whether it is what it should be, and making
//! it so.
//!
//! Invariant: a file is never written in place. Releases share unchanged files as hard links, so
//! writing into one would change others, and what Airflow reads this moment; every change here
//! removes a name and gives it to another file.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
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
    bundle::{ContentHash, Entry, find},
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
        let nanos = |seconds: i64, nanos: u64| seconds * 1_000_000_000 + nanos as i64;
        Self {
            path,
            inode: stat.st_ino,
            size_bytes: stat.st_size as u64,
            modified_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
            executable: stat.st_mode & 0o100 != 0,
        }
    }
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
    pub(crate) fn file(&self, path: &BundlePath) -> Option<&Seen> {
        let at = self.files.binary_search_by(|seen| seen.path.cmp(path)).ok()?;
        Some(&self.files[at])
    }

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
    for entry in entries {
        let sound = match walk.file(&entry.path) {
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
        let strange = walk.files.iter().filter(|seen| find(entries, seen.path.as_str()).is_none());
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

/// Where the files of a new tree come from.
pub(crate) struct Origins<'a> {
    /// The folder of an earlier release, and what was seen in it.
    pub(crate) base: &'a Path,
    pub(crate) walk: &'a Walk,
    /// Files that were fetched: they are moved. All others are linked from the base.
    pub(crate) fetched: &'a HashMap<BundlePath, PathBuf>,
}

/// Makes `tree` hold `entries` and nothing else, whatever it holds now: nothing, an old release,
/// or what an interrupted attempt left. A file that is already the same inode as the base's is left
/// alone, so that turning an old release into the next one costs what differs.
pub(crate) fn assemble(tree: &Path, entries: &[Entry], origins: &Origins<'_>) -> Result<(), Error> {
    let failed = |action, path: &BundlePath| Error::local(action, tree.join(path.as_str()));
    let root = open(tree).map_err(Error::local("open", tree))?;
    let there = walk(&root, tree, usize::MAX)?;
    let folders: HashSet<&str> = entries.iter().flat_map(|entry| entry.path.parents()).collect();

    let stray =
        there.files.iter().map(|seen| &seen.path).filter(|p| find(entries, p.as_str()).is_none());
    for path in stray.chain(&there.links).chain(&there.others) {
        fs::remove_file(tree.join(path.as_str())).map_err(failed("remove", path))?;
    }
    let mut removed: Option<String> = None;
    for folder in &there.folders {
        let inside = removed.as_ref().is_some_and(|r| folder.as_str().starts_with(r.as_str()));
        if !inside && !folders.contains(folder.as_str()) {
            fs::remove_dir_all(tree.join(folder.as_str())).map_err(failed("remove", folder))?;
            removed = Some(format!("{folder}/"));
        }
    }
    let known: HashSet<&str> = there.folders.iter().map(BundlePath::as_str).collect();
    let mut missing: Vec<&str> = folders.difference(&known).copied().collect();
    missing.sort_unstable();
    for folder in missing {
        make_folder(&tree.join(folder))?;
    }
    for entry in entries {
        let path = &entry.path;
        let here = there.file(path);
        let target = tree.join(path.as_str());
        let fetched = origins.fetched.get(path);
        let shared = || origins.walk.file(path).map(|seen| seen.inode);
        if fetched.is_none() && here.is_some() && here.map(|seen| seen.inode) == shared() {
            continue;
        }
        if here.is_some() {
            fs::remove_file(&target).map_err(failed("remove", path))?;
        }
        match fetched {
            Some(file) => fs::rename(file, &target).map_err(failed("write", path))?,
            None => link(&origins.base.join(path.as_str()), &target)?,
        }
    }
    Ok(())
}

/// Another name for a file; a copy where the file system has no such thing.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::local("link", from)(error))
        }
        Err(_) => fs::copy(from, to).map(drop).map_err(Error::local("write", to)),
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
