//! Resolving, one or many. What is hot is here.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use airfleet_domain::routing::Entry;
use airfleet_proto::router::v1 as wire;
use airfleet_runtime::status::FieldViolation;

use crate::{
    convert,
    metrics::result,
    service::{Error, Service},
};

/// Most dag_ids of a batch.
pub(super) const BATCH_MAX: usize = 10_000;

pub(super) fn one(
    service: &Service,
    request: &wire::ResolveRequest,
) -> Result<wire::ResolveResponse, Error> {
    use wire::resolve_request::Target;
    let view = service.live.peek();
    let entry = match &request.target {
        Some(Target::DagId(dag_id)) if !dag_id.is_empty() => view.table.resolve_dag(dag_id),
        Some(Target::Namespace(namespace)) if !namespace.is_empty() => {
            view.table.resolve_namespace(namespace)
        }
        _ => {
            let message = "give a dag_id or a namespace";
            return Err(Error::Invalid(vec![FieldViolation::new("target", "REQUIRED", message)]));
        }
    };
    if entry.is_none() && !service.live.is_ready() {
        return Err(Error::NotReady);
    }
    service.metrics.resolved(entry);
    match (entry, &request.target) {
        (Some(entry), _) => Ok(convert::resolved(&view, entry, age_ms(service))),
        (None, Some(Target::DagId(dag_id))) => Err(Error::NoOwner(dag_id.clone())),
        (None, Some(Target::Namespace(name))) => Err(Error::NoNamespace(name.clone())),
        (None, None) => Err(Error::NoNamespace(String::new())),
    }
}

pub(super) fn age_ms(service: &Service) -> i64 {
    i64::try_from(service.live.age().as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn many(
    service: &Service,
    dag_ids: &[String],
) -> Result<wire::BatchResolveResponse, Error> {
    if dag_ids.len() > BATCH_MAX {
        let message = format!("{} dag_ids; at most {BATCH_MAX} in one call", dag_ids.len());
        return Err(Error::Invalid(vec![FieldViolation::new("dag_ids", "TOO_MANY", message)]));
    }
    if !service.live.is_ready() {
        return Err(Error::NotReady);
    }
    let view = service.live.peek();
    let mut answer = wire::BatchResolveResponse {
        route_numbers: Vec::with_capacity(dag_ids.len()),
        revision: view.table.revision().0,
        age_ms: age_ms(service),
        ..Default::default()
    };
    // An entry is told by where its texts lie; they stay there as long as the view is held.
    let mut routes: HashMap<usize, u32, BuildHasherDefault<AddressHasher>> = HashMap::default();
    let mut shards: HashMap<&str, u32> = HashMap::new();
    let mut counts = [0; 5];
    for dag_id in dag_ids {
        let entry = view.table.resolve_dag(dag_id);
        counts[result(entry)] += 1;
        let Some(entry) = entry else {
            answer.route_numbers.push(0);
            continue;
        };
        let number = *routes.entry(entry.namespace().as_ptr().addr()).or_insert_with(|| {
            let shard_number = entry.shard().map_or(0, |shard| {
                *shards.entry(shard).or_insert_with(|| {
                    answer.shards.push(wire::RouteShard {
                        shard: shard.to_owned(),
                        endpoints: Some(convert::endpoints(&view, shard)),
                    });
                    answer.shards.len() as u32
                })
            });
            answer.routes.push(route(entry, shard_number));
            answer.routes.len() as u32
        });
        answer.route_numbers.push(number);
    }
    service.metrics.resolved_many(counts);
    Ok(answer)
}

fn route(entry: &Entry, shard_number: u32) -> wire::Route {
    wire::Route {
        namespace: entry.namespace().to_owned(),
        shard_number,
        generation: entry.generation().0,
        state: convert::state(entry.state()).into(),
        retry_after_ms: convert::retry_after_ms(entry.state()),
    }
}

/// Addresses are no one's to choose, so mixing their bits is enough.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // The multiplier of Fibonacci hashing: 2^64 over the golden ratio.
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
