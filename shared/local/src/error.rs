//! What can go wrong when a local service is run.

use std::path::PathBuf;
use std::time::Duration;

/// Why a local service could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not installed.
    #[error("{program} is not installed: run scripts/setup.sh, or apt-get install {package}")]
    MissingProgram {
        /// The program that was looked for.
        program: String,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A file or folder could not be worked with.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A process could not be started.
    #[error("cannot start {name}")]
    Spawn {
        /// The process's name in its sandbox.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A command failed, or a service ended while it was expected to come up.
    #[error("{name} ended with {status}; the last lines of {log} are:\n{tail}", log = log.display())]
    Ended {
        /// The process's name in its sandbox.
        name: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The end of that log.
        tail: String,
    },
    /// A command or service did not do what it was waited for.
    #[error("{name} was not {state} within {waited:?}{detail}")]
    Timeout {
        /// What was waited for.
        name: String,
        /// The state that did not come: "ready", "finished".
        state: &'static str,
        /// How long was waited.
        waited: Duration,
        /// What is known beyond that, starting with a separator; may be empty.
        detail: String,
    },
    /// The sandbox's folder is in use by another living process.
    #[error("{path} is in use by another process: stop that one, or choose another folder")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The sandbox was closed.
    #[error("the sandbox {path} is closed")]
    Closed {
        /// The folder that it had.
        path: PathBuf,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A service answered, but not as expected.
    #[error("{service} gave an unexpected answer: {answer}")]
    Answer {
        /// The service that was asked.
        service: &'static str,
        /// What it said.
        answer: String,
    },
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
