//! The file of rules that the shard's Airflow reads: which namespaces there are and what their DAGs
//! keep to. Its form is that of `deploy/airflow/guardrails.schema.json`.
//!
//! Invariant: the file is whole or the one before it, and says of a namespace what its worker last
//! wrote; entries of others are kept as they are.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use airfleet_delivery::HOME;
use airfleet_domain::{manifest::Guardrails, roles::Presence};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::link::Order;

/// Which form the file has.
const VERSION: u32 = 1;

/// What the file says of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    prefixes: Vec<String>,
    #[serde(default)]
    owners: Vec<String>,
    #[serde(default)]
    rules: Guardrails,
}

impl Entry {
    pub(super) fn of(order: &Order) -> Self {
        Self {
            prefixes: order.prefixes.clone(),
            owners: order.workload.owners.clone(),
            rules: order.workload.guardrails.clone(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    version: u32,
    #[serde(default)]
    shard: String,
    #[serde(default)]
    manifest_revision: i64,
    #[serde(default)]
    written_at: String,
    #[serde(default)]
    namespaces: BTreeMap<String, Entry>,
}

/// The file of one DAGs folder.
#[derive(Debug)]
pub(super) struct RulesFile {
    path: PathBuf,
    shard: String,
    /// Held while the file is changed.
    writing: Mutex<()>,
}

impl RulesFile {
    pub(super) fn new(dags: &Path, shard: &str) -> Self {
        let path = dags.join(HOME).join("guardrails.json");
        Self { path, shard: shard.to_owned(), writing: Mutex::new(()) }
    }

    /// How much of `wanted` it says.
    pub(super) async fn presence(
        &self,
        namespace: &str,
        wanted: Option<&Entry>,
    ) -> io::Result<Presence> {
        let contents = self.read().await?;
        Ok(match (contents.namespaces.get(namespace), wanted) {
            (None, _) => Presence::Nothing,
            (Some(entry), Some(wanted)) if entry == wanted && contents.shard == self.shard => {
                Presence::Right
            }
            (Some(_), _) => Presence::Different,
        })
    }

    /// Makes it say this of a namespace, or nothing.
    pub(super) async fn set(
        &self,
        namespace: &str,
        entry: Option<Entry>,
        manifest_revision: i64,
    ) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let mut contents = self.read().await?;
        let before = contents.namespaces.get(namespace).cloned();
        if before == entry && contents.shard == self.shard {
            return Ok(());
        }
        match entry {
            Some(entry) => contents.namespaces.insert(namespace.to_owned(), entry),
            None => contents.namespaces.remove(namespace),
        };
        contents.version = VERSION;
        contents.shard.clone_from(&self.shard);
        contents.manifest_revision = contents.manifest_revision.max(manifest_revision);
        contents.written_at = Timestamp::now().to_string();
        let path = self.path.clone();
        blocking(move || write(&path, &contents)).await
    }

    /// What is damaged, or of another form, counts as empty: it is written anew, and Airflow goes on
    /// with the last good one meanwhile.
    async fn read(&self) -> io::Result<Contents> {
        let path = self.path.clone();
        blocking(move || match std::fs::read(&path) {
            Ok(text) => {
                let contents = serde_json::from_slice(&text).ok();
                Ok(contents.filter(|read: &Contents| read.version == VERSION).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contents::default()),
            Err(error) => Err(told(&path, &error)),
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let replace = || {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("json.new");
        let mut file = std::fs::File::create(&beside)?;
        io::Write::write_all(&mut file, &serde_json::to_vec_pretty(contents)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    replace().map_err(|error: io::Error| told(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str) -> Entry {
        Entry { prefixes: vec![prefix.to_owned()], ..Entry::default() }
    }

    #[tokio::test]
    async fn it_says_what_it_was_told_and_keeps_the_rest() {
        let dags = tempfile::tempdir().unwrap();
        let file = RulesFile::new(dags.path(), "shard-a");
        let (pay, ads) = (entry("pay__"), entry("ads__"));
        assert_eq!(file.presence("pay", Some(&pay)).await.unwrap(), Presence::Nothing);
        file.set("pay", Some(pay.clone()), 4).await.unwrap();
        file.set("ads", Some(ads.clone()), 3).await.unwrap();
        assert_eq!(file.presence("pay", Some(&pay)).await.unwrap(), Presence::Right);
        assert_eq!(file.presence("pay", Some(&ads)).await.unwrap(), Presence::Different);
        assert_eq!(file.presence("pay", None).await.unwrap(), Presence::Different);
        file.set("pay", None, 5).await.unwrap();
        assert_eq!(file.presence("pay", None).await.unwrap(), Presence::Nothing);
        assert_eq!(file.presence("ads", Some(&ads)).await.unwrap(), Presence::Right);

        // Somebody damages it: everything is written anew.
        std::fs::write(dags.path().join(HOME).join("guardrails.json"), "{").unwrap();
        assert_eq!(file.presence("ads", Some(&ads)).await.unwrap(), Presence::Nothing);
        file.set("ads", Some(ads.clone()), 6).await.unwrap();
        assert_eq!(file.presence("ads", Some(&ads)).await.unwrap(), Presence::Right);
    }

    #[tokio::test]
    async fn a_file_of_the_documented_form_is_understood() {
        let dags = tempfile::tempdir().unwrap();
        let home = dags.path().join(HOME);
        std::fs::create_dir_all(&home).unwrap();
        let example = include_str!("../../../../deploy/airflow/tests/guardrails.example.json");
        std::fs::write(home.join("guardrails.json"), example).unwrap();
        let file = RulesFile::new(dags.path(), "shard-a");
        let contents = file.read().await.unwrap();
        assert_eq!(contents.namespaces["payments"].prefixes, ["payments__", "payments."]);
        // What is written again says the same.
        file.set("pay", Some(entry("pay__")), 1).await.unwrap();
        let text = std::fs::read(home.join("guardrails.json")).unwrap();
        let again: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(again["manifestRevision"], 12);
        assert_eq!(again["namespaces"]["payments"]["rules"]["modes"]["AF107"], "warn");
        assert_eq!(
            again["namespaces"]["payments"]["rules"]["executionTimeout"]["maxSeconds"],
            21600
        );
    }
}
