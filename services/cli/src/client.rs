//! The services as this command calls them.

use std::time::Duration;

use airfleet_proto::{
    dags::v1::dag_service_client::DagServiceClient,
    moves::v1::move_service_client::MoveServiceClient,
    placement::v1::placement_service_client::PlacementServiceClient,
    registry::v1::registry_service_client::RegistryServiceClient,
    router::v1::router_service_client::RouterServiceClient,
};
use airfleet_runtime::{
    client::{Replicas, Retry, Transport},
    config::ClientConfig,
    status::Problem,
};
use tonic::{Response, Status, Streaming};

use crate::error::{Error, Result};

/// Largest answer. Pages of namespaces with every field at its limit are larger than gRPC's
/// usual 4 MiB.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The registry.
pub type Registry = Service<RegistryServiceClient<Transport>>;
/// The router.
pub type Router = Service<RouterServiceClient<Transport>>;

/// The router, asked about placement.
pub type Placement = Service<PlacementServiceClient<Transport>>;

/// The router, asked about moves.
pub type Moves = Service<MoveServiceClient<Transport>>;

/// The router, asked to change DAGs.
pub type Dags = Service<DagClient>;
/// What it is asked with.
pub type DagClient = DagServiceClient<Transport>;

/// A service with all its replicas.
pub struct Service<C> {
    replicas: Replicas,
    endpoints: Vec<String>,
    timeout: Duration,
    client: fn(Transport) -> C,
}

impl<C> std::fmt::Debug for Service<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// The registry at its configured place.
pub fn registry(config: &ClientConfig, timeout: Duration) -> Result<Registry> {
    Service::new("registry", config, timeout, |transport| {
        RegistryServiceClient::new(transport).max_decoding_message_size(ANSWER_MAX_BYTES)
    })
}

/// The router at its configured place.
pub fn router(config: &ClientConfig, timeout: Duration) -> Result<Router> {
    Service::new("router", config, timeout, |transport| {
        RouterServiceClient::new(transport).max_decoding_message_size(ANSWER_MAX_BYTES)
    })
}

/// The router at its configured place, asked about placement.
pub fn placement(config: &ClientConfig, timeout: Duration) -> Result<Placement> {
    Service::new("router", config, timeout, |transport| {
        PlacementServiceClient::new(transport).max_decoding_message_size(ANSWER_MAX_BYTES)
    })
}

/// The router at its configured place, asked about moves.
pub fn moves(config: &ClientConfig, timeout: Duration) -> Result<Moves> {
    Service::new("router", config, timeout, |transport| {
        MoveServiceClient::new(transport).max_decoding_message_size(ANSWER_MAX_BYTES)
    })
}

/// The router at its configured place, asked to change DAGs.
pub fn dags(config: &ClientConfig, timeout: Duration) -> Result<Dags> {
    Service::new("router", config, timeout, DagServiceClient::new)
}

/// A new id for a request, so that the service knows a repeated one.
pub fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

impl<C> Service<C> {
    fn new(
        name: &str,
        config: &ClientConfig,
        timeout: Duration,
        client: fn(Transport) -> C,
    ) -> Result<Self> {
        let replicas = Replicas::new(config).map_err(|error| {
            Error::caused(format!("cannot connect to the {name}"), &error)
                .hint("`airfleet config view --show-origin` says where the settings come from")
        })?;
        Ok(Self { replicas, endpoints: config.endpoints.clone(), timeout, client })
    }

    /// Where its replicas are.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Calls a method that may be repeated; `what` is said where it fails: "cannot …".
    pub async fn call<T>(
        &self,
        what: &str,
        call: impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        self.attempt(Retry::Idempotent, what, &call).await
    }

    /// Calls a method that must not be repeated once it may have been carried out.
    pub async fn call_once<T>(
        &self,
        what: &str,
        call: impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        self.attempt(Retry::NotLeader, what, &call).await
    }

    /// Calls a method and leaves what it refuses to the caller.
    pub async fn try_call<T>(
        &self,
        call: impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T, Problem> {
        self.ask(Retry::Idempotent, &call).await
    }

    /// Calls a method, repeats what `retry` lets it, and leaves what it refuses to the caller.
    pub async fn ask<T>(
        &self,
        retry: Retry,
        call: &impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T, Problem> {
        self.answer(retry, call).await
    }

    /// Opens a stream.
    pub async fn open<T>(
        &self,
        what: &str,
        call: impl AsyncFn(C) -> Result<Response<Streaming<T>>, Status>,
    ) -> Result<Streaming<T>> {
        self.attempt(Retry::Idempotent, what, &call).await
    }

    /// A stream ended with this.
    pub fn stream_ended(&self, status: &Status) {
        self.replicas.failed(status);
    }

    /// The service answered `problem` when `what` was attempted.
    pub fn refused(&self, what: &str, problem: &Problem) -> Error {
        Error::answered(what, &self.endpoints.join(", "), problem)
    }

    async fn attempt<T>(
        &self,
        retry: Retry,
        what: &str,
        call: &impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        self.answer(retry, call).await.map_err(|problem| self.refused(what, &problem))
    }

    async fn answer<T>(
        &self,
        retry: Retry,
        call: &impl AsyncFn(C) -> Result<Response<T>, Status>,
    ) -> Result<T, Problem> {
        let answer = self.replicas.call(retry, move |transport| async move {
            let client = (self.client)(transport);
            match tokio::time::timeout(self.timeout, call(client)).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded(format!(
                    "no answer within {}",
                    crate::human::span(self.timeout)
                ))),
            }
        });
        answer.await.map_err(|status| Problem::from(&status))
    }
}
