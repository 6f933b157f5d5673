//! DagService.

use std::sync::Arc;

use airfleet_domain::dags::{Change, Clear, Trigger};
use airfleet_proto::{
    convert::micros,
    dags::v1::{self as wire, dag_service_server::DagService},
};
use airfleet_runtime::{
    auth::Role,
    request::ContextExt as _,
    status::{Failure, FieldViolation},
};
use tonic::{Request, Response, Status};

use super::router::{Answer, require};
use crate::service::{Changed, Error, Place, Service};

/// Longest dag_id, run_id and task_id that Airflow keeps. Characters.
const ID_MAX: usize = 250;
/// Longest run_id that is taken. Characters.
const RUN_ID_MAX: usize = 200;
/// Longest conf. Bytes.
const CONF_MAX: usize = 64 * 1024;
/// Longest note. Characters.
const NOTE_MAX: usize = 500;
/// Most tasks that are named.
const TASKS_MAX: usize = 1_000;

/// DagService on a [`Service`].
#[derive(Debug, Clone)]
pub(crate) struct DagsApi {
    service: Arc<Service>,
}

impl DagsApi {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    /// Makes the change, if it is one and who asks may.
    async fn change<T>(
        &self,
        request: &Request<T>,
        dag_id: &str,
        change: Result<Change, Vec<FieldViolation>>,
    ) -> Result<Changed, Status> {
        require(request, Role::Tenant)?;
        let mut violations = Vec::new();
        check_id("dag_id", dag_id, ID_MAX, &mut violations);
        let change = match change {
            Ok(change) if violations.is_empty() => change,
            Ok(_) => return Err(Failure::from(Error::Invalid(violations)).into()),
            Err(more) => {
                violations.extend(more);
                return Err(Failure::from(Error::Invalid(violations)).into());
            }
        };
        let place = self.service.place_of(dag_id).map_err(Failure::from)?;
        request.principal()?.require_write_namespace(&place.namespace)?;
        let changed = self.service.change(place, dag_id, change).await;
        Ok(changed.map_err(Failure::from)?)
    }
}

fn check_id(field: &str, text: &str, most: usize, violations: &mut Vec<FieldViolation>) {
    if text.is_empty() {
        violations.push(FieldViolation::new(field, "REQUIRED", "must not be empty"));
    } else if text.chars().count() > most {
        let why = format!("at most {most} characters");
        violations.push(FieldViolation::new(field, "TOO_LONG", why));
    }
}

/// The run that is asked for. One without an id gets one.
fn trigger(request: &wire::TriggerDagRequest) -> Result<Trigger, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    let run_id = if request.run_id.is_empty() {
        format!("manual__{}", uuid::Uuid::now_v7())
    } else {
        request.run_id.clone()
    };
    check_id("run_id", &run_id, RUN_ID_MAX, &mut violations);
    if request.conf_json.len() > CONF_MAX {
        let why = format!("at most {CONF_MAX} bytes");
        violations.push(FieldViolation::new("conf_json", "TOO_LONG", why));
    } else if !request.conf_json.is_empty()
        && let Err(error) =
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&request.conf_json)
    {
        let why = format!("must be a JSON object: {error}");
        violations.push(FieldViolation::new("conf_json", "MALFORMED", why));
    }
    if request.note.chars().count() > NOTE_MAX {
        let why = format!("at most {NOTE_MAX} characters");
        violations.push(FieldViolation::new("note", "TOO_LONG", why));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Trigger {
        run_id,
        conf_json: request.conf_json.clone(),
        logical_date_us: request.logical_date.as_ref().map(micros),
        note: request.note.clone(),
    })
}

fn clear(request: &wire::ClearDagRunRequest) -> Result<Clear, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    check_id("run_id", &request.run_id, ID_MAX, &mut violations);
    if request.task_ids.len() > TASKS_MAX {
        let why = format!("at most {TASKS_MAX}");
        violations.push(FieldViolation::new("task_ids", "TOO_MANY", why));
    } else if request.task_ids.iter().any(|id| id.is_empty() || id.chars().count() > ID_MAX) {
        let why = format!("each must have 1 to {ID_MAX} characters");
        violations.push(FieldViolation::new("task_ids", "MALFORMED", why));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    let wire::ClearDagRunRequest { run_id, only_failed, task_ids, .. } = request.clone();
    Ok(Clear { run_id, only_failed, task_ids })
}

fn told(place: Place) -> wire::Place {
    let Place { namespace, shard, generation, .. } = place;
    wire::Place { namespace, shard, generation: generation.0 }
}

#[tonic::async_trait]
impl DagService for DagsApi {
    async fn trigger_dag(
        &self,
        request: Request<wire::TriggerDagRequest>,
    ) -> Answer<wire::TriggerDagResponse> {
        let asked = request.get_ref();
        let run = trigger(asked);
        let run_id = run.as_ref().map(|run| run.run_id.clone()).unwrap_or_default();
        let change = run.map(Change::Trigger);
        let Changed { place, done } = self.change(&request, &asked.dag_id, change).await?;
        Ok(Response::new(wire::TriggerDagResponse {
            place: Some(told(place)),
            run_id,
            state: done.run_state,
            existed: done.existed,
        }))
    }

    async fn clear_dag_run(
        &self,
        request: Request<wire::ClearDagRunRequest>,
    ) -> Answer<wire::ClearDagRunResponse> {
        let asked = request.get_ref();
        let change = clear(asked).map(Change::Clear);
        let Changed { place, done } = self.change(&request, &asked.dag_id, change).await?;
        Ok(Response::new(wire::ClearDagRunResponse {
            place: Some(told(place)),
            cleared: done.cleared,
        }))
    }

    async fn pause_dag(
        &self,
        request: Request<wire::PauseDagRequest>,
    ) -> Answer<wire::PauseDagResponse> {
        let dag_id = &request.get_ref().dag_id;
        let changed = self.change(&request, dag_id, Ok(Change::Pause(true))).await?;
        Ok(Response::new(wire::PauseDagResponse { place: Some(told(changed.place)) }))
    }

    async fn unpause_dag(
        &self,
        request: Request<wire::UnpauseDagRequest>,
    ) -> Answer<wire::UnpauseDagResponse> {
        let dag_id = &request.get_ref().dag_id;
        let changed = self.change(&request, dag_id, Ok(Change::Pause(false))).await?;
        Ok(Response::new(wire::UnpauseDagResponse { place: Some(told(changed.place)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes<T: std::fmt::Debug>(result: Result<T, Vec<FieldViolation>>) -> Vec<String> {
        let violations = result.unwrap_err();
        violations.into_iter().map(|one| format!("{} {}", one.field, one.code)).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let request = wire::TriggerDagRequest {
            run_id: "r".repeat(201),
            conf_json: "[]".into(),
            note: "n".repeat(501),
            ..Default::default()
        };
        let wrong = ["run_id TOO_LONG", "conf_json MALFORMED", "note TOO_LONG"];
        assert_eq!(codes(trigger(&request)), wrong);
        let conf_json = format!(r#"{{"a": "{}"}}"#, "x".repeat(CONF_MAX));
        let request = wire::TriggerDagRequest { conf_json, ..Default::default() };
        assert_eq!(codes(trigger(&request)), ["conf_json TOO_LONG"]);
        let request =
            wire::ClearDagRunRequest { task_ids: vec![String::new()], ..Default::default() };
        assert_eq!(codes(clear(&request)), ["run_id REQUIRED", "task_ids MALFORMED"]);
    }

    #[test]
    fn a_run_without_an_id_gets_one_of_its_own() {
        let request = wire::TriggerDagRequest::default();
        let (one, other) = (trigger(&request).unwrap(), trigger(&request).unwrap());
        assert!(one.run_id.starts_with("manual__") && one.run_id != other.run_id);
    }
}
