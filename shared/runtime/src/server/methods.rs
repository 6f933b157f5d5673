//! The methods that a node serves, and what is counted of each.
//!
//! Everything that a request needs is looked up once by its path: no label is put together while
//! a request is served.

use std::{collections::HashMap, sync::Arc, sync::OnceLock, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::{
    metrics::{LATENCY_BUCKETS, Metrics},
    telemetry,
};

/// Codes are numbered from 0 to 16.
const CODES: usize = 17;

/// One method of a service, or a group of HTTP paths.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) name: String,
    /// Whether either side sends more than one message.
    pub(super) is_stream: bool,
    /// Whether anybody may call it.
    pub(super) is_open: bool,
    counters: IntCounterVec,
    by_code: [OnceLock<IntCounter>; CODES],
    latency: Option<Histogram>,
    open_streams: Option<IntGauge>,
}

impl Method {
    /// A stream was opened.
    pub(super) fn opened(&self) {
        if let Some(gauge) = &self.open_streams {
            gauge.inc();
        }
    }

    /// A request was answered with `code` after `elapsed`, or a stream ended.
    pub(super) fn answered(&self, code: Code, elapsed: Duration) {
        // Made when first needed: most methods answer with few codes.
        let counter = self.by_code[code as usize].get_or_init(|| {
            self.counters.with_label_values(&[&self.service, &self.name, code_name(code)])
        });
        counter.inc();
        if let Some(latency) = &self.latency {
            latency.observe(elapsed.as_secs_f64());
        }
        if let Some(gauge) = &self.open_streams {
            gauge.dec();
        }
    }
}

/// The methods of a node, by path.
#[derive(Debug)]
pub(super) struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
}

impl Methods {
    /// The method at `path`. Paths that are not known share one.
    pub(super) fn find(&self, path: &str) -> &Arc<Method> {
        self.by_path.get(path).unwrap_or(&self.other)
    }
}

/// Collects methods.
pub(super) struct MethodsBuilder {
    counters: IntCounterVec,
    latency: HistogramVec,
    streams: IntGaugeVec,
    by_path: HashMap<String, Arc<Method>>,
}

impl MethodsBuilder {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            counters: metrics.counters(
                "rpc_requests_total",
                "Requests answered and streams ended, by gRPC code.",
                &["service", "method", "code"],
            ),
            latency: metrics.histograms(
                "rpc_duration_seconds",
                "Time from a request's headers to the end of its answer; streams are not counted.",
                &["service", "method"],
                LATENCY_BUCKETS,
            ),
            streams: metrics.gauges(
                "rpc_streams_open",
                "Streams that are open.",
                &["service", "method"],
            ),
            by_path: HashMap::new(),
        }
    }

    /// Adds the methods of the services named `served` that `descriptors` (an encoded
    /// `FileDescriptorSet`) describes.
    pub(super) fn add_described(
        &mut self,
        descriptors: &[u8],
        served: &[&'static str],
        is_open: bool,
    ) -> Result<(), prost::DecodeError> {
        let set = FileDescriptorSet::decode(descriptors)?;
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                if !served.contains(&name.as_str()) {
                    continue;
                }
                for method in &service.method {
                    let is_stream = method.server_streaming() || method.client_streaming();
                    let path = format!("/{name}/{}", method.name());
                    self.add(path, &name, method.name(), is_stream, is_open);
                }
            }
        }
        Ok(())
    }

    /// Adds an HTTP path.
    pub(super) fn add_http(&mut self, path: &str, is_open: bool) {
        self.add(path.to_owned(), telemetry::HTTP, path, false, is_open);
    }

    fn add(&mut self, path: String, service: &str, name: &str, is_stream: bool, is_open: bool) {
        let method = self.method(service, name, is_stream, is_open);
        self.by_path.insert(path, method);
    }

    fn method(&self, service: &str, name: &str, is_stream: bool, is_open: bool) -> Arc<Method> {
        let labels = [service, name];
        Arc::new(Method {
            service: service.to_owned(),
            name: name.to_owned(),
            is_stream,
            is_open,
            counters: self.counters.clone(),
            by_code: Default::default(),
            latency: (!is_stream).then(|| self.latency.with_label_values(&labels)),
            open_streams: is_stream.then(|| self.streams.with_label_values(&labels)),
        })
    }

    pub(super) fn build(self) -> Methods {
        let other = self.method("other", "other", false, false);
        Methods { by_path: self.by_path, other }
    }
}

/// The name of `code` as the protocol spells it.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_path_and_counted_by_code() {
        let metrics = Metrics::new();
        let mut builder = MethodsBuilder::new(&metrics);
        let health = "grpc.health.v1.Health";
        builder.add_described(tonic_health::pb::FILE_DESCRIPTOR_SET, &[health], true).unwrap();
        builder.add_http("/metrics", false);
        let methods = builder.build();

        let check = methods.find("/grpc.health.v1.Health/Check");
        assert!(check.is_open && !check.is_stream);
        check.answered(Code::Ok, Duration::from_millis(3));
        let watch = methods.find("/grpc.health.v1.Health/Watch");
        assert!(watch.is_stream);
        watch.opened();
        methods.find("/hostile/path").answered(Code::Unimplemented, Duration::ZERO);

        let text = metrics.render().unwrap();
        for line in [
            "airfleet_rpc_requests_total{code=\"OK\",method=\"Check\",service=\"grpc.health.v1.Health\"} 1",
            "airfleet_rpc_requests_total{code=\"UNIMPLEMENTED\",method=\"other\",service=\"other\"} 1",
            "airfleet_rpc_duration_seconds_bucket{method=\"Check\",service=\"grpc.health.v1.Health\",le=\"0.0025\"} 0",
            "airfleet_rpc_duration_seconds_bucket{method=\"Check\",service=\"grpc.health.v1.Health\",le=\"0.005\"} 1",
            "airfleet_rpc_streams_open{method=\"Watch\",service=\"grpc.health.v1.Health\"} 1",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("hostile"));
    }
}
