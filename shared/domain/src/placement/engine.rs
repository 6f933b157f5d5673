//! The least loaded shard that breaks no rule.

use std::collections::BTreeMap;

use super::{Candidate, Decision, Placer, Refusal, Request};
use crate::resources::DIMENSIONS;

/// Load in millionths of the capacity.
type Load = i64;
const FULL: i128 = 1_000_000;

/// Takes, of all shards that break no hard rule, the one whose failure domain holds the fewest of
/// the namespace's spread group, then the one whose fullest dimension is emptiest afterwards, then
/// the one with the smallest sum over the dimensions, then the first by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoaded;

impl Placer for LeastLoaded {
    fn place(&self, request: &Request<'_>, fleet: &[Candidate]) -> Decision {
        let mut refused = Vec::new();
        let mut best = None;
        for shard in fleet {
            let refusals = refusals(request, shard);
            if !refusals.is_empty() {
                refused.push((shard.name.clone(), refusals));
                continue;
            }
            let loads = loads(request, shard);
            let fullest =
                loads.iter().copied().enumerate().max_by_key(|(i, load)| (*load, -(*i as i64)));
            let (dimension, fullest) = fullest.expect("there are five dimensions");
            let score = (shard.group_members, fullest, loads.iter().sum::<Load>(), &shard.name);
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, dimension));
            }
        }
        refused.sort_by(|a, b| a.0.cmp(&b.0));
        let eligible = fleet.len() - refused.len();
        match best {
            Some(((_, fullest, _, name), dimension)) => {
                let reason = match request.pinned {
                    Some(_) => format!("pinned to {name}"),
                    None => format!(
                        "least loaded of {eligible} eligible shards: {} at {}.{} % with it",
                        DIMENSIONS[dimension],
                        fullest / 10_000,
                        fullest / 1_000 % 10
                    ),
                };
                Decision { shard: Some(name.clone()), reason, refused }
            }
            None => Decision { shard: None, reason: unplaced(fleet.len(), &refused), refused },
        }
    }
}

/// Everything that speaks against a shard.
fn refusals(request: &Request<'_>, shard: &Candidate) -> Vec<Refusal> {
    let mut refusals = shard.closed.clone();
    let mut refuse = |code, message: String| refusals.push(Refusal::new(code, message));
    let wanted = request.constraints;
    if let Some(pin) = request.pinned
        && *pin != shard.name
    {
        refuse("PINNED_ELSEWHERE", format!("the namespace is pinned to {pin}"));
    }
    for requirement in wanted.selector.iter().filter(|r| !r.matches(&shard.labels)) {
        let has = shard.labels.get(&requirement.key).map_or("none", String::as_str);
        refuse("SELECTOR_MISMATCH", format!("needs {requirement}; the shard's value is {has}"));
    }
    for taint in &shard.taints {
        if !wanted.tolerations.iter().any(|t| t.tolerates(taint)) {
            refuse(
                "TAINT_NOT_TOLERATED",
                format!("taint {}={} is not tolerated", taint.key, taint.value),
            );
        }
    }
    if !wanted.region.is_empty() && wanted.region != shard.region {
        refuse(
            "REGION_MISMATCH",
            format!("needs region {}, is in {:?}", wanted.region, shard.region),
        );
    }
    if wanted.airflow_version != semver::VersionReq::STAR {
        match &shard.airflow_version {
            Some(version) if wanted.airflow_version.matches(version) => {}
            Some(version) => refuse(
                "VERSION_MISMATCH",
                format!("needs Airflow {}, runs {version}", wanted.airflow_version),
            ),
            None => refuse(
                "VERSION_UNKNOWN",
                format!(
                    "needs Airflow {}; set the shard's airflowVersion or connect its agent",
                    wanted.airflow_version
                ),
            ),
        }
    }
    let (demand, capacity, reserved) =
        (request.demand.values(), shard.capacity.values(), shard.reserved.values());
    for (index, dimension) in DIMENSIONS.into_iter().enumerate() {
        let (demand, capacity, reserved) = (demand[index], capacity[index], reserved[index]);
        let room = capacity.saturating_sub(reserved);
        // A namespace that asks for nothing in a dimension does not mind that it is overfull.
        if capacity > 0 && demand > 0 && demand > room {
            refuse(
                "NO_ROOM",
                format!("{dimension}: needs {demand}, {room} of {capacity} are free"),
            );
        }
    }
    refusals
}

/// The load in each dimension with the namespace on the shard; zero where there is no limit.
fn loads(request: &Request<'_>, shard: &Candidate) -> [Load; DIMENSIONS.len()] {
    let after = shard.reserved.plus(request.demand).values();
    let capacity = shard.capacity.values();
    std::array::from_fn(|i| match capacity[i] {
        limit if limit > 0 => {
            let load = i128::from(after[i]) * FULL / i128::from(limit);
            // Kept small enough that five of them add up without overflow.
            load.clamp(0, i128::from(i64::MAX / 8)) as Load
        }
        _ => 0,
    })
}

/// Why no shard will do: how many shards each reason keeps out, the commonest first.
fn unplaced(fleet: usize, refused: &[(crate::ids::ShardName, Vec<Refusal>)]) -> String {
    if fleet == 0 {
        return "no shard is registered; add one with kind: Shard".into();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, refusals) in refused {
        let mut codes: Vec<&str> = refusals.iter().map(|r| r.code).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            *counts.entry(code).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let counts: Vec<String> = counts.iter().map(|(code, n)| format!("{code} on {n}")).collect();
    format!("none of {fleet} shards will do: {}", counts.join(", "))
}
