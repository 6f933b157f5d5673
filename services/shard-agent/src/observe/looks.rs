//! What each probe looks at.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, watch};

use crate::{
    airflow::{
        self, Activity, Pulse, Reader, Sizes,
        api::{self, Api, ApiHealth},
    },
    broker::{self, Broker, Load},
    config::AgentConfig,
    probe::{Failure, Look},
    words::Scrubber,
};

/// Why probes cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The metadata database.
    #[error("airflow.metadata_url cannot be used")]
    Metadata(#[source] airflow::Error),
    /// The web server.
    #[error("airflow.api_url cannot be used")]
    Api(#[source] api::Error),
    /// The broker.
    #[error("broker.url cannot be used")]
    Broker(#[source] broker::Error),
}

fn scrubber(config: &AgentConfig) -> Scrubber {
    Scrubber::new(config.airflow.metadata_url.iter().chain(&config.broker.url))
}

fn failure(error: &airflow::Error, scrubber: &Scrubber) -> Failure {
    let line = scrubber.line(error);
    if error.is_unsupported() { Failure::Unsupported(line) } else { Failure::Failed(line) }
}

/// The metadata database, for every report.
pub(super) struct MetadataLook {
    reader: Reader,
    /// Told apart from the outcome, because a revision that is not known is found too.
    revision: watch::Sender<String>,
    scrubber: Scrubber,
}

impl MetadataLook {
    pub(super) fn new(
        config: &AgentConfig,
        revision: watch::Sender<String>,
    ) -> Result<Option<Self>, SetUpError> {
        let Some(url) = &config.airflow.metadata_url else { return Ok(None) };
        let reader =
            Reader::new(url, config.airflow.metadata_timeout).map_err(SetUpError::Metadata)?;
        Ok(Some(Self { reader, revision, scrubber: scrubber(config) }))
    }

    fn found(&self, revision: &str) {
        self.revision.send_if_modified(|known| {
            let changed = known != revision;
            if changed {
                revision.clone_into(known);
            }
            changed
        });
    }
}

impl Look for MetadataLook {
    type Sight = Pulse;

    async fn look(&mut self) -> Result<Pulse, Failure> {
        let looked = self.reader.pulse().await;
        match &looked {
            Ok(pulse) => self.found(pulse.revision),
            Err(airflow::Error::UnknownRevision(revision)) => self.found(revision),
            Err(_) => {}
        }
        looked.map_err(|error| failure(&error, &self.scrubber))
    }
}

/// Both samples, over one connection: one waits for the other.
pub(super) fn samples(
    config: &AgentConfig,
) -> Result<(Option<ActivityLook>, Option<SizesLook>), SetUpError> {
    let Some(url) = &config.airflow.metadata_url else { return Ok((None, None)) };
    let reader = Reader::new(url, config.airflow.sample_timeout).map_err(SetUpError::Metadata)?;
    let reader = Arc::new(Mutex::new(reader));
    let activity = ActivityLook {
        reader: reader.clone(),
        file_interval: config.airflow.file_process_interval,
        scrubber: scrubber(config),
    };
    Ok((Some(activity), Some(SizesLook { reader, scrubber: scrubber(config) })))
}

/// The last hour.
pub(super) struct ActivityLook {
    reader: Arc<Mutex<Reader>>,
    file_interval: Duration,
    scrubber: Scrubber,
}

impl Look for ActivityLook {
    type Sight = Activity;

    async fn look(&mut self) -> Result<Activity, Failure> {
        let looked = self.reader.lock().await.activity(self.file_interval).await;
        looked.map_err(|error| failure(&error, &self.scrubber))
    }
}

/// What fills the metadata database.
pub(super) struct SizesLook {
    reader: Arc<Mutex<Reader>>,
    scrubber: Scrubber,
}

impl Look for SizesLook {
    type Sight = Sizes;

    async fn look(&mut self) -> Result<Sizes, Failure> {
        let looked = self.reader.lock().await.sizes().await;
        looked.map_err(|error| failure(&error, &self.scrubber))
    }
}

/// The broker.
pub(super) enum BrokerLook {
    Known { broker: Box<Broker>, scrubber: Scrubber },
    Unsupported(String),
}

impl BrokerLook {
    pub(super) fn new(config: &AgentConfig) -> Result<Option<Self>, SetUpError> {
        let Some(url) = &config.broker.url else { return Ok(None) };
        let options = broker::Options {
            queues: config.broker.queues.clone(),
            key_prefix: config.broker.key_prefix.clone(),
            worker_window: config.broker.worker_window,
            connect_timeout: config.broker.timeout,
        };
        match Broker::new(url, &options) {
            Ok(broker) => {
                Ok(Some(Self::Known { broker: Box::new(broker), scrubber: scrubber(config) }))
            }
            // The rest of the shard can be looked at all the same.
            Err(error) if error.is_unsupported() => Ok(Some(Self::Unsupported(error.to_string()))),
            Err(error) => Err(SetUpError::Broker(error)),
        }
    }
}

impl Look for BrokerLook {
    type Sight = Load;

    async fn look(&mut self) -> Result<Load, Failure> {
        match self {
            Self::Unsupported(what) => Err(Failure::Unsupported(what.clone())),
            Self::Known { broker, scrubber } => {
                broker.load().await.map_err(|error| Failure::Failed(scrubber.line(&error)))
            }
        }
    }
}

/// The web server.
pub(super) struct ApiLook {
    api: Api,
    scrubber: Scrubber,
}

impl ApiLook {
    pub(super) fn new(config: &AgentConfig) -> Result<Option<Self>, SetUpError> {
        let Some(url) = &config.airflow.api_url else { return Ok(None) };
        let authority = config.airflow.api_ca.as_deref();
        let api = Api::new(url, authority, config.airflow.api_timeout).map_err(SetUpError::Api)?;
        Ok(Some(Self { api, scrubber: scrubber(config) }))
    }
}

impl Look for ApiLook {
    type Sight = ApiHealth;

    async fn look(&mut self) -> Result<ApiHealth, Failure> {
        self.api.health().await.map_err(|error| Failure::Failed(self.scrubber.line(&error)))
    }
}
