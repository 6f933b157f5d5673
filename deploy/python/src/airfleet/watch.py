"""The table of assignments as it changes.

A watch begins with the whole table or with a revision that the caller has, and goes on over lost
connections and replicas without a gap: each change names the revision that it follows, and where
that is not the one that was seen last, the watch begins anew with the whole table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from airfleet.connection import Backoff, Replicas, worth_another_try
from airfleet.errors import from_rpc_error
from airfleet.router.v1 import router_pb2, router_pb2_grpc


@dataclass(frozen=True)
class TableChange:
    """What became of the table."""

    revision: int
    """The table is as of this revision once the change is taken in."""
    upserts: Sequence[router_pb2.Assignment]
    """Assignments that are new or changed; all there are where `reset` is set."""
    deleted: Sequence[str]
    """Namespaces that are no longer in the table."""
    reset: bool
    """Forget what was known: `upserts` is the whole table."""


class _Gap(Exception):
    """A change does not follow what was seen."""


class Assembler:
    """Puts the pieces of one stream together. Pure: it knows nothing of connections."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        """What was taken in completely; where a new stream resumes."""
        self._pieces: list[router_pb2.Assignment] | None = None
        self._upserts: list[router_pb2.Assignment] = []
        self._deleted: list[str] = []

    def take(self, response: router_pb2.WatchAssignmentsResponse) -> TableChange | None:
        """Takes in a message; gives the change that it completes, where it completes one."""
        event = response.WhichOneof("event")
        if event == "snapshot":
            snapshot = response.snapshot
            if snapshot.first:
                self._pieces = []
            if self._pieces is None:
                raise _Gap("a snapshot that has no first piece")
            self._pieces.extend(snapshot.assignments)
            if not snapshot.last:
                return None
            pieces, self._pieces = self._pieces, None
            self.revision = response.revision
            return TableChange(response.revision, pieces, (), reset=True)
        if self._pieces is not None:
            raise _Gap("a snapshot that was not finished")
        if event == "change":
            change = response.change
            if change.previous_revision != self.revision:
                raise _Gap(f"revision {change.previous_revision} after {self.revision}")
            self._upserts += change.upserts
            self._deleted += change.deleted
            if response.revision == change.previous_revision:
                return None  # a piece of a change that did not fit into one message
            self.revision = response.revision
            upserts, self._upserts = self._upserts, []
            deleted, self._deleted = self._deleted, []
            return TableChange(response.revision, upserts, deleted, reset=False)
        if event == "progress":
            # Nothing happened up to there, so that resuming there saves reading over it again.
            self.revision = max(self.revision, response.revision)
        return None


def watch(replicas: Replicas, resume_revision: int, timeout: float | None) -> Iterator[TableChange]:
    """See `Client.watch_assignments`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    revision = resume_revision
    pause = Backoff()
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        address = replicas.current
        assembler = Assembler(revision)
        wait = None
        try:
            stub = router_pb2_grpc.RouterServiceStub(replicas.channel(address))
            request = router_pb2.WatchAssignmentsRequest(resume_revision=revision)
            call = stub.WatchAssignments(request, timeout=left, metadata=replicas.metadata())
            try:
                for response in call:
                    change = assembler.take(response)
                    revision = assembler.revision
                    pause.reset()
                    if change is not None:
                        yield change
            finally:
                call.cancel()
        except _Gap:
            revision = 0
        except grpc.RpcError as raised:
            if deadline is not None and deadline <= time.monotonic():
                return
            error = from_rpc_error(raised, address)
            if error.code is grpc.StatusCode.OUT_OF_RANGE and revision:
                revision = 0  # this replica does not have that far back, or not yet that far
            elif not worth_another_try(error):
                raise error from raised
            wait = error.retry_after
        replicas.fail_over(address)
        time.sleep(pause.next(wait) if left is None else min(pause.next(wait), left))


def until_assigned(
    replicas: Replicas, name: str, uid: str, timeout: float
) -> Iterator[router_pb2.Assignment]:
    """The states of one namespace's assignment, each once, from now until a shard owns it.

    Ends without an assigned one when `timeout` seconds are over. A whole table may be large; so the
    present state is asked for, and the watch begins where that was read. Both are asked of one
    replica, since another one may be behind; where it fails, all of it begins anew.
    """
    deadline = time.monotonic() + timeout
    pause = Backoff()
    seen = None
    while (left := deadline - time.monotonic()) > 0:
        address = replicas.current
        wait = None
        try:
            stub = router_pb2_grpc.RouterServiceStub(replicas.channel(address))
            for assignment in _until_assigned_on(stub, replicas, name, deadline):
                pause.reset()
                if assignment == seen or (uid and assignment.namespace_uid not in ("", uid)):
                    continue
                seen = assignment
                yield assignment
                if assignment.state == router_pb2.ASSIGNMENT_STATE_ASSIGNED:
                    return
        except _Gap:
            pass
        except grpc.RpcError as raised:
            if deadline <= time.monotonic():
                return
            error = from_rpc_error(raised, address)
            if error.code is not grpc.StatusCode.OUT_OF_RANGE and not worth_another_try(error):
                raise error from raised
            wait = error.retry_after
        replicas.fail_over(address)
        time.sleep(min(pause.next(wait), left))


def _until_assigned_on(
    stub: router_pb2_grpc.RouterServiceStub, replicas: Replicas, name: str, deadline: float
) -> Iterator[router_pb2.Assignment]:
    """The states of one namespace's assignment as one replica sees them, without an end."""

    def left() -> float:
        return max(deadline - time.monotonic(), 0.001)

    headers = replicas.metadata()
    status = stub.GetRouterStatus(
        router_pb2.GetRouterStatusRequest(), timeout=left(), metadata=headers
    )
    try:
        yield stub.GetAssignment(
            router_pb2.GetAssignmentRequest(namespace=name), timeout=left(), metadata=headers
        )
    except grpc.RpcError as raised:
        if from_rpc_error(raised).code is not grpc.StatusCode.NOT_FOUND:
            raise
        # The router has not heard of it yet; the watch will tell.
    assembler = Assembler(status.revision)
    request = router_pb2.WatchAssignmentsRequest(resume_revision=status.revision)
    call = stub.WatchAssignments(request, timeout=left(), metadata=headers)
    try:
        for response in call:
            if change := assembler.take(response):
                yield from (a for a in change.upserts if a.namespace == name)
    finally:
        call.cancel()
