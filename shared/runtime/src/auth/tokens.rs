//! Bearer tokens from a file.
//!
//! The file holds hashes, so that reading it gives nobody a token. It is TOML:
//!
//! ```toml
//! [[token]]
//! name = "payments-ci"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! role = "tenant"                      # viewer, tenant, operator, admin or agent
//! namespaces = ["payments", "ml-*"]    # of a tenant
//! expires = "2027-01-01T00:00:00Z"     # optional
//!
//! [[token]]
//! name = "join-eu-1"
//! sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
//! role = "agent"
//! shard = "eu-1"                       # of an agent; eu-* for several
//! ```
//!
//! `sha256` is what `printf %s "$TOKEN" | sha256sum` prints. Tokens must be random: the hash is
//! fast, and protects only what cannot be guessed.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{NamePattern, Principal, Role};
use crate::{
    lifecycle::Shutdown,
    status::{Failure, chain, reason},
};

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Most tokens in a file. A request compares its token with each of them.
const TOKENS_MAX: usize = 4096;

/// Longest token that is looked at, in bytes.
const TOKEN_MAX_BYTES: usize = 4096;

/// Why a token file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It could not be read.
    #[error("cannot read the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the token file {} is wrong: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

/// The tokens that are valid now. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    table: ArcSwap<Table>,
    seen: Mutex<Option<Stamp>>,
}

/// What a file looked like when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { modified: metadata.modified().ok(), bytes: metadata.len() })
    }
}

/// One state of the file.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<([u8; 32], Arc<Principal>)>,
}

impl Tokens {
    /// Reads the file.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        let path = path.into();
        let (table, stamp) = read(&path)?;
        Ok(Self(Arc::new(Inner {
            path,
            table: ArcSwap::from_pointee(table),
            seen: Mutex::new(stamp),
        })))
    }

    /// Who sent `token`. Compares it with every known token in constant time.
    pub fn principal(&self, token: &[u8], now: Timestamp) -> Result<Arc<Principal>, Failure> {
        self.0.table.load().find(token, now)
    }

    /// The state of the file that counts now, for callers that remember an answer: it is valid as
    /// long as this stays the same.
    pub(crate) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.0.table.load()
    }

    /// Reads the file again if it changed. A file that cannot be used is left aside and the tokens
    /// stay as they were.
    pub fn reload_if_changed(&self) -> Result<bool, TokensError> {
        let stamp = Stamp::of(&self.0.path)
            .map_err(|source| TokensError::Read { path: self.0.path.clone(), source })?;
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == Some(stamp) {
                return Ok(false);
            }
            // Also where it is wrong: it is reported once for each change.
            *seen = Some(stamp);
        }
        let (table, _) = read(&self.0.path)?;
        self.0.table.store(Arc::new(table));
        Ok(true)
    }

    /// Looks at the file every two seconds until shutdown.
    pub async fn watch(self, shutdown: Shutdown) {
        let mut missing = false;
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match self.reload_if_changed() {
                Ok(true) => {
                    missing = false;
                    let count = self.0.table.load().entries.len();
                    tracing::info!(path = %self.0.path.display(), tokens = count, "tokens read");
                }
                Ok(false) => missing = false,
                Err(error) => {
                    let again = missing && matches!(error, TokensError::Read { .. });
                    missing = matches!(error, TokensError::Read { .. });
                    if !again {
                        let error = chain(&error);
                        tracing::error!(error, "tokens not read; those known before stay valid");
                    }
                }
            }
        }
    }
}

impl Table {
    /// Who sent `token`.
    pub(crate) fn find(&self, token: &[u8], now: Timestamp) -> Result<Arc<Principal>, Failure> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(unknown());
        }
        let hash = <[u8; 32]>::from(Sha256::digest(token));
        // No early exit: how long it takes must not tell which entry is near.
        let mut found = u32::MAX;
        for (index, (known, _)) in self.entries.iter().enumerate() {
            let same: Choice = known.ct_eq(&hash);
            found = u32::conditional_select(&found, &(index as u32), same);
        }
        let (_, principal) = self.entries.get(found as usize).ok_or_else(unknown)?;
        if principal.is_expired(now) {
            return Err(expired(principal));
        }
        Ok(Arc::clone(principal))
    }
}

fn unknown() -> Failure {
    Failure::unauthenticated(
        reason::TOKEN_INVALID,
        "the bearer token is not known; check that it was copied whole and not revoked",
    )
}

/// Refuses a principal whose credential ended.
pub(crate) fn expired(principal: &Principal) -> Failure {
    Failure::unauthenticated(
        reason::TOKEN_EXPIRED,
        match principal.expires_at {
            Some(end) => format!("the credential of {} ended at {end}", principal.subject),
            None => format!("the credential of {} ended", principal.subject),
        },
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    role: Role,
    #[serde(default)]
    namespaces: Vec<String>,
    shard: Option<String>,
    expires: Option<Timestamp>,
}

fn read(path: &Path) -> Result<(Table, Option<Stamp>), TokensError> {
    // Before the content, so that a change in between is seen at the next look.
    let stamp = Stamp::of(path).ok();
    let text = std::fs::read_to_string(path)
        .map_err(|source| TokensError::Read { path: path.to_owned(), source })?;
    let table =
        parse(&text).map_err(|message| TokensError::Invalid { path: path.to_owned(), message })?;
    Ok((table, stamp))
}

fn parse(text: &str) -> Result<Table, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
    if file.token.len() > TOKENS_MAX {
        return Err(format!("it holds {} tokens, at most {TOKENS_MAX}", file.token.len()));
    }
    let mut names = HashSet::new();
    let mut hashes = HashSet::new();
    let mut entries = Vec::with_capacity(file.token.len());
    for entry in file.token {
        let name = entry.name.clone();
        let wrong = |problem: String| format!("token {name:?}: {problem}");
        if entry.name.is_empty() || !names.insert(entry.name.clone()) {
            return Err(wrong("the name is empty or used twice".to_owned()));
        }
        let hash = decode_hash(&entry.sha256)
            .ok_or_else(|| wrong("sha256 must be 64 hexadecimal digits".to_owned()))?;
        if !hashes.insert(hash) {
            return Err(wrong("another entry has the same sha256".to_owned()));
        }
        entries.push((hash, Arc::new(principal(entry).map_err(wrong)?)));
    }
    Ok(Table { entries })
}

fn principal(entry: Entry) -> Result<Principal, String> {
    let pattern = |text: String| NamePattern::new(text).map_err(|error| error.to_string());
    if (entry.role == Role::Tenant) == entry.namespaces.is_empty() {
        return Err("a tenant has namespaces, and nobody else has".to_owned());
    }
    if (entry.role == Role::Agent) != entry.shard.is_some() {
        return Err("an agent has a shard, and nobody else has".to_owned());
    }
    Ok(Principal {
        subject: format!("token:{}", entry.name),
        role: entry.role,
        namespaces: entry.namespaces.into_iter().map(pattern).collect::<Result<_, _>>()?,
        shard: entry.shard.map(pattern).transpose()?,
        expires_at: entry.expires,
    })
}

fn decode_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(hash)
}
