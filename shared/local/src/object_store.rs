//! A private object store that speaks S3.
//!
//! An emulator: moto, in memory. It lists, serves, checks etags and pages as S3 does, and knows
//! nothing of S3's latencies and limits. Listens on 127.0.0.1 only, takes any credentials, and
//! forgets everything when it ends.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use crate::{
    airflow::make_environment,
    error::{Error, Result},
    port::Port,
    process::Spec,
    sandbox::Sandbox,
    service::{Ready, Service, http_client},
};

const NAME: &str = "moto-5.1.22";
const REQUIREMENTS: &str = include_str!("../python/moto-5.1.22.txt");
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A private object store with one bucket; ends, with its objects, when dropped.
#[derive(Debug)]
pub struct ObjectStore {
    service: Service,
    port: Port,
    bucket: String,
}

impl ObjectStore {
    /// Starts a store with an empty `bucket`, in a sandbox of its own.
    pub async fn start_new(bucket: &str) -> Result<Self> {
        Self::start_in(&Sandbox::create("object-store").await?, bucket).await
    }

    /// Starts a store with an empty `bucket` in `sandbox`.
    pub async fn start_in(sandbox: &Sandbox, bucket: &str) -> Result<Self> {
        let requirements = sandbox.folder().join("moto.txt");
        fs::write(&requirements, REQUIREMENTS).map_err(Error::file("write", &requirements))?;
        let environment = make_environment(sandbox, NAME, &requirements).await?;
        let port = Port::claim()?;
        let spec = Spec::new("moto", environment.join("bin/moto_server")).args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.number().to_string(),
        ]);
        let client = http_client()?;
        let url = format!("http://127.0.0.1:{}", port.number());
        let ready = Ready::Serves { client: client.clone(), url: format!("{url}/moto-api/") };
        let service = Service::new(sandbox.clone(), spec, ready, STOP_GRACE);
        let store = Self { service, port, bucket: bucket.to_owned() };
        store.service.start().await?;
        let answer = client.put(format!("{url}/{bucket}")).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(store),
            other => Err(Error::Answer { service: NAME, answer: format!("{other:?}") }),
        }
    }

    /// Its base URL, without a slash at its end.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Its address on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The one bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Options with which clients reach it at `base_url`, as `delivery.stores` has them.
    pub fn options(base_url: &str) -> BTreeMap<String, String> {
        let options = [
            ("endpoint", base_url),
            ("region", "us-east-1"),
            ("allow_http", "true"),
            ("access_key_id", "any"),
            ("secret_access_key", "any"),
        ];
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The server's log file: a line a request.
    pub fn log(&self) -> PathBuf {
        self.service.sandbox().folder().join("logs/moto.log")
    }

    /// Kills the server (SIGKILL).
    pub async fn kill(&self) {
        self.service.kill().await;
    }
}
