"""Client of Airfleet: register namespaces, wait for their shard, resolve dag_ids.

    import airfleet

    with airfleet.Client(registry="127.0.0.1:7401", router="127.0.0.1:7402") as client:
        client.register(airfleet.namespace("payments", owners=["fin"], prefixes=["payments__"]))
        print(client.wait_for_assignment("payments").shard)

The messages of the wire are under `airfleet.registry.v1`, `airfleet.router.v1` and
`airfleet.placement.v1`.
"""

from airfleet.client import Applied, Assignment, AssignmentTimeout, Client, Owner, state_name
from airfleet.errors import (
    AirfleetError,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    NotLeader,
    PermissionDenied,
    PreconditionFailed,
    PreconditionViolation,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from airfleet.manifest import ManifestError, Namespace, describe, load, namespace, parse
from airfleet.watch import TableChange

__version__ = "0.1.0"

__all__ = [
    "AirfleetError",
    "AlreadyExists",
    "Applied",
    "Assignment",
    "AssignmentTimeout",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "ManifestError",
    "Namespace",
    "NotFound",
    "NotLeader",
    "Owner",
    "PermissionDenied",
    "PreconditionFailed",
    "PreconditionViolation",
    "ResourceExhausted",
    "TableChange",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "describe",
    "load",
    "namespace",
    "parse",
    "state_name",
]
