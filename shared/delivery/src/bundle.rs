//! What a source lists, what a release holds, and the difference between them. Pure.
//!
//! Invariant: a [`Listing`] holds safe paths only, sorted, none of which is a file and a folder at
//! once, within the limits. A [`Plan`] over it names every file of the release exactly once: kept
//! from an earlier release, or to be fetched.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    fmt,
};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Code, Refusal},
    path::BundlePath,
};

/// What a bundle may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files in a bundle.
    pub files: usize,
    /// Bytes of all files of a bundle.
    pub bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes that stay free on the disk whatever is delivered.
    pub free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 50_000, bytes: 1 << 30, file_bytes: 64 << 20, free_bytes: 256 << 20 }
    }
}

/// A file as its source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: BundlePath,
    pub(crate) size_bytes: u64,
    /// Changes whenever the content does: an etag, a blob's id, times and inode of a file.
    pub(crate) tag: Box<str>,
    pub(crate) executable: bool,
}

/// Everything that a source holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    files: Vec<Listed>,
}

impl Listing {
    /// The listing of `files`, if it may be delivered.
    pub(crate) fn new(mut files: Vec<Listed>, limits: &Limits) -> Result<Self, Refusal> {
        files.retain(|file| !file.path.is_left_out());
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let folders: HashSet<&str> = files.iter().flat_map(|file| file.path.parents()).collect();
        // Object stores know no folders; consoles pretend with empty objects of that name.
        let markers: HashSet<BundlePath> = files
            .iter()
            .filter(|file| file.size_bytes == 0 && folders.contains(file.path.as_str()))
            .map(|file| file.path.clone())
            .collect();
        let clash = files
            .iter()
            .find(|file| file.size_bytes > 0 && folders.contains(file.path.as_str()))
            .map(|file| file.path.clone());
        if let Some(path) = clash {
            let rule = "is a file and a folder at once; rename one of them";
            return Err(Refusal::new(Code::PathConflict, path.as_str(), rule));
        }
        files.retain(|file| !markers.contains(&file.path));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            let rule = "is listed twice; remove one of them";
            return Err(Refusal::new(Code::PathConflict, pair[0].path.as_str(), rule));
        }
        let mut tally = Tally::new(limits);
        for file in &files {
            tally.add(&file.path, file.size_bytes)?;
        }
        if files.is_empty() {
            let rule = "the source holds no files; nothing is delivered from an empty source, \
                        delete the namespace's source to remove its DAGs";
            return Err(Refusal::new(Code::SourceEmpty, "", rule));
        }
        Ok(Self { files })
    }

    pub(crate) fn files(&self) -> &[Listed] {
        &self.files
    }
}

/// Counts files against the limits while they are listed, so that a bomb is refused before it is
/// held in memory.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    limits: &'a Limits,
    files: usize,
    bytes: u64,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, files: 0, bytes: 0 }
    }

    pub(crate) fn add(&mut self, path: &BundlePath, size_bytes: u64) -> Result<(), Refusal> {
        let Limits { files, bytes, file_bytes, .. } = *self.limits;
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size_bytes);
        if size_bytes > file_bytes {
            let rule = format!("has {size_bytes} bytes; a file may have {file_bytes}");
            return Err(Refusal::new(Code::FileTooLarge, path.as_str(), rule));
        }
        if self.files > files {
            let rule = format!("more than {files} files; split the namespace or its source");
            return Err(Refusal::new(Code::TooManyFiles, "", rule));
        }
        if self.bytes > bytes {
            let rule = format!("more than {bytes} bytes in all; move data out of the bundle");
            return Err(Refusal::new(Code::BundleTooLarge, "", rule));
        }
        Ok(())
    }
}

/// SHA-256 of a content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ContentHash(pub(crate) [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: BundlePath,
    pub(crate) size_bytes: u64,
    pub(crate) hash: ContentHash,
    /// Of the source, when it was fetched.
    pub(crate) tag: Box<str>,
    pub(crate) executable: bool,
    /// Whether Airflow would look for DAGs in it.
    pub(crate) holds_dags: bool,
    /// The inode that it is in the release; zero where that is not known.
    pub(crate) inode: u64,
}

impl Entry {
    /// Whether both are the same file to whoever reads it.
    pub(crate) fn is_same_file(&self, other: &Entry) -> bool {
        self.hash == other.hash && self.executable == other.executable
    }
}

/// Files of a release, sorted by path.
pub(crate) type Entries = Vec<Entry>;

pub(crate) fn find<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Entry> {
    let at = entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
    Some(&entries[at])
}

/// A sorted list that is asked for one path after the other, in order: both are gone through once.
pub(crate) struct InOrder<'a, T, F> {
    rest: &'a [T],
    path_of: F,
}

impl<'a, T, F: Fn(&T) -> &str> InOrder<'a, T, F> {
    pub(crate) fn new(sorted: &'a [T], path_of: F) -> Self {
        Self { rest: sorted, path_of }
    }

    /// What is at `path`, which must not be before one that was asked for.
    pub(crate) fn find(&mut self, path: &str) -> Option<&'a T> {
        let before = self.rest.iter().take_while(|item| (self.path_of)(item) < path).count();
        self.rest = &self.rest[before..];
        self.rest.first().filter(|item| (self.path_of)(item) == path)
    }
}

/// Names a content: two releases of the same files under the same names have the same id, on every
/// machine.
pub(crate) fn content_id(entries: &[Entry]) -> String {
    let mut hasher = Sha256::new();
    for entry in entries {
        hasher.update(entry.path.as_str().as_bytes());
        // No path holds a control character, so nothing can pass for another listing.
        hasher.update(if entry.executable { b"\0x" } else { b"\0-" });
        hasher.update(entry.hash.0);
    }
    ContentHash(hasher.finalize().into()).to_string()
}

/// How the next release comes about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Files that the base holds already.
    pub(crate) kept: Entries,
    /// Files to fetch.
    pub(crate) fetch: Vec<Listed>,
}

impl Plan {
    /// The way from `base` to `listing`. What is `distrusted` is fetched although it seems
    /// unchanged.
    pub(crate) fn new(listing: &Listing, base: &[Entry], distrusted: &HashSet<BundlePath>) -> Self {
        let mut plan = Self::default();
        let mut old = base.iter().peekable();
        for file in listing.files() {
            while old.next_if(|entry| entry.path < file.path).is_some() {}
            let same = old.next_if(|entry| {
                entry.path == file.path
                    && entry.size_bytes == file.size_bytes
                    && entry.tag == file.tag
                    && entry.executable == file.executable
            });
            match same.filter(|entry| !distrusted.contains(&entry.path)) {
                Some(entry) => plan.kept.push(entry.clone()),
                None => plan.fetch.push(file.clone()),
            }
        }
        plan
    }

    pub(crate) fn fetch_bytes(&self) -> u64 {
        self.fetch.iter().map(|file| file.size_bytes).sum()
    }
}

/// What differs between two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Changes {
    /// Files that are new.
    pub added: usize,
    /// Files with another content.
    pub changed: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Files that are as they were.
    pub kept: usize,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        self.added + self.changed + self.removed == 0
    }
}

/// What Airflow must look at anew after a switch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Freshen {
    /// What differs.
    pub(crate) changes: Changes,
    /// Files that are new or differ, to be parsed first.
    pub(crate) first: Vec<BundlePath>,
    /// Whether files that did not change may give other DAGs now, for something that DAG files
    /// import or read differs.
    pub(crate) others: bool,
}

/// What must be done so that Airflow sees `new` in the place of `old`.
pub(crate) fn freshen(old: &[Entry], new: &[Entry]) -> Freshen {
    let mut result = Freshen::default();
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return result,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.path.cmp(&b.path),
        };
        let gone = if order.is_le() { left.next() } else { None };
        let here = if order.is_ge() { right.next() } else { None };
        match (gone, here) {
            (Some(a), Some(b)) if a.is_same_file(b) => {
                result.changes.kept += 1;
                continue;
            }
            (Some(_), Some(_)) => result.changes.changed += 1,
            (Some(_), None) => result.changes.removed += 1,
            (None, _) => result.changes.added += 1,
        }
        // A file in which Airflow looks for DAGs is taken to stand for itself. Who imports it all
        // the same sees the change when Airflow next parses everything.
        result.others |= [gone, here].into_iter().flatten().any(|entry| !entry.holds_dags);
        result.first.extend(here.map(|entry| entry.path.clone()));
    }
}

/// Puts what was kept and what was fetched in order.
pub(crate) fn merge(kept: Entries, fetched: Entries) -> Entries {
    let mut entries = kept;
    entries.extend(fetched);
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Follows symbolic links among `links` (path to target, as written) until a path in `files`.
pub(crate) fn follow_link<'a, T>(
    link: &BundlePath,
    links: &HashMap<BundlePath, String>,
    files: &'a HashMap<BundlePath, T>,
) -> Result<&'a T, Refusal> {
    const HOPS_MAX: usize = 8;
    let refuse = |code, rule| Err(Refusal::new(code, link.as_str(), rule));
    let mut at = link.clone();
    for _ in 0..HOPS_MAX {
        let Some(target) = links.get(&at) else { break };
        let mut names: Vec<&str> = at.as_str().split('/').collect();
        names.pop();
        if target.starts_with('/') {
            return refuse(Code::SymlinkOutside, "links to an absolute path; use a relative one");
        }
        for name in target.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    if names.pop().is_none() {
                        let rule = "links out of the bundle; copy the file";
                        return refuse(Code::SymlinkOutside, rule);
                    }
                }
                name => names.push(name),
            }
        }
        let path = names.join("/");
        let Ok(path) = BundlePath::parse(&path) else {
            return refuse(Code::SymlinkFolder, "links to a folder; only links to files are taken");
        };
        if let Some(file) = files.get(&path) {
            return Ok(file);
        }
        at = path;
    }
    let inside = format!("{}/", at.as_str());
    if files.keys().any(|path| path.as_str().starts_with(&inside)) {
        return refuse(Code::SymlinkFolder, "links to a folder; only links to files are taken");
    }
    refuse(Code::SymlinkBroken, "links to nothing; remove it or mend it")
}

#[cfg(test)]
mod tests;
