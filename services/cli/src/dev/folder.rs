//! The folder of a development fleet: who holds it, and where things are in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plane::Addresses;
use crate::{
    config::{Config, FOLDER_FILE},
    error::{Error, Result},
    human,
};

const LOCK_FILE: &str = "dev.lock";
const CONFIG_FILE: &str = "config.toml";
/// The first line of the settings file that is written here; another file is left alone.
const MARK: &str = "# Written by `airfleet dev`, which removes it when it ends.";

/// A folder that this process holds; nobody else can until it ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The lock is on the open file, and gone with the process, however that ends.
    lock: std::sync::Mutex<File>,
}

/// Who holds a folder, for those who wanted it too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pid: u32,
    since: Timestamp,
    registry: String,
    router: String,
}

impl Held {
    /// This process, from now on.
    pub(super) fn now(plane: &Addresses) -> Self {
        Self {
            pid: std::process::id(),
            since: Timestamp::now(),
            registry: plane.registry_url(),
            router: plane.router_url(),
        }
    }
}

impl Folder {
    /// Takes the folder, which is made where it does not exist. Refused, with who has it, where
    /// another process does.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let shown = path.display();
        let failed = |what: &str| {
            let what = format!("cannot {what} {shown}");
            move |error: std::io::Error| Error::caused(what, &error)
        };
        fs::create_dir_all(path).map_err(failed("make the folder"))?;
        let path = fs::canonicalize(path).map_err(failed("find the folder"))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(failed("open the lock in"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(&path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        for part in ["agents", "logs", "shards"] {
            fs::create_dir_all(path.join(part)).map_err(failed("make folders in"))?;
        }
        Ok(Self { path, lock: std::sync::Mutex::new(lock) })
    }

    /// Writes down who holds it.
    pub(super) fn hold(&self, held: &Held) -> Result<()> {
        let text = serde_json::to_string(held)
            .map_err(|error| Error::caused("cannot write the lock", &error))?;
        let mut file = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| Error::caused("cannot write the lock", &error))
    }

    /// The folder, as an absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A database of a service.
    pub(super) fn database(&self, service: &str) -> PathBuf {
        self.path.join(format!("{service}.db"))
    }

    /// The router's snapshot.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.path.join("router.snapshot")
    }

    /// What an agent remembers.
    pub(super) fn agent(&self, shard: &str) -> PathBuf {
        self.path.join("agents").join(shard)
    }

    /// An Airflow shard.
    pub(super) fn shard(&self, shard: &str) -> PathBuf {
        self.path.join("shards").join(shard)
    }

    /// What the services log.
    pub(super) fn log_file(&self) -> PathBuf {
        self.path.join("logs").join("dev.log")
    }

    /// The settings file by which other commands find the fleet.
    pub(super) fn config_file(&self) -> PathBuf {
        self.path.join(CONFIG_FILE)
    }

    /// Whether commands that are run here find the settings file by themselves.
    pub(super) fn is_found_from_here(&self) -> bool {
        fs::canonicalize(FOLDER_FILE).is_ok_and(|found| found == self.config_file())
    }

    /// Removes what earlier runs left; what is not theirs stays. Ends processes of shards that a
    /// killed run left, should its guardian not have come to it.
    pub(super) async fn clean(&self) -> Result<()> {
        let shards = self.path.join("shards");
        let names = fs::read_dir(&shards)
            .map_err(|error| Error::caused(format!("cannot read {}", shards.display()), &error))?;
        for shard in names.flatten() {
            let sandbox =
                airfleet_local::Sandbox::create_at(shard.path(), airfleet_local::Keep::Nothing)
                    .await
                    .map_err(|error| Error::caused("cannot clear an earlier shard", &error))?;
            sandbox.close().await;
        }
        let mut leftovers = vec![self.snapshot(), self.path.join("agents")];
        for database in [self.database("registry"), self.database("router")] {
            for suffix in ["", "-wal", "-shm"] {
                let mut name = database.clone().into_os_string();
                name.push(suffix);
                leftovers.push(name.into());
            }
        }
        for path in leftovers {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::caused(format!("cannot remove {}", path.display()), &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the settings file, unless somebody else's is there.
    pub(super) fn publish(&self, config: &Config) -> Result<()> {
        let file = self.config_file();
        if fs::read_to_string(&file).is_ok_and(|text| !text.starts_with(MARK)) {
            return Ok(());
        }
        let text = format!(
            "{MARK}\n[registry]\nendpoints = {:?}\n\n[router]\nendpoints = {:?}\n",
            config.registry.endpoints, config.router.endpoints
        );
        write_whole(&file, &text)
    }

    /// Takes back what others were told. What cannot be removed is overwritten by the next run.
    pub(super) fn withdraw(&self, ready_file: Option<&Path>) {
        let file = self.config_file();
        if fs::read_to_string(&file).is_ok_and(|text| text.starts_with(MARK)) {
            let _ = fs::remove_file(file);
        }
        if let Some(file) = ready_file {
            let _ = fs::remove_file(file);
        }
    }
}

/// Writes a file so that readers see all of it or nothing, and that only its owner can read: some
/// hold passwords.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|error| Error::caused(format!("cannot write {}", path.display()), &error))
}

fn taken(path: &Path, lock: &mut File) -> Error {
    let mut text = String::new();
    let held: Option<Held> =
        lock.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    let shown = path.display();
    match held {
        Some(Held { pid, since, registry, router }) => {
            let age = human::age(since, Timestamp::now());
            Error::new(format!(
                "{shown} is held by another `airfleet dev` (process {pid}, since {age})"
            ))
            .detail(format!("registry {registry}, router {router}"))
            .hint(format!(
                "use that one, stop it with `kill {pid}`, or choose another folder with --dir"
            ))
        }
        None => Error::new(format!("{shown} is held by another `airfleet dev` that is starting"))
            .hint("choose another folder with --dir"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Paint;

    #[test]
    fn a_folder_has_one_holder_who_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/fleet");
        let folder = Folder::take(&path).unwrap();
        let starting = Folder::take(&path).unwrap_err().render(Paint::PLAIN);
        assert!(starting.contains("is starting"), "{starting}");
        folder
            .hold(&Held {
                pid: 4711,
                since: Timestamp::now(),
                registry: "http://r".into(),
                router: "http://s".into(),
            })
            .unwrap();
        let taken = Folder::take(&path).unwrap_err().render(Paint::PLAIN);
        assert!(taken.contains("process 4711, since 0s"), "{taken}");
        assert!(taken.contains("kill 4711"), "{taken}");
        drop(folder);
        assert!(Folder::take(&path).is_ok());
    }

    #[test]
    fn the_settings_file_comes_and_goes_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        let config = Config::plain("http://127.0.0.1:1", "http://127.0.0.1:2");
        folder.publish(&config).unwrap();
        let loaded: airfleet_runtime::config::Loaded<Config> =
            airfleet_runtime::config::Loader::without_env()
                .file(folder.config_file())
                .load()
                .unwrap();
        assert_eq!(loaded.value, config);
        folder.withdraw(None);
        assert!(!folder.config_file().exists());

        fs::write(folder.config_file(), "# mine\n").unwrap();
        folder.publish(&config).unwrap();
        folder.withdraw(None);
        assert_eq!(fs::read_to_string(folder.config_file()).unwrap(), "# mine\n");
    }

    #[tokio::test]
    async fn cleaning_removes_state_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        let wal = root.path().join("registry.db-wal");
        for path in [folder.database("registry"), wal.clone(), folder.snapshot()] {
            fs::write(path, "x").unwrap();
        }
        fs::write(root.path().join("notes.txt"), "x").unwrap();
        folder.clean().await.unwrap();
        assert!(!folder.database("registry").exists());
        assert!(!wal.exists());
        assert!(!folder.snapshot().exists());
        assert!(root.path().join("notes.txt").exists());
    }
}
