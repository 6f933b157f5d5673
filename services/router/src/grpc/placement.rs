//! PlacementService.

use std::{sync::Arc, time::Duration};

use airfleet_domain::ids::{NamespaceName, ShardName};
use airfleet_proto::placement::v1::{self as wire, placement_service_server::PlacementService};
use airfleet_runtime::{
    auth::Role,
    status::{Failure, FieldViolation},
};
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status};

use super::router::{Answer, answer, check, require, who};
use crate::{
    convert::{self, placement},
    service::{CreatePlan, Error, Purpose, Service},
};

/// Bytes of a dump in one message.
const CHUNK_BYTES: usize = 512 << 10;
/// Shards that an explanation tells of unless asked.
const SHARDS_SHOWN: i32 = 20;
const SHARDS_SHOWN_MAX: i32 = 10_000;
const PLANS_SHOWN: i32 = 100;
const PLANS_SHOWN_MAX: i32 = 1_000;
/// Longest time that a caller may have moves looked for. Milliseconds.
const TIME_LIMIT_MAX_MS: i64 = 600_000;

/// PlacementService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct PlacementApi {
    service: Arc<Service>,
}

impl PlacementApi {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

fn create(request: wire::CreatePlanRequest, actor: String) -> Result<CreatePlan, Error> {
    use wire::create_plan_request::Purpose as Asked;
    let mut violations = Vec::new();
    if !request.name.is_empty() {
        // A plan's name has the form of all names.
        let _: Option<NamespaceName> = convert::name("name", &request.name, &mut violations);
    }
    let mut shard = |field: &str, text: &str| -> Option<ShardName> {
        convert::name(field, text, &mut violations)
    };
    let purpose = match request.purpose {
        None => Some(Purpose::Rebalance),
        Some(Asked::Emergency(_)) => Some(Purpose::Emergency),
        Some(Asked::DrainShard(name)) => shard("drain_shard", &name).map(Purpose::Drain),
        Some(Asked::FillShard(name)) => shard("fill_shard", &name).map(Purpose::Fill),
        Some(Asked::Lose(lose)) => {
            let shards = lose.shards.iter().filter_map(|name| shard("lose.shards", name)).collect();
            if lose.shards.is_empty() && lose.failure_domains.is_empty() {
                let why = "name shards or failure domains";
                violations.push(FieldViolation::new("lose", "REQUIRED", why));
            }
            Some(Purpose::Lose { shards, failure_domains: lose.failure_domains })
        }
    };
    for (field, value) in [("cost_max", request.cost_max), ("moves_max", request.moves_max)] {
        if value < 0 {
            violations.push(FieldViolation::new(field, "OUT_OF_RANGE", "must not be negative"));
        }
    }
    if !(0..=TIME_LIMIT_MAX_MS).contains(&request.time_limit_ms) {
        let why = format!("must be 0 to {TIME_LIMIT_MAX_MS}");
        violations.push(FieldViolation::new("time_limit_ms", "OUT_OF_RANGE", why));
    }
    check(violations)?;
    let limit_ms = u64::try_from(request.time_limit_ms).unwrap_or(0);
    Ok(CreatePlan {
        name: request.name,
        purpose: purpose.expect("a missing one was a violation"),
        cost_max: request.cost_max,
        moves_max: usize::try_from(request.moves_max).unwrap_or(usize::MAX),
        seed: request.seed,
        time_limit: (limit_ms > 0).then(|| Duration::from_millis(limit_ms)),
        actor,
    })
}

#[tonic::async_trait]
impl PlacementService for PlacementApi {
    async fn create_plan(&self, request: Request<wire::CreatePlanRequest>) -> Answer<wire::Plan> {
        let actor = require(&request, Role::Operator)?.subject.clone();
        let ask = match create(request.into_inner(), actor) {
            Ok(ask) => ask,
            Err(error) => return answer(Err(error)),
        };
        let made = self.service.create_plan(ask).await;
        answer(made.map(|(kept, stages)| placement::plan(kept, &stages)))
    }

    async fn get_plan(&self, request: Request<wire::GetPlanRequest>) -> Answer<wire::Plan> {
        require(&request, Role::Viewer)?;
        let request = request.into_inner();
        let found = self.service.plan(&request.name).await;
        answer(found.map(|(kept, stages)| {
            let mut plan = placement::plan(kept, &stages);
            if request.summary_only {
                plan.moves.clear();
            }
            plan
        }))
    }

    async fn list_plans(
        &self,
        request: Request<wire::ListPlansRequest>,
    ) -> Answer<wire::ListPlansResponse> {
        require(&request, Role::Viewer)?;
        let size = match request.get_ref().page_size {
            0 => PLANS_SHOWN,
            size => size.clamp(1, PLANS_SHOWN_MAX),
        };
        let plans = self.service.plans(size.unsigned_abs()).await;
        answer(plans.map(|plans| wire::ListPlansResponse {
            plans: plans.into_iter().map(|kept| placement::plan(kept, &[])).collect(),
        }))
    }

    async fn check_plan(
        &self,
        request: Request<wire::CheckPlanRequest>,
    ) -> Answer<wire::CheckPlanResponse> {
        require(&request, Role::Viewer)?;
        let changes = self.service.check_plan(&request.get_ref().name).await;
        answer(changes.map(|changes| wire::CheckPlanResponse { changes }))
    }

    async fn apply_plan(&self, request: Request<wire::ApplyPlanRequest>) -> Answer<wire::Plan> {
        let actor = require(&request, Role::Operator)?.subject.clone();
        let wire::ApplyPlanRequest { name, expected_hash, validate_only } = request.into_inner();
        let applied = self.service.apply_plan(&name, &expected_hash, validate_only, &actor).await;
        answer(applied.map(|(kept, stages)| placement::plan(kept, &stages)))
    }

    async fn cancel_plan(&self, request: Request<wire::CancelPlanRequest>) -> Answer<wire::Plan> {
        let principal = require(&request, Role::Operator)?.clone();
        let wire::CancelPlanRequest { name, reason } = request.into_inner();
        let mut violations = Vec::new();
        let who = who(&principal, &reason, &mut violations);
        if let Err(error) = check(violations) {
            return answer(Err(error));
        }
        let cancelled = self.service.cancel_plan(&name, &who).await;
        answer(cancelled.map(|(kept, stages)| placement::plan(kept, &stages)))
    }

    type DumpPlanStream = BoxStream<'static, Result<wire::DumpPlanResponse, Status>>;

    async fn dump_plan(
        &self,
        request: Request<wire::DumpPlanRequest>,
    ) -> Answer<Self::DumpPlanStream> {
        require(&request, Role::Viewer)?;
        let dump = self.service.dump_plan(&request.get_ref().name).await;
        let dump = dump.map_err(|error| Status::from(Failure::from(error)))?;
        let chunks: Vec<_> = dump
            .chunks(CHUNK_BYTES)
            .map(|chunk| Ok(wire::DumpPlanResponse { chunk: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn freeze_rebalancing(
        &self,
        request: Request<wire::FreezeRebalancingRequest>,
    ) -> Answer<wire::Rebalancing> {
        let principal = require(&request, Role::Operator)?.clone();
        let mut violations = Vec::new();
        let who = who(&principal, &request.get_ref().reason, &mut violations);
        if let Err(error) = check(violations) {
            return answer(Err(error));
        }
        answer(self.service.set_freeze(Some(who)).await.map(placement::rebalancing))
    }

    async fn unfreeze_rebalancing(
        &self,
        request: Request<wire::UnfreezeRebalancingRequest>,
    ) -> Answer<wire::Rebalancing> {
        require(&request, Role::Operator)?;
        answer(self.service.set_freeze(None).await.map(placement::rebalancing))
    }

    async fn get_rebalancing(
        &self,
        request: Request<wire::GetRebalancingRequest>,
    ) -> Answer<wire::Rebalancing> {
        require(&request, Role::Viewer)?;
        answer(self.service.rebalancing().map(placement::rebalancing))
    }

    async fn explain_namespace(
        &self,
        request: Request<wire::ExplainNamespaceRequest>,
    ) -> Answer<wire::Explanation> {
        require(&request, Role::Viewer)?;
        let wire::ExplainNamespaceRequest { namespace, shards_max } = request.into_inner();
        let shown = match shards_max {
            0 => SHARDS_SHOWN,
            shown => shown.clamp(1, SHARDS_SHOWN_MAX),
        };
        let told = self.service.explain(&namespace);
        answer(told.map(|told| placement::explanation(told, shown.unsigned_abs() as usize)))
    }

    async fn get_capacity(
        &self,
        request: Request<wire::GetCapacityRequest>,
    ) -> Answer<wire::Capacity> {
        require(&request, Role::Viewer)?;
        answer(self.service.headroom().await.map(placement::capacity))
    }
}
