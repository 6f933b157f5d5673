"""Answers of the server become exceptions that tell everything."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from scripted import Refuse, Server, namespace

import airfleet


def refused(answer: Refuse) -> airfleet.AirfleetError:
    with Server() as server, airfleet.Client(registry=server.address, timeout=5) as client:
        server.create.answers = [answer]
        with pytest.raises(airfleet.AirfleetError) as raised:
            client.register(namespace(), timeout=0.3)
    return raised.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, airfleet.InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, airfleet.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, airfleet.AlreadyExists),
        (grpc.StatusCode.ABORTED, airfleet.Conflict),
        (grpc.StatusCode.FAILED_PRECONDITION, airfleet.PreconditionFailed),
        (grpc.StatusCode.PERMISSION_DENIED, airfleet.PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, airfleet.Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, airfleet.ResourceExhausted),
        (grpc.StatusCode.UNAVAILABLE, airfleet.Unavailable),
        (grpc.StatusCode.INTERNAL, airfleet.Internal),
        (grpc.StatusCode.DATA_LOSS, airfleet.AirfleetError),
    ],
)
def test_each_code_has_its_type(code: grpc.StatusCode, kind: type[airfleet.AirfleetError]) -> None:
    error = refused(Refuse(code, "no", "WHY"))
    assert type(error) is kind
    assert (error.code, error.message, error.reason) == (code, "no", "WHY")


def test_every_violated_field_is_told() -> None:
    request = error_details_pb2.BadRequest()
    request.field_violations.add(field="namespace.name", reason="INVALID_NAME", description="bad")
    request.field_violations.add(field="namespace.owners", reason="REQUIRED", description="none")
    error = refused(
        Refuse(
            grpc.StatusCode.INVALID_ARGUMENT,
            "namespace.name: bad (and 1 more)",
            "INVALID_ARGUMENT",
            {"omitted_violations": "3"},
            details=(request,),
        )
    )
    assert [(v.field, v.code, v.message) for v in error.fields] == [
        ("namespace.name", "INVALID_NAME", "bad"),
        ("namespace.owners", "REQUIRED", "none"),
    ]
    assert str(error).splitlines()[1:] == [
        "  namespace.name: bad",
        "  namespace.owners: none",
        "  and 3 more",
    ]


def test_a_single_violation_is_not_told_twice() -> None:
    request = error_details_pb2.BadRequest()
    request.field_violations.add(field="name", reason="INVALID_NAME", description="bad")
    error = refused(Refuse(grpc.StatusCode.INVALID_ARGUMENT, "name: bad", "X", details=(request,)))
    assert str(error) == "name: bad"


def test_conflicts_carry_the_current_etag_and_preconditions_their_subject() -> None:
    error = refused(Refuse(grpc.StatusCode.ABORTED, reason="ETAG_MISMATCH", metadata={"etag": "5"}))
    assert isinstance(error, airfleet.Conflict)
    assert error.etag == "5"

    failure = error_details_pb2.PreconditionFailure()
    failure.violations.add(type="NOT_DRAINED", subject="namespaces/a", description="still runs")
    error = refused(Refuse(grpc.StatusCode.FAILED_PRECONDITION, "x", "Y", details=(failure,)))
    assert str(error.preconditions[0]) == "namespaces/a: still runs"
    assert error.preconditions[0].kind == "NOT_DRAINED"


def test_an_answer_without_details_names_the_address() -> None:
    with airfleet.Client(registry="127.0.0.1:1", timeout=0.3) as client:
        with pytest.raises(airfleet.Unavailable) as raised:
            client.register(namespace())
    assert raised.value.reason == ""
    assert str(raised.value).startswith("127.0.0.1:1: ")


def test_a_reason_of_somebody_else_is_not_taken_for_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="NOT_LEADER", domain="example.net")
    error = refused(Refuse(grpc.StatusCode.UNAVAILABLE, details=(info,)))
    assert type(error) is airfleet.Unavailable
    assert error.reason == ""
