use std::time::Duration;

use tonic::{Code, Status};

use super::*;

#[test]
fn every_violation_arrives() {
    let status: Status = Failure::invalid(vec![
        FieldViolation::new("name", "TOO_SHORT", "has 2 characters, needs 3"),
        FieldViolation::new("prefixes[0]", "BAD_CHARACTER", "holds a space"),
    ])
    .into();
    assert_eq!(status.code(), Code::InvalidArgument);
    let problem = Problem::from(&status);
    assert_eq!(problem.reason, "INVALID_ARGUMENT");
    assert_eq!(
        problem.violations,
        [
            FieldViolation::new("name", "TOO_SHORT", "has 2 characters, needs 3"),
            FieldViolation::new("prefixes[0]", "BAD_CHARACTER", "holds a space"),
        ]
    );
    assert_eq!(
        problem.to_string(),
        "the request was refused for several reasons:\n  name: has 2 characters, needs 3\n  \
         prefixes[0]: holds a space\n(INVALID_ARGUMENT)"
    );
}

#[test]
fn a_conflict_carries_the_current_etag() {
    let problem = Problem::from(Status::from(Failure::conflict("7")));
    assert_eq!((problem.code, problem.etag()), (Code::Aborted, Some("7")));
    assert!(!problem.is_transient());
}

#[test]
fn preconditions_and_resources_arrive() {
    let failure = Failure::precondition(vec![Precondition::new(
        "NOT_DRAINED",
        "namespaces/payments",
        "3 runs are active",
    )])
    .with_reason("NAMESPACE_ASSIGNED");
    assert_eq!(failure.http(), http::StatusCode::BAD_REQUEST);
    let problem = Problem::from(failure.into_status());
    assert_eq!(problem.code, Code::FailedPrecondition);
    assert_eq!(problem.reason, "NAMESPACE_ASSIGNED");
    assert_eq!(problem.preconditions[0].subject, "namespaces/payments");

    let problem = Problem::from(Failure::not_found("namespace", "payments").into_status());
    assert_eq!(problem.code, Code::NotFound);
    assert_eq!(problem.resource, Some(("namespace".into(), "payments".into())));
    assert_eq!(problem.to_string(), "namespace \"payments\" does not exist (NOT_FOUND)");
}

#[test]
fn a_follower_names_the_leader() {
    let problem = Problem::from(Failure::not_leader(Some("127.0.0.1:7000")).into_status());
    assert!(problem.is_not_leader() && problem.is_transient());
    assert_eq!(problem.leader(), Some("127.0.0.1:7000"));

    let problem = Problem::from(Failure::not_leader(None).into_status());
    assert_eq!(problem.leader(), None);
    assert_eq!(problem.retry_after, Some(Duration::from_secs(1)));
}

#[test]
fn limits_say_when_to_try_again() {
    let failure = Failure::exhausted("principal:alice", "100 requests per second")
        .with_retry_after(Duration::from_millis(250));
    let problem = Problem::from(failure.into_status());
    assert_eq!(problem.code, Code::ResourceExhausted);
    assert_eq!(problem.retry_after, Some(Duration::from_millis(250)));
    assert!(problem.is_transient());
}

#[test]
fn internals_stay_inside() {
    let status = Failure::internal("password of the database is swordfish").into_status();
    assert_eq!(status.code(), Code::Internal);
    assert!(!format!("{status:?}").contains("swordfish"), "{status:?}");
    assert!(status.message().contains("request id"), "{}", status.message());
}

#[test]
fn an_answer_fits_the_headers_of_common_clients() {
    let violations: Vec<_> = (0..500)
        .map(|n| FieldViolation::new(format!("namespaces[{n}].name"), "BAD", "x".repeat(40)))
        .collect();
    let status = Failure::invalid(violations).with_message("ü".repeat(4000)).into_status();
    assert!(status.details().len() < 5 * 1024, "{}", status.details().len());
    assert!(status.message().len() <= 1024);
    let problem = Problem::from(&status);
    assert!(problem.violations.len() > 40, "{}", problem.violations.len());
    let omitted: usize = problem.metadata[OMITTED_METADATA].parse().unwrap();
    assert_eq!(problem.violations.len() + omitted, 500);
}

#[test]
fn a_status_from_elsewhere_is_readable() {
    let problem = Problem::from(Status::unavailable("connection refused"));
    assert_eq!(problem.reason, "");
    assert_eq!(problem.to_string(), "connection refused");
    assert!(problem.is_transient() && !problem.is_not_leader());
}

#[test]
fn a_broken_connection_is_no_answer() {
    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let status = Status::from_error(Box::new(cause));
    assert_eq!(status.code(), Code::Unknown);
    let problem = Problem::from(&status);
    assert_eq!(problem.code, Code::Unavailable);
    assert_eq!(problem.message, "cannot be reached: connection reset");
    assert!(problem.is_transient());
}
