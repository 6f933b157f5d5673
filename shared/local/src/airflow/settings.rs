//! How Airflow is configured: environment variables and secrets.
//!
//! The settings are light (one API worker, one parsing process) and quick to see
//! changed DAG files; measured with two shards on two cores, a new file is seen
//! within about three seconds.

use std::path::Path;

use base64::Engine as _;

use super::{AirflowVersion, Component, Stack};
use crate::error::Result;
use crate::programs;

/// The database's name.
pub(super) const DATABASE: &str = "airflow";

/// What Airflow calls a shard's folder of DAG files: each process runs in its
/// own shard's folder, where `dags` is.
pub const DAGS_FOLDER: &str = "/proc/self/cwd/dags";

/// What only the shard's own processes and its owner know.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Encrypts connections and variables.
    pub(super) fernet_key: String,
    /// Signs sessions and tokens.
    signing_key: String,
    /// Of the users `admin` and `viewer`.
    pub(super) password: String,
}

impl Secrets {
    /// The secrets in `home`, made if there are none yet.
    pub(super) fn load(home: &Path) -> Result<Self> {
        let fernet_key =
            || base64::engine::general_purpose::URL_SAFE.encode(rand::random::<[u8; 32]>());
        let secrets = Self {
            fernet_key: programs::read_or_make_secret(&home.join("fernet.key"), fernet_key)?,
            signing_key: programs::read_or_make_secret(
                &home.join("signing.key"),
                programs::random_word,
            )?,
            password: programs::read_or_make_secret(&home.join("password"), programs::random_word)?,
        };
        programs::write_secret(
            &home.join("passwords.json"),
            &serde_json::json!({ "admin": secrets.password, "viewer": secrets.password })
                .to_string(),
        )?;
        Ok(secrets)
    }
}

/// The variables with which even `airflow db migrate` must run.
pub(super) fn database(home: &Path, version: AirflowVersion, url: &str) -> Vec<(String, String)> {
    let mut variables = Variables(vec![("AIRFLOW_HOME".to_owned(), home.display().to_string())]);
    variables.set("CORE", "LOAD_EXAMPLES", "False");
    variables.set("DATABASE", "SQL_ALCHEMY_CONN", sqlalchemy_url(url));
    if version == AirflowVersion::V3_3_2 {
        variables.set(
            "CORE",
            "AUTH_MANAGER",
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        );
    }
    variables.0
}

/// What the components of a shard have in common.
pub(super) struct Shard<'a> {
    pub(super) version: AirflowVersion,
    pub(super) folder: &'a Path,
    pub(super) home: &'a Path,
    pub(super) metadata_url: &'a str,
    pub(super) broker_url: Option<&'a str>,
    pub(super) api_port: u16,
    pub(super) worker_concurrency: u32,
    pub(super) secrets: &'a Secrets,
    pub(super) stack: Stack,
}

impl Shard<'_> {
    /// The variables with which every component runs.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let logs = self.folder.join("logs/airflow");
        let api = format!("http://127.0.0.1:{}", self.api_port);
        let database_url = sqlalchemy_url(self.metadata_url);
        let mut v = Variables(database(self.home, self.version, self.metadata_url));
        let executor = match (self.stack, self.version) {
            (Stack::Celery, AirflowVersion::V3_3_2) => "CeleryExecutor",
            // Of Airflow 2 only the web server is started, and no Celery is installed.
            (Stack::Celery, AirflowVersion::V2_11_2) | (Stack::Sqlite, AirflowVersion::V3_3_2) => {
                "LocalExecutor"
            }
            (Stack::Sqlite, AirflowVersion::V2_11_2) => "SequentialExecutor",
        };
        v.set("CORE", "EXECUTOR", executor);
        v.set("CORE", "DAGS_FOLDER", DAGS_FOLDER);
        v.set("CORE", "PARALLELISM", self.worker_concurrency.max(8));
        v.set("CORE", "FERNET_KEY", &self.secrets.fernet_key);
        v.set("CORE", "DAGS_ARE_PAUSED_AT_CREATION", "True");
        v.set("CORE", "EXECUTION_API_SERVER_URL", format!("{api}/execution/"));
        // The default asks a name server, which may take long to be absent.
        v.set("CORE", "HOSTNAME_CALLABLE", "socket.gethostname");
        v.set("CORE", "SIMPLE_AUTH_MANAGER_USERS", "admin:admin,viewer:viewer");
        v.set(
            "CORE",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
            self.home.join("passwords.json").display(),
        );
        v.set("DATABASE", "SQL_ALCHEMY_POOL_SIZE", 3);
        v.set("API", "HOST", "127.0.0.1");
        v.set("API", "PORT", self.api_port);
        v.set("API", "BASE_URL", &api);
        v.set("API", "WORKERS", 1);
        v.set("API", "SECRET_KEY", &self.secrets.signing_key);
        v.set("API_AUTH", "JWT_SECRET", &self.secrets.signing_key);
        v.set("API_AUTH", "JWT_EXPIRATION_TIME", 86_400);
        v.set("SCHEDULER", "ENABLE_HEALTH_CHECK", "False");
        v.set("DAG_PROCESSOR", "PARSING_PROCESSES", 1);
        v.set("DAG_PROCESSOR", "REFRESH_INTERVAL", 5);
        v.set("DAG_PROCESSOR", "BUNDLE_REFRESH_CHECK_INTERVAL", 2);
        v.set("DAG_PROCESSOR", "MIN_FILE_PROCESS_INTERVAL", 10);
        v.set("DAG_PROCESSOR", "DAG_BUNDLE_STORAGE_PATH", self.home.join("bundles").display());
        // The defaults take a machine that is merely busy for a broken one.
        v.set("CORE", "DAGBAG_IMPORT_TIMEOUT", 120);
        v.set("DAG_PROCESSOR", "DAG_FILE_PROCESSOR_TIMEOUT", 180);
        v.set("WORKERS", "EXECUTION_API_TIMEOUT", 30);
        v.set("LOGGING", "BASE_LOG_FOLDER", logs.display());
        v.set(
            "LOGGING",
            "DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY",
            logs.join("dag_processor").display(),
        );
        v.set("LOGGING", "COLORED_CONSOLE_LOG", "False");
        if self.version == AirflowVersion::V2_11_2 {
            v.set("WEBSERVER", "WEB_SERVER_HOST", "127.0.0.1");
            v.set("WEBSERVER", "WEB_SERVER_PORT", self.api_port);
            v.set("WEBSERVER", "WORKERS", 1);
            v.set("WEBSERVER", "SECRET_KEY", &self.secrets.signing_key);
            v.set("API", "AUTH_BACKENDS", "airflow.api.auth.backend.basic_auth");
        }
        if let Some(broker) = self.broker_url {
            v.set("CELERY", "BROKER_URL", broker);
            v.set("CELERY", "RESULT_BACKEND", format!("db+{database_url}"));
            v.set("CELERY", "WORKER_CONCURRENCY", self.worker_concurrency);
            v.set("CELERY", "WORKER_PREFETCH_MULTIPLIER", 1);
            v.set("CELERY", "SYNC_PARALLELISM", 1);
            v.set("CELERY", "OPERATION_TIMEOUT", 30);
        }
        v.0
    }
}

/// The arguments with which `airflow` becomes `component`. None serves logs:
/// all of a shard's processes share one log folder.
pub(super) fn arguments(
    version: AirflowVersion,
    component: Component,
    shard: &str,
    queues: &[String],
    concurrency: u32,
) -> Vec<String> {
    let text = match component {
        Component::ApiServer => match version {
            AirflowVersion::V3_3_2 => "api-server".to_owned(),
            AirflowVersion::V2_11_2 => "webserver".to_owned(),
        },
        Component::Scheduler => "scheduler --skip-serve-logs".to_owned(),
        Component::DagProcessor => "dag-processor".to_owned(),
        Component::Triggerer => "triggerer --skip-serve-logs".to_owned(),
        Component::Worker => format!(
            "celery worker --skip-serve-logs --without-mingle --without-gossip \
             --concurrency {concurrency} --celery-hostname worker-1@{shard} --queues {}",
            queues.join(",")
        ),
    };
    text.split_whitespace().map(str::to_owned).collect()
}

/// The arguments with which `airflow` of version 2 makes the user `admin`. Its password is seen in
/// the list of processes for as long as that takes; there is no other way to give it.
pub(super) fn first_user(secrets: &Secrets) -> Vec<String> {
    let text = "users create --username admin --role Admin --firstname a --lastname b \
                --email admin@localhost --password";
    text.split_whitespace().map(str::to_owned).chain([secrets.password.clone()]).collect()
}

/// SQLAlchemy's spelling of a metadata URL.
fn sqlalchemy_url(url: &str) -> String {
    match url.strip_prefix("postgres://") {
        Some(rest) => format!("postgresql+psycopg2://{rest}"),
        // Three slashes, and the fourth is the file's own.
        None => url.replacen("sqlite://", "sqlite:///", 1),
    }
}

struct Variables(Vec<(String, String)>);

impl Variables {
    #[allow(clippy::needless_pass_by_value, reason = "a display adapter is a temporary")]
    fn set(&mut self, section: &str, option: &str, value: impl ToString) {
        self.0.push((format!("AIRFLOW__{section}__{option}"), value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_urls_are_respelled_for_sqlalchemy() {
        assert_eq!(
            sqlalchemy_url("postgres://u:p@127.0.0.1:5432/airflow"),
            "postgresql+psycopg2://u:p@127.0.0.1:5432/airflow"
        );
        assert_eq!(sqlalchemy_url("sqlite:///srv/airflow.db"), "sqlite:////srv/airflow.db");
    }

    #[test]
    fn a_worker_consumes_the_queues_it_is_given() {
        let queues = ["default".to_owned(), "heavy".to_owned()];
        let arguments =
            arguments(AirflowVersion::V3_3_2, Component::Worker, "east", &queues, 4).join(" ");
        assert!(arguments.contains("--queues default,heavy"), "{arguments}");
        assert!(arguments.contains("--concurrency 4 --celery-hostname worker-1@east"));
    }
}
