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

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    bundle::{Entry, Limits, Listed, Listing, Tally, follow_link},
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
/// Most that a command may print, but for blobs.
const OUTPUT_MAX_BYTES: usize = 32 << 20;
/// Packs may be larger than what is delivered of them: files that are left out, the odd other folder.
const PACK_FACTOR: u64 = 4;
/// Where the commit is kept that was fetched last.
const HEAD: &str = "refs/airfleet/head";
/// Longest target of a symbolic link.
const LINK_MAX_BYTES: u64 = 4096;
/// Blobs that are read before they are given to be written.
const PIECE_BYTES: usize = 256 << 10;

/// A ref of a repository, or a folder of it.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    url: Arc<str>,
    reference: Reference,
    /// Empty for the whole repository.
    folder: Arc<str>,
}

/// What is delivered of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// What the repository offers first.
    Default,
    /// A branch or a tag, or a full name such as `refs/heads/main`.
    Named(Arc<str>),
    /// One commit, for ever.
    Commit(Arc<str>),
}

impl Reference {
    /// `None` where `text` cannot be the name of anything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Default);
        }
        if is_commit(text) {
            return Some(Self::Commit(text.into()));
        }
        // As git itself has it, and never what could be an option or a pattern.
        let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
        let bad = text.starts_with(['-', '/', '.'])
            || text.ends_with(['/', '.'])
            || ["..", "//", "@{", "/.", ".lock"].iter().any(|part| text.contains(part))
            || text.contains(odd);
        (!bad).then(|| Self::Named(text.into()))
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
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

    async fn run(&self, command: Command, limit: Duration, what: &str) -> Result<String, Error> {
        self.run_with(command, None, limit, what).await
    }

    async fn run_with(
        &self,
        command: Command,
        input: Option<Vec<u8>>,
        limit: Duration,
        what: &str,
    ) -> Result<String, Error> {
        let output = self.output(command, input, limit, what).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    async fn output(
        &self,
        mut command: Command,
        input: Option<Vec<u8>>,
        limit: Duration,
        what: &str,
    ) -> Result<Vec<u8>, Error> {
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let guard = Group::of(&child);
        let stdout = child.stdout.take().expect("is piped");
        let mut stderr = child.stderr.take().expect("is piped").take(1 << 16);
        let stdin = child.stdin.take();
        let work = async {
            let mut complaint = Vec::new();
            let read = async move {
                let mut output = Vec::new();
                // Closed after the most that is taken, so that git ends: it would wait for ever for
                // room in the pipe.
                stdout.take(OUTPUT_MAX_BYTES as u64).read_to_end(&mut output).await?;
                Ok(output)
            };
            let feed = async {
                if let (Some(mut stdin), Some(input)) = (stdin, input) {
                    // It may end before it read everything; its status tells.
                    let _ = stdin.write_all(&input).await;
                }
                Ok(())
            };
            let (output, _, ()) = tokio::try_join!(read, stderr.read_to_end(&mut complaint), feed)?;
            Ok::<_, std::io::Error>((child.wait().await?, output, complaint))
        };
        let done = tokio::time::timeout(limit, work).await;
        let Ok(done) = done else {
            drop(guard);
            let message = format!(
                "git took longer than {} s to {what} {}; check the network",
                limit.as_secs(),
                self.url
            );
            return Err(Error::source(Code::Timeout, message));
        };
        let (status, output, complaint) = done.map_err(|error| self.broken(what, error))?;
        guard.done();
        if output.len() >= OUTPUT_MAX_BYTES {
            let rule = "git lists more of it than can be delivered; split the repository, or deliver \
                        a folder of it";
            return Err(Refusal::new(Code::TooManyFiles, "", rule).into());
        }
        if status.success() {
            return Ok(output);
        }
        let complaint = tell(&String::from_utf8_lossy(&complaint));
        let message = if complaint.is_empty() {
            // Such as SIGXFSZ, where a pack would be larger than is allowed.
            format!("git cannot {what} {}: {status}; is the repository too large?", self.url)
        } else {
            format!("git cannot {what} {}: {complaint}", self.url)
        };
        Err(Error::source(Code::SourceUnreachable, message))
    }

    fn broken(&self, what: &str, error: std::io::Error) -> Error {
        let message = format!("git stopped while it tried to {what} {}", self.url);
        Error::source_because(Code::SourceUnreachable, message, error)
    }

    fn unread(&self, error: ReadError) -> Error {
        match error {
            ReadError::Io(error) => self.broken("read", error),
            ReadError::Odd(answer) => {
                let message = format!("git cannot read {}: {}", self.url, tell(&answer));
                Error::source(Code::SourceCorrupt, message)
            }
        }
    }
}

/// `git`, with everything off that a stranger's repository or an odd environment could turn on, and
/// with the operator's own settings for proxies, helpers and keys.
fn git(repository: Option<&Path>, file_max_bytes: Option<u64>) -> Command {
    let mut command = match file_max_bytes {
        // git has no bound of its own. 512 is the unit of ulimit.
        Some(bytes) => {
            let mut command = Command::new("sh");
            command.args(["-c", r#"ulimit -f "$1" && shift && exec git "$@""#, "sh"]);
            command.arg((bytes / 512).max(1).to_string());
            command
        }
        None => Command::new("git"),
    };
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_NAMESPACE",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_TRACE",
        "GIT_CURL_VERBOSE",
        "GIT_TRACE_CURL",
    ] {
        command.env_remove(name);
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GCM_INTERACTIVE", "never")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "https:ssh:file");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=10");
    }
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]);
    command.args(["-c", "gc.autoDetach=false", "-c", "maintenance.auto=false"]);
    command.args(["-c", "transfer.fsckObjects=false", "-c", "protocol.version=2"]);
    if let Some(repository) = repository {
        // The agent's own, whoever owns the volume that it lies on.
        command.arg("-c").arg(format!("safe.directory={}", repository.display()));
        command.arg("--git-dir").arg(repository);
    }
    command.process_group(0).kill_on_drop(true);
    command
}

fn spawn(command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|error| {
        let message = "git cannot be run; install it beside the agent to deliver from repositories";
        Error::source_because(Code::GitMissing, message, error)
    })
}

/// Ends a command with all that it started, if it was not waited for.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)))
    }

    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// What git says, in a line, without what a URL may carry before its host.
fn tell(complaint: &str) -> String {
    let mut text = String::new();
    for line in complaint.lines().filter(|line| !line.trim().is_empty()).take(4) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        for (number, part) in line.split("://").enumerate() {
            let authority = part.split(['/', '\'', '"', ' ']).next().unwrap_or_default();
            let part = match authority.rfind('@') {
                Some(at) if number > 0 => &part[at + 1..],
                _ => part,
            };
            let _ = write!(text, "{}{part}", if number > 0 { "://" } else { "" });
        }
    }
    text.chars().filter(|c| !c.is_control()).take(600).collect()
}

/// What `ls-tree -r -z -l` prints: files, and symbolic links apart.
fn parse_tree(output: &[u8], limits: &Limits) -> Result<(Vec<Listed>, Vec<Listed>), Error> {
    let odd = || Error::source(Code::SourceCorrupt, "git lists the tree in an unknown way");
    let (mut files, mut links) = (Vec::new(), Vec::new());
    let mut tally = Tally::new(limits);
    for record in output.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let tab = record.iter().position(|byte| *byte == b'\t').ok_or_else(odd)?;
        let head = std::str::from_utf8(&record[..tab]).map_err(|_| odd())?;
        let mut words = head.split_ascii_whitespace();
        let (Some(mode), Some(_), Some(id), Some(size)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(odd());
        };
        let path = BundlePath::parse_bytes(&record[tab + 1..])?;
        if path.is_left_out() {
            continue;
        }
        if mode == "160000" {
            let rule = "is a submodule; submodules are not delivered, copy their files";
            return Err(Refusal::new(Code::Submodule, path.as_str(), rule).into());
        }
        let size_bytes = size.parse().map_err(|_| odd())?;
        let executable = mode == "100755";
        tally.add(&path, size_bytes)?;
        let file = Listed { path, size_bytes, tag: id.into(), executable };
        if mode == "120000" { links.push(file) } else { files.push(file) }
    }
    Ok((files, links))
}

/// The id of a blob, as git computes it.
enum BlobHash {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl BlobHash {
    fn new(file: &Listed) -> Self {
        let head = format!("blob {}\0", file.size_bytes);
        if file.tag.len() == 64 {
            Self::Sha256(Sha256::new().chain_update(head))
        } else {
            Self::Sha1(Sha1::new().chain_update(head))
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha1(hash) => hex(&hash.finalize()),
            Self::Sha256(hash) => hex(&hash.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

enum ReadError {
    Io(std::io::Error),
    Odd(String),
}

/// A `git cat-file --batch` that was asked for blobs in order.
struct Blobs {
    _child: Child,
    feed: tokio::task::JoinHandle<()>,
    output: BufReader<tokio::process::ChildStdout>,
    left_bytes: u64,
    ended: bool,
}

impl Blobs {
    fn start(repository: &Path, files: &[Listed]) -> Result<Self, Error> {
        let mut command = git(Some(repository), None);
        command.args(["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(&mut command)?;
        let mut stdin = child.stdin.take().expect("is piped");
        let output = BufReader::with_capacity(1 << 16, child.stdout.take().expect("is piped"));
        let mut wanted = String::with_capacity(files.len() * 41);
        for file in files {
            wanted.push_str(&file.tag);
            wanted.push('\n');
        }
        let feed = tokio::spawn(async move {
            // Ends with the child, which tells by its output.
            let _ = stdin.write_all(wanted.as_bytes()).await;
        });
        Ok(Self { _child: child, feed, output, left_bytes: 0, ended: true })
    }

    /// Goes to the blob of `file`, which must be the next one.
    async fn begin(&mut self, file: &Listed) -> Result<(), ReadError> {
        debug_assert!(self.ended, "the blob before was read to its end");
        let mut line = String::new();
        timely((&mut self.output).take(200).read_line(&mut line)).await?;
        if line.trim_end() != format!("{} blob {}", file.tag, file.size_bytes) {
            return Err(ReadError::Odd(line));
        }
        (self.left_bytes, self.ended) = (file.size_bytes, false);
        Ok(())
    }

    /// The next piece of the blob.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        if self.left_bytes == 0 {
            self.ended = true;
            return match timely(self.output.read_u8()).await? {
                b'\n' => Ok(None),
                _ => Err(ReadError::Odd("a blob is longer than its size".to_owned())),
            };
        }
        let mut piece = vec![0; self.left_bytes.min(PIECE_BYTES as u64) as usize];
        timely(self.output.read_exact(&mut piece)).await?;
        self.left_bytes -= piece.len() as u64;
        Ok(Some(piece))
    }
}

async fn timely<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, ReadError> {
    match tokio::time::timeout(ASK_TIMEOUT, work).await {
        Ok(result) => result.map_err(ReadError::Io),
        Err(_) => Err(ReadError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_refs_are_names_and_nothing_else() {
        for text in ["main", "feature/x", "v1.2.3", "refs/heads/main", "a@b"] {
            assert_eq!(Reference::parse(text), Some(Reference::Named(text.into())), "{text}");
        }
        for text in [
            "--upload-pack=touch /tmp/x",
            "-x",
            "a..b",
            "a b",
            "a:b",
            "a~1",
            "a^",
            "a*",
            "/a",
            "a/",
            "a.lock",
            "a@{1}",
            "a\nb",
            "a//b",
            ".a",
            "a/.b",
            "a\\b",
            "[a]",
            "?",
        ] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(Reference::parse(commit), Some(Reference::Commit(commit.into())));
        assert_eq!(Reference::parse(""), Some(Reference::Default));
    }

    #[test]
    fn what_git_complains_of_carries_no_credentials() {
        let told =
            tell("fatal: unable to access 'https://me:hunter2@git.example.net/x.git/': no\n\n");
        assert_eq!(told, "fatal: unable to access 'https://git.example.net/x.git/': no");
        assert_eq!(tell("a\nb\u{1b}[31m\n"), "a; b[31m");
        assert_eq!(tell("ssh://git@host/a@b and a@b"), "ssh://host/a@b and a@b");
    }

    #[test]
    fn trees_are_read_and_submodules_refused() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let tree = format!(
            "100644 blob {id}     12\tdags/a b.py\0100755 blob {id}       0\trun.sh\0\
             120000 blob {id}       4\tlink.py\0"
        );
        let limits = Limits::default();
        let (files, links) = parse_tree(tree.as_bytes(), &limits).expect("is plain");
        let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["dags/a b.py", "run.sh"]);
        assert_eq!((files[0].size_bytes, files[1].executable, links.len()), (12, true, 1));

        let sub = format!("160000 commit {id}       -\tshared\0");
        let error = parse_tree(sub.as_bytes(), &limits).expect_err("is no file");
        assert_eq!(error.code(), Code::Submodule);
        let out = format!("100644 blob {id}       1\ta/../../b.py\0");
        let error = parse_tree(out.as_bytes(), &limits).expect_err("leaves");
        assert_eq!(error.code(), Code::PathUnsafe);
        assert!(parse_tree(b"nonsense\0", &limits).is_err());
    }

    #[test]
    fn blobs_are_hashed_as_git_hashes_them() {
        let file = |tag: &str, size_bytes| Listed {
            path: BundlePath::parse("a").expect("is plain"),
            size_bytes,
            tag: tag.into(),
            executable: false,
        };
        let hash = |tag: &str, bytes: &[u8]| {
            let mut hash = BlobHash::new(&file(tag, bytes.len() as u64));
            hash.update(bytes);
            hash.finish()
        };
        assert_eq!(hash("", b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let long = "0".repeat(64);
        assert_eq!(
            hash(&long, b"hello\n"),
            "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4"
        );
    }
}
