//! Blobs, as they are read out of a repository.

use std::{path::Path, process::Stdio};

use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Child,
};

use super::{
    ASK_TIMEOUT,
    command::{git, spawn},
    hex,
};
use crate::{bundle::Listed, error::Error};

/// Blobs that are read before they are given to be written.
const PIECE_BYTES: usize = 256 << 10;

/// The id of a blob, as git computes it.
pub(super) enum BlobHash {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl BlobHash {
    pub(super) fn new(file: &Listed) -> Self {
        let head = format!("blob {}\0", file.size_bytes);
        if file.tag.len() == 64 {
            Self::Sha256(Sha256::new().chain_update(head))
        } else {
            Self::Sha1(Sha1::new().chain_update(head))
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha1(hash) => hex(&hash.finalize()),
            Self::Sha256(hash) => hex(&hash.finalize()),
        }
    }
}

pub(super) enum ReadError {
    Io(std::io::Error),
    Odd(String),
}

/// A `git cat-file --batch` that was asked for blobs in order.
pub(super) struct Blobs {
    _child: Child,
    feed: tokio::task::JoinHandle<()>,
    output: BufReader<tokio::process::ChildStdout>,
    left_bytes: u64,
    ended: bool,
}

impl Blobs {
    pub(super) fn start(repository: &Path, files: &[Listed]) -> Result<Self, Error> {
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
    pub(super) async fn begin(&mut self, file: &Listed) -> Result<(), ReadError> {
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
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
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
