//! A prefix of an object store as a source: S3 and what speaks like it, Google Cloud Storage, Azure
//! Blob Storage.
//!
//! Credentials come from the agent's environment or settings, as the providers' own tools take
//! them, never from the manifest.
//!
//! Content is checked where the store says what it is: the etag of an object in S3 is the MD5 of its
//! content, unless it was uploaded in parts or is encrypted by a key service. Which of these holds
//! cannot be told beforehand; so content that does not match is read again. What differs then was
//! damaged on the way; what does not is what the store holds, and its etags are no checksums.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};
use object_store::{
    ClientConfigKey, GetOptions, ObjectMeta, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path as Key,
};

use crate::{
    bundle::{Entry, Limits, Listed, Listing, Tally},
    error::{Code, Error, Refusal},
    incoming::{Incoming, Sink},
    path::BundlePath,
    run::blocking,
};

const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);
/// What is gathered before it is written.
const PIECE_BYTES: usize = 256 << 10;

/// Which provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Google,
    Azure,
}

/// A prefix in a bucket or container.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// As the manifest names it, for messages.
    shown: Arc<str>,
    prefix: Key,
    fetches: usize,
    /// Whether etags may be taken for MD5 sums.
    etags_are_sums: Arc<AtomicBool>,
}

impl Objects {
    pub(super) fn new(
        provider: Provider,
        shown: &str,
        bucket: &str,
        prefix: &str,
        options: &BTreeMap<String, String>,
        fetches: usize,
    ) -> Result<Self, Error> {
        let invalid = |error: object_store::Error| {
            let message = format!(
                "the settings for {shown} cannot be used; see the agent's environment and \
                 delivery.stores"
            );
            Error::source_because(Code::SourceInvalid, message, error)
        };
        let prefix = Key::parse(prefix).map_err(|error| invalid(error.into()))?;
        let store = build(provider, bucket, options).map_err(invalid)?;
        let etags_are_sums = Arc::new(AtomicBool::new(provider == Provider::S3));
        Ok(Self { store, shown: shown.into(), prefix, fetches, etags_are_sums })
    }

    /// Everything under the prefix.
    pub(super) async fn list(&self, limits: &Limits) -> Result<Listing, Error> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let mut objects = self.store.list(prefix);
        let mut tally = Tally::new(limits);
        let mut files = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| self.failed("list", error))?;
            // A folder's marker may be the prefix itself.
            let Some(below) = self.below(&object.location) else { continue };
            let path = BundlePath::parse(below)?;
            if !path.is_left_out() {
                tally.add(&path, object.size)?;
                files.push(listed(path, &object));
            }
        }
        Ok(Listing::new(files, limits)?)
    }

    fn below<'a>(&self, key: &'a Key) -> Option<&'a str> {
        let (key, prefix) = (key.as_ref(), self.prefix.as_ref());
        let below =
            if prefix.is_empty() { key } else { key.strip_prefix(prefix)?.strip_prefix('/')? };
        (!below.is_empty()).then_some(below)
    }

    /// Reads `files` into `incoming`, several at once.
    pub(super) async fn fetch(
        &self,
        files: Vec<Listed>,
        incoming: &Arc<Incoming>,
    ) -> Result<Vec<Entry>, Error> {
        stream::iter(files)
            .map(|file| async move { self.fetch_one(&file, incoming).await })
            .buffer_unordered(self.fetches)
            .try_collect()
            .await
    }

    async fn fetch_one(&self, file: &Listed, incoming: &Arc<Incoming>) -> Result<Entry, Error> {
        let sum = sum_of(&file.tag).filter(|_| self.etags_are_sums.load(Ordering::Relaxed));
        let (sink, found) = self.read(file, incoming, sum.is_some()).await?;
        if found == sum {
            return finish(file, incoming, sink).await;
        }
        // Not finished yet: what is in the journal is taken for whole by the next attempt.
        let (second, again) = self.read(file, incoming, true).await?;
        if again == sum {
            tracing::warn!(source = %self.shown, path = %file.path, "content was damaged on its way; read again");
            return finish(file, incoming, second).await;
        }
        if second.hash() != sink.hash() {
            let message = format!(
                "{} from {} was read twice and differs each time; look for what stands between",
                file.path, self.shown
            );
            return Err(Error::source(Code::SourceCorrupt, message));
        }
        // The same twice, and not the etag: etags of this bucket are something else.
        self.etags_are_sums.store(false, Ordering::Relaxed);
        finish(file, incoming, second).await
    }

    async fn read(
        &self,
        file: &Listed,
        incoming: &Arc<Incoming>,
        with_sum: bool,
    ) -> Result<(Sink, Option<[u8; 16]>), Error> {
        let key = if self.prefix.as_ref().is_empty() {
            Key::parse(file.path.as_str())
        } else {
            Key::parse(format!("{}/{}", self.prefix, file.path))
        };
        let key = key.map_err(|error| self.failed("read", error.into()))?;
        let etag = tag_etag(&file.tag).map(str::to_owned);
        let options = GetOptions { if_match: etag, ..GetOptions::default() };
        let answer = self.store.get_opts(&key, options).await;
        let answer = answer.map_err(|error| self.failed_for(file, error))?;
        if answer.meta.size != file.size_bytes {
            return Err(self.changed(file));
        }
        let mut pieces = answer.into_stream();
        let mut sink: Option<Sink> = None;
        let mut sum = with_sum.then(Md5::new);
        loop {
            let mut gathered: Vec<Bytes> = Vec::new();
            let mut bytes = 0;
            while bytes < PIECE_BYTES {
                match pieces.try_next().await.map_err(|error| self.failed_for(file, error))? {
                    Some(piece) => {
                        bytes += piece.len();
                        gathered.push(piece);
                    }
                    None => break,
                }
            }
            if let Some(sink) = sink.take_if(|_| gathered.is_empty()) {
                return Ok((sink, sum.map(|sum| sum.finalize().into())));
            }
            // Begun with its first piece: most files have one, and changing threads costs.
            let (owned, incoming) = (file.clone(), incoming.clone());
            (sink, sum) = blocking(move || {
                let mut sink = match sink {
                    Some(sink) => sink,
                    None => incoming.begin(&owned)?,
                };
                for piece in &gathered {
                    sink.write(piece, &owned)?;
                    if let Some(sum) = &mut sum {
                        sum.update(piece);
                    }
                }
                Ok((Some(sink), sum))
            })
            .await?;
        }
    }

    fn changed(&self, file: &Listed) -> Error {
        let message = format!("{} changed in {} while it was read", file.path, self.shown);
        Error::source(Code::SourceChanging, message)
    }

    fn failed_for(&self, file: &Listed, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => {
                self.changed(file)
            }
            error => self.failed("read", error),
        }
    }

    fn failed(&self, action: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;

        let shown = &self.shown;
        let (code, hint) = match &error {
            E::InvalidPath { source } => {
                let path = source.to_string();
                let rule = "a key of the store cannot be a path here; rename the object";
                return Refusal::new(Code::PathUnsafe, &path, rule).into();
            }
            E::NotFound { .. } => (Code::SourceNotFound, "check the bucket's name and region"),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                (Code::SourceDenied, "let the agent's identity list and read it")
            }
            _ => (Code::SourceUnreachable, "check the network and the endpoint"),
        };
        Error::source_because(code, format!("cannot {action} {shown}; {hint}"), error)
    }
}

async fn finish(file: &Listed, incoming: &Arc<Incoming>, sink: Sink) -> Result<Entry, Error> {
    let (incoming, file) = (incoming.clone(), file.clone());
    blocking(move || incoming.finish(&file, sink)).await
}

fn listed(path: BundlePath, object: &ObjectMeta) -> Listed {
    // Told apart, so that one never passes for the other.
    let tag = match &object.e_tag {
        Some(etag) => format!("e{etag}"),
        None => format!("t{}", object.last_modified.timestamp_nanos_opt().unwrap_or_default()),
    };
    Listed { path, size_bytes: object.size, tag: tag.into(), executable: false }
}

fn tag_etag(tag: &str) -> Option<&str> {
    tag.strip_prefix('e')
}

/// The MD5 sum that an etag may be.
fn sum_of(tag: &str) -> Option<[u8; 16]> {
    let digits = tag_etag(tag)?.trim_matches('"').as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut sum = [0; 16];
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(sum)
}

fn build(
    provider: Provider,
    bucket: &str,
    options: &BTreeMap<String, String>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    // The environment first, as the providers' own tools read it; then bounds; then the settings.
    macro_rules! store {
        ($builder:ident, $key:ident, $bucket:ident) => {{
            let mut builder = $builder::from_env();
            for (key, value) in bounds() {
                builder = builder.with_config($key::Client(key), value);
            }
            for (name, value) in options {
                builder = builder.with_config(name.to_ascii_lowercase().parse()?, value);
            }
            Arc::new(builder.with_retry(retry).$bucket(bucket).build()?)
        }};
    }
    Ok(match provider {
        Provider::S3 => store!(AmazonS3Builder, AmazonS3ConfigKey, with_bucket_name),
        Provider::Google => store!(GoogleCloudStorageBuilder, GoogleConfigKey, with_bucket_name),
        Provider::Azure => store!(MicrosoftAzureBuilder, AzureConfigKey, with_container_name),
    })
}

/// How long a store may take: to connect, without a byte, and for a whole file.
fn bounds() -> [(ClientConfigKey, &'static str); 3] {
    [
        (ClientConfigKey::ConnectTimeout, "10s"),
        (ClientConfigKey::ReadTimeout, "30s"),
        (ClientConfigKey::Timeout, "300s"),
    ]
}
