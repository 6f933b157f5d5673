//! The router, as far as the registry needs it: to have something given up before it is deleted.

use std::time::Duration;

use airfleet_proto::router::v1::router_service_client::RouterServiceClient;
use airfleet_proto::router::v1::{ReleaseNamespaceRequest, ReleaseShardRequest};
use airfleet_runtime::client::{self, Replicas, Retry};
use airfleet_runtime::config::ClientConfig;
use airfleet_runtime::status::{Failure, Precondition, Problem};
use tonic::{Code, Request, Status};

use crate::store::Stored;

/// Longest wait for one answer of one replica.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whoever of the routers leads.
#[derive(Debug, Clone)]
pub(crate) struct Router(Replicas);

impl Router {
    /// The routers that `config` names; `None` where it names none.
    pub(crate) fn new(config: &ClientConfig) -> Result<Option<Self>, client::Error> {
        if config.endpoints.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self(Replicas::new(config)?)))
    }

    /// Has the assignment of a namespace given up, as it is at `seen`. Refused while it is not
    /// drained, unless forced.
    pub(crate) async fn release_namespace(
        &self,
        seen: &Stored,
        force: bool,
        reason: &str,
        validate_only: bool,
    ) -> Result<(), Failure> {
        let namespace = seen.entry.name();
        let message = ReleaseNamespaceRequest {
            namespace: namespace.to_owned(),
            namespace_uid: seen.uid.clone(),
            force,
            reason: reason.to_owned(),
            validate_only,
            manifest_revision: seen.revision.0,
        };
        let call = self.0.call(Retry::Idempotent, |transport| {
            let request = within_timeout(message.clone());
            async move { RouterServiceClient::new(transport).release_namespace(request).await }
        });
        match call.await {
            Ok(_) => Ok(()),
            // An operator said that it is not to be waited for.
            Err(status) if force && status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(failure(&status, &format!("namespaces/{namespace}"))),
        }
    }

    /// Has a shard barred from new namespaces, as it is at `seen`. Refused while it has some.
    pub(crate) async fn release_shard(
        &self,
        seen: &Stored,
        validate_only: bool,
    ) -> Result<(), Failure> {
        let shard = seen.entry.name();
        let message = ReleaseShardRequest {
            shard: shard.to_owned(),
            validate_only,
            manifest_revision: seen.revision.0,
        };
        let call = self.0.call(Retry::Idempotent, |transport| {
            let request = within_timeout(message.clone());
            async move { RouterServiceClient::new(transport).release_shard(request).await }
        });
        match call.await {
            Ok(_) => Ok(()),
            Err(status) => Err(failure(&status, &format!("shards/{shard}"))),
        }
    }
}

fn within_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// What the router's answer means for whoever wanted to delete.
fn failure(status: &Status, subject: &str) -> Failure {
    let problem = Problem::from(status);
    match problem.code {
        Code::FailedPrecondition => {
            let mut conditions = problem.preconditions;
            if conditions.is_empty() {
                conditions.push(Precondition::new("IN_USE", subject, problem.message));
            }
            let failure = Failure::precondition(conditions);
            if problem.reason.is_empty() { failure } else { failure.with_reason(problem.reason) }
        }
        // It follows the manifest and has not come to this entry yet. Whether it will place it
        // meanwhile cannot be known, so this is not a release.
        Code::NotFound => Failure::unavailable(
            format!("the router has not taken in {subject} yet; try again"),
            Duration::from_secs(1),
        )
        .with_reason("ROUTER_BEHIND"),
        Code::Aborted => Failure::unavailable(
            format!("the router knows another {subject} of that name; try again"),
            Duration::from_secs(1),
        )
        .with_reason("ROUTER_BEHIND"),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
            Failure::unavailable(
                format!(
                    "the router cannot be asked whether {subject} is still in use: {}",
                    problem.message
                ),
                problem.retry_after.unwrap_or(Duration::from_secs(2)),
            )
            .with_reason("ROUTER_UNAVAILABLE")
        }
        _ => Failure::internal(status.clone()),
    }
}
