//! What the services log: into a file, and warnings to the terminal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::error::{Error, Result};

/// Largest log file; when it is full it becomes the old one, of which there is one.
const FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Starts logging. `RUST_LOG` says what goes into the file, where it is set.
pub(super) fn start(file: &Path, verbose: bool, colored: bool) -> Result<()> {
    let failed =
        |error: io::Error| Error::caused(format!("cannot write {}", file.display()), &error);
    let capped = Capped::open(file, FILE_MAX_BYTES).map_err(failed)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let file = fmt::layer().with_ansi(false).with_writer(capped).with_filter(filter);
    let terminal = fmt::layer()
        .with_target(verbose)
        .with_ansi(colored)
        .with_writer(io::stderr)
        .with_filter(EnvFilter::new(if verbose { "info" } else { "warn" }));
    tracing_subscriber::registry()
        .with(file)
        .with(terminal)
        .try_init()
        .map_err(|error| Error::caused("cannot set up logging", &error))
}

/// A file that never grows past a size.
#[derive(Clone, Debug)]
struct Capped(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
}

impl Capped {
    fn open(path: &Path, max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner { path: path.to_owned(), file, size, max }))))
    }
}

impl Inner {
    fn turn(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old)?;
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for &Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.size > 0 && inner.size + bytes.len() as u64 > inner.max {
            inner.turn()?;
        }
        let written = inner.file.write(bytes)?;
        inner.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file.flush()
    }
}

impl<'a> fmt::MakeWriter<'a> for Capped {
    type Writer = &'a Capped;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_two_files_at_most_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.log");
        fs::write(&path, "from before\n").unwrap();
        let capped = Capped::open(&path, 20).unwrap();
        for line in ["one\n", "two, long enough\n", "three, long too\n"] {
            (&capped).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "three, long too\n");
        let old = folder.path().join("dev.log.1");
        assert_eq!(fs::read_to_string(old).unwrap(), "two, long enough\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
