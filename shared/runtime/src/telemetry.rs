//! Logs and traces.
//!
//! Logs go to standard error, for people or as JSON. Traces go to an OpenTelemetry collector over
//! OTLP if one is named; the trace context comes in and goes out as W3C `traceparent`. Metrics are
//! pulled from `/metrics` and not pushed: see [`crate::metrics`].
//!
//! The subscriber is the one thing that a process has once. `main` installs it; nothing else here
//! depends on it being there.

use std::{io::IsTerminal as _, time::Duration};

use http::HeaderMap;
use opentelemetry::{
    KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tonic::{
    metadata::{MetadataKey, MetadataMap},
    transport::ClientTlsConfig,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{LogFormat, TelemetryConfig},
    request::Context,
    tls,
};

/// Target of what is logged of each request. It is logged at level debug.
pub const RPC_TARGET: &str = "airfleet::rpc";

/// What is traced: each request, and what services do at level info.
const TRACE_FILTER: &str = "info,airfleet::rpc=debug";

/// Time for the last spans to reach the collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The service that paths of plain HTTP belong to.
pub(crate) const HTTP: &str = "http";

const TRACEPARENT: &str = "traceparent";

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter {filter:?} is wrong; write something like info,airfleet_router=debug")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// The exporter could not be made.
    #[error("traces cannot be sent to {endpoint}")]
    Exporter {
        /// The collector.
        endpoint: String,
        /// Why.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The collector wants TLS and nothing here tells whom to trust.
    #[error("traces cannot be sent over TLS")]
    Tls(#[source] tls::Error),
    /// The process has a subscriber already.
    #[error("logging was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Telemetry that runs. Keep it until the end of `main`.
#[derive(Debug)]
#[must_use = "spans are lost unless it is flushed at the end"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logging, and tracing if a collector is named. `service` is the name under which the
/// collector shows this process, such as `airfleet-router`. Must be called within a tokio runtime.
pub fn init(config: &TelemetryConfig, service: &str) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| Error::Filter { filter: config.filter.clone(), source })?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match config.log_format {
        LogFormat::Pretty => logs.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let provider = config
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| tracer_provider(endpoint, config.trace_ratio, service))
        .transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("airfleet"))
            .with_filter(EnvFilter::new(TRACE_FILTER))
    });
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(traces)
        .try_init()
        .map_err(Error::Twice)?;
    Ok(Telemetry { provider })
}

fn tracer_provider(endpoint: &str, ratio: f64, service: &str) -> Result<SdkTracerProvider, Error> {
    let mut exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(FLUSH_TIMEOUT);
    if endpoint.starts_with("https:") {
        let authorities = tls::system_authorities().map_err(Error::Tls)?;
        exporter = exporter.with_tls_config(ClientTlsConfig::new().trust_anchors(authorities));
    }
    let exporter = exporter
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build())
}

impl Telemetry {
    /// Sends what is left to the collector, for at most three seconds.
    pub async fn flush(self) {
        let Some(provider) = self.provider else { return };
        // It blocks its thread while the runtime sends.
        let done =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The span of a request, continuing the caller's trace. Disabled, and free, unless requests are
/// traced or logged at level debug.
pub(crate) fn rpc_span(
    service: &str,
    method: &str,
    context: &Context,
    headers: &HeaderMap,
) -> Span {
    let span = tracing::debug_span!(
        target: RPC_TARGET,
        "rpc",
        otel.name = tracing::field::Empty,
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = tracing::field::Empty,
        request_id = context.id.as_str(),
        principal = context.principal.subject,
    );
    if !span.is_disabled() {
        if service == HTTP {
            span.record("otel.name", method);
        } else {
            span.record("otel.name", format!("{service}/{method}"));
        }
        if headers.contains_key(TRACEPARENT) {
            let parent = TraceContextPropagator::new().extract(&Headers(headers));
            // Fails where nothing is traced, and then there is nothing to continue.
            let _ = span.set_parent(parent);
        }
    }
    span
}

/// Tells the receiver of a request which trace it belongs to.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Metadata(metadata));
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (key.parse::<MetadataKey<_>>(), value.parse()) {
            self.0.insert(key, value);
        }
    }
}
