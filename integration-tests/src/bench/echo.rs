//! The peer of resolve: a bare tonic server that answers from nothing but the request.
//!
//! It speaks the same messages over the same codec, so that what differs is Airfleet's own part:
//! the table, and everything its server stack does around a call.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use airfleet_proto::router::v1::{
    Endpoints, ResolveRequest, ResolveResponse, resolve_request::Target,
};
use futures::future::BoxFuture;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::http,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

/// Answers `Resolve` with the dag_id as namespace and a fixed shard.
#[derive(Debug, Clone, Copy)]
pub struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "airfleet.router.v1.RouterService";
}

impl UnaryService<ResolveRequest> for Echo {
    type Response = ResolveResponse;
    type Future = Ready<Result<Response<ResolveResponse>, Status>>;

    fn call(&mut self, request: Request<ResolveRequest>) -> Self::Future {
        let namespace = match request.into_inner().target {
            Some(Target::DagId(text) | Target::Namespace(text)) => text,
            None => String::new(),
        };
        ready(Ok(Response::new(ResolveResponse {
            namespace,
            shard: "shard-0001".into(),
            endpoints: Some(Endpoints { url: "http://127.0.0.1:8080".into() }),
            generation: 1,
            state: 1,
            revision: 1_000_000,
            age_ms: 10,
            retry_after_ms: 0,
        })))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(Grpc::new(ProstCodec::<ResolveResponse, ResolveRequest>::default())
                .unary(Echo, request)
                .await)
        })
    }
}
