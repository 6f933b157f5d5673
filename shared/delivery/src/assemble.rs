//! The folder of the next release, made of what is at hand: the folder of an old release, files of
//! the last one, files that were fetched.
//!
//! Turning an old release into the next one costs what differs. What the old one holds is told by
//! its index, as long as none of its folders changed since it was sealed: a name in a folder cannot
//! be given to another file without changing the folder. Only folders that did change are listed.
//! Whether the *content* of a file is what it was is told by the inspection of the base, for a file
//! is left where it is only if it is the same inode there.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, statat};

use crate::{
    bundle::{Entry, InOrder},
    error::Error,
    path::BundlePath,
    release::Index,
    tree::{self, Seen, Walk, make_folder},
};

/// What a folder holds that is to become a release.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Files and their inodes, sorted by path.
    files: Vec<(BundlePath, u64)>,
    /// Folders, sorted.
    folders: Vec<BundlePath>,
    /// What is neither.
    others: Vec<BundlePath>,
}

impl Held {
    /// Looks at everything in a folder.
    pub(crate) fn look(folder: &Path) -> Result<Self, Error> {
        let root = tree::open(folder).map_err(Error::local("open", folder))?;
        let walk = tree::walk(&root, folder, usize::MAX)?;
        let mut held = Self::default();
        held.add(walk);
        Ok(held)
    }

    /// What the folder of a sealed release holds. Looks at its folders, and at files of those that
    /// changed.
    pub(crate) fn recall(folder: &Path, index: &Index) -> Result<Self, Error> {
        let Some(sealed_ns) = index.sealed_ns else { return Self::look(folder) };
        let root = tree::open(folder).map_err(Error::local("open", folder))?;
        let mut names: Vec<&str> =
            index.entries.iter().flat_map(|entry| entry.path.parents()).collect();
        names.sort_unstable();
        names.dedup();

        let mut held = Self::default();
        // A folder counts only where the one around it does: behind a link lies something else.
        let mut there: HashSet<&str> = HashSet::new();
        let mut as_sealed: HashSet<&str> = HashSet::new();
        let mut changed: Vec<Option<BundlePath>> = Vec::new();
        for name in std::iter::once("").chain(names) {
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            if !name.is_empty() && !there.contains(parent) {
                continue;
            }
            let at = if name.is_empty() { "." } else { name };
            let Ok(stat) = statat(&root, at, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            there.insert(name);
            let path = if name.is_empty() { None } else { Some(BundlePath::parse(name)?) };
            held.folders.extend(path.clone());
            // Nobody sees a release before its seal is on disk, so that whatever others do to it
            // comes later on the file system's clock.
            if tree::changed_ns(&stat) <= sealed_ns {
                as_sealed.insert(name);
            } else {
                changed.push(path);
            }
        }
        for entry in &index.entries {
            if as_sealed.contains(entry.path.parents().next().unwrap_or("")) {
                let inode = match entry.inode {
                    0 => inode_of(&root, &entry.path),
                    inode => Some(inode),
                };
                held.files.extend(inode.map(|inode| (entry.path.clone(), inode)));
            }
        }
        held.add(tree::walk_again(&root, folder, &changed, &there)?);
        Ok(held)
    }

    fn add(&mut self, walk: Walk) {
        self.files.extend(walk.files.into_iter().map(|seen| (seen.path, seen.inode)));
        self.folders.extend(walk.folders);
        self.others.extend(walk.links);
        self.others.extend(walk.others);
        self.files.sort_unstable();
        self.files.dedup();
        self.folders.sort_unstable();
        self.folders.dedup();
    }
}

fn inode_of(root: &Dir, path: &BundlePath) -> Option<u64> {
    statat(root, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
}

/// Where the files of a new tree come from.
pub(crate) struct Origins<'a> {
    /// The folder of an earlier release, and what was seen in it.
    pub(crate) base: &'a Path,
    pub(crate) walk: &'a Walk,
    /// Files that were fetched: they are moved. All others are linked from the base.
    pub(crate) fetched: &'a HashMap<BundlePath, PathBuf>,
}

/// Makes `tree`, which holds `there`, hold `entries` and nothing else: nothing may be there, an old
/// release, or what an interrupted attempt left. Notes in the entries which inodes they became.
pub(crate) fn assemble(
    tree: &Path,
    there: &Held,
    entries: &mut [Entry],
    origins: &Origins<'_>,
) -> Result<(), Error> {
    let failed = |action, path: &BundlePath| Error::local(action, tree.join(path.as_str()));
    let mut wanted = InOrder::new(entries, |entry: &Entry| entry.path.as_str());
    let stray = there.files.iter().filter(|(path, _)| wanted.find(path.as_str()).is_none());
    for path in stray.map(|(path, _)| path).chain(&there.others) {
        fs::remove_file(tree.join(path.as_str())).map_err(failed("remove", path))?;
    }
    make_folders(tree, there, entries)?;

    let mut here = InOrder::new(&there.files, |(path, _)| path.as_str());
    let mut base = InOrder::new(&origins.walk.files, |seen: &Seen| seen.path.as_str());
    for entry in entries {
        let path = entry.path.clone();
        let here = here.find(path.as_str()).map(|(_, inode)| *inode);
        let shared = base.find(path.as_str()).map(|seen| seen.inode);
        let target = tree.join(path.as_str());
        let fetched = origins.fetched.get(&path);
        if fetched.is_some_and(|file| *file == target) {
            // An interrupted attempt put it there already.
            continue;
        }
        if fetched.is_none() && here.is_some() && here == shared {
            entry.inode = shared.unwrap_or_default();
            continue;
        }
        if here.is_some() {
            fs::remove_file(&target).map_err(failed("remove", &path))?;
        }
        match fetched {
            Some(file) => fs::rename(file, &target).map_err(failed("write", &path))?,
            None => {
                let linked = link(&origins.base.join(path.as_str()), &target)?;
                entry.inode = shared.filter(|_| linked).unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// Removes folders that no entry lies in, and makes those that are missing.
fn make_folders(tree: &Path, there: &Held, entries: &[Entry]) -> Result<(), Error> {
    let mut folders: HashSet<&str> = HashSet::new();
    for entry in entries {
        for parent in entry.path.parents() {
            if !folders.insert(parent) {
                break;
            }
        }
    }
    let mut removed: Option<String> = None;
    for folder in &there.folders {
        let inside = removed.as_ref().is_some_and(|r| folder.as_str().starts_with(r.as_str()));
        if !inside && !folders.contains(folder.as_str()) {
            let path = tree.join(folder.as_str());
            fs::remove_dir_all(&path).map_err(Error::local("remove", &path))?;
            removed = Some(format!("{folder}/"));
        }
    }
    let known: HashSet<&str> = there.folders.iter().map(BundlePath::as_str).collect();
    let mut missing: Vec<&str> = folders.difference(&known).copied().collect();
    missing.sort_unstable();
    for folder in missing {
        make_folder(&tree.join(folder))?;
    }
    Ok(())
}

/// Another name for a file; a copy where the file system has no such thing. Answers which.
fn link(from: &Path, to: &Path) -> Result<bool, Error> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::local("link", from)(error))
        }
        Err(_) => fs::copy(from, to).map(|_| false).map_err(Error::local("write", to)),
    }
}
