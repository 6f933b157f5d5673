//! A DAGs folder, a source folder, and looks into both.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use airfleet_delivery::{Error, Limits, Roller, Settings, Synced};
use airfleet_domain::{ids::NamespaceName, manifest::Source};

/// What a folder holds: path to content.
pub(crate) type Files = BTreeMap<String, String>;

pub(crate) struct Rig {
    pub(crate) root: tempfile::TempDir,
    pub(crate) roller: Roller,
    pub(crate) namespace: NamespaceName,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["dags", "source"] {
            fs::create_dir(root.path().join(folder)).expect("is made");
        }
        let mut settings = settings();
        change(&mut settings);
        let roller = Roller::new(root.path().join("dags"), settings);
        Self { root, roller, namespace: "payments".parse().expect("is a name") }
    }

    pub(crate) fn dags(&self) -> PathBuf {
        self.root.path().join("dags")
    }

    pub(crate) fn source_folder(&self) -> PathBuf {
        self.root.path().join("source")
    }

    /// The folder as a source.
    pub(crate) fn source(&self) -> Source {
        Source { uri: self.source_folder().display().to_string(), ..Source::default() }
    }

    pub(crate) async fn sync(&self) -> Result<Synced, Error> {
        self.roller.sync(&self.namespace, &self.source()).await
    }

    pub(crate) fn put(&self, path: &str, content: &str) {
        let path = self.source_folder().join(path);
        fs::create_dir_all(path.parent().expect("is below a folder")).expect("is made");
        // Another inode: what a change in place would keep is never relied upon.
        let _ = fs::remove_file(&path);
        fs::write(path, content).expect("is written");
    }

    pub(crate) fn take(&self, path: &str) {
        fs::remove_file(self.source_folder().join(path)).expect("was there");
    }

    /// What Airflow sees of the namespace.
    pub(crate) fn seen(&self) -> Files {
        files(&self.dags().join("payments"))
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        source_folders: None,
        limits: Limits { free_bytes: 0, ..Limits::default() },
        ..Settings::default()
    }
}

/// Everything in a folder; nothing where there is none.
pub(crate) fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries {
            let path = entry.expect("can be read").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("is below").display().to_string();
                found.insert(name, fs::read_to_string(&path).expect("is text"));
            }
        }
    }
    found
}
