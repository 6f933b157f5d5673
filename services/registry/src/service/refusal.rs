//! What the registry answers when it cannot do what was asked.

use std::time::Duration;

use airfleet_runtime::status::{Failure, Kind as FailureKind, Precondition, reason};

use super::ANSWER_MAX_BYTES;
use crate::store::{Error, Key, Kind, Overlap, Sort, Stored, Taken};

/// A prefix is owned by another namespace.
const PREFIX_OVERLAP: &str = "PREFIX_OVERLAP";

pub(super) fn not_found(key: &Key) -> Failure {
    Failure::not_found(key.kind.as_str(), &key.name)
}

pub(super) fn already_exists(key: &Key) -> Failure {
    Failure::already_exists(key.kind.as_str(), &key.name)
}

/// It changed since the caller read it.
pub(super) fn conflict(now: &Stored) -> Failure {
    let key = now.key();
    Failure::conflict(now.etag()).with_resource(key.kind.as_str(), key.name)
}

/// How a resource is named in preconditions.
pub(super) fn subject(key: &Key) -> String {
    match key.kind {
        Kind::Namespace => format!("namespaces/{}", key.name),
        Kind::Shard => format!("shards/{}", key.name),
    }
}

/// Names each prefix that is in the way, and whose it is.
pub(super) fn overlap(overlaps: &[Overlap]) -> Failure {
    let violations = overlaps.iter().map(|overlap| {
        let Overlap { prefix, namespace, other_prefix, other_namespace } = overlap;
        Precondition::new(
            PREFIX_OVERLAP,
            format!("namespaces/{namespace}"),
            format!(
                "prefix {prefix:?} overlaps with {other_prefix:?} of namespace \
                 {other_namespace:?}; no dag_id may belong to two namespaces"
            ),
        )
    });
    let failure = Failure::precondition(violations.collect()).with_reason(PREFIX_OVERLAP);
    match overlaps.first() {
        Some(first) => failure.with_metadata("namespace", &first.other_namespace),
        None => failure,
    }
}

/// Names each pool, variable and connection that is another's, and whose.
pub(super) fn taken(taken: &[Taken]) -> Failure {
    let code = |sort| match sort {
        Sort::Pool => "POOL_TAKEN",
        Sort::Variable => "VARIABLE_TAKEN",
        Sort::Connection => "CONNECTION_TAKEN",
    };
    let violations = taken.iter().map(|taken| {
        let Taken { sort, name, namespace, other_namespace } = taken;
        Precondition::new(
            code(*sort),
            format!("namespaces/{namespace}"),
            format!(
                "{} {name:?} is namespace {other_namespace:?}'s; two namespaces on one shard would \
                 both write it, so choose another name, such as {:?}",
                sort.as_str(),
                format!("{namespace}_{name}"),
            ),
        )
    });
    let reason = taken.first().map_or("POOL_TAKEN", |first| code(first.sort));
    let failure = Failure::precondition(violations.collect()).with_reason(reason);
    match taken.first() {
        Some(first) => failure.with_metadata("namespace", &first.other_namespace),
        None => failure,
    }
}

pub(super) fn request_reused() -> Failure {
    Failure::invalid_field(
        "request_id",
        "REUSED",
        "was used for another call before; choose a new one for each call",
    )
    .with_reason("REQUEST_ID_REUSED")
}

/// The answer to an apply would not fit a message.
pub(super) fn too_large(bytes: usize) -> Failure {
    Failure::new(
        FailureKind::Exhausted,
        reason::MESSAGE_TOO_LARGE,
        format!(
            "the entries as they were and are make {bytes} bytes, at most {ANSWER_MAX_BYTES} fit \
             an answer; apply fewer at once"
        ),
    )
}

/// The store could not.
pub(crate) fn store_failure(error: Error) -> Failure {
    let away =
        |pause| Failure::unavailable("the registry's store is away for now; try again", pause);
    match &error {
        Error::NotReady => away(Duration::from_secs(1)),
        Error::Database(database) if database.is_contention() => {
            away(Duration::from_millis(200)).with_source(error)
        }
        Error::Database(database) if database.is_unavailable() => {
            tracing::warn!(error = %chain(database), "the store is away");
            away(Duration::from_secs(1)).with_source(error)
        }
        Error::Database(_) => Failure::internal(error),
    }
}

/// An error and what led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
