//! Why something is not delivered, in words for its owner and codes for programs.

use std::{fmt, io, path::PathBuf};

/// Stable names of what can go wrong. Names are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The source of the manifest is none that can be read.
    SourceInvalid,
    /// This machine does not deliver from there.
    SourceNotAllowed,
    /// The source does not answer.
    SourceUnreachable,
    /// The source does not let the agent in.
    SourceDenied,
    /// There is no such folder, bucket or repository.
    SourceNotFound,
    /// The repository has no such branch, tag or commit.
    RefNotFound,
    /// A branch and a tag have that name and differ.
    RefAmbiguous,
    /// There are no files in the source.
    SourceEmpty,
    /// The source changed while it was read, over and over.
    SourceChanging,
    /// What was read is not what the source says it holds.
    SourceCorrupt,
    /// A path leaves the folder, or cannot be a path.
    PathUnsafe,
    /// A path is a file and a folder at once.
    PathConflict,
    /// A symbolic link leads out of the bundle.
    SymlinkOutside,
    /// A symbolic link leads to a folder.
    SymlinkFolder,
    /// A symbolic link leads nowhere.
    SymlinkBroken,
    /// A pipe, socket or device.
    NotAFile,
    /// A git submodule.
    Submodule,
    /// One file is too large.
    FileTooLarge,
    /// All files together are too large.
    BundleTooLarge,
    /// There are too many files.
    TooManyFiles,
    /// Too little space would be left on the disk.
    DiskLow,
    /// Another process works on the namespace.
    Busy,
    /// It took too long.
    Timeout,
    /// Something that was not delivered is where the namespace's folder belongs.
    FolderInTheWay,
    /// There is no such release here.
    ReleaseUnknown,
    /// Files of a release are not what they were.
    ReleaseDamaged,
    /// The program `git` cannot be run.
    GitMissing,
    /// The DAGs folder cannot be read or written.
    LocalIo,
}

impl Code {
    /// The name, in UPPER_SNAKE_CASE.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceInvalid => "SOURCE_INVALID",
            Self::SourceNotAllowed => "SOURCE_NOT_ALLOWED",
            Self::SourceUnreachable => "SOURCE_UNREACHABLE",
            Self::SourceDenied => "SOURCE_DENIED",
            Self::SourceNotFound => "SOURCE_NOT_FOUND",
            Self::RefNotFound => "REF_NOT_FOUND",
            Self::RefAmbiguous => "REF_AMBIGUOUS",
            Self::SourceEmpty => "SOURCE_EMPTY",
            Self::SourceChanging => "SOURCE_CHANGING",
            Self::SourceCorrupt => "SOURCE_CORRUPT",
            Self::PathUnsafe => "PATH_UNSAFE",
            Self::PathConflict => "PATH_CONFLICT",
            Self::SymlinkOutside => "SYMLINK_OUTSIDE",
            Self::SymlinkFolder => "SYMLINK_FOLDER",
            Self::SymlinkBroken => "SYMLINK_BROKEN",
            Self::NotAFile => "NOT_A_FILE",
            Self::Submodule => "SUBMODULE",
            Self::FileTooLarge => "FILE_TOO_LARGE",
            Self::BundleTooLarge => "BUNDLE_TOO_LARGE",
            Self::TooManyFiles => "TOO_MANY_FILES",
            Self::DiskLow => "DISK_LOW",
            Self::Busy => "BUSY",
            Self::Timeout => "TIMEOUT",
            Self::FolderInTheWay => "FOLDER_IN_THE_WAY",
            Self::ReleaseUnknown => "RELEASE_UNKNOWN",
            Self::ReleaseDamaged => "RELEASE_DAMAGED",
            Self::GitMissing => "GIT_MISSING",
            Self::LocalIo => "LOCAL_IO",
        }
    }

    /// Who can help.
    pub fn blame(self) -> Blame {
        match self {
            Self::SourceInvalid
            | Self::SourceNotAllowed
            | Self::SourceNotFound
            | Self::SourceDenied
            | Self::RefNotFound
            | Self::RefAmbiguous
            | Self::SourceEmpty
            | Self::PathUnsafe
            | Self::PathConflict
            | Self::SymlinkOutside
            | Self::SymlinkFolder
            | Self::SymlinkBroken
            | Self::NotAFile
            | Self::Submodule
            | Self::FileTooLarge
            | Self::BundleTooLarge
            | Self::TooManyFiles
            | Self::ReleaseUnknown => Blame::Owner,
            Self::SourceUnreachable
            | Self::SourceChanging
            | Self::SourceCorrupt
            | Self::Busy
            | Self::Timeout => Blame::Weather,
            Self::DiskLow
            | Self::FolderInTheWay
            | Self::ReleaseDamaged
            | Self::GitMissing
            | Self::LocalIo => Blame::Operator,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Who can help where something is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The namespace's owners: the bundle or its source must change.
    Owner,
    /// Nobody need do anything; trying again may help.
    Weather,
    /// Whoever runs this machine.
    Operator,
}

/// What in a bundle is not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule.
    pub code: Code,
    /// The file, shortened where it is long; empty where it is the whole bundle.
    pub path: String,
    /// What is wrong and what to do.
    pub rule: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, path: &str, rule: impl Into<String>) -> Self {
        // Paths come from strangers and end up in logs.
        let shown: String = path.chars().take(200).flat_map(char::escape_debug).collect();
        Self { code, path: shown, rule: rule.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.rule)
        } else {
            write!(formatter, "{}: {}", self.path, self.rule)
        }
    }
}

impl std::error::Error for Refusal {}

/// What an error is caused by.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a namespace has no new release. The running one stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle breaks a rule.
    #[error("the bundle is refused: {0}")]
    Refused(Refusal),
    /// The source cannot be read.
    #[error("{message}")]
    Source {
        /// What happened.
        code: Code,
        /// In words, with what to do.
        message: String,
        /// Why.
        source: Option<Cause>,
    },
    /// Nothing can be done on this machine.
    #[error("{message}")]
    Here {
        /// What happened.
        code: Code,
        /// In words, with what to do.
        message: String,
    },
    /// A file or folder below the DAGs folder cannot be used.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The stable name of what went wrong.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Source { code, .. } | Self::Here { code, .. } => *code,
            Self::Local { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Code::DiskLow
            }
            Self::Local { .. } => Code::LocalIo,
        }
    }

    pub(crate) fn source(code: Code, message: impl Into<String>) -> Self {
        Self::Source { code, message: message.into(), source: None }
    }

    pub(crate) fn source_because(
        code: Code,
        message: impl Into<String>,
        source: impl Into<Cause>,
    ) -> Self {
        Self::Source { code, message: message.into(), source: Some(source.into()) }
    }

    pub(crate) fn here(code: Code, message: impl Into<String>) -> Self {
        Self::Here { code, message: message.into() }
    }

    /// For `map_err`: what was tried on which path.
    pub(crate) fn local<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Local { action, path, source: source.into() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
