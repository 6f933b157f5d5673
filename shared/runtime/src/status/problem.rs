//! Reads the answer of a service that could not do what was asked.

use std::{collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{DOMAIN, ETAG_METADATA, FieldViolation, LEADER_METADATA, Precondition, reason};

/// A [`Status`] taken apart, for rendering and for deciding whether to try again. Works on any
/// status; one that did not come from Airfleet has an empty `reason`. One that came from nowhere,
/// because the connection failed, has the code `Unavailable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason; empty where the answer has none.
    pub reason: String,
    /// The message for people.
    pub message: String,
    /// Metadata of the `ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// Every field of the request that is wrong.
    pub violations: Vec<FieldViolation>,
    /// Every condition that does not hold.
    pub preconditions: Vec<Precondition>,
    /// Kind and name of the resource that it is about.
    pub resource: Option<(String, String)>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// The id under which the service logged the request.
    pub request_id: Option<String>,
}

impl Problem {
    /// Address of the leading replica, where the answer was that another one leads.
    pub fn leader(&self) -> Option<&str> {
        self.metadata.get(LEADER_METADATA).map(String::as_str).filter(|leader| !leader.is_empty())
    }

    /// Current etag of the resource, where the answer was a conflict.
    pub fn etag(&self) -> Option<&str> {
        self.metadata.get(ETAG_METADATA).map(String::as_str)
    }

    /// Whether another replica must be asked. The request was not carried out.
    pub fn is_not_leader(&self) -> bool {
        self.reason == reason::NOT_LEADER
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self.code {
            Code::Unavailable => true,
            Code::ResourceExhausted => self.retry_after.is_some(),
            _ => false,
        }
    }
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        // tonic reports a connection that breaks as Unknown or Cancelled, with what broke it as the
        // source. A status that was received has no source.
        let (code, message) = match StdError::source(status) {
            Some(cause) => (Code::Unavailable, unreachable(cause)),
            None => (status.code(), status.message().to_owned()),
        };
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        Self {
            code,
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message,
            metadata: info
                .map(|info| info.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                .unwrap_or_default(),
            violations: details.bad_request().map_or_else(Vec::new, |bad| {
                bad.field_violations
                    .iter()
                    .map(|v| FieldViolation::new(&v.field, &v.reason, &v.description))
                    .collect()
            }),
            preconditions: details.precondition_failure().map_or_else(Vec::new, |failure| {
                failure
                    .violations
                    .iter()
                    .map(|v| Precondition::new(&v.r#type, &v.subject, &v.description))
                    .collect()
            }),
            resource: details
                .resource_info()
                .map(|info| (info.resource_type.clone(), info.resource_name.clone())),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            request_id: status
                .metadata()
                .get(crate::request::HEADER)
                .and_then(|id| id.to_str().ok())
                .map(str::to_owned),
        }
    }
}

/// The innermost cause says most: `connection refused`, `invalid peer certificate`.
fn unreachable(cause: &dyn StdError) -> String {
    let mut innermost = cause;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("cannot be reached: {innermost}")
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

impl fmt::Display for Problem {
    /// The message, then one indented line for each violation where there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = self.violations.len() + self.preconditions.len() > 1;
        if several {
            write!(f, "the request was refused for several reasons:")?;
            for v in &self.violations {
                write!(f, "\n  {}: {}", v.field, v.message)?;
            }
            for v in &self.preconditions {
                write!(f, "\n  {}: {}", v.subject, v.description)?;
            }
            if let Some(omitted) = self.metadata.get(super::OMITTED_METADATA) {
                write!(f, "\n  and {omitted} more")?;
            }
        } else if self.message.is_empty() {
            write!(f, "{}", self.code.description())?;
        } else {
            write!(f, "{}", self.message)?;
        }
        if self.reason.is_empty() {
            return Ok(());
        }
        write!(f, "{}({})", if several { "\n" } else { " " }, self.reason)
    }
}

impl std::error::Error for Problem {}
