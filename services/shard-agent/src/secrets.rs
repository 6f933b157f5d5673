//! Values of variables and connections that the agent keeps: files of its own, and the key under
//! which Airflow keeps them.
//!
//! Responsible for reading them and for Airflow's encryption. Invariant: nothing outside the
//! namespace's own folder is read, whatever a manifest names, and no value is ever part of an error
//! or of a text for people.

mod connection;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

pub(crate) use self::connection::parse as parse_connection;

/// Size of one file. Bytes.
const SECRET_MAX: u64 = 1 << 20;

/// Why a value is not known. Says nothing of the value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SecretError {
    /// The agent has no folder of secrets.
    #[error("{what} is declared with the secret file {file}, and the agent has no secrets.folder")]
    NoFolder {
        /// Of what it is.
        what: String,
        /// As declared.
        file: String,
    },
    /// The name leads out of the folder.
    #[error("{what} is declared with the secret file {file:?}; only a plain file name will do")]
    Name {
        /// Of what it is.
        what: String,
        /// As declared.
        file: String,
    },
    /// It cannot be read.
    #[error("{what} cannot be read from {}: {why}", path.display())]
    Unreadable {
        /// Of what it is.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is not what it should be.
    #[error("{what}, from {}, is malformed: {why}", path.display())]
    Malformed {
        /// Of what it is.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why, without the value.
        why: &'static str,
    },
}

/// The agent's secret files: `<folder>/<namespace>/<file>`.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretFiles {
    folder: Option<PathBuf>,
}

impl SecretFiles {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The text of a file, without a line's end after it.
    pub(crate) fn read(
        &self,
        namespace: &str,
        file: &str,
        what: &str,
    ) -> Result<(PathBuf, String), SecretError> {
        let (what, name) = (what.to_owned(), file.to_owned());
        let Some(folder) = &self.folder else {
            return Err(SecretError::NoFolder { what, file: name });
        };
        if !is_plain(file) {
            return Err(SecretError::Name { what, file: name });
        }
        let path = folder.join(namespace).join(file);
        let failed = |path: &Path, why: String| SecretError::Unreadable {
            what: what.clone(),
            path: path.to_owned(),
            why,
        };
        // A link within the folder is how Kubernetes mounts secrets; one that leads out is refused.
        let home = folder.canonicalize().map_err(|error| failed(folder, error.to_string()))?;
        let real = path.canonicalize().map_err(|error| failed(&path, error.to_string()))?;
        if !real.starts_with(home.join(namespace)) {
            return Err(failed(&path, "it leads out of the namespace's folder".to_owned()));
        }
        let opened = std::fs::File::open(&real);
        let mut text = String::new();
        let read = opened.and_then(|file| file.take(SECRET_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) => return Err(failed(&path, error.to_string())),
            Ok(size) if size as u64 > SECRET_MAX => {
                return Err(failed(&path, format!("it has more than {SECRET_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let end = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(end);
        Ok((path, text))
    }
}

fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0'])
}

/// Airflow's encryption: its Fernet keys, the first for writing. Without keys Airflow keeps values
/// in the clear, and so does the agent.
#[derive(Clone, Default)]
pub(crate) struct Cipher {
    keys: Option<std::sync::Arc<(fernet::Fernet, fernet::MultiFernet)>>,
    /// For digests, so that they tell nothing to who has not the key.
    salt: [u8; 32],
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cipher({})", if self.keys.is_some() { "with keys" } else { "none" })
    }
}

impl Cipher {
    /// Takes `core.fernet_key` as Airflow does: keys apart by commas; none where it is empty.
    pub(crate) fn new(keys: &str) -> Result<Self, BadKey> {
        let keys: Vec<&str> =
            keys.split(',').map(str::trim).filter(|key| !key.is_empty()).collect();
        let Some(first) = keys.first() else { return Ok(Self::default()) };
        let fernets: Option<Vec<_>> = keys.iter().map(|key| fernet::Fernet::new(key)).collect();
        let first_key = fernet::Fernet::new(first).ok_or(BadKey)?;
        let all = fernet::MultiFernet::new(fernets.ok_or(BadKey)?);
        let salt = Sha256::digest(format!("airfleet digest of values\0{first}")).into();
        Ok(Self { keys: Some(std::sync::Arc::new((first_key, all))), salt })
    }

    /// A value as it is written, and whether it is encrypted.
    pub(crate) fn seal(&self, text: &str) -> (String, bool) {
        match &self.keys {
            Some(keys) => (keys.0.encrypt(text.as_bytes()), true),
            None => (text.to_owned(), false),
        }
    }

    /// A value that was read; none where no key opens it.
    pub(crate) fn open(&self, text: String, is_encrypted: bool) -> Option<String> {
        if !is_encrypted {
            return Some(text);
        }
        let opened = self.keys.as_ref()?.1.decrypt(&text).ok()?;
        String::from_utf8(opened).ok()
    }

    /// A digest of parts of which some are secret.
    pub(crate) fn digest(&self, parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        // Half of it tells two values apart.
        let (half, _) = hash.finalize().into_iter().fold((0_u128, 0), |(sum, count), byte| {
            if count < 16 { (sum << 8 | u128::from(byte), count + 1) } else { (sum, count) }
        });
        format!("{half:032x}")
    }
}

/// A key is not one of Fernet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a Fernet key; it has 32 bytes in URL-safe base64, as Airflow's core.fernet_key")]
pub struct BadKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_namespace_alone_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pay = folder.path().join("pay");
        std::fs::create_dir_all(folder.path().join("ads")).unwrap();
        std::fs::create_dir_all(pay.join("..data")).unwrap();
        std::fs::write(pay.join("..data/token"), "hunter2\n").unwrap();
        std::os::unix::fs::symlink("..data/token", pay.join("token")).unwrap();
        std::fs::write(folder.path().join("ads/key"), "x").unwrap();
        std::os::unix::fs::symlink("../ads/key", pay.join("stolen")).unwrap();
        let files = SecretFiles::new(Some(folder.path().to_owned()));
        let read = |file: &str| files.read("pay", file, "variable t").map(|(_, text)| text);
        assert_eq!(read("token").unwrap(), "hunter2");
        for bad in ["../ads/key", "..", "", "/etc/passwd", "a/b"] {
            assert!(matches!(read(bad), Err(SecretError::Name { .. })), "{bad}");
        }
        for bad in ["stolen", "nothing"] {
            assert!(matches!(read(bad), Err(SecretError::Unreadable { .. })), "{bad}");
        }
        let none = SecretFiles::default().read("pay", "token", "variable t").unwrap_err();
        assert!(none.to_string().contains("secrets.folder"));
    }

    #[test]
    fn what_any_key_sealed_is_opened_and_the_first_seals() {
        let (old, new) = (fernet::Fernet::generate_key(), fernet::Fernet::generate_key());
        let before = Cipher::new(&old).unwrap();
        let (sealed, is_encrypted) = before.seal("hunter2");
        assert!(is_encrypted && !sealed.contains("hunter2"));
        let rotated = Cipher::new(&format!("{new}, {old}")).unwrap();
        assert_eq!(rotated.open(sealed.clone(), true).as_deref(), Some("hunter2"));
        assert_eq!(Cipher::new(&new).unwrap().open(sealed.clone(), true), None);
        assert_eq!(before.open(rotated.seal("x").0, true), None);
        assert_eq!(Cipher::default().seal("plain"), ("plain".to_owned(), false));
        assert_eq!(Cipher::default().open(sealed, true), None);
        assert!(Cipher::new("too short").is_err());
        assert_ne!(before.digest(&["a", "b"]), rotated.digest(&["a", "b"]));
        assert_ne!(before.digest(&["a", "b"]), before.digest(&["ab", ""]));
    }
}
