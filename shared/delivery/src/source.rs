//! Where DAG files come from: a folder, a prefix of an object store, a git repository.
//!
//! The manifest names a source; this module makes of the name what can be listed and fetched. It
//! must not know releases or the DAGs folder.

mod folder;
pub(crate) mod git;
mod objects;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use airfleet_domain::manifest;
use url::Url;

use self::{
    folder::Folder,
    git::{Git, Reference},
    objects::{Objects, Provider},
};
use crate::{
    bundle::{Entry, Limits, Listed, Listing},
    error::{Code, Error},
    incoming::Incoming,
    path::BundlePath,
    run::blocking,
};

/// Buckets whose clients are kept at most.
const CLIENTS_MAX: usize = 256;

/// What can be listed and fetched.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Folder(Folder),
    Objects(Objects),
    Git(Git),
}

/// From where this machine delivers, and how it logs in there.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Folders below which a source may lie; `None` for anywhere.
    pub(crate) folders: Option<Vec<PathBuf>>,
    /// Options of object stores, by `s3`, or `s3://bucket` and the like.
    pub(crate) stores: BTreeMap<String, BTreeMap<String, String>>,
    /// Files that are fetched at once from an object store.
    pub(crate) fetches: usize,
    /// Clients keep connections and credentials.
    clients: Mutex<HashMap<String, Objects>>,
}

impl Sources {
    pub(crate) fn new(
        folders: Option<Vec<PathBuf>>,
        stores: BTreeMap<String, BTreeMap<String, String>>,
        fetches: usize,
    ) -> Self {
        Self { folders, stores, fetches, clients: Mutex::default() }
    }

    /// The source that the manifest names. `dags` is where files are delivered to.
    pub(crate) fn open(&self, source: &manifest::Source, dags: &Path) -> Result<Source, Error> {
        let uri = source.uri.as_str();
        let scheme = uri.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_git = scheme.starts_with("git+");
        if !is_git && !source.reference.is_empty() {
            return Err(invalid(uri, "only git sources have a ref"));
        }
        let inside = source.path.trim_end_matches('/');
        if !inside.is_empty() {
            BundlePath::parse(inside).map_err(|refusal| {
                invalid(uri, &format!("has a path that is refused: {}", refusal.rule))
            })?;
        }
        match scheme {
            "" if uri.starts_with('/') => self.folder(uri, inside, dags).map(Source::Folder),
            "file" => {
                let url = parse(uri)?;
                let path = url.to_file_path().map_err(|()| invalid(uri, "names no folder"))?;
                let path = path.to_str().ok_or_else(|| invalid(uri, "names no folder"))?;
                self.folder(path, inside, dags).map(Source::Folder)
            }
            "s3" => self.objects(Provider::S3, uri, inside),
            "gs" => self.objects(Provider::Google, uri, inside),
            "az" => self.objects(Provider::Azure, uri, inside),
            "git+https" | "git+ssh" | "git+file" => self.git(source, inside),
            "git+http" => Err(invalid(uri, "must be encrypted; use git+https or git+ssh")),
            _ => Err(invalid(
                uri,
                "must be an absolute folder path, or a URL of s3, gs, az, file, git+https, \
                 git+ssh or git+file",
            )),
        }
    }

    /// A folder of this machine, if files of it may be handed out.
    fn allow(&self, uri: &str, path: &Path) -> Result<(), Error> {
        let plain =
            path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if !plain {
            return Err(invalid(uri, "must be absolute, without `..`"));
        }
        let Some(allowed) = &self.folders else { return Ok(()) };
        // Where links lead counts, not what they are called.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let is_below = |root: &PathBuf| {
            real.starts_with(root.canonicalize().as_deref().unwrap_or(root.as_path()))
        };
        if allowed.iter().any(is_below) {
            return Ok(());
        }
        let message = format!(
            "{uri} is not among the folders that this agent delivers from; add one that holds it \
             to delivery.source_folders, or use another source"
        );
        Err(Error::source(Code::SourceNotAllowed, message))
    }

    fn folder(&self, text: &str, inside: &str, dags: &Path) -> Result<Folder, Error> {
        let path = &Path::new(text).join(inside);
        self.allow(text, path)?;
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (from, to) = (real(path), real(dags));
        if from.starts_with(&to) || to.starts_with(&from) {
            return Err(invalid(text, "must not be the DAGs folder, nor lie in it or around it"));
        }
        Ok(Folder::new(path.to_owned()))
    }

    fn objects(&self, provider: Provider, uri: &str, inside: &str) -> Result<Source, Error> {
        let url = parse(uri)?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.port().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let bucket = url.host_str().unwrap_or_default();
        if bucket.is_empty() || !plain {
            return Err(invalid(uri, "must be scheme://bucket/prefix and nothing more"));
        }
        let (place, prefix) = uri
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map_or((uri, ""), |(_, prefix)| (&uri[..uri.len() - prefix.len() - 1], prefix));
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            BundlePath::parse(prefix).map_err(|refusal| invalid(uri, &refusal.rule))?;
        }
        let prefix = [prefix, inside].join("/");
        let prefix = prefix.trim_matches('/');
        let shown = format!("{place}/{prefix}");
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&shown) {
            return Ok(Source::Objects(client.clone()));
        }
        let scheme = url.scheme();
        let mut options = self.stores.get(scheme).cloned().unwrap_or_default();
        options.extend(self.stores.get(place).cloned().unwrap_or_default());
        let client = Objects::new(provider, &shown, bucket, prefix, &options, self.fetches)?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(shown, client.clone());
        Ok(Source::Objects(client))
    }

    fn git(&self, source: &manifest::Source, inside: &str) -> Result<Source, Error> {
        let uri = source.uri.as_str();
        let address = uri.strip_prefix("git+").unwrap_or(uri);
        let url = parse(address)?;
        if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(uri, "must hold no password, query or fragment"));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| invalid(uri, "names no folder"))?;
            self.allow(uri, &path)?;
        } else if url.host_str().is_none_or(|host| host.starts_with('-')) {
            return Err(invalid(uri, "names no host"));
        }
        if url.username().starts_with('-') {
            return Err(invalid(uri, "names no user"));
        }
        let reference = Reference::parse(&source.reference)
            .ok_or_else(|| invalid(uri, "has a ref that is no branch, tag or commit"))?;
        Ok(Source::Git(Git::new(address, reference, inside)))
    }
}

impl Source {
    /// Everything that a folder or an object store holds.
    pub(crate) async fn list(&self, limits: &Limits) -> Result<Listing, Error> {
        match self {
            Self::Folder(folder) => {
                let (root, limits) = (folder.root(), *limits);
                blocking(move || folder::list(&root, &limits)).await
            }
            Self::Objects(objects) => objects.list(limits).await,
            Self::Git(_) => unreachable!("a repository is listed at a commit"),
        }
    }

    /// Reads `files` into `incoming`.
    pub(crate) async fn fetch(
        &self,
        files: Vec<Listed>,
        repository: &Path,
        incoming: &Arc<Incoming>,
    ) -> Result<Vec<Entry>, Error> {
        match self {
            Self::Folder(folder) => {
                let (root, incoming) = (folder.root(), incoming.clone());
                blocking(move || folder::fetch(&root, &files, &incoming)).await
            }
            Self::Objects(objects) => objects.fetch(files, incoming).await,
            Self::Git(git) => git.fetch(&files, repository, incoming).await,
        }
    }
}

fn parse(uri: &str) -> Result<Url, Error> {
    Url::parse(uri).map_err(|_| invalid(uri, "is no URL"))
}

fn invalid(uri: &str, rule: &str) -> Error {
    // It may hold a password by mistake; what stands before the host is not repeated.
    let shown = match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => uri.to_owned(),
    };
    let shown: String = shown.chars().take(200).flat_map(char::escape_debug).collect();
    Error::source(Code::SourceInvalid, format!("the source {shown:?} {rule}"))
}

#[cfg(test)]
mod tests;
