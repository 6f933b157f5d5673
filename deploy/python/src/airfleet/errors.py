"""What Airfleet answers when it cannot do what was asked, as exceptions.

Every answer carries a gRPC code and, in `google.rpc` details, a stable reason; `from_rpc_error`
reads them all. Decide on the type or on `reason`, never on the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "airfleet.dev"
"""Domain of every reason that Airfleet sends."""

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request that is wrong."""

    field: str
    """Path of the field, such as `namespace.prefixes[0]`."""
    code: str
    """Stable code, such as `INVALID_PREFIX`."""
    message: str
    """What is wrong and what is right."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True)
class PreconditionViolation:
    """A condition that does not hold."""

    kind: str
    """Stable code of the condition."""
    subject: str
    """What it was checked on, such as `namespaces/payments`."""
    message: str
    """How it fails and what to do."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" if self.subject else self.message


@dataclass(frozen=True)
class Details:
    """What an answer says beside its code and message."""

    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[FieldViolation] = ()
    preconditions: Sequence[PreconditionViolation] = ()
    retry_after: float | None = None


class AirfleetError(Exception):
    """Airfleet refused a request or could not be reached.

    Catch this for all of them, or one of its subclasses.
    """

    code: grpc.StatusCode
    """gRPC code."""
    message: str
    """What went wrong, in one line."""
    reason: str
    """Stable code in UPPER_SNAKE_CASE; empty where the answer came from something else."""
    metadata: Mapping[str, str]
    """What belongs to the reason, such as the current `etag`."""
    fields: Sequence[FieldViolation]
    """Every field that is wrong."""
    preconditions: Sequence[PreconditionViolation]
    """Every condition that does not hold."""
    retry_after: float | None
    """Seconds after which another try makes sense; None where the server does not say."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Details | None = None) -> None:
        details = details or Details()
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = details.reason
        self.metadata = details.metadata
        self.fields = details.fields
        self.preconditions = details.preconditions
        self.retry_after = details.retry_after

    def __str__(self) -> str:
        lines = [self.message]
        # A single violation is the message already.
        violations = [str(v) for v in (*self.fields, *self.preconditions)]
        if len(violations) > 1 or (violations and violations[0] not in self.message):
            lines += [f"  {violation}" for violation in violations]
        if omitted := self.metadata.get("omitted_violations"):
            lines.append(f"  and {omitted} more")
        return "\n".join(lines)


class InvalidArgument(AirfleetError):
    """The request is wrong, whatever the state of the fleet; `fields` says where."""


class NotFound(AirfleetError):
    """There is no such namespace, shard or owner of a dag_id."""


class AlreadyExists(AirfleetError):
    """The name is taken."""


class Conflict(AirfleetError):
    """It changed since it was read; read it again and repeat the change."""

    @property
    def etag(self) -> str:
        """The current etag; empty where the answer has none."""
        return self.metadata.get("etag", "")


class PreconditionFailed(AirfleetError):
    """The state of the fleet does not allow it; `preconditions` says what must change first."""


class PermissionDenied(AirfleetError):
    """The credentials are known and may not do this."""


class Unauthenticated(AirfleetError):
    """The credentials are missing, unknown or expired."""


class ResourceExhausted(AirfleetError):
    """A limit was reached."""


class Unavailable(AirfleetError):
    """Nobody who could answer was reached, or what they need is away; another try may help."""


class NotLeader(Unavailable):
    """This replica does not lead, and the leader could not be reached either."""

    @property
    def leader(self) -> str:
        """Address of the leader; empty while there is none."""
        return self.metadata.get("leader", "")


class DeadlineExceeded(AirfleetError):
    """It took longer than the timeout."""


class Unimplemented(AirfleetError):
    """The server is older than this client."""


class Internal(AirfleetError):
    """A fault of the server; its log has more under the request id of the message."""


_TYPES: dict[grpc.StatusCode, type[AirfleetError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
}


def from_rpc_error(error: grpc.RpcError, address: str = "") -> AirfleetError:
    """The exception for an error of grpc. `address` is whom it was asked of."""
    if not isinstance(error, grpc.Call):
        return Internal(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)
    code = error.code()
    details = _details(error)
    message = error.details() or code.name.lower().replace("_", " ")
    if not details.reason and address:
        # It was not Airfleet that answered, so that only the address tells what to look at.
        message = f"{address}: {message}"
    kind = _TYPES.get(code, AirfleetError)
    if kind is Unavailable and details.reason == "NOT_LEADER":
        kind = NotLeader
    return kind(code, message, details)


def _details(call: grpc.Call) -> Details:
    """The details of an answer; without them, or where they cannot be read, nothing."""
    packed = next(
        (value for key, value in call.trailing_metadata() or () if key == _DETAILS_KEY), None
    )
    if not isinstance(packed, bytes):
        return Details()
    status = status_pb2.Status()
    try:
        status.ParseFromString(packed)
        return _unpack(status)
    except DecodeError:
        return Details()


def _unpack(status: status_pb2.Status) -> Details:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(request.DESCRIPTOR):
            detail.Unpack(request)
        elif detail.Is(precondition.DESCRIPTOR):
            detail.Unpack(precondition)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return Details(
        reason=info.reason if info.domain in ("", DOMAIN) else "",
        metadata=dict(info.metadata),
        fields=tuple(
            FieldViolation(v.field, v.reason, v.description) for v in request.field_violations
        ),
        preconditions=tuple(
            PreconditionViolation(v.type, v.subject, v.description) for v in precondition.violations
        ),
        retry_after=retry_after,
    )
