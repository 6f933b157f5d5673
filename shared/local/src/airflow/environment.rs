//! What is made once and kept in the cache folder: Python environments with
//! pinned packages, and migrated metadata databases to copy.
//!
//! A database belongs to the environment that migrated it and carries its name,
//! so that new pins never meet an old schema.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{AirflowVersion, Stack, settings};
use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::process::Spec;
use crate::programs::{cache_folder, lock_cache};
use crate::sandbox::Sandbox;

const SCRIPT: &str = include_str!("../../python/environment.sh");
/// Downloads a few hundred megabytes where nothing is cached.
const INSTALL_LIMIT: Duration = Duration::from_mins(20);
const MIGRATE_LIMIT: Duration = Duration::from_mins(10);

/// A Python environment with one Airflow release, for scripts and commands that
/// need no shard.
#[derive(Debug, Clone)]
pub struct Environment {
    version: AirflowVersion,
    folder: PathBuf,
    /// Folders of packages that were installed beside the environment, which is
    /// shared and never changed; as `PYTHONPATH` has them.
    packages: OsString,
}

impl Environment {
    /// The environment of `version`, made if there is none yet.
    pub async fn ensure(version: AirflowVersion, sandbox: &Sandbox) -> Result<Self> {
        let requirements = match version {
            AirflowVersion::V3_3_2 => include_str!("../../python/airflow-3.3.2.txt"),
            AirflowVersion::V2_11_2 => include_str!("../../python/airflow-2.11.2.txt"),
        };
        let file = sandbox.folder().join("requirements.txt");
        fs::write(&file, requirements).map_err(Error::file("write", &file))?;
        let folder = make(sandbox, version.as_str(), &file).await?;
        Ok(Self { version, folder, packages: OsString::new() })
    }

    /// The same with the Python package whose source is in `source`, built and
    /// installed without its dependencies, if it was not yet as it is now.
    pub async fn install(mut self, source: &Path, sandbox: &Sandbox) -> Result<Self> {
        let source = std::path::absolute(source).map_err(Error::file("resolve", source))?;
        let folder = make(sandbox, "package", &source).await?;
        let others = std::env::split_paths(&self.packages).filter(|it| !it.as_os_str().is_empty());
        self.packages = std::env::join_paths(others.chain([folder])).map_err(|error| {
            Error::Invalid(format!("the cache folder cannot hold packages: {error}; move it"))
        })?;
        Ok(self)
    }

    /// A process that runs Python.
    pub fn python(&self, name: &str) -> Spec {
        self.spec(name, "python")
    }

    /// A process that runs `airflow` with `variables`.
    pub(super) fn airflow(&self, name: &str, variables: &[(String, String)]) -> Spec {
        self.spec(name, "airflow").envs(variables.iter().map(|(name, value)| (name, value)))
    }

    fn spec(&self, name: &str, program: &str) -> Spec {
        let bin = self.folder.join("bin");
        let mut path = bin.clone().into_os_string();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let spec = Spec::new(name, bin.join(program)).env("PATH", path);
        if self.packages.is_empty() { spec } else { spec.env("PYTHONPATH", &self.packages) }
    }

    /// The template of a migrated metadata database: a data folder of PostgreSQL
    /// or a file of SQLite.
    pub(super) async fn template(&self, stack: Stack) -> Result<PathBuf> {
        let kind = match stack {
            Stack::Celery => format!("postgres-{}", Postgres::installed_major()?),
            Stack::Sqlite => "sqlite".to_owned(),
        };
        let template = PathBuf::from(format!("{}-{kind}", self.folder.display()));
        if template.exists() {
            return Ok(template);
        }
        let (Some(cache), Some(name)) = (template.parent(), template.file_name()) else {
            return Err(Error::Invalid(format!(
                "{} is no place in the cache folder",
                template.display()
            )));
        };
        let _lock = lock_cache(cache, &name.to_string_lossy(), MIGRATE_LIMIT).await?;
        if !template.exists() {
            self.make_template(stack, &template).await?;
        }
        Ok(template)
    }

    async fn make_template(&self, stack: Stack, template: &Path) -> Result<()> {
        let sandbox = Sandbox::create("migrate").await?;
        match stack {
            Stack::Celery => {
                let postgres = Postgres::options().sandbox(&sandbox).start().await?;
                let url = postgres.create_database(settings::DATABASE).await?;
                self.migrate(&sandbox, &url).await?;
                postgres.save_template(template).await?;
            }
            Stack::Sqlite => {
                let file = sandbox.folder().join("airflow.db");
                self.migrate(&sandbox, &format!("sqlite://{}", file.display())).await?;
                let draft = template.with_extension("draft");
                fs::copy(&file, &draft)
                    .and_then(|_| fs::rename(&draft, template))
                    .map_err(Error::file("write", template))?;
            }
        }
        sandbox.close().await;
        Ok(())
    }

    async fn migrate(&self, sandbox: &Sandbox, url: &str) -> Result<()> {
        let home = sandbox.folder().join("airflow");
        make_home(&home)?;
        let variables = settings::database(&home, self.version, url);
        sandbox
            .run(&self.airflow("migrate", &variables).args(["db", "migrate"]), MIGRATE_LIMIT)
            .await
            .map(drop)
    }
}

/// Runs the script that makes `what` of `source`; the folder that it made.
pub(crate) async fn make(sandbox: &Sandbox, what: &str, source: &Path) -> Result<PathBuf> {
    let output = sandbox
        .run(
            // The caller's own environment tells which package index and which
            // proxy to use.
            &Spec::new("environment", "sh")
                .envs(std::env::vars_os())
                .args(["-c", SCRIPT, "environment.sh", what])
                .arg(cache_folder()?)
                .arg(source),
            INSTALL_LIMIT,
        )
        .await?;
    let folder = output.lines().last().map(PathBuf::from).unwrap_or_default();
    if !folder.is_absolute() {
        return Err(Error::Answer { service: "environment.sh", answer: output });
    }
    Ok(folder)
}

/// Makes Airflow's home with an empty configuration file: without one, each
/// process that starts would write a default one, all at the same time.
pub(super) fn make_home(home: &Path) -> Result<()> {
    let file = home.join("airflow.cfg");
    fs::create_dir_all(home)
        .and_then(|()| fs::write(&file, ""))
        .map_err(Error::file("write", &file))
}
