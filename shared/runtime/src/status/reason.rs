//! Reasons that the runtime itself uses. Services add their own with
//! [`Failure::with_reason`](super::Failure::with_reason).

/// One or more fields of the request are invalid.
pub const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
/// A value is outside of what exists, such as a revision that was compacted.
pub const OUT_OF_RANGE: &str = "OUT_OF_RANGE";
/// The named resource does not exist.
pub const NOT_FOUND: &str = "NOT_FOUND";
/// A resource of that name exists.
pub const ALREADY_EXISTS: &str = "ALREADY_EXISTS";
/// The resource changed since it was read.
pub const ETAG_MISMATCH: &str = "ETAG_MISMATCH";
/// The state of the system does not allow it.
pub const FAILED_PRECONDITION: &str = "FAILED_PRECONDITION";
/// The caller is known and may not do this.
pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
/// No bearer token or client certificate came with the request.
pub const CREDENTIALS_MISSING: &str = "CREDENTIALS_MISSING";
/// The bearer token is not known.
pub const TOKEN_INVALID: &str = "TOKEN_INVALID";
/// The bearer token was valid once.
pub const TOKEN_EXPIRED: &str = "TOKEN_EXPIRED";
/// The client certificate names nobody that Airfleet knows.
pub const CERTIFICATE_UNKNOWN: &str = "CERTIFICATE_UNKNOWN";
/// Another replica leads; its address is in the metadata.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// Something that the service needs is away for now.
pub const UNAVAILABLE: &str = "UNAVAILABLE";
/// The node is stopping.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The caller sends more requests than it may.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// The node works on as many requests as it may.
pub const OVERLOADED: &str = "OVERLOADED";
/// As many streams are open as may be.
pub const TOO_MANY_STREAMS: &str = "TOO_MANY_STREAMS";
/// The request is larger than the node takes.
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// A limit was reached that has no reason of its own.
pub const RESOURCE_EXHAUSTED: &str = "RESOURCE_EXHAUSTED";
/// The caller's deadline passed.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// The operation exists in no version of this service.
pub const UNIMPLEMENTED: &str = "UNIMPLEMENTED";
/// A fault of the service.
pub const INTERNAL: &str = "INTERNAL";
