"""A gRPC server whose answers a test scripts, for what a healthy fleet cannot be made to do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from airfleet.registry.v1 import registry_pb2, registry_pb2_grpc
from airfleet.router.v1 import router_pb2, router_pb2_grpc

_DETAILS_KEY = "grpc-status-details-bin"


class Refuse(Exception):
    """Makes the server answer with this error."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "refused",
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
        details: tuple[Message, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        packed = list(details)
        if reason:
            info = error_details_pb2.ErrorInfo(reason=reason, domain="airfleet.dev")
            info.metadata.update(metadata or {})
            packed.append(info)
        if retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(retry_after * 1e9))
            packed.append(error_details_pb2.RetryInfo(retry_delay=delay))
        self.status = status_pb2.Status(code=code.value[0], message=message)
        for detail in packed:
            any_message = any_pb2.Any()
            any_message.Pack(detail)
            self.status.details.append(any_message)

    def send(self, context: grpc.ServicerContext) -> None:
        """Ends the call with it."""
        context.set_trailing_metadata(((_DETAILS_KEY, self.status.SerializeToString()),))
        context.abort(self.code, self.status.message)


@dataclass
class Script:
    """What one method answers, one call after the other; the last answer is repeated.

    An answer is a message or a `Refuse`; of a streaming method, a list of them, in which an event
    stands for silence until it is set.
    """

    answers: list[Any] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def next(self, request: Message, context: grpc.ServicerContext) -> Message:
        """Answers one call."""
        answer = self._take(request, context)
        if isinstance(answer, Refuse):
            answer.send(context)
        assert isinstance(answer, Message)
        return answer

    def stream(self, request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        """Answers one call of a streaming method."""
        answer = self._take(request, context)
        assert isinstance(answer, list)
        for item in answer:
            if isinstance(item, Refuse):
                item.send(context)
            elif isinstance(item, threading.Event):
                item.wait(timeout=10)
            else:
                yield item

    def _take(self, request: Message, context: grpc.ServicerContext) -> object:
        self.requests.append(request)
        self.headers.append({k: str(v) for k, v in context.invocation_metadata()})
        return self.answers[min(len(self.requests), len(self.answers)) - 1]


class Server(registry_pb2_grpc.RegistryServiceServicer, router_pb2_grpc.RouterServiceServicer):
    """Registry and router in one, on a free port of the loopback interface."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.create = Script()
        self.get_assignment = Script()
        self.status = Script([router_pb2.RouterStatus(revision=7)])
        self.watches = Script()
        self.pin = Script()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self, self._server)
        router_pb2_grpc.add_RouterServiceServicer_to_server(self, self._server)
        if credentials:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Server:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()

    def CreateNamespace(self, request: Message, context: grpc.ServicerContext) -> Message:
        return self.create.next(request, context)

    def GetAssignment(self, request: Message, context: grpc.ServicerContext) -> Message:
        return self.get_assignment.next(request, context)

    def GetRouterStatus(self, request: Message, context: grpc.ServicerContext) -> Message:
        return self.status.next(request, context)

    def PinNamespace(self, request: Message, context: grpc.ServicerContext) -> Message:
        return self.pin.next(request, context)

    def WatchAssignments(
        self, request: Message, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        return self.watches.stream(request, context)


def assignment(
    name: str, shard: str = "", revision: int = 1, reason: str = ""
) -> router_pb2.Assignment:
    """An assignment, or one that waits for a shard."""
    state = router_pb2.ASSIGNMENT_STATE_ASSIGNED if shard else router_pb2.ASSIGNMENT_STATE_UNPLACED
    return router_pb2.Assignment(
        namespace=name, shard=shard, state=state, revision=revision, reason=reason
    )


def snapshot(revision: int, *pieces: list[router_pb2.Assignment]) -> list[Message]:
    """The whole table in pieces."""
    last = len(pieces) - 1
    return [
        router_pb2.WatchAssignmentsResponse(
            revision=revision,
            snapshot=router_pb2.AssignmentSnapshot(
                assignments=piece, first=index == 0, last=index == last
            ),
        )
        for index, piece in enumerate(pieces)
    ]


def change(previous: int, revision: int, *upserts: router_pb2.Assignment) -> Message:
    """What happened after one revision, up to another."""
    return router_pb2.WatchAssignmentsResponse(
        revision=revision,
        change=router_pb2.AssignmentChange(previous_revision=previous, upserts=upserts),
    )


def progress(revision: int) -> Message:
    """Nothing happened up to there."""
    return router_pb2.WatchAssignmentsResponse(
        revision=revision, progress=router_pb2.ProgressMark()
    )


def namespace(name: str = "payments") -> registry_pb2.Namespace:
    """A namespace."""
    return registry_pb2.Namespace(name=name, owners=["fin"], prefixes=[f"{name}__"])


def take(changes: Iterator[object], count: int) -> list[object]:
    """The first few of an endless stream."""
    return list(itertools.islice(changes, count))
