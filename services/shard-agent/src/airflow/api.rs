//! Airflow's web server: its own health check and its version.
//!
//! Responsible for `/api/v2/monitor/health` of Airflow 3 and `/health` of Airflow 2, neither of
//! which asks for a login. It must not know what the answers lead to.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

/// Longest answer that is read. Bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where each line of Airflow answers.
#[derive(Debug, Clone, Copy)]
struct Paths {
    health: &'static str,
    version: &'static str,
}

const THREE: Paths = Paths { health: "api/v2/monitor/health", version: "api/v2/version" };
const TWO: Paths = Paths { health: "health", version: "api/v1/version" };

/// Why a web server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its URL cannot be used.
    #[error("{0:?} is not the URL of a web server; write http://… or https://…")]
    Url(String),
    /// The certificate authority cannot be used.
    #[error("cannot use the certificate authority {path:?}")]
    Authority {
        /// Its file.
        path: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer, or a broken one.
    #[error("no answer from {path}")]
    Request {
        /// What was asked for.
        path: &'static str,
        /// Why there is no answer.
        source: reqwest::Error,
    },
    /// An answer that says no.
    #[error("{path} answered {status}")]
    Status {
        /// What was asked for.
        path: &'static str,
        /// The answer's status.
        status: StatusCode,
    },
    /// An answer that cannot be read.
    #[error("the answer of {path} is not Airflow's health: {why}")]
    Answer {
        /// What was asked for.
        path: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// What the web server says. Ages in milliseconds, by this host's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiHealth {
    /// Components that it calls unhealthy.
    pub unhealthy: Vec<&'static str>,
    /// Age of the newest heartbeat of a scheduler.
    pub scheduler_heartbeat_age_ms: Option<i64>,
    /// Age of the newest heartbeat of a DAG processor.
    pub dag_processor_heartbeat_age_ms: Option<i64>,
    /// Age of the newest heartbeat of a triggerer.
    pub triggerer_heartbeat_age_ms: Option<i64>,
    /// Version of Airflow, where the server told it.
    pub version: Option<String>,
}

/// Asks a web server.
#[derive(Debug)]
pub struct Api {
    client: Client,
    base: Url,
    paths: Option<Paths>,
    version: Option<String>,
}

impl Api {
    /// The web server at `base`, which may have a path. No request takes longer than `timeout`.
    pub fn new(base: &str, authority: Option<&Path>, timeout: Duration) -> Result<Self, Error> {
        let (base, client) = (base_url(base)?, client(authority, timeout)?);
        Ok(Self { client, base, paths: None, version: None })
    }

    /// Asks for its health, and until it is known for its version. May be dropped at any time.
    pub async fn health(&mut self) -> Result<ApiHealth, Error> {
        let candidates = match &self.paths {
            Some(known) => std::slice::from_ref(known).to_vec(),
            None => vec![THREE, TWO],
        };
        let mut refused = None;
        for paths in candidates {
            match self.ask::<Answer>(paths.health).await {
                Ok(answer) => {
                    self.paths = Some(paths);
                    if self.version.is_none() {
                        // Only good to know: a server that keeps it to itself is healthy too.
                        let told = self.ask::<Version>(paths.version).await;
                        self.version = told.ok().map(|told| told.version);
                    }
                    return Ok(answer.read(Timestamp::now(), self.version.clone()));
                }
                Err(Error::Status { path, status }) if status == StatusCode::NOT_FOUND => {
                    refused.get_or_insert(Error::Status { path, status });
                }
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            }
        }
        self.forget();
        Err(refused.unwrap_or(Error::Status { path: THREE.health, status: StatusCode::NOT_FOUND }))
    }

    /// What answers next may be another Airflow: an upgraded one.
    fn forget(&mut self) {
        self.paths = None;
        self.version = None;
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, path: &'static str) -> Result<T, Error> {
        let failed = |source| Error::Request { path, source };
        let unreadable = |why: String| Error::Answer { path, why };
        let url = self.base.join(path).map_err(|error| unreadable(error.to_string()))?;
        let response = self.client.get(url).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status { path, status: response.status() });
        }
        let body = body(response, ANSWER_BYTES_MAX).await.map_err(failed)?;
        let body = body.ok_or_else(|| unreadable("it is too long".to_owned()))?;
        serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))
    }
}

/// The URL of a web server, ready for paths to be joined to it.
pub(super) fn base_url(base: &str) -> Result<Url, Error> {
    // Joined paths replace what follows the last slash.
    let with_slash = format!("{}/", base.trim_end_matches('/'));
    Url::parse(&with_slash)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::Url(base.to_owned()))
}

/// A client for it. No request takes longer than `timeout`.
pub(super) fn client(authority: Option<&Path>, timeout: Duration) -> Result<Client, Error> {
    let mut builder = Client::builder()
        .user_agent(concat!("airfleet-agent/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_max_idle_per_host(1)
        // A login page is no answer.
        .redirect(redirect::Policy::none());
    if let Some(path) = authority {
        let failed = |source| Error::Authority { path: path.display().to_string(), source };
        let pem = std::fs::read(path).map_err(|error| failed(error.into()))?;
        let authority = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.into()))?;
        builder = builder.tls_certs_merge(authority);
    }
    builder.build().map_err(|source| Error::Request { path: "a client", source })
}

/// What a server says, as long as it is not longer than `most` bytes; none where it is.
pub(super) async fn body(
    mut response: Response,
    most: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[derive(Debug, Deserialize)]
struct Version {
    version: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    metadatabase: Component,
    scheduler: Component,
    #[serde(default)]
    triggerer: Component,
    #[serde(default)]
    dag_processor: Component,
}

#[derive(Debug, Default, Deserialize)]
struct Component {
    /// Nothing where the shard has no such component.
    status: Option<String>,
    #[serde(
        alias = "latest_scheduler_heartbeat",
        alias = "latest_triggerer_heartbeat",
        alias = "latest_dag_processor_heartbeat"
    )]
    heartbeat: Option<String>,
}

impl Answer {
    fn read(&self, now: Timestamp, version: Option<String>) -> ApiHealth {
        let components = [
            ("metadatabase", &self.metadatabase),
            ("scheduler", &self.scheduler),
            ("triggerer", &self.triggerer),
            ("dag_processor", &self.dag_processor),
        ];
        let unhealthy = components.iter().filter(|(_, c)| c.status.as_deref() == Some("unhealthy"));
        ApiHealth {
            unhealthy: unhealthy.map(|(name, _)| *name).collect(),
            scheduler_heartbeat_age_ms: self.scheduler.age_ms(now),
            dag_processor_heartbeat_age_ms: self.dag_processor.age_ms(now),
            triggerer_heartbeat_age_ms: self.triggerer.age_ms(now),
            version,
        }
    }
}

impl Component {
    fn age_ms(&self, now: Timestamp) -> Option<i64> {
        let heartbeat: Timestamp = self.heartbeat.as_ref()?.parse().ok()?;
        Some((now.as_millisecond() - heartbeat.as_millisecond()).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Airflow 3.3.2 answers.
    const ANSWER: &str = r#"{
        "metadatabase": {"status": "healthy"},
        "scheduler": {"status": "unhealthy",
            "latest_scheduler_heartbeat": "2026-01-02T03:04:05.123456+00:00"},
        "triggerer": {"status": null, "latest_triggerer_heartbeat": null},
        "dag_processor": {"status": "healthy",
            "latest_dag_processor_heartbeat": "2026-01-02T05:04:11+02:00"}
    }"#;

    #[test]
    fn components_and_heartbeats_are_read() {
        let answer: Answer = serde_json::from_str(ANSWER).unwrap();
        let health = answer.read("2026-01-02T03:04:10Z".parse().unwrap(), None);
        assert_eq!(
            health,
            ApiHealth {
                unhealthy: vec!["scheduler"],
                scheduler_heartbeat_age_ms: Some(4_877),
                // A little ahead of this host's clock.
                dag_processor_heartbeat_age_ms: Some(0),
                triggerer_heartbeat_age_ms: None,
                version: None,
            }
        );
    }

    #[test]
    fn a_base_may_have_a_path_and_must_be_http() {
        let base = |text| Api::new(text, None, Duration::from_secs(1));
        let joined = base("http://host:8080/airflow").unwrap().base.join(THREE.health).unwrap();
        assert_eq!(joined.as_str(), "http://host:8080/airflow/api/v2/monitor/health");
        for bad in ["", "host:8080", "ftp://host", "postgres://host/x"] {
            assert!(matches!(base(bad), Err(Error::Url(_))), "{bad}");
        }
    }
}
