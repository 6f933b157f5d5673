//! Finds installed programs and keeps what is costly to make.
//!
//! Knows search paths and the cache folder; must not know what is cached.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sandbox::make_folder;
use crate::wait;

/// Where Debian puts servers that are not in an ordinary user's `PATH`.
const SERVER_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The full path of `program`, which Debian's `package` brings.
pub(crate) fn find(program: &str, package: &'static str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SERVER_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::MissingProgram { program: program.to_owned(), package })
}

/// The folder for what may be removed at any time and is made again:
/// `$AIRFLEET_CACHE`, else `airfleet` in `$XDG_CACHE_HOME` or `~/.cache`.
pub fn cache_folder() -> Result<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("AIRFLEET_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("airfleet")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/airfleet")))
        .ok_or_else(|| {
            Error::Invalid("neither AIRFLEET_CACHE nor HOME is set: set one of them".to_owned())
        })?;
    make_folder(&cache)?;
    std::path::absolute(&cache).map_err(Error::file("resolve", &cache))
}

/// Waits until this process alone holds the lock `name` in the cache folder;
/// dropping the file releases it.
pub(crate) async fn lock_cache(cache: &Path, name: &str, limit: Duration) -> Result<File> {
    let path = cache.join(format!("{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file("open", &path))?;
    let outcome = wait::until(limit, Duration::from_millis(50), || {
        let outcome = match file.try_lock() {
            Ok(()) => Some(Ok(())),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => Some(Err(error)),
        };
        async move { outcome }
    })
    .await;
    match outcome {
        Some(Ok(())) => Ok(file),
        Some(Err(error)) => Err(Error::file("lock", &path)(error)),
        None => Err(Error::Timeout {
            name: format!("the lock {}", path.display()),
            state: "free",
            waited: limit,
            detail: String::new(),
        }),
    }
}

/// Writes `text` to `path`, readable by the owner alone.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::file("write", path))
}

/// The text of `path`; written with what `make` answers if there is none yet.
/// Callers at the same time get the same text.
pub(crate) fn read_or_make_secret(path: &Path, make: impl FnOnce() -> String) -> Result<String> {
    if !path.exists() {
        let draft = path.with_added_extension(random_word());
        write_secret(&draft, &make())?;
        // Unlike a rename, a link does not replace what another just made.
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft).map_err(Error::file("remove", &draft))?;
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::file("write", path)(error));
            }
            _ => {}
        }
    }
    fs::read_to_string(path).map_err(Error::file("read", path))
}

/// A random word of 128 bits.
pub(crate) fn random_word() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_made_once_and_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let sandbox = crate::Sandbox::create("secret").await.unwrap();
        let path = sandbox.folder().join("secret");
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| read_or_make_secret(&path, random_word).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]), "{secrets:?}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_lock_is_had_by_one_at_a_time() {
        let sandbox = crate::Sandbox::create("lock").await.unwrap();
        let limit = Duration::from_millis(100);
        let held = lock_cache(sandbox.folder(), "thing", limit).await.unwrap();
        let error = lock_cache(sandbox.folder(), "thing", limit).await.unwrap_err();
        assert!(error.to_string().contains("was not free within 100ms"), "{error}");
        drop(held);
        lock_cache(sandbox.folder(), "thing", limit).await.unwrap();
    }
}
