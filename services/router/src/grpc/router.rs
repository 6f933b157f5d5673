//! RouterService.

use std::sync::Arc;

use airfleet_domain::{ids::Revision, routing::State};
use airfleet_proto::router::v1::{self as wire, router_service_server::RouterService};
use airfleet_runtime::{
    auth::{Principal, Role},
    request::ContextExt as _,
    status::{Failure, FieldViolation},
};
use tonic::{Request, Response, Status};

use super::{
    events::{EventStream, EventWatches},
    page, resolve,
    watch::{WatchStream, Watches},
};
use crate::{
    convert,
    service::{Error, Pin, ReleaseNamespace, ReleaseShard, Service, Who},
};

/// Most characters of a reason.
const REASON_MAX: usize = 500;

/// Entries that are looked at for one page: a filter that few entries match must not hold up
/// others. A page may so be short, or empty, and still have a next one.
const LOOKED_AT_MAX: usize = 100_000;

/// RouterService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct RouterApi {
    service: Arc<Service>,
    watches: Watches,
    events: EventWatches,
}

impl RouterApi {
    pub(crate) fn new(service: Arc<Service>, watches: Watches, events: EventWatches) -> Self {
        Self { service, watches, events }
    }
}

pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) fn require<T>(request: &Request<T>, role: Role) -> Result<&Arc<Principal>, Failure> {
    let principal = request.principal()?;
    principal.require_role(role)?;
    Ok(principal)
}

pub(super) fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Response::new(value)),
        Err(error) => Err(Failure::from(error).into()),
    }
}

pub(super) fn check(violations: Vec<FieldViolation>) -> Result<(), Error> {
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// Who asks, and why.
pub(super) fn who(
    principal: &Principal,
    reason: &str,
    violations: &mut Vec<FieldViolation>,
) -> Who {
    if reason.chars().count() > REASON_MAX {
        let message = format!("at most {REASON_MAX} characters");
        violations.push(FieldViolation::new("reason", "TOO_LONG", message));
    }
    Who { actor: principal.subject.clone(), reason: reason.trim().to_owned() }
}

#[tonic::async_trait]
impl RouterService for RouterApi {
    async fn resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Answer<wire::ResolveResponse> {
        require(&request, Role::Viewer)?;
        answer(resolve::one(&self.service, request.get_ref()))
    }

    async fn batch_resolve(
        &self,
        request: Request<wire::BatchResolveRequest>,
    ) -> Answer<wire::BatchResolveResponse> {
        require(&request, Role::Viewer)?;
        answer(resolve::many(&self.service, &request.get_ref().dag_ids))
    }

    async fn get_assignment(
        &self,
        request: Request<wire::GetAssignmentRequest>,
    ) -> Answer<wire::Assignment> {
        require(&request, Role::Viewer)?;
        let namespace = &request.get_ref().namespace;
        let view = self.service.live.peek();
        let entry = view.table.resolve_namespace(namespace);
        if entry.is_none() && !self.service.live.is_ready() {
            return answer(Err(Error::NotReady));
        }
        answer(entry.map(convert::assignment).ok_or_else(|| Error::NoNamespace(namespace.clone())))
    }

    async fn list_assignments(
        &self,
        request: Request<wire::ListAssignmentsRequest>,
    ) -> Answer<wire::ListAssignmentsResponse> {
        require(&request, Role::Viewer)?;
        answer(self.list(request.get_ref()))
    }

    type WatchAssignmentsStream = WatchStream;

    async fn watch_assignments(
        &self,
        request: Request<wire::WatchAssignmentsRequest>,
    ) -> Answer<WatchStream> {
        require(&request, Role::Viewer)?;
        let from = request.get_ref().resume_revision;
        if from < 0 {
            let message = "must be the revision of a response, or 0";
            let violation = FieldViolation::new("resume_revision", "OUT_OF_RANGE", message);
            return answer(Err(Error::Invalid(vec![violation])));
        }
        if !self.service.live.is_ready() {
            return answer(Err(Error::NotReady));
        }
        Ok(Response::new(self.watches.open(Revision(from))?))
    }

    async fn get_shard_status(
        &self,
        request: Request<wire::GetShardStatusRequest>,
    ) -> Answer<wire::ShardStatus> {
        require(&request, Role::Viewer)?;
        answer(self.service.shard_status(&request.get_ref().shard).map(convert::shard_status))
    }

    async fn list_shard_statuses(
        &self,
        request: Request<wire::ListShardStatusesRequest>,
    ) -> Answer<wire::ListShardStatusesResponse> {
        require(&request, Role::Viewer)?;
        let request = request.get_ref();
        let mut violations = Vec::new();
        let size = page::size(request.page_size, &mut violations);
        let after = page::after("shards", &request.page_token, &mut violations);
        let listed = check(violations).and_then(|()| self.service.shard_statuses(&after, size));
        answer(listed.map(|(statuses, more)| {
            let last = statuses.last().filter(|_| more);
            wire::ListShardStatusesResponse {
                next_page_token: last
                    .map(|last| page::token("shards", &last.name))
                    .unwrap_or_default(),
                shards: statuses.into_iter().map(convert::shard_status).collect(),
            }
        }))
    }

    async fn cordon_shard(
        &self,
        request: Request<wire::CordonShardRequest>,
    ) -> Answer<wire::ShardStatus> {
        let principal = require(&request, Role::Operator)?.clone();
        let request = request.into_inner();
        let mut violations = Vec::new();
        let shard = convert::name("shard", &request.shard, &mut violations);
        let who = who(&principal, &request.reason, &mut violations);
        match shard.filter(|_| violations.is_empty()) {
            Some(shard) => {
                answer(self.service.cordon(&shard, who).await.map(convert::shard_status))
            }
            None => answer(Err(Error::Invalid(violations))),
        }
    }

    async fn uncordon_shard(
        &self,
        request: Request<wire::UncordonShardRequest>,
    ) -> Answer<wire::ShardStatus> {
        require(&request, Role::Operator)?;
        let mut violations = Vec::new();
        match convert::name("shard", &request.get_ref().shard, &mut violations) {
            Some(shard) => answer(self.service.uncordon(&shard).await.map(convert::shard_status)),
            None => answer(Err(Error::Invalid(violations))),
        }
    }

    async fn pin_namespace(
        &self,
        request: Request<wire::PinNamespaceRequest>,
    ) -> Answer<wire::Assignment> {
        let principal = require(&request, Role::Operator)?.clone();
        let request = request.into_inner();
        let mut violations = Vec::new();
        let namespace = convert::name("namespace", &request.namespace, &mut violations);
        let shard = convert::name("shard", &request.shard, &mut violations);
        let who = who(&principal, &request.reason, &mut violations);
        let (Some(namespace), Some(shard), true) = (namespace, shard, violations.is_empty()) else {
            return answer(Err(Error::Invalid(violations)));
        };
        let pin = Pin {
            namespace,
            shard,
            who,
            expected_generation: request.expected_generation,
            validate_only: request.validate_only,
            force: request.force,
        };
        answer(self.service.pin(pin).await.map(|entry| convert::assignment(&entry)))
    }

    async fn unpin_namespace(
        &self,
        request: Request<wire::UnpinNamespaceRequest>,
    ) -> Answer<wire::Assignment> {
        let principal = require(&request, Role::Operator)?.clone();
        let mut violations = Vec::new();
        let Some(namespace) =
            convert::name("namespace", &request.get_ref().namespace, &mut violations)
        else {
            return answer(Err(Error::Invalid(violations)));
        };
        let who = Who { actor: principal.subject.clone(), reason: String::new() };
        let unpinned = self.service.unpin(&namespace, who).await;
        answer(unpinned.map(|entry| convert::assignment(&entry)))
    }

    async fn release_namespace(
        &self,
        request: Request<wire::ReleaseNamespaceRequest>,
    ) -> Answer<wire::Assignment> {
        let principal = require(&request, Role::Operator)?.clone();
        let request = request.into_inner();
        let mut violations = Vec::new();
        let namespace = convert::name("namespace", &request.namespace, &mut violations);
        let who = who(&principal, &request.reason, &mut violations);
        let Some(namespace) = namespace.filter(|_| violations.is_empty()) else {
            return answer(Err(Error::Invalid(violations)));
        };
        let release = ReleaseNamespace {
            namespace,
            uid: request.namespace_uid,
            who,
            force: request.force,
            validate_only: request.validate_only,
            manifest_revision: Revision(request.manifest_revision),
        };
        answer(self.service.release(release).await.map(|entry| convert::assignment(&entry)))
    }

    async fn release_shard(
        &self,
        request: Request<wire::ReleaseShardRequest>,
    ) -> Answer<wire::ReleaseShardResponse> {
        require(&request, Role::Operator)?;
        let request = request.into_inner();
        let mut violations = Vec::new();
        let Some(shard) = convert::name("shard", &request.shard, &mut violations) else {
            return answer(Err(Error::Invalid(violations)));
        };
        let release = ReleaseShard {
            shard,
            validate_only: request.validate_only,
            manifest_revision: Revision(request.manifest_revision),
        };
        let released = self.service.release_shard(release).await;
        answer(released.map(|revision| wire::ReleaseShardResponse { revision: revision.0 }))
    }

    async fn get_namespace_status(
        &self,
        request: Request<wire::GetNamespaceStatusRequest>,
    ) -> Answer<wire::NamespaceStatus> {
        require(&request, Role::Viewer)?;
        let status = self.service.namespace_status(&request.get_ref().namespace).await;
        answer(status.map(convert::namespace_status))
    }

    async fn list_namespace_statuses(
        &self,
        request: Request<wire::ListNamespaceStatusesRequest>,
    ) -> Answer<wire::ListNamespaceStatusesResponse> {
        require(&request, Role::Viewer)?;
        let wire::ListNamespaceStatusesRequest { page_size, page_token, shard, attention } =
            request.get_ref();
        let mut violations = Vec::new();
        let size = page::size(*page_size, &mut violations);
        let question = format!("statuses/{shard}/{attention}");
        let after = page::after(&question, page_token, &mut violations);
        let listed = check(violations)
            .and_then(|()| self.service.role_summaries(&after, size, shard, *attention));
        answer(listed.map(|(roles, last)| wire::ListNamespaceStatusesResponse {
            roles: roles.into_iter().map(convert::role_summary).collect(),
            next_page_token: last.map(|last| page::token(&question, &last)).unwrap_or_default(),
        }))
    }

    async fn list_namespace_events(
        &self,
        request: Request<wire::ListNamespaceEventsRequest>,
    ) -> Answer<wire::ListNamespaceEventsResponse> {
        require(&request, Role::Viewer)?;
        answer(self.list_events(request.get_ref()).await)
    }

    type WatchNamespaceEventsStream = EventStream;

    async fn watch_namespace_events(
        &self,
        request: Request<wire::WatchNamespaceEventsRequest>,
    ) -> Answer<EventStream> {
        require(&request, Role::Viewer)?;
        let wire::WatchNamespaceEventsRequest { namespace, resume_sequence } = request.get_ref();
        let mut violations = Vec::new();
        let namespace = convert::name("namespace", namespace, &mut violations);
        if *resume_sequence < 0 {
            let message = "must be the sequence of an event, or 0";
            violations.push(FieldViolation::new("resume_sequence", "OUT_OF_RANGE", message));
        }
        match namespace.filter(|_| violations.is_empty()) {
            Some(namespace) => {
                Ok(Response::new(self.events.open(namespace, *resume_sequence).await?))
            }
            None => answer(Err(Error::Invalid(violations))),
        }
    }

    async fn get_router_status(
        &self,
        request: Request<wire::GetRouterStatusRequest>,
    ) -> Answer<wire::RouterStatus> {
        require(&request, Role::Viewer)?;
        Ok(Response::new(convert::router_status(self.service.router_status())))
    }
}

impl RouterApi {
    async fn list_events(
        &self,
        request: &wire::ListNamespaceEventsRequest,
    ) -> Result<wire::ListNamespaceEventsResponse, Error> {
        let wire::ListNamespaceEventsRequest { namespace, page_size, page_token } = request;
        let mut violations = Vec::new();
        let name = convert::name("namespace", namespace, &mut violations);
        let size = page::size(*page_size, &mut violations);
        let question = format!("events/{namespace}");
        let after = page::after(&question, page_token, &mut violations);
        let Some(name) = name.filter(|_| violations.is_empty()) else {
            return Err(Error::Invalid(violations));
        };
        // A token is only taken with its checksum, so it is the number that was given out.
        let before = after.parse().ok();
        let (events, sequence) = self.events.list(&self.service, &name, before, size).await?;
        let last = events.last().filter(|_| events.len() == size);
        Ok(wire::ListNamespaceEventsResponse {
            next_page_token: last
                .map(|last| page::token(&question, &last.sequence.to_string()))
                .unwrap_or_default(),
            events: events.into_iter().map(convert::event).collect(),
            sequence,
        })
    }

    fn list(
        &self,
        request: &wire::ListAssignmentsRequest,
    ) -> Result<wire::ListAssignmentsResponse, Error> {
        let mut violations = Vec::new();
        let size = page::size(request.page_size, &mut violations);
        let state: Option<State> = convert::state_filter(request.state, &mut violations);
        let question = format!("{}/{}", request.shard, request.state);
        let after = page::after(&question, &request.page_token, &mut violations);
        check(violations)?;
        if !self.service.live.is_ready() {
            return Err(Error::NotReady);
        }
        let view = self.service.live.view();
        let mut page = wire::ListAssignmentsResponse {
            revision: view.table.revision().0,
            ..Default::default()
        };
        let mut last = "";
        for (looked_at, entry) in view.table.iter_after(&after).enumerate() {
            if page.assignments.len() == size || looked_at == LOOKED_AT_MAX {
                page.next_page_token = page::token(&question, last);
                break;
            }
            let wanted = (request.shard.is_empty() || entry.shard() == Some(&request.shard))
                && state.is_none_or(|state| entry.state() == state);
            if wanted {
                page.assignments.push(convert::assignment(entry));
            }
            last = entry.namespace();
        }
        Ok(page)
    }
}
