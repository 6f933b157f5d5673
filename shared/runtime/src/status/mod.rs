//! What a service answers when it cannot do what was asked.
//!
//! Responsible for the one mapping from service errors to gRPC codes with `google.rpc` details and
//! to HTTP statuses, and for reading such an answer on the client's side ([`Problem`]).
//!
//! Invariant: every failure carries an `ErrorInfo` with a stable `UPPER_SNAKE` reason, fits the
//! header limits of common gRPC clients, and tells nothing of the inside of the service when its
//! kind is [`Kind::Internal`].
//!
//! It must not know any service's error types: services build a [`Failure`] from theirs.

mod problem;
pub mod reason;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, error::Error as StdError, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, QuotaViolation, StatusExt as _};

pub use self::problem::Problem;

/// The domain of every `ErrorInfo` that Airfleet sends.
pub const DOMAIN: &str = "airfleet.dev";

/// `ErrorInfo` metadata key of the current etag in a conflict.
pub const ETAG_METADATA: &str = "etag";

/// `ErrorInfo` metadata key of the leader's address in a refusal by another replica.
pub const LEADER_METADATA: &str = "leader";

/// `ErrorInfo` metadata key that counts the violations that did not fit into the answer.
pub const OMITTED_METADATA: &str = "omitted_violations";

/// The kinds of service errors. Each has one gRPC code and one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong, whatever the state of the system.
    Invalid,
    /// The request points past what exists, such as a compacted revision.
    OutOfRange,
    /// The named resource does not exist.
    NotFound,
    /// A resource of that name exists.
    AlreadyExists,
    /// The resource changed since the caller read it; reading it again may help.
    Conflict,
    /// The state of the system does not allow it; somebody must change that first.
    Precondition,
    /// The caller is known and may not do this.
    Denied,
    /// The caller is not known.
    Unauthenticated,
    /// A limit was reached.
    Exhausted,
    /// Another replica leads.
    NotLeader,
    /// Something that is needed is away for now; trying again may help.
    Unavailable,
    /// It took longer than the caller allowed.
    DeadlineExceeded,
    /// There is no such operation.
    Unimplemented,
    /// A fault of the service.
    Internal,
}

impl Kind {
    /// The gRPC code.
    pub const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::OutOfRange => Code::OutOfRange,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Conflict => Code::Aborted,
            Self::Precondition => Code::FailedPrecondition,
            Self::Denied => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Exhausted => Code::ResourceExhausted,
            Self::NotLeader | Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// The HTTP status, as `google.rpc.Code` documents the correspondence.
    pub const fn http(self) -> http::StatusCode {
        match self {
            Self::Invalid | Self::OutOfRange | Self::Precondition => http::StatusCode::BAD_REQUEST,
            Self::NotFound => http::StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Conflict => http::StatusCode::CONFLICT,
            Self::Denied => http::StatusCode::FORBIDDEN,
            Self::Unauthenticated => http::StatusCode::UNAUTHORIZED,
            Self::Exhausted => http::StatusCode::TOO_MANY_REQUESTS,
            Self::NotLeader | Self::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Unimplemented => http::StatusCode::NOT_IMPLEMENTED,
            Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `namespace.prefixes[0]`.
    pub field: String,
    /// Stable code in `UPPER_SNAKE_CASE`.
    pub code: String,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl FieldViolation {
    /// A violation of `field`.
    pub fn new(
        field: impl Into<String>,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}

/// One condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// Stable code of the condition in `UPPER_SNAKE_CASE`.
    pub kind: String,
    /// What it was checked on, such as `namespaces/payments`.
    pub subject: String,
    /// How it fails and what to do, for people.
    pub description: String,
}

impl Precondition {
    /// A condition `kind` that `subject` does not meet.
    pub fn new(
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self { kind: kind.into(), subject: subject.into(), description: description.into() }
    }
}

/// An error as a client is to see it. Turns into a [`Status`] by `into()`, so that handlers can
/// use `?` on it.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    reason: Cow<'static, str>,
    message: String,
    metadata: HashMap<String, String>,
    fields: Vec<FieldViolation>,
    preconditions: Vec<Precondition>,
    resource: Option<(String, String)>,
    quota: Option<(String, String)>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A service error that has a kind, so that its owner need not know gRPC.
pub trait Classify {
    /// The kind of this error.
    fn kind(&self) -> Kind;
}

impl Failure {
    /// A failure of any kind with a reason of its own.
    pub fn new(
        kind: Kind,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            reason: reason.into(),
            message: message.into(),
            metadata: HashMap::new(),
            fields: Vec::new(),
            preconditions: Vec::new(),
            resource: None,
            quota: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Fields of the request are wrong: `INVALID_ARGUMENT` with all of them.
    pub fn invalid(violations: Vec<FieldViolation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is invalid".to_owned(),
            [one] => format!("{}: {}", one.field, one.message),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.field, first.message, rest.len())
            }
        };
        let mut failure = Self::new(Kind::Invalid, reason::INVALID_ARGUMENT, message);
        failure.0.fields = violations;
        failure
    }

    /// One field of the request is wrong.
    pub fn invalid_field(
        field: impl Into<String>,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::invalid(vec![FieldViolation::new(field, code, message)])
    }

    /// The resource changed since it was read: `ABORTED` with its current etag.
    pub fn conflict(current_etag: impl Into<String>) -> Self {
        Self::new(
            Kind::Conflict,
            reason::ETAG_MISMATCH,
            "the resource changed since it was read; read it again and repeat the change",
        )
        .with_metadata(ETAG_METADATA, current_etag)
    }

    /// Conditions do not hold: `FAILED_PRECONDITION` with all of them.
    pub fn precondition(violations: Vec<Precondition>) -> Self {
        let message = match violations.as_slice() {
            [] => "the state of the system does not allow it".to_owned(),
            [one] => format!("{}: {}", one.subject, one.description),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.subject, first.description, rest.len())
            }
        };
        let mut failure = Self::new(Kind::Precondition, reason::FAILED_PRECONDITION, message);
        failure.0.preconditions = violations;
        failure
    }

    /// A resource does not exist. `resource` is what it is (`namespace`), `name` which one.
    pub fn not_found(resource: impl Into<String>, name: impl Into<String>) -> Self {
        let (resource, name) = (resource.into(), name.into());
        let message = format!("{resource} {name:?} does not exist");
        Self::new(Kind::NotFound, reason::NOT_FOUND, message).with_resource(resource, name)
    }

    /// A resource of that name exists.
    pub fn already_exists(resource: impl Into<String>, name: impl Into<String>) -> Self {
        let (resource, name) = (resource.into(), name.into());
        let message = format!("{resource} {name:?} already exists");
        Self::new(Kind::AlreadyExists, reason::ALREADY_EXISTS, message)
            .with_resource(resource, name)
    }

    /// Another replica leads. `leader` is its address; empty or `None` while there is none.
    pub fn not_leader(leader: Option<&str>) -> Self {
        let leader = leader.filter(|leader| !leader.is_empty());
        let failure = Self::new(
            Kind::NotLeader,
            reason::NOT_LEADER,
            match leader {
                Some(leader) => format!("this replica does not lead; ask {leader}"),
                None => "no replica leads at the moment; try again".to_owned(),
            },
        );
        match leader {
            // The leader is known, so there is nothing to wait for.
            Some(leader) => failure
                .with_metadata(LEADER_METADATA, leader)
                .with_retry_after(Duration::from_millis(1)),
            None => failure.with_retry_after(Duration::from_secs(1)),
        }
    }

    /// Something that is needed is away; worth trying again after `retry_after`.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Kind::Unavailable, reason::UNAVAILABLE, message).with_retry_after(retry_after)
    }

    /// A limit was reached. `subject` is whose limit (`principal:alice`, `node`), `limit` says
    /// which one and how much.
    pub fn exhausted(subject: impl Into<String>, limit: impl Into<String>) -> Self {
        let (subject, limit) = (subject.into(), limit.into());
        let message = format!("{subject}: {limit}");
        let mut failure = Self::new(Kind::Exhausted, reason::RESOURCE_EXHAUSTED, message);
        failure.0.quota = Some((subject, limit));
        failure
    }

    /// The caller may not do this.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, reason::PERMISSION_DENIED, message)
    }

    /// The caller is not known. `reason` is one of the reasons in [`reason`].
    pub fn unauthenticated(
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Unauthenticated, reason, message)
    }

    /// The request points past what exists.
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Kind::OutOfRange, reason::OUT_OF_RANGE, message)
    }

    /// A fault of the service. The client learns nothing of `source`; it is logged once, with the
    /// id of the request, when the failure becomes a [`Status`].
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Internal, reason::INTERNAL, "internal error").with_source(source)
    }

    /// Replaces the reason by a more telling one, in `UPPER_SNAKE_CASE`.
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = reason.into();
        self
    }

    /// Replaces the message.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Adds an entry to the metadata of the `ErrorInfo`.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.metadata.insert(key.into(), value.into());
        self
    }

    /// Names the resource that the failure is about.
    pub fn with_resource(mut self, resource: impl Into<String>, name: impl Into<String>) -> Self {
        self.0.resource = Some((resource.into(), name.into()));
        self
    }

    /// Says when trying again makes sense.
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Keeps the cause for the log; clients never see it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable reason.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields that are wrong.
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.fields
    }

    /// When trying again makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The HTTP status.
    pub fn http(&self) -> http::StatusCode {
        self.0.kind.http()
    }

    /// The answer for a gRPC client. Logs the cause of an internal failure.
    pub fn into_status(self) -> Status {
        let mut inner = self.0;
        if inner.kind == Kind::Internal {
            let request_id = crate::request::current_id();
            let request_id = request_id.as_ref().map_or("none", |id| id.as_str());
            let cause = inner.source.as_deref().map_or_else(|| inner.message.clone(), chain);
            tracing::error!(request_id, reason = %inner.reason, error = %cause, "internal error");
            inner.message = format!(
                "internal error; the log of the service has it under request id {request_id}"
            );
        }
        let mut details = ErrorDetails::new();
        if let Some(delay) = inner.retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some((resource, name)) = inner.resource.take() {
            details.set_resource_info(resource, name, "", "");
        }
        if let Some((subject, limit)) = inner.quota.take() {
            details.set_quota_failure(vec![QuotaViolation::new(subject, limit)]);
        }
        let mut budget = Budget::default();
        let total = inner.fields.len() + inner.preconditions.len();
        let fields: Vec<_> = std::mem::take(&mut inner.fields)
            .into_iter()
            .take_while(|v| budget.take(v.field.len() + v.code.len() + v.message.len()))
            .map(|v| tonic_types::FieldViolation {
                field: v.field,
                description: v.message,
                reason: v.code,
                localized_message: None,
            })
            .collect();
        let preconditions: Vec<_> = std::mem::take(&mut inner.preconditions)
            .into_iter()
            .take_while(|v| budget.take(v.kind.len() + v.subject.len() + v.description.len()))
            .map(|v| PreconditionViolation::new(v.kind, v.subject, v.description))
            .collect();
        let omitted = total - fields.len() - preconditions.len();
        if omitted > 0 {
            inner.metadata.insert(OMITTED_METADATA.to_owned(), omitted.to_string());
        }
        if !fields.is_empty() {
            details.set_bad_request(fields);
        }
        if !preconditions.is_empty() {
            details.set_precondition_failure(preconditions);
        }
        details.set_error_info(inner.reason, DOMAIN, inner.metadata);
        Status::with_error_details(
            inner.kind.code(),
            truncate(inner.message, MESSAGE_MAX_BYTES),
            details,
        )
    }
}

/// Status details travel in one header, and the clients' limits on headers are low: grpc-core
/// refuses more than 8 KiB of all headers together. Base64 makes 4 KiB of details 5.4 KiB.
const DETAILS_MAX_BYTES: usize = 4 * 1024;
/// Longest message, for the same limit.
const MESSAGE_MAX_BYTES: usize = 1024;

struct Budget {
    left: usize,
    open: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: DETAILS_MAX_BYTES, open: true }
    }
}

impl Budget {
    /// Whether `bytes` of text and their framing still fit. Once something did not, nothing does,
    /// so that what is kept is a prefix.
    fn take(&mut self, bytes: usize) -> bool {
        const FRAMING_BYTES: usize = 12;
        self.open = self.open && self.left >= bytes + FRAMING_BYTES;
        if self.open {
            self.left -= bytes + FRAMING_BYTES;
        }
        self.open
    }
}

fn truncate(mut text: String, max: usize) -> String {
    const ELLIPSIS: &str = "...";
    if text.len() > max {
        let mut end = max - ELLIPSIS.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    text
}

/// An error and everything that led to it, in one line.
pub(crate) fn chain(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.into_status()
    }
}
