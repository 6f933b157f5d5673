//! The program `git`: how it is run, how it is ended, and what it says when it fails.

use std::{fmt::Write as _, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::{Git, blobs::ReadError};
use crate::error::{Code, Error, Refusal};

/// Most that a command may print, but for blobs.
const OUTPUT_MAX_BYTES: usize = 32 << 20;

impl Git {
    pub(super) async fn run(
        &self,
        command: Command,
        limit: Duration,
        what: &str,
    ) -> Result<String, Error> {
        self.run_with(command, None, limit, what).await
    }

    pub(super) async fn run_with(
        &self,
        command: Command,
        input: Option<Vec<u8>>,
        limit: Duration,
        what: &str,
    ) -> Result<String, Error> {
        let output = self.output(command, input, limit, what).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    pub(super) async fn output(
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

    pub(super) fn unread(&self, error: ReadError) -> Error {
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
pub(super) fn git(repository: Option<&Path>, file_max_bytes: Option<u64>) -> Command {
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

pub(super) fn spawn(command: &mut Command) -> Result<Child, Error> {
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
pub(super) fn tell(complaint: &str) -> String {
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
