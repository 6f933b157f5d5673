//! Serves gRPC and HTTP on one port.
//!
//! Responsible for everything between a socket and a handler: TLS, half-open connections, limits,
//! who calls, request ids, metrics, deadlines, panics, and an orderly end. It serves gRPC health
//! and reflection, `/metrics`, `/healthz` and `/readyz` beside what a service adds.
//!
//! Invariant: no request reaches a handler without a [`crate::request::Context`]. Everything that
//! may grow has a limit, and what is past it is refused, not queued.
//!
//! A request costs little here: no allocation for metrics, one for the context, no span unless
//! somebody listens. tonic's own server and tower's layers are not used because each layer boxes
//! and clones, and because they cannot bound what happens before the first request.

mod accept;
mod admission;
mod body;
mod call;
mod http;
mod identity;
mod methods;

use std::{convert::Infallible, io, net::SocketAddr};

use ::http::Request;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tonic::{server::NamedService, service::Routes};
use tower::Service;

use self::{
    accept::Acceptor, admission::Admission, identity::Authenticator, methods::Methods,
    methods::MethodsBuilder,
};
use crate::{
    auth::{Tokens, TokensError},
    config::{Exposure, Limits, ServerConfig},
    lifecycle::Shutdown,
    node::Node,
    tls::{self, ServerTls},
};

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Why a node does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other or would open the node to strangers.
    #[error(transparent)]
    Exposure(#[from] Exposure),
    /// Certificates cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[source] tls::Error),
    /// Tokens cannot be used.
    #[error("tokens cannot be set up")]
    Tokens(#[source] TokensError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The listener that was handed in does not work.
    #[error("the listener cannot be used")]
    Listener(#[source] io::Error),
    /// The descriptors that were handed in are none.
    #[error("the protobuf descriptors are malformed: {0}")]
    Descriptors(String),
}

/// Listens on the address of `config`. For `main`; tests bind a free port themselves.
pub async fn bind(config: &ServerConfig) -> Result<TcpListener, Error> {
    config.check(config.listen)?;
    TcpListener::bind(config.listen)
        .await
        .map_err(|source| Error::Bind { address: config.listen, source })
}

/// A listener of the standard library or of tokio.
pub trait IntoListener {
    /// As tokio has it.
    fn into_listener(self) -> io::Result<TcpListener>;
}

impl IntoListener for TcpListener {
    fn into_listener(self) -> io::Result<TcpListener> {
        Ok(self)
    }
}

impl IntoListener for std::net::TcpListener {
    fn into_listener(self) -> io::Result<TcpListener> {
        self.set_nonblocking(true)?;
        TcpListener::from_std(self)
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    router: axum::Router,
    methods: Methods,
    authenticator: Authenticator,
    admission: Admission,
    limits: Limits,
    /// Methods that take larger messages than the limits say, and how large.
    larger: Vec<(&'static str, usize)>,
    shutdown: Shutdown,
}

/// A server that is being put together.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    node: Node,
    routes: Routes,
    http: axum::Router,
    http_paths: Vec<String>,
    larger: Vec<(&'static str, usize)>,
    services: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl Server {
    /// A server of `node` without services.
    pub fn new(config: &ServerConfig, node: &Node) -> Self {
        Self {
            config: config.clone(),
            node: node.clone(),
            routes: Routes::default(),
            http: axum::Router::new(),
            http_paths: Vec::new(),
            larger: Vec::new(),
            services: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Adds descriptors (an encoded `FileDescriptorSet`), for reflection and for the names of
    /// methods in metrics. Methods without a descriptor are counted together, and as unary.
    pub fn descriptors(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Adds a gRPC service. A generated server decodes messages up to 4 MiB; one that is to take
    /// more needs `max_decoding_message_size(config.limits.max_message_bytes)`.
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Lets the method at `path` take messages up to `bytes`, where that is more than the limits say.
    pub fn larger_messages(mut self, path: &'static str, bytes: usize) -> Self {
        self.larger.push((path, bytes));
        self
    }

    /// Adds a plain HTTP `path`, as axum writes it. Callers must be known, if any must.
    pub fn http(mut self, path: &str, route: axum::routing::MethodRouter) -> Self {
        self.http_paths.push(path.to_owned());
        self.http = self.http.route(path, route);
        self
    }

    /// Serves on `listener` until the node stops. Returns once connections are accepted; the work
    /// belongs to the tasks of the node. Must be called within a tokio runtime.
    pub fn serve(self, listener: impl IntoListener) -> Result<SocketAddr, Error> {
        let listener = listener.into_listener().map_err(Error::Listener)?;
        let address = listener.local_addr().map_err(Error::Listener)?;
        self.config.check(address)?;
        let Self { config, node, routes, http, http_paths, larger, services, descriptors } = self;
        let tokens = config.tokens_file.as_ref().map(Tokens::load).transpose();
        let tokens = tokens.map_err(Error::Tokens)?;
        let tls = ServerTls::load(&config.tls, tokens.is_some()).map_err(Error::Tls)?;

        let methods = methods(&node, &config, &services, &descriptors, &http_paths)?;
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut routes = routes.add_service(health);
        if !descriptors.is_empty() {
            routes = add_reflection(routes, &services, &descriptors)?;
        }
        let router = routes
            .into_axum_router()
            .merge(http::routes(node.metrics.clone(), node.readiness.clone()))
            .merge(http)
            .fallback(http::unknown)
            // Tells axum that routes are complete; without it, each request pays for that.
            .with_state(());

        let admission = Admission::new(&config.limits);
        let certificates = config.tls.client_ca.is_some();
        let authenticator =
            Authenticator::new(tokens.clone(), certificates, node.clock.clone(), &admission);
        let shutdown = node.shutdown().clone();
        let shared = std::sync::Arc::new(Shared {
            router,
            methods,
            authenticator,
            admission,
            limits: config.limits.clone(),
            larger,
            shutdown: shutdown.clone(),
        });
        expose_load(&node, &shared);

        if let Some(tokens) = tokens {
            node.tasks.spawn("tokens", tokens.watch(shutdown.clone()));
        }
        if let Some(tls) = &tls {
            node.tasks.spawn("certificates", tls.clone().watch(shutdown.clone()));
        }
        node.tasks.spawn("health", report_health(node.clone(), reporter, services));
        tracing::info!(
            service = node.service,
            %address,
            tls = tls.is_some(),
            authentication = config.tokens_file.is_some() || certificates,
            "serving"
        );
        if !address.ip().is_loopback() && config.insecure {
            tracing::warn!(%address, "server.insecure is set: anybody who reaches this may use it");
        }
        let acceptor = Acceptor::new(shared, tls, node.readiness.clone(), &node.metrics);
        node.tasks.spawn_critical("server", acceptor.run(listener));
        Ok(address)
    }
}

fn methods(
    node: &Node,
    config: &ServerConfig,
    services: &[&'static str],
    descriptors: &[&'static [u8]],
    http_paths: &[String],
) -> Result<Methods, Error> {
    let malformed = |error: prost::DecodeError| Error::Descriptors(error.to_string());
    let mut methods = MethodsBuilder::new(&node.metrics);
    for set in descriptors {
        methods.add_described(set, services, false).map_err(malformed)?;
    }
    // Probes of health know no secrets.
    methods
        .add_described(tonic_health::pb::FILE_DESCRIPTOR_SET, &[HEALTH], true)
        .map_err(malformed)?;
    for set in [
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        methods.add_described(set, &REFLECTION, false).map_err(malformed)?;
    }
    methods.add_http(http::METRICS, config.public_metrics);
    methods.add_http(http::LIVE, true);
    methods.add_http(http::READY, true);
    for path in http_paths {
        methods.add_http(path, false);
    }
    Ok(methods.build())
}

fn add_reflection(
    routes: Routes,
    services: &[&'static str],
    descriptors: &[&'static [u8]],
) -> Result<Routes, Error> {
    let builder = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH);
        for set in descriptors {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        // Descriptors may tell of services that other nodes serve.
        services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let malformed = |error: tonic_reflection::server::Error| Error::Descriptors(error.to_string());
    let v1 = builder().with_service_name(REFLECTION[0]).build_v1().map_err(malformed)?;
    let v1alpha = builder().with_service_name(REFLECTION[1]).build_v1alpha().map_err(malformed)?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// Tells how full the node is.
fn expose_load(node: &Node, shared: &std::sync::Arc<Shared>) {
    let metrics = &node.metrics;
    let gauges = [
        (
            metrics.gauge("rpc_requests_in_flight", "Requests at work, other than streams."),
            std::sync::Arc::clone(&shared.admission.requests),
        ),
        (
            metrics.gauge("rpc_streams_in_flight", "Streams at work, of all methods."),
            std::sync::Arc::clone(&shared.admission.streams),
        ),
    ];
    let ready = metrics.gauge("ready", "1 where the node is ready to serve, else 0.");
    let readiness = node.readiness.clone();
    metrics.before_render(move || {
        for (gauge, gate) in &gauges {
            gauge.set(gate.at_work() as i64);
        }
        ready.set(i64::from(readiness.is_ready()));
    });
}

/// Keeps the gRPC health service at what readiness says, for the node and each of its services.
async fn report_health(
    node: Node,
    reporter: tonic_health::server::HealthReporter,
    services: Vec<&'static str>,
) {
    use tonic_health::ServingStatus::{NotServing, Serving};

    let mut ready = node.readiness.subscribe();
    loop {
        let status = if *ready.borrow_and_update() { Serving } else { NotServing };
        for name in services.iter().chain(&[""]) {
            reporter.set_service_status(name, status).await;
        }
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { return },
            () = node.shutdown().triggered() => {
                for name in services.iter().chain(&[""]) {
                    reporter.set_service_status(name, NotServing).await;
                }
                return;
            }
        }
    }
}
