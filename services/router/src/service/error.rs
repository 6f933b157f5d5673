//! Why the router cannot do what was asked, and how that is told.

use std::time::Duration;

use airfleet_domain::{
    dags::{self, Trouble},
    ids::{Generation, Revision},
    moves::preflight::{Finding, Severity},
    placement::Refusal,
};
use airfleet_runtime::status::{Failure, FieldViolation, Kind, Precondition};

use crate::{agents::NamespaceUsage, leader::election::NotLeading, store};

/// When a write that the store could not take is worth trying again.
const RETRY_STORE_AFTER: Duration = Duration::from_secs(1);

/// When a change that was not made is worth asking for again.
const RETRY_CHANGE_AFTER: Duration = Duration::from_secs(1);

/// Changes that are told of a stale plan.
const CHANGES_TOLD: usize = 50;

/// Why the router cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// This replica does not lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// There is no table yet.
    #[error("this replica has not read the routing table yet; ask another one or try again")]
    NotReady,
    /// Fields of the request are wrong.
    #[error("the request is wrong")]
    Invalid(Vec<FieldViolation>),
    /// No such namespace.
    #[error("the router knows no namespace {0:?}; register it first, and mind the spelling")]
    NoNamespace(String),
    /// No such shard.
    #[error("the router knows no shard {0:?}; register it first, and mind the spelling")]
    NoShard(String),
    /// Nothing owns the dag_id.
    #[error(
        "no namespace owns the dag_id {0:?}; register a namespace with a prefix that it starts with"
    )]
    NoOwner(String),
    /// The caller saw another generation.
    #[error("the assignment of {namespace} is at generation {current}, not {expected}; look again")]
    Generation {
        /// The namespace.
        namespace: String,
        /// What the caller saw.
        expected: i64,
        /// What is.
        current: Generation,
    },
    /// The caller means another namespace of that name.
    #[error("namespace {namespace} has uid {current}, not {asked}; it was registered anew")]
    Uid {
        /// The namespace.
        namespace: String,
        /// What the caller said.
        asked: String,
        /// What is.
        current: String,
    },
    /// Something of the namespace still runs where it is.
    #[error("{namespace} is not drained on {shard}")]
    Busy {
        /// The namespace.
        namespace: String,
        /// The shard that owns it.
        shard: String,
        /// What runs.
        usage: NamespaceUsage,
    },
    /// Nobody has seen that the namespace is drained.
    #[error("{namespace} has not been seen to be drained: {why}")]
    NotSeen {
        /// The namespace.
        namespace: String,
        /// Why, and what to do.
        why: String,
    },
    /// The shard will not do.
    #[error("{shard} will not do for {namespace}")]
    Unfit {
        /// The namespace.
        namespace: String,
        /// The shard.
        shard: String,
        /// Everything that speaks against it.
        refusals: Vec<Refusal>,
    },
    /// The shard owns namespaces.
    #[error("{shard} owns {count} namespaces")]
    Occupied {
        /// The shard.
        shard: String,
        /// How many.
        count: usize,
        /// Some of them.
        some: Vec<String>,
    },
    /// The shard has not said that it is rid of namespaces that others own.
    #[error("{shard} has not said that it is fenced for {count} namespaces that it gave up")]
    Unfenced {
        /// The shard.
        shard: String,
        /// How many.
        count: usize,
        /// Some of them.
        some: Vec<String>,
    },
    /// The manifest is ahead of what the router has taken in.
    #[error("the router has taken in the manifest up to revision {known}, not {asked} yet")]
    Lagging {
        /// What the caller acted on.
        asked: Revision,
        /// What is known.
        known: Revision,
    },
    /// No such plan.
    #[error("there is no plan {0:?}; airfleet plan list shows those there are")]
    NoPlan(String),
    /// There is a plan of that name.
    #[error("there is a plan {0} already; names are used once")]
    PlanExists(String),
    /// The plan is another one than was looked at.
    #[error("plan {name} has hash {current}, not {asked}; look at it again")]
    PlanHash {
        /// The plan.
        name: String,
        /// What was looked at.
        asked: String,
        /// What is.
        current: String,
    },
    /// The fleet is no longer as the plan takes it to be.
    #[error("plan {name} is stale; make a new one")]
    PlanStale {
        /// The plan.
        name: String,
        /// What changed.
        changes: Vec<String>,
    },
    /// The plan cannot be applied or cancelled as it is.
    #[error("plan {name}: {why}")]
    PlanState {
        /// The plan.
        name: String,
        /// Stable code.
        code: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// No such move.
    #[error("there is no move {0:?}, and no namespace of that name was moved")]
    NoMove(String),
    /// The namespace cannot be moved as it is.
    #[error("{namespace} cannot be moved: {why}")]
    Immovable {
        /// The namespace.
        namespace: String,
        /// Stable code.
        code: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// What was found speaks against a move.
    #[error("{namespace} cannot be moved")]
    MoveBlocked {
        /// The namespace.
        namespace: String,
        /// Everything that was found.
        found: Vec<Finding>,
    },
    /// A move does not allow it as it is.
    #[error("move {id}: {why}")]
    MoveState {
        /// The move.
        id: String,
        /// Stable code.
        code: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// No shard has it.
    #[error("no shard has {0}; it is placed as soon as one fits")]
    NotAssigned(String),
    /// It is between two shards.
    #[error("{0} is between two shards; nothing was done, ask again in a moment")]
    Moving(String),
    /// Nobody speaks for the shard.
    #[error("the agent of {0} is not connected; nothing was done")]
    AgentAway(String),
    /// The shard's agent has enough to do.
    #[error("too many changes are under way on {0}; nothing was done, ask again in a moment")]
    AgentBusy(String),
    /// A change was not made, or is in doubt.
    #[error("{dag_id} on {shard}: {}", failure.message)]
    Unchanged {
        /// The DAG.
        dag_id: String,
        /// The shard.
        shard: String,
        /// Why not.
        failure: dags::Failure,
    },
    /// What a plan was made of is not kept.
    #[error(
        "what plan {0} was made of is no longer kept; make a new plan and dump it before the leader \
         changes"
    )]
    NoDump(String),
    /// The store could not take it.
    #[error("the router's store cannot take writes at the moment")]
    Store(#[from] store::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotLeading(NotLeading::Other(address)) => Failure::not_leader(Some(&address)),
            Error::NotLeading(NotLeading::Nobody) => Failure::not_leader(None),
            Error::NotLeading(NotLeading::Preparing) | Error::NotReady => {
                Failure::unavailable(message, Duration::from_millis(500)).with_reason("NOT_READY")
            }
            Error::Invalid(violations) => Failure::invalid(violations),
            Error::NoNamespace(name) => {
                Failure::not_found("namespace", short(&name)).with_message(short(&message))
            }
            Error::NoShard(name) => {
                Failure::not_found("shard", short(&name)).with_message(short(&message))
            }
            Error::NoOwner(dag_id) => {
                Failure::not_found("dag", short(&dag_id)).with_message(short(&message))
            }
            Error::Generation { current, .. } => {
                Failure::new(Kind::Conflict, "GENERATION_MISMATCH", message)
                    .with_metadata("generation", current.to_string())
            }
            Error::Uid { namespace, .. } => {
                precondition("UID_MISMATCH", &format!("namespaces/{namespace}"), message)
            }
            Error::Busy { namespace, shard, usage } => {
                busy(&format!("namespaces/{namespace}"), &shard, usage)
            }
            Error::NotSeen { namespace, .. } => precondition(
                "NOT_DRAINED",
                &format!("namespaces/{namespace}"),
                format!("{message}; or force it, giving a reason, if you know that nothing runs"),
            ),
            Error::Unfit { shard, refusals, .. } => {
                let subject = format!("shards/{shard}");
                let violations = refusals
                    .into_iter()
                    .map(|refusal| Precondition::new(refusal.code, &subject, refusal.message))
                    .collect();
                Failure::precondition(violations).with_reason("SHARD_UNFIT")
            }
            Error::Occupied { shard, count, some } => {
                let more = if count > some.len() { ", ..." } else { "" };
                let some = some.join(", ");
                let told = format!(
                    "it owns {count} namespaces ({some}{more}); move or release them first"
                );
                precondition("SHARD_OCCUPIED", &format!("shards/{shard}"), told)
            }
            Error::Unfenced { shard, count, some } => {
                let more = if count > some.len() { ", ..." } else { "" };
                let some = some.join(", ");
                let told = format!(
                    "it has not said that it is fenced for {count} namespaces that it gave up \
                     ({some}{more}); start its agent, or pin each to its owner with --force if the \
                     shard is gone for good"
                );
                precondition("SHARD_UNFENCED", &format!("shards/{shard}"), told)
            }
            Error::NoPlan(name) => {
                Failure::not_found("plan", short(&name)).with_message(short(&message))
            }
            Error::NoDump(name) => {
                Failure::not_found("dump", short(&name)).with_message(short(&message))
            }
            Error::NoMove(name) => {
                Failure::not_found("move", short(&name)).with_message(short(&message))
            }
            Error::Immovable { namespace, code, why } => {
                precondition(code, &format!("namespaces/{namespace}"), why)
            }
            Error::MoveState { id, code, why } => precondition(code, &format!("moves/{id}"), why),
            Error::MoveBlocked { namespace, found } => blocked(&namespace, found),
            Error::PlanExists(_) => Failure::new(Kind::Conflict, "PLAN_EXISTS", message),
            Error::PlanHash { current, .. } => {
                Failure::new(Kind::Conflict, "PLAN_HASH_MISMATCH", message)
                    .with_metadata("hash", current)
            }
            Error::PlanStale { name, changes } => {
                let subject = format!("plans/{name}");
                let told = changes.into_iter().take(CHANGES_TOLD);
                let violations =
                    told.map(|change| Precondition::new("PLAN_STALE", &subject, change));
                Failure::precondition(violations.collect()).with_reason("PLAN_STALE")
            }
            Error::PlanState { name, code, why } => {
                precondition(code, &format!("plans/{name}"), why)
            }
            Error::NotAssigned(namespace) => {
                precondition("NOT_ASSIGNED", &format!("namespaces/{namespace}"), message)
            }
            Error::Moving(_) => again(message, "NAMESPACE_MOVING"),
            Error::AgentAway(_) => again(message, "AGENT_AWAY"),
            Error::AgentBusy(_) => again(message, "AGENT_BUSY"),
            Error::Unchanged { dag_id, shard, failure } => {
                unchanged(&dag_id, &shard, failure.trouble, message)
            }
            Error::Lagging { .. } => Failure::unavailable(message, Duration::from_millis(200))
                .with_reason("MANIFEST_LAG"),
            Error::Store(error) if error.is_stale_term() => Failure::not_leader(None),
            Error::Store(error) if error.is_transient() => {
                Failure::unavailable(message, RETRY_STORE_AFTER)
                    .with_reason("STORE_UNAVAILABLE")
                    .with_source(error)
            }
            Error::Store(error) => Failure::internal(error),
        }
    }
}

fn precondition(code: &'static str, subject: &str, description: String) -> Failure {
    Failure::precondition(vec![Precondition::new(code, subject, description)]).with_reason(code)
}

/// Nothing was done; worth asking again.
fn again(message: String, reason: &'static str) -> Failure {
    Failure::unavailable(message, RETRY_CHANGE_AFTER).with_reason(reason)
}

/// A change was not made, or is in doubt.
fn unchanged(dag_id: &str, shard: &str, trouble: Trouble, message: String) -> Failure {
    match trouble {
        Trouble::NotActive => again(message, "NAMESPACE_NOT_READY"),
        Trouble::Busy => again(message, "AGENT_BUSY"),
        Trouble::Away => again(message, "AIRFLOW_AWAY"),
        Trouble::NotSetUp => {
            precondition("CHANGES_NOT_SET_UP", &format!("shards/{shard}"), short(&message))
        }
        Trouble::NotFound => Failure::not_found("dag", short(dag_id)).with_message(short(&message)),
        Trouble::Refused => Failure::new(Kind::Invalid, "AIRFLOW_REFUSED", short(&message)),
        Trouble::InDoubt => Failure::new(
            Kind::DeadlineExceeded,
            "CHANGE_IN_DOUBT",
            format!("{}; it may have been done or not", short(&message)),
        ),
    }
}

/// Everything that speaks against a move; the first tells the reason.
fn blocked(namespace: &str, found: Vec<Finding>) -> Failure {
    let subject = format!("namespaces/{namespace}");
    let blocking = found.into_iter().filter(|one| one.severity() == Severity::Blocks);
    let violations: Vec<_> = blocking
        .map(|one| {
            let told = format!("{}; {}", one.message, one.code.remedy());
            Precondition::new(one.code.name(), &subject, told)
        })
        .collect();
    Failure::precondition(violations).with_reason("MOVE_BLOCKED")
}

/// Every number that keeps a namespace from being drained.
fn busy(subject: &str, shard: &str, usage: NamespaceUsage) -> Failure {
    let counts = [
        ("UNPAUSED_DAGS", usage.unpaused_dags, "DAGs are not paused"),
        ("ACTIVE_RUNS", usage.active_runs, "runs are queued or running"),
        ("ACTIVE_TASK_INSTANCES", usage.active_task_instances, "task instances are active"),
    ];
    let violations = counts
        .into_iter()
        .filter(|(_, count, _)| *count > 0)
        .map(|(code, count, what)| {
            let description = format!(
                "{count} {what} on {shard}; pause its DAGs and let them finish, or move it live"
            );
            Precondition::new(code, subject, description)
        })
        .collect();
    Failure::precondition(violations).with_reason("NOT_DRAINED")
}

/// What callers sent is repeated only so far.
fn short(text: &str) -> String {
    const MOST: usize = 400;
    text.chars().take(MOST).collect()
}
