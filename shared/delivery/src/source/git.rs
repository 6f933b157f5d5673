//! A git repository as a source.
//!
//! The program `git` does the talking: it knows proxies, credential helpers, SSH configurations and
//! partial clones, and distributions mend its holes. (Rejected: gitoxide. It would need the same
//! `ssh` beside it, knows credential helpers and partial clones in part, and is a hundred crates for
//! what an agent does once a minute.)
//!
//! There is never a working tree: a tree's files are listed and their blobs are read out, so that no
//! hook, filter, attribute or name of a stranger's repository does anything on this machine. Each
//! blob is hashed again against its id.
//!
//! Only the newest commit is fetched, as a difference to the one before. Where a folder of the
//! repository is delivered, only the blobs of that folder are fetched, if the server can do that.

mod blobs;
mod command;
mod names;

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

pub(super) use self::names::Reference;
use self::{
    blobs::{BlobHash, Blobs},
    command::git,
    names::{is_commit, parse_tree},
};
use crate::{
    bundle::{Entry, Limits, Listed, Listing, follow_link},
    error::{Code, Error, Refusal},
    incoming::Incoming,
    path::BundlePath,
    run::blocking,
    tree::{make_folder, remove_folder},
};

/// Time to ask what a ref points to.
const ASK_TIMEOUT: Duration = Duration::from_mins(1);
/// Time for everything else.
const FETCH_TIMEOUT: Duration = Duration::from_mins(10);
/// Packs may be larger than what is delivered of them: files that are left out, the odd other folder.
const PACK_FACTOR: u64 = 4;
/// Where the commit is kept that was fetched last.
const HEAD: &str = "refs/airfleet/head";
/// Longest target of a symbolic link.
const LINK_MAX_BYTES: u64 = 4096;

/// A ref of a repository, or a folder of it.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    url: Arc<str>,
    reference: Reference,
    /// Empty for the whole repository.
    folder: Arc<str>,
}

/// A commit, and by what name it can be fetched.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) commit: String,
    fetch: String,
}

impl Git {
    pub(super) fn new(url: &str, reference: Reference, folder: &str) -> Self {
        Self { url: url.into(), reference, folder: folder.into() }
    }

    /// Where its objects are kept, below a folder of the namespace's own. Another place for another
    /// URL, and for another folder: a partial clone lacks what lies beside its folder.
    pub(crate) fn repository(&self, below: &Path) -> PathBuf {
        let hash = Sha256::digest(format!("{}\n{}", self.url, self.folder));
        below.join(hex(&hash[..8]))
    }

    /// The folder of the repository that is delivered; empty for all of it.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// The commit that the ref points to now.
    pub(crate) async fn head(&self) -> Result<Head, Error> {
        let candidates = match &self.reference {
            Reference::Commit(commit) => {
                let commit = commit.to_string();
                return Ok(Head { fetch: commit.clone(), commit });
            }
            Reference::Default => vec!["HEAD".to_owned()],
            Reference::Named(name) if name.starts_with("refs/") => vec![name.to_string()],
            Reference::Named(name) => {
                vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")]
            }
        };
        let mut command = git(None, None);
        command.args(["ls-remote", "--quiet", "--"]).arg(&*self.url).args(&candidates);
        // What an annotated tag points to.
        command.args(candidates.iter().map(|name| format!("{name}^{{}}")));
        let output = self.run(command, ASK_TIMEOUT, "ask").await?;
        let listed: HashMap<&str, &str> = output
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(commit, _)| is_commit(commit))
            .map(|(commit, name)| (name, commit))
            .collect();
        let peeled = |name: &String| {
            let commit = listed.get(format!("{name}^{{}}").as_str()).or(listed.get(name.as_str()));
            commit.map(|commit| Head { commit: (*commit).to_owned(), fetch: name.clone() })
        };
        let mut found: Vec<Head> = candidates.iter().filter_map(peeled).collect();
        if found.len() == 2 && found[0].commit != found[1].commit {
            let message = format!(
                "{} has a branch and a tag of that name, and they differ; give the whole name as \
                 ref, such as {}",
                self.url, found[0].fetch
            );
            return Err(Error::source(Code::RefAmbiguous, message));
        }
        if found.is_empty() {
            let wanted = match &self.reference {
                Reference::Named(name) => format!("branch or tag {name}"),
                _ => "commit yet".to_owned(),
            };
            let message = format!("{} has no {wanted}; push it, or correct ref", self.url);
            return Err(Error::source(Code::RefNotFound, message));
        }
        Ok(found.swap_remove(0))
    }

    /// The files of `head`, which is fetched into `repository` if it is not there.
    pub(crate) async fn list(
        &self,
        head: &Head,
        repository: &Path,
        limits: &Limits,
    ) -> Result<Listing, Error> {
        self.ensure(head, repository, limits).await?;
        let mut command = git(Some(repository), None);
        command.args(["ls-tree", "-r", "-z", "-l", "--full-tree"]).arg(self.tree(&head.commit));
        let output = self.output(command, None, FETCH_TIMEOUT, "list").await?;
        let (mut files, links) = parse_tree(&output, limits)?;
        self.resolve(links, &mut files, repository).await?;
        Ok(Listing::new(files, limits)?)
    }

    /// Makes sure that everything which is delivered of `head` is in `repository`.
    pub(crate) async fn ensure(
        &self,
        head: &Head,
        repository: &Path,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.prepare(repository).await?;
        let commit = &head.commit;
        if !self.has(repository, commit).await {
            self.fetch_commit(head, repository, limits).await?;
        }
        let tree = self.tree(commit);
        if !self.folder.is_empty() {
            self.check_folder(&tree, repository).await?;
            self.fetch_blobs(&tree, repository, limits).await?;
        }
        Ok(())
    }

    fn tree(&self, commit: &str) -> String {
        if self.folder.is_empty() { commit.to_owned() } else { format!("{commit}:{}", self.folder) }
    }

    async fn prepare(&self, repository: &Path) -> Result<(), Error> {
        let is_one = repository.join("HEAD").is_file();
        if !is_one {
            let folder = repository.to_owned();
            blocking(move || {
                remove_folder(&folder)?;
                folder.parent().map_or(Ok(()), make_folder)?;
                make_folder(&folder)
            })
            .await?;
            let mut command = git(None, None);
            command.args(["init", "--quiet", "--bare", "--template=", "--"]).arg(repository);
            self.run(command, ASK_TIMEOUT, "keep").await?;
        }
        Ok(())
    }

    async fn has(&self, repository: &Path, commit: &str) -> bool {
        let mut command = git(Some(repository), None);
        // Not cat-file: with a partial clone it would go and fetch.
        command.args(["rev-list", "--no-walk", "--missing=print", "--end-of-options", commit]);
        let known = self.run(command, ASK_TIMEOUT, "read").await;
        known.is_ok_and(|output| output.trim() == commit) && self.resolves(repository, commit).await
    }

    /// Whether [`HEAD`] is `commit`: it is written last, once all is there.
    async fn resolves(&self, repository: &Path, commit: &str) -> bool {
        let mut command = git(Some(repository), None);
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        command.arg(format!("{HEAD}^{{commit}}"));
        self.run(command, ASK_TIMEOUT, "read").await.is_ok_and(|output| output.trim() == commit)
    }

    async fn fetch_commit(
        &self,
        head: &Head,
        repository: &Path,
        limits: &Limits,
    ) -> Result<(), Error> {
        let mut command = git(Some(repository), Some(limits.bytes.saturating_mul(PACK_FACTOR)));
        command.args(["fetch", "--quiet", "--force", "--depth=1", "--no-tags", "--no-auto-gc"]);
        command.args(["--no-recurse-submodules", "--no-write-fetch-head"]);
        if !self.folder.is_empty() {
            command.arg("--filter=blob:none");
        }
        command.arg("--").arg(&*self.url).arg(format!("+{}:{HEAD}", head.fetch));
        self.run(command, FETCH_TIMEOUT, "fetch").await?;
        if !self.resolves(repository, &head.commit).await {
            let message = format!("{} moved while {} was fetched", self.url, head.fetch);
            return Err(Error::source(Code::SourceChanging, message));
        }
        // What earlier commits left, now and then.
        let mut command = git(Some(repository), None);
        command.args(["gc", "--auto", "--quiet", "--prune=1.hour.ago"]);
        if let Err(error) = self.run(command, FETCH_TIMEOUT, "tidy").await {
            tracing::debug!(error = %error, "the repository was not tidied");
        }
        Ok(())
    }

    async fn check_folder(&self, tree: &str, repository: &Path) -> Result<(), Error> {
        let mut command = git(Some(repository), None);
        command.args(["cat-file", "-t", tree]);
        let kind = self.run(command, ASK_TIMEOUT, "read").await;
        if kind.is_ok_and(|kind| kind.trim() == "tree") {
            return Ok(());
        }
        let message = format!("{} has no folder {}; correct path", self.url, self.folder);
        Err(Error::source(Code::SourceNotFound, message))
    }

    /// Fetches the blobs of a folder in one go, where the server left them out.
    async fn fetch_blobs(
        &self,
        tree: &str,
        repository: &Path,
        limits: &Limits,
    ) -> Result<(), Error> {
        let mut command = git(Some(repository), None);
        command.args(["rev-list", "--objects", "--missing=print", "--no-object-names", tree]);
        let output = self.run(command, FETCH_TIMEOUT, "list").await?;
        let missing: Vec<&str> = output
            .lines()
            .filter_map(|line| line.strip_prefix('?'))
            .filter(|id| is_commit(id))
            .collect();
        if missing.len() > limits.files {
            let rule =
                format!("more than {} files; split the namespace or its source", limits.files);
            return Err(Refusal::new(Code::TooManyFiles, "", rule).into());
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut command = git(Some(repository), Some(limits.bytes.saturating_mul(PACK_FACTOR)));
        command.args(["-c", "fetch.negotiationAlgorithm=noop"]);
        command.args(["fetch", "--quiet", "--no-tags", "--no-auto-gc", "--no-recurse-submodules"]);
        command.args(["--no-write-fetch-head", "--filter=blob:none", "--stdin", "--"]);
        command.arg(&*self.url);
        let wanted = missing.join("\n") + "\n";
        self.run_with(command, Some(wanted.into_bytes()), FETCH_TIMEOUT, "fetch").await?;
        Ok(())
    }

    /// Puts in the place of each link the file that it leads to.
    async fn resolve(
        &self,
        links: Vec<Listed>,
        files: &mut Vec<Listed>,
        repository: &Path,
    ) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        if let Some(link) = links.iter().find(|link| link.size_bytes > LINK_MAX_BYTES) {
            let rule = "links to a path that is too long";
            return Err(Refusal::new(Code::SymlinkBroken, link.path.as_str(), rule).into());
        }
        let mut targets = HashMap::new();
        let mut blobs = Blobs::start(repository, &links)?;
        for link in &links {
            blobs.begin(link).await.map_err(|error| self.unread(error))?;
            let mut target = Vec::new();
            while let Some(piece) = blobs.piece().await.map_err(|error| self.unread(error))? {
                target.extend_from_slice(&piece);
            }
            targets.insert(link.path.clone(), String::from_utf8_lossy(&target).into_owned());
        }
        let known: HashMap<BundlePath, Listed> =
            files.iter().map(|file| (file.path.clone(), file.clone())).collect();
        for link in links {
            let file = follow_link(&link.path, &targets, &known)?;
            files.push(Listed { path: link.path, ..file.clone() });
        }
        Ok(())
    }

    /// Reads `files` out of the repository into `incoming`.
    pub(crate) async fn fetch(
        &self,
        files: &[Listed],
        repository: &Path,
        incoming: &Arc<Incoming>,
    ) -> Result<Vec<Entry>, Error> {
        let mut blobs = Blobs::start(repository, files)?;
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            blobs.begin(file).await.map_err(|error| self.unread(error))?;
            let mut sink = incoming.begin(file)?;
            let mut hash = BlobHash::new(file);
            while let Some(piece) = blobs.piece().await.map_err(|error| self.unread(error))? {
                let file = file.clone();
                (sink, hash) = blocking(move || {
                    hash.update(&piece);
                    sink.write(&piece, &file)?;
                    Ok((sink, hash))
                })
                .await?;
            }
            if *hash.finish() != *file.tag {
                let message = format!(
                    "{} is not what the repository names it; remove {} to have it fetched anew",
                    file.path,
                    repository.display()
                );
                return Err(Error::source(Code::SourceCorrupt, message));
            }
            entries.push(incoming.finish(file, sink)?);
        }
        Ok(entries)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
