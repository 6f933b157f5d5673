//! A folder of this machine as a source: a mount, a checkout that others keep.
//!
//! Its files are opened below its root by a sandbox: whoever may write there may put links to
//! anything, or swap a file for one between two looks, and gets nothing that lies outside.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{FileType, OFlags, fstat};

use crate::{
    bundle::{Entry, Limits, Listed, Listing},
    error::{Code, Error, Refusal},
    incoming::Incoming,
    path::BundlePath,
    tree::{self, BUFFER_BYTES, Seen},
};

/// Threads that copy at once.
const THREADS_MAX: usize = 4;

/// Everything in the folder.
pub(super) fn list(root: &Path, limits: &Limits) -> Result<Listing, Error> {
    let dir = open(root)?;
    let walk = tree::walk(&dir, root, limits.files).map_err(|error| unreadable(root, error))?;
    if let Some(path) = walk.others.iter().find(|path| !path.is_left_out()) {
        let rule = "is a pipe, a socket or a device; remove it";
        return Err(Refusal::new(Code::NotAFile, path.as_str(), rule).into());
    }
    let mut files: Vec<Listed> = walk.files.into_iter().map(listed).collect();
    for link in walk.links {
        if !link.is_left_out() {
            files.push(listed(resolve(&dir, link)?));
        }
    }
    Ok(Listing::new(files, limits)?)
}

fn open(root: &Path) -> Result<Dir, Error> {
    tree::open(root).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::SourceNotFound,
            io::ErrorKind::NotADirectory => Code::SourceInvalid,
            io::ErrorKind::PermissionDenied => Code::SourceDenied,
            _ => Code::SourceUnreachable,
        };
        let message = format!("the source folder {} cannot be opened", root.display());
        Error::source_because(code, message, error)
    })
}

/// An error of the source's file system is not one of ours.
fn unreadable(root: &Path, error: Error) -> Error {
    match error {
        Error::Local { path, source, .. } => {
            let code = match source.kind() {
                io::ErrorKind::PermissionDenied => Code::SourceDenied,
                _ => Code::SourceUnreachable,
            };
            let below = path.strip_prefix(root).unwrap_or(&path);
            let message = format!(
                "{} in the source folder {} cannot be read",
                below.display(),
                root.display()
            );
            Error::source_because(code, message, source)
        }
        other => other,
    }
}

fn listed(seen: Seen) -> Listed {
    let tag = format!("{}.{}.{}", seen.modified_ns, seen.changed_ns, seen.inode);
    Listed {
        path: seen.path,
        size_bytes: seen.size_bytes,
        tag: tag.into(),
        executable: seen.executable,
    }
}

/// The file that a link leads to, under the link's name.
fn resolve(dir: &Dir, link: BundlePath) -> Result<Seen, Error> {
    let refuse = |code, rule: &str| Err(Refusal::new(code, link.as_str(), rule).into());
    match open_file(dir, &link) {
        Ok(file) => {
            let stat = fstat(&file).map_err(|error| vanished(&link, error.into()))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(Seen::new(link, &stat)),
                FileType::Directory => {
                    refuse(Code::SymlinkFolder, "links to a folder; only links to files are taken")
                }
                _ => refuse(Code::NotAFile, "links to a pipe, a socket or a device; remove it"),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse(Code::SymlinkBroken, "links to nothing; remove it or mend it")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refuse(
            Code::SymlinkOutside,
            "links out of the bundle, or may not be read; copy the file",
        ),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            refuse(Code::SymlinkBroken, "links to itself; remove it or mend it")
        }
        Err(error) => Err(vanished(&link, error)),
    }
}

fn open_file(dir: &Dir, path: &BundlePath) -> io::Result<cap_std::fs::File> {
    let mut options = OpenOptions::new();
    // A pipe in the place of a file must not hold anybody up.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    dir.open_with(path.as_str(), &options)
}

fn vanished(path: &BundlePath, error: io::Error) -> Error {
    let (code, what) = match error.kind() {
        io::ErrorKind::NotFound => (Code::SourceChanging, "vanished while the source was read"),
        io::ErrorKind::PermissionDenied => (Code::SourceDenied, "may not be read"),
        _ => (Code::SourceUnreachable, "cannot be read"),
    };
    Error::source_because(code, format!("{path} {what}"), error)
}

/// Reads `files` into `incoming`.
pub(super) fn fetch(
    root: &Path,
    files: &[Listed],
    incoming: &Incoming,
) -> Result<Vec<Entry>, Error> {
    let dir = open(root)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut entries = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            match copy(&dir, file, incoming, &mut buffer) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    // The others stop as well.
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(entries)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let parts: Vec<Result<Vec<Entry>, Error>> =
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(files.len())).map(|_| scope.spawn(work)).collect();
            let mut parts = vec![work()];
            parts.extend(others.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }));
            parts
        });
    let mut entries = Vec::with_capacity(files.len());
    for part in parts {
        entries.extend(part?);
    }
    Ok(entries)
}

fn copy(dir: &Dir, file: &Listed, incoming: &Incoming, buffer: &mut [u8]) -> Result<Entry, Error> {
    let mut from = open_file(dir, &file.path).map_err(|error| vanished(&file.path, error))?;
    let mut sink = incoming.begin(file)?;
    // Whether there is more is told below, by its size.
    while sink.left_bytes() > 0 {
        let read = from.read(buffer).map_err(|error| vanished(&file.path, error))?;
        if read == 0 {
            break;
        }
        sink.write(&buffer[..read], file)?;
    }
    let stat = fstat(&from).map_err(|error| vanished(&file.path, error.into()))?;
    let now = listed(Seen::new(file.path.clone(), &stat));
    if now != *file {
        let message = format!("{} changed while it was read", file.path);
        return Err(Error::source(Code::SourceChanging, message));
    }
    incoming.finish(file, sink)
}

/// As the other sources, off the threads that must not wait.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: Arc<PathBuf>,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root: Arc::new(root) }
    }

    pub(super) fn root(&self) -> Arc<PathBuf> {
        self.root.clone()
    }
}
