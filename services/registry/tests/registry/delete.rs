//! Deletion, with a router that is asked and one that is not there.

use std::sync::{Arc, Mutex};

use airfleet_proto::registry::v1::{
    DeleteNamespaceRequest, DeleteShardRequest, ListAuditEventsRequest, Namespace,
};
use airfleet_proto::router::v1::router_service_server::{RouterService, RouterServiceServer};
use airfleet_proto::router::v1::*;
use airfleet_runtime::status::{Failure, Precondition};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::support::*;

on_both_engines!(
    without_a_router_only_force_deletes,
    the_router_gives_up_first,
    what_is_in_use_stays,
    the_leader_is_found,
    what_changed_meanwhile_stays,
    while_the_router_is_away_nothing_is_deleted,
    a_repeated_deletion_answers_as_the_first,
);

fn deletion(name: &str) -> DeleteNamespaceRequest {
    DeleteNamespaceRequest { name: name.to_owned(), ..Default::default() }
}

fn forced(name: &str) -> DeleteNamespaceRequest {
    DeleteNamespaceRequest { force: true, reason: "it is gone".to_owned(), ..deletion(name) }
}

type Answer = Box<dyn Fn(&ReleaseNamespaceRequest) -> Result<(), Status> + Send + Sync>;

/// A router that answers releases as told, over the wire.
struct FakeRouter {
    answer: Answer,
    asked: Mutex<Vec<ReleaseNamespaceRequest>>,
    shards: Mutex<Vec<ReleaseShardRequest>>,
}

struct Served(Arc<FakeRouter>);

impl FakeRouter {
    /// Serves on a free port until the test ends; answers the URL.
    async fn serve(
        answer: impl Fn(&ReleaseNamespaceRequest) -> Result<(), Status> + Send + Sync + 'static,
    ) -> (Arc<Self>, String) {
        let router = Arc::new(Self {
            answer: Box::new(answer),
            asked: Mutex::default(),
            shards: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(RouterServiceServer::new(Served(Arc::clone(&router))))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (router, url)
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked by the registry"))
}

macro_rules! not_asked {
    ($($method:ident: $request:ty => $answer:ty;)*) => {
        #[tonic::async_trait]
        impl RouterService for Served {
            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$answer>, Status> {
                not_here()
            })*

            type WatchAssignmentsStream =
                tokio_stream::Empty<Result<WatchAssignmentsResponse, Status>>;

            async fn watch_assignments(
                &self,
                _: Request<WatchAssignmentsRequest>,
            ) -> Result<Response<Self::WatchAssignmentsStream>, Status> {
                not_here()
            }

            type WatchNamespaceEventsStream =
                tokio_stream::Empty<Result<NamespaceEvent, Status>>;

            async fn watch_namespace_events(
                &self,
                _: Request<WatchNamespaceEventsRequest>,
            ) -> Result<Response<Self::WatchNamespaceEventsStream>, Status> {
                not_here()
            }

            async fn release_namespace(
                &self,
                request: Request<ReleaseNamespaceRequest>,
            ) -> Result<Response<Assignment>, Status> {
                let request = request.into_inner();
                let answer = (self.0.answer)(&request);
                self.0.asked.lock().unwrap().push(request);
                answer.map(|()| Response::new(Assignment::default()))
            }

            async fn release_shard(
                &self,
                request: Request<ReleaseShardRequest>,
            ) -> Result<Response<ReleaseShardResponse>, Status> {
                let request = request.into_inner();
                let in_use = request.shard.contains("used");
                self.0.shards.lock().unwrap().push(request);
                if in_use {
                    return Err(Status::failed_precondition("it has namespaces"));
                }
                Ok(Response::new(ReleaseShardResponse::default()))
            }
        }
    };
}

not_asked! {
    resolve: ResolveRequest => ResolveResponse;
    batch_resolve: BatchResolveRequest => BatchResolveResponse;
    get_assignment: GetAssignmentRequest => Assignment;
    list_assignments: ListAssignmentsRequest => ListAssignmentsResponse;
    get_shard_status: GetShardStatusRequest => ShardStatus;
    list_shard_statuses: ListShardStatusesRequest => ListShardStatusesResponse;
    cordon_shard: CordonShardRequest => ShardStatus;
    uncordon_shard: UncordonShardRequest => ShardStatus;
    pin_namespace: PinNamespaceRequest => Assignment;
    unpin_namespace: UnpinNamespaceRequest => Assignment;
    get_namespace_status: GetNamespaceStatusRequest => NamespaceStatus;
    list_namespace_statuses: ListNamespaceStatusesRequest => ListNamespaceStatusesResponse;
    list_namespace_events: ListNamespaceEventsRequest => ListNamespaceEventsResponse;
    get_router_status: GetRouterStatusRequest => RouterStatus;
}

async fn with_router(database: &Database, urls: &[&str]) -> Registry {
    let mut config = database.config();
    config.router.endpoints = urls.iter().map(|&url| url.to_owned()).collect();
    Registry::start(&config).await
}

async fn without_a_router_only_force_deletes(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let created =
        client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    let problem = refused(
        client.delete_namespace(deletion("payments")).await,
        Code::FailedPrecondition,
        "ROUTER_NOT_CONFIGURED",
    );
    assert_eq!(problem.preconditions[0].subject, "namespaces/payments");
    for reason in ["", "   ", "x\0y", &"x".repeat(501)] {
        let request = DeleteNamespaceRequest { reason: reason.to_owned(), ..forced("payments") };
        let answer = client.delete_namespace(request).await;
        let problem = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(problem.violations[0].field, "reason");
    }
    let stale = DeleteNamespaceRequest { etag: "other".to_owned(), ..forced("payments") };
    let problem = refused(client.delete_namespace(stale).await, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(problem.etag(), Some(created.etag.as_str()));
    let rehearsal = DeleteNamespaceRequest { validate_only: true, ..forced("payments") };
    client.delete_namespace(rehearsal).await.unwrap();
    client.get_namespace(get("payments")).await.unwrap();

    let exact = DeleteNamespaceRequest { etag: created.etag, ..forced("payments") };
    let answer = client.delete_namespace(exact).await.unwrap().into_inner();
    assert_eq!(answer.revision, created.revision + 1);
    refused(client.get_namespace(get("payments")).await, Code::NotFound, "NOT_FOUND");
    refused(client.delete_namespace(forced("payments")).await, Code::NotFound, "NOT_FOUND");
    // Who comes back under the name is somebody else, and the prefix is free for them.
    let again = client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    assert_ne!(again.uid, created.uid);

    client.create_shard(create_shard(shard("shard-a"))).await.unwrap();
    let request = DeleteShardRequest { name: "shard-a".to_owned(), ..Default::default() };
    let answer = client.delete_shard(request).await;
    refused(answer, Code::FailedPrecondition, "ROUTER_NOT_CONFIGURED");
}

async fn the_router_gives_up_first(database: Database) {
    let (router, url) = FakeRouter::serve(|_| Ok(())).await;
    let registry = with_router(&database, &[&url]).await;
    let mut client = registry.client();
    let created =
        client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    let rehearsal = DeleteNamespaceRequest { validate_only: true, ..deletion("payments") };
    client.delete_namespace(rehearsal).await.unwrap();
    client.delete_namespace(deletion("payments")).await.unwrap();
    let asked = std::mem::take(&mut *router.asked.lock().unwrap());
    assert_eq!(asked.len(), 2);
    assert!(asked[0].validate_only && !asked[1].validate_only);
    assert_eq!((&asked[1].namespace_uid, asked[1].force), (&created.uid, false));
    assert_eq!(asked[1].manifest_revision, created.revision);

    client.create_namespace(create(namespace("payments"))).await.unwrap();
    client.delete_namespace(forced("payments")).await.unwrap();
    let asked = router.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.force, asked.reason.as_str()), (true, "it is gone"));

    for name in ["shard-a", "shard-used"] {
        client.create_shard(create_shard(shard(name))).await.unwrap();
    }
    let request = |name: &str| DeleteShardRequest { name: name.to_owned(), ..Default::default() };
    client.delete_shard(request("shard-a")).await.unwrap();
    let answer = client.delete_shard(request("shard-used")).await;
    let problem = refused(answer, Code::FailedPrecondition, "FAILED_PRECONDITION");
    assert_eq!(problem.preconditions[0].subject, "shards/shard-used");
    assert_eq!(router.shards.lock().unwrap().len(), 2);
}

async fn what_is_in_use_stays(database: Database) {
    let (_router, url) = FakeRouter::serve(|_| {
        let violation = Precondition::new("NOT_DRAINED", "namespaces/payments", "3 runs active");
        Err(Failure::precondition(vec![violation]).with_reason("NOT_DRAINED").into())
    })
    .await;
    let registry = with_router(&database, &[&url]).await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    let answer = client.delete_namespace(deletion("payments")).await;
    let problem = refused(answer, Code::FailedPrecondition, "NOT_DRAINED");
    assert_eq!(problem.preconditions[0].description, "3 runs active");
    client.get_namespace(get("payments")).await.unwrap();
    let audit = client.list_audit_events(ListAuditEventsRequest::default()).await.unwrap();
    assert_eq!(audit.into_inner().events.len(), 1, "nothing happened");
}

async fn the_leader_is_found(database: Database) {
    let (leader, leader_url) = FakeRouter::serve(|_| Ok(())).await;
    let address = leader_url.strip_prefix("http://").unwrap().to_owned();
    let (_, follower_url) =
        FakeRouter::serve(move |_| Err(Failure::not_leader(Some(&address)).into())).await;
    let registry = with_router(&database, &[&follower_url]).await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    client.delete_namespace(deletion("payments")).await.unwrap();
    assert_eq!(leader.asked.lock().unwrap().len(), 1);
}

async fn what_changed_meanwhile_stays(database: Database) {
    // While the router is asked, the namespace changes.
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    let (go, going) = std::sync::mpsc::channel::<()>();
    let going = Mutex::new(going);
    let (_router, url) = FakeRouter::serve(move |_| {
        asked.send(()).unwrap();
        going.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Ok(())
    })
    .await;
    let registry = with_router(&database, &[&url]).await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    let deleting = tokio::spawn({
        let mut client = registry.client();
        async move { client.delete_namespace(deletion("payments")).await }
    });
    is_asked.recv().await.unwrap();
    let changed = Namespace { description: "changed".to_owned(), ..namespace("payments") };
    let now = client.update_namespace(update(changed, &[])).await.unwrap().into_inner();
    go.send(()).unwrap();
    let problem = refused(deleting.await.unwrap(), Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(problem.etag(), Some(now.etag.as_str()));
    client.get_namespace(get("payments")).await.unwrap();
}

async fn while_the_router_is_away_nothing_is_deleted(database: Database) {
    let registry = with_router(&database, &["http://127.0.0.1:1"]).await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    for request in [deletion("payments"), forced("payments")] {
        let answer = client.delete_namespace(request).await;
        let problem = refused(answer, Code::Unavailable, "ROUTER_UNAVAILABLE");
        assert!(problem.retry_after.is_some());
    }
    client.get_namespace(get("payments")).await.unwrap();

    // One that has not heard of it yet is no better, unless an operator does not mind.
    let (_router, url) = FakeRouter::serve(|_| Err(Status::not_found("unknown"))).await;
    let registry = with_router(&database, &[&url]).await;
    let mut client = registry.client();
    let answer = client.delete_namespace(deletion("payments")).await;
    refused(answer, Code::Unavailable, "ROUTER_BEHIND");
    client.delete_namespace(forced("payments")).await.unwrap();
}

async fn a_repeated_deletion_answers_as_the_first(database: Database) {
    let (router, url) = FakeRouter::serve(|_| Ok(())).await;
    let registry = with_router(&database, &[&url]).await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    let request = DeleteNamespaceRequest { request_id: "d-1".to_owned(), ..deletion("payments") };
    let first = client.delete_namespace(request.clone()).await.unwrap().into_inner();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    let again = client.delete_namespace(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, first);
    assert_eq!(router.asked.lock().unwrap().len(), 1);
    client.get_namespace(get("payments")).await.unwrap();
    let other = DeleteNamespaceRequest { name: "other".to_owned(), ..request };
    refused(client.delete_namespace(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}
