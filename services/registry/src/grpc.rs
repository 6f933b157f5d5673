//! The registry's methods on the wire: takes requests apart, asks the service, puts answers
//! together. Decides nothing.

use std::sync::Arc;

use airfleet_domain::ids::Revision;
use airfleet_proto::registry::v1::registry_service_server::{
    RegistryService, RegistryServiceServer,
};
use airfleet_proto::registry::v1::{
    ApplyManifestRequest, ApplyManifestResponse, CreateNamespaceRequest, CreateShardRequest,
    DeleteNamespaceRequest, DeleteNamespaceResponse, DeleteShardRequest, DeleteShardResponse,
    GetNamespaceRequest, GetShardRequest, ListAuditEventsRequest, ListAuditEventsResponse,
    ListNamespacesRequest, ListNamespacesResponse, ListShardsRequest, ListShardsResponse,
    Namespace, Shard, UpdateNamespaceRequest, UpdateShardRequest, WatchManifestRequest,
    WatchManifestResponse,
};
use airfleet_runtime::auth::Role;
use airfleet_runtime::lifecycle::Tasks;
use airfleet_runtime::request::ContextExt as _;
use airfleet_runtime::status::Failure;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::service::{Caller, Deletion, Listed, Options, PageRequest, Service};
use crate::store::{Filter, Key, Kind};
use crate::watch::Tail;

/// Messages that wait for a watcher. What is behind them is folded, so few are best.
const WATCH_BUFFER: usize = 2;

/// The registry as gRPC has it.
#[derive(Debug)]
pub(crate) struct Api {
    service: Arc<Service>,
    tail: Arc<Tail>,
    tasks: Tasks,
}

impl Api {
    /// A server of the service, for messages of at most `max_message_bytes`.
    pub(crate) fn server(
        service: Arc<Service>,
        tail: Arc<Tail>,
        tasks: Tasks,
        max_message_bytes: usize,
    ) -> RegistryServiceServer<Self> {
        RegistryServiceServer::new(Self { service, tail, tasks })
            .max_decoding_message_size(max_message_bytes)
    }
}

/// Who asks, and for what.
fn open<T>(request: Request<T>) -> Result<(Caller, T), Failure> {
    let context = request.context()?;
    let caller = Caller {
        principal: Arc::clone(&context.principal),
        call_id: context.id.as_str().to_owned(),
    };
    Ok((caller, request.into_inner()))
}

fn namespace_key(name: String) -> Key {
    Key { kind: Kind::Namespace, name }
}

fn shard_key(name: String) -> Key {
    Key { kind: Kind::Shard, name }
}

fn paths(mask: Option<prost_types::FieldMask>) -> Vec<String> {
    mask.unwrap_or_default().paths
}

#[tonic::async_trait]
impl RegistryService for Api {
    async fn create_namespace(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<Namespace>, Status> {
        let (caller, message) = open(request)?;
        let CreateNamespaceRequest { namespace, request_id, validate_only } = message;
        let wanted = convert::wanted_namespace(namespace)?;
        let options = Options { request_id, validate_only };
        let stored = self.service.create(&caller, wanted, &options).await?;
        Ok(Response::new(convert::namespace(stored)?))
    }

    async fn get_namespace(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<Namespace>, Status> {
        let (caller, message) = open(request)?;
        let stored = self.service.get(&caller, &namespace_key(message.name)).await?;
        Ok(Response::new(convert::namespace(stored)?))
    }

    async fn list_namespaces(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let (caller, message) = open(request)?;
        let ListNamespacesRequest { page_size, page_token, selector, owner } = message;
        let selector = convert::selector(selector)?;
        let filter = Filter { kind: Some(Kind::Namespace), selector, owner };
        let page = PageRequest { size: page_size, token: page_token };
        let Listed { items, next_page_token, revision } =
            self.service.list(&caller, &filter, &page).await?;
        let namespaces = items.into_iter().map(convert::namespace).collect::<Result<_, _>>()?;
        let revision = revision.0;
        Ok(Response::new(ListNamespacesResponse { namespaces, next_page_token, revision }))
    }

    async fn update_namespace(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<Namespace>, Status> {
        let (caller, message) = open(request)?;
        let UpdateNamespaceRequest { namespace, update_mask, request_id, validate_only } = message;
        let wanted = convert::wanted_namespace(namespace)?;
        let options = Options { request_id, validate_only };
        let stored = self.service.update(&caller, wanted, &paths(update_mask), &options).await?;
        Ok(Response::new(convert::namespace(stored)?))
    }

    async fn delete_namespace(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<DeleteNamespaceResponse>, Status> {
        let (caller, message) = open(request)?;
        let DeleteNamespaceRequest { name, etag, request_id, validate_only, force, reason } =
            message;
        let deletion = Deletion { key: namespace_key(name), etag, force, reason };
        let options = Options { request_id, validate_only };
        let Revision(revision) = self.service.delete(&caller, deletion, &options).await?;
        Ok(Response::new(DeleteNamespaceResponse { revision }))
    }

    async fn create_shard(
        &self,
        request: Request<CreateShardRequest>,
    ) -> Result<Response<Shard>, Status> {
        let (caller, message) = open(request)?;
        let CreateShardRequest { shard, request_id, validate_only } = message;
        let wanted = convert::wanted_shard(shard)?;
        let options = Options { request_id, validate_only };
        let stored = self.service.create(&caller, wanted, &options).await?;
        Ok(Response::new(convert::shard(stored)?))
    }

    async fn get_shard(
        &self,
        request: Request<GetShardRequest>,
    ) -> Result<Response<Shard>, Status> {
        let (caller, message) = open(request)?;
        let stored = self.service.get(&caller, &shard_key(message.name)).await?;
        Ok(Response::new(convert::shard(stored)?))
    }

    async fn list_shards(
        &self,
        request: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        let (caller, message) = open(request)?;
        let ListShardsRequest { page_size, page_token, selector } = message;
        let selector = convert::selector(selector)?;
        let filter = Filter { kind: Some(Kind::Shard), selector, owner: String::new() };
        let page = PageRequest { size: page_size, token: page_token };
        let Listed { items, next_page_token, revision } =
            self.service.list(&caller, &filter, &page).await?;
        let shards = items.into_iter().map(convert::shard).collect::<Result<_, _>>()?;
        let revision = revision.0;
        Ok(Response::new(ListShardsResponse { shards, next_page_token, revision }))
    }

    async fn update_shard(
        &self,
        request: Request<UpdateShardRequest>,
    ) -> Result<Response<Shard>, Status> {
        let (caller, message) = open(request)?;
        let UpdateShardRequest { shard, update_mask, request_id, validate_only } = message;
        let wanted = convert::wanted_shard(shard)?;
        let options = Options { request_id, validate_only };
        let stored = self.service.update(&caller, wanted, &paths(update_mask), &options).await?;
        Ok(Response::new(convert::shard(stored)?))
    }

    async fn delete_shard(
        &self,
        request: Request<DeleteShardRequest>,
    ) -> Result<Response<DeleteShardResponse>, Status> {
        let (caller, message) = open(request)?;
        let DeleteShardRequest { name, etag, request_id, validate_only } = message;
        let key = shard_key(name);
        let deletion = Deletion { key, etag, force: false, reason: String::new() };
        let options = Options { request_id, validate_only };
        let Revision(revision) = self.service.delete(&caller, deletion, &options).await?;
        Ok(Response::new(DeleteShardResponse { revision }))
    }

    async fn apply_manifest(
        &self,
        request: Request<ApplyManifestRequest>,
    ) -> Result<Response<ApplyManifestResponse>, Status> {
        let (caller, message) = open(request)?;
        let ApplyManifestRequest { entries, request_id, validate_only } = message;
        let wanted = convert::wanted_entries(entries)?;
        let options = Options { request_id, validate_only };
        let outcome = self.service.apply(&caller, wanted, &options).await?;
        Ok(Response::new(convert::applied(outcome)))
    }

    type WatchManifestStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<WatchManifestResponse, Status>> + Send>>;

    async fn watch_manifest(
        &self,
        request: Request<WatchManifestRequest>,
    ) -> Result<Response<Self::WatchManifestStream>, Status> {
        let (caller, message) = open(request)?;
        caller.principal.require_role(Role::Viewer)?;
        if message.resume_revision < 0 {
            let rule = "must not be negative";
            return Err(Failure::invalid_field("resume_revision", "OUT_OF_RANGE", rule).into());
        }
        let start = self.tail.start(Revision(message.resume_revision)).await?;
        let (out, events) = mpsc::channel(WATCH_BUFFER);
        self.tasks.spawn("watch", Arc::clone(&self.tail).follow(start, out));
        let stream = ReceiverStream::new(events)
            .map(|event| event.map(convert::watch_response).map_err(Status::from));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let (caller, message) = open(request)?;
        let ListAuditEventsRequest { page_size, page_token, kind, name } = message;
        let page = PageRequest { size: page_size, token: page_token };
        let Listed { items, next_page_token, .. } =
            self.service.audit(&caller, &kind, &name, &page).await?;
        let events = items.into_iter().map(convert::audit_event).collect();
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}
