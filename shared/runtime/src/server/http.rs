//! What every node answers over plain HTTP.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::call::{http_failure, is_grpc};
use crate::{
    health::Readiness,
    metrics::Metrics,
    status::{Failure, Kind, reason},
};

pub(super) const METRICS: &str = "/metrics";
pub(super) const LIVE: &str = "/healthz";
pub(super) const READY: &str = "/readyz";

/// `/metrics`, `/healthz` and `/readyz`.
pub(super) fn routes(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route(METRICS, get(render).with_state(metrics))
        .route(LIVE, get(|| async { "alive\n" }))
        .route(READY, get(ready).with_state(readiness))
}

async fn render(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
}

/// What is served nowhere.
pub(super) async fn unknown(request: axum::extract::Request) -> Response {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        Failure::new(
            Kind::Unimplemented,
            reason::UNIMPLEMENTED,
            format!("this node has no method {path}"),
        )
        .into_status()
        .into_http()
    } else {
        http_failure(&Failure::not_found("path", path))
    }
}
