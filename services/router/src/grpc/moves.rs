//! MoveService.

use std::{sync::Arc, time::Duration};

use airfleet_proto::moves::v1::{self as wire, move_service_server::MoveService};
use airfleet_runtime::{
    auth::Role,
    status::{Failure, FieldViolation},
};
use futures::stream::{self, BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::{
    page,
    router::{Answer, answer, check, require, who},
};
use crate::{
    convert,
    service::{Error, Service, StartMove},
    store::Which,
};

/// Watches of moves at once.
const WATCHERS_MAX: usize = 100;
/// How often a watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most characters of a request's id.
const REQUEST_ID_MAX: usize = 64;

/// MoveService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct MovesApi {
    service: Arc<Service>,
    watchers: Arc<Semaphore>,
}

impl MovesApi {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service, watchers: Arc::new(Semaphore::new(WATCHERS_MAX)) }
    }
}

/// A watch of one move.
struct Watch {
    service: Arc<Service>,
    id: String,
    told: Option<wire::Move>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<wire::Move, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            match self.service.find_move(&self.id).await {
                Err(error) => {
                    self.ended = true;
                    return Some((Err(Failure::from(error).into()), self));
                }
                Ok(shown) => {
                    self.ended = shown.row.phase.is_final();
                    let now = convert::moves::shown(shown);
                    if self.told.as_ref().is_none_or(|told| is_news(told, &now)) {
                        self.told = Some(now.clone());
                        return Some((Ok(now), self));
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether something changed beside the time.
fn is_news(told: &wire::Move, now: &wire::Move) -> bool {
    let timeless = |one: &wire::Move| {
        let mut one = one.clone();
        if let Some(progress) = &mut one.progress {
            progress.estimated_end_time = None;
            one.blackout_ms = 0;
        }
        one
    };
    timeless(told) != timeless(now)
}

#[tonic::async_trait]
impl MoveService for MovesApi {
    async fn start_move(
        &self,
        request: Request<wire::StartMoveRequest>,
    ) -> Answer<wire::StartMoveResponse> {
        let principal = require(&request, Role::Operator)?.clone();
        let request = request.into_inner();
        let mut violations = Vec::new();
        let namespace = convert::name("namespace", &request.namespace, &mut violations);
        let target = convert::name("target_shard", &request.target_shard, &mut violations);
        let options = convert::moves::options(request.options, &mut violations);
        let who = who(&principal, &request.reason, &mut violations);
        if request.request_id.chars().count() > REQUEST_ID_MAX {
            let why = format!("at most {REQUEST_ID_MAX} characters");
            violations.push(FieldViolation::new("request_id", "TOO_LONG", why));
        }
        let (Some(namespace), Some(target), true) = (namespace, target, violations.is_empty())
        else {
            return answer(Err(Error::Invalid(violations)));
        };
        let ask = StartMove {
            namespace,
            target,
            options,
            who,
            validate_only: request.validate_only,
            request_id: request.request_id,
            expected_generation: request.expected_generation,
        };
        let started = self.service.start_move(ask).await;
        answer(started.map(|(shown, found)| wire::StartMoveResponse {
            r#move: Some(convert::moves::shown(shown)),
            findings: found.into_iter().map(convert::moves::finding).collect(),
        }))
    }

    async fn get_move(&self, request: Request<wire::GetMoveRequest>) -> Answer<wire::Move> {
        require(&request, Role::Viewer)?;
        let found = self.service.find_move(&request.get_ref().name).await;
        answer(found.map(convert::moves::shown))
    }

    async fn list_moves(
        &self,
        request: Request<wire::ListMovesRequest>,
    ) -> Answer<wire::ListMovesResponse> {
        require(&request, Role::Viewer)?;
        let wire::ListMovesRequest { page_size, page_token, namespace, shard, include_ended } =
            request.into_inner();
        let mut violations = Vec::new();
        let size = page::size(page_size, &mut violations);
        let question = format!("moves/{namespace}/{shard}/{include_ended}");
        let before = page::after(&question, &page_token, &mut violations);
        if let Err(error) = check(violations) {
            return answer(Err(error));
        }
        let which = Which { namespace, shard, ended: include_ended, before };
        let limit = u32::try_from(size + 1).unwrap_or(u32::MAX);
        let found = self.service.list_moves(&which, limit).await;
        answer(found.map(|mut found| {
            let more = found.len() > size;
            found.truncate(size);
            let last = found.last().filter(|_| more).map(|shown| shown.row.id.to_string());
            wire::ListMovesResponse {
                next_page_token: last.map(|id| page::token(&question, &id)).unwrap_or_default(),
                moves: found.into_iter().map(convert::moves::listed).collect(),
            }
        }))
    }

    type WatchMoveStream = BoxStream<'static, Result<wire::Move, Status>>;

    async fn watch_move(
        &self,
        request: Request<wire::WatchMoveRequest>,
    ) -> Answer<Self::WatchMoveStream> {
        require(&request, Role::Viewer)?;
        let found = self.service.find_move(&request.get_ref().name).await;
        // A later move of the namespace is another one.
        let id = found.map_err(Failure::from)?.row.id.to_string();
        let permit = self.watchers.clone().try_acquire_owned().map_err(|_| {
            Failure::exhausted("node", format!("{WATCHERS_MAX} watches of moves"))
                .with_retry_after(Duration::from_secs(5))
        })?;
        let service = self.service.clone();
        let watch = Watch { service, id, told: None, ended: false, _permit: permit };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }

    async fn abort_move(&self, request: Request<wire::AbortMoveRequest>) -> Answer<wire::Move> {
        let principal = require(&request, Role::Operator)?.clone();
        let wire::AbortMoveRequest { name, reason } = request.into_inner();
        let mut violations = Vec::new();
        let who = who(&principal, &reason, &mut violations);
        if let Err(error) = check(violations) {
            return answer(Err(error));
        }
        answer(self.service.abort_move(&name, who).await.map(convert::moves::shown))
    }
}
