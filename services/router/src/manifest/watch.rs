//! Watching the registry.

use std::{sync::Arc, time::Duration};

use airfleet_domain::ids::Revision;
use airfleet_proto::registry::v1::{
    WatchManifestRequest, WatchManifestResponse, registry_service_client::RegistryServiceClient,
};
use airfleet_runtime::{
    client::{Backoff, Replicas},
    status::Problem,
};
use tokio::sync::{Mutex, mpsc};
use tonic::Status;

use super::{Event, read};
use crate::metrics::Metrics;

/// The registry says every few seconds that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Pauses between tries.
const PAUSE_SHORTEST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// A snapshot comes in pieces; none is larger.
const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Where the manifest comes from. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// No registry is configured: what is known stays.
    None,
    /// The registry's replicas.
    Registry(Replicas),
    /// Messages of a registry in the same process. Each goes to one leader.
    Channel(Arc<Mutex<mpsc::Receiver<WatchManifestResponse>>>),
}

impl Source {
    /// Sends everything after revision `from` on, for ever.
    pub(crate) async fn forward(&self, from: Revision, to: mpsc::Sender<Event>, metrics: &Metrics) {
        match self {
            Self::None => {
                tracing::warn!(
                    "no registry is configured, so no namespace can be added or changed"
                );
                std::future::pending::<()>().await;
            }
            Self::Registry(replicas) => watch(replicas, from, to, metrics).await,
            Self::Channel(messages) => {
                let mut messages = messages.lock().await;
                while let Some(message) = messages.recv().await {
                    if let Some(event) = understood(message, metrics) {
                        // Nobody takes it: the leader has ended, and this with it.
                        let _ = to.send(event).await;
                    }
                }
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn watch(
    replicas: &Replicas,
    mut from: Revision,
    to: mpsc::Sender<Event>,
    metrics: &Metrics,
) {
    let mut backoff = Backoff::new(PAUSE_SHORTEST, PAUSE_LONGEST);
    loop {
        let known = from;
        let status = follow(replicas, &mut from, &to, metrics).await;
        if from != known {
            backoff.reset();
        }
        let elsewhere = replicas.failed(&status);
        let problem = Problem::from(&status);
        if backoff.failures() == 0 {
            let registry = replicas.current_address();
            tracing::warn!(registry, error = %problem, "the watch of the registry ended");
        }
        metrics.manifest_watch_failed();
        let pause = backoff.next_pause(problem.retry_after);
        if !elsewhere {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Follows one stream to its end, and says how it ended.
async fn follow(
    replicas: &Replicas,
    from: &mut Revision,
    to: &mpsc::Sender<Event>,
    metrics: &Metrics,
) -> Status {
    let mut registry =
        RegistryServiceClient::new(replicas.current()).max_decoding_message_size(MESSAGE_MAX_BYTES);
    let ask = WatchManifestRequest { resume_revision: from.0 };
    let opened = tokio::time::timeout(SILENCE_MAX, registry.watch_manifest(ask)).await;
    let silent = || Status::unavailable(format!("the registry was silent for {SILENCE_MAX:?}"));
    let mut stream = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return silent(),
    };
    loop {
        let message = match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Status::unavailable("the registry ended the watch"),
            Ok(Err(status)) => return status,
            Err(_) => return silent(),
        };
        let Some(event) = understood(message, metrics) else { continue };
        let reached = match &event {
            Event::Snapshot { last, revision, .. } => last.then_some(*revision),
            Event::Change { revision, .. } | Event::Progress { revision } => Some(*revision),
        };
        if to.send(event).await.is_err() {
            // The leader has ended, and with it whoever waits for this.
            std::future::pending::<()>().await;
        }
        *from = reached.unwrap_or(*from);
    }
}

fn understood(message: WatchManifestResponse, metrics: &Metrics) -> Option<Event> {
    metrics.manifest_heard(Revision(message.revision));
    read(message, |unreadable| {
        metrics.manifest_entry_refused();
        tracing::error!(error = %unreadable, "left an entry of the manifest out");
    })
}
