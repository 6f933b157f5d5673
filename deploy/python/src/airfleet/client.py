"""`Client`: what programs use."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import grpc
from google.protobuf.message import Message

from airfleet.connection import Replicas, Security
from airfleet.dags.v1 import dags_pb2, dags_pb2_grpc
from airfleet.errors import DeadlineExceeded
from airfleet.manifest import Namespace
from airfleet.moves.v1 import moves_pb2, moves_pb2_grpc
from airfleet.registry.v1 import registry_pb2, registry_pb2_grpc
from airfleet.router.v1 import router_pb2, router_pb2_grpc
from airfleet.watch import TableChange, until_assigned, watch

Assignment: TypeAlias = router_pb2.Assignment
"""A namespace and the shard that owns it, as on the wire."""
Addresses: TypeAlias = str | Iterable[str]
"""One address, several with commas between, or a list: `10.0.0.1:7402,10.0.0.2:7402`."""
Outcome: TypeAlias = Literal["created", "updated", "unchanged"]

_PAGE = 1_000  # entries of a page; no page has more
_BATCH_MOST = 10_000  # dag_ids that one BatchResolve takes
_APPLY_MOST = 1_000  # entries that one ApplyManifest takes
_OUTCOMES: dict[int, Outcome] = {
    registry_pb2.APPLY_OUTCOME_CREATED: "created",
    registry_pb2.APPLY_OUTCOME_UPDATED: "updated",
    registry_pb2.APPLY_OUTCOME_UNCHANGED: "unchanged",
}


class AssignmentTimeout(DeadlineExceeded, TimeoutError):
    """No shard took the namespace in time."""

    def __init__(self, name: str, timeout: float, last: Assignment | None) -> None:
        self.last = last
        """What was seen last; None where the router does not know the namespace."""
        if last is None:
            why = "the router has not heard of it"
        else:
            why = last.reason or state_name(last.state)
        super().__init__(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"namespace {name!r} has no shard after {timeout:.3g} s: {why}",
        )


@dataclass(frozen=True)
class Applied:
    """What an apply made of a namespace."""

    outcome: Outcome
    """Whether it is new, was changed, or was so already."""
    namespace: Namespace
    """As it now is, or would be."""


@dataclass(frozen=True)
class Owner:
    """Who owns a dag_id."""

    namespace: str
    """The namespace."""
    shard: str
    """The shard; empty where the namespace has none."""
    url: str
    """Where the shard's web server and REST API are reached; empty where that is not stated."""
    generation: int
    """Grows by one at every change of owner."""
    retry_after: float = 0.0
    """While the namespace is between two shards: seconds after which to ask again before anything
    is sent that changes it. Else 0."""


class Client:
    """Registers namespaces and finds out where they live.

    Give the addresses of the registry, of the router, or of both. Of several replicas any may be
    down: a call goes on with the next. Safe to use from several threads.

    Calls raise `AirfleetError` or one of its subclasses. They try again for as long as `timeout`
    allows where nobody could answer; that never does a thing twice.

        with Client(registry="127.0.0.1:7401", router="127.0.0.1:7402") as client:
            client.register(airfleet.namespace("payments", owners=["fin"], prefixes=["pay__"]))
            print(client.wait_for_assignment("payments").shard)
    """

    def __init__(
        self,
        registry: Addresses | None = None,
        router: Addresses | None = None,
        *,
        token: str | None = None,
        tls: bool | None = None,
        ca: str | Path | bytes | None = None,
        cert: str | Path | bytes | None = None,
        key: str | Path | bytes | None = None,
        server_name: str | None = None,
        insecure: bool = False,
        timeout: float = 15.0,
    ) -> None:
        """`timeout` is how long a call may take with all its tries, in seconds.

        The others are those of `airfleet.connection.Security`.
        """
        if registry is None and router is None:
            raise ValueError("give the address of the registry, of the router, or of both")
        if (cert is None) != (key is None):
            raise ValueError("cert and key go together")
        security = Security(
            tls=tls,
            ca=ca,
            cert=cert,
            key=key,
            token=token,
            server_name=server_name,
            insecure=insecure,
        )
        self._registry = None if registry is None else Replicas(registry, security)
        self._router = None if router is None else Replicas(router, security)
        self._timeout = timeout

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection."""
        for replicas in (self._registry, self._router):
            if replicas is not None:
                replicas.close()

    # --- manifest

    def register(
        self,
        namespace: Namespace,
        *,
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Namespace:
        """Registers a namespace that does not exist; `AlreadyExists` where it does.

        The request id is made up where none is given. Give your own to repeat the call from
        another process: it is answered as the first one was.
        """
        request = registry_pb2.CreateNamespaceRequest(
            namespace=namespace,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
        )
        return self._ask_registry("CreateNamespace", request, timeout)

    def apply(
        self,
        namespaces: Iterable[Namespace],
        *,
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> list[Applied]:
        """Makes namespaces be as given, whether they exist or not: all of them or none.

        At most 1000. Those that are not named stay as they are.
        """
        entries = [registry_pb2.ManifestEntry(namespace=namespace) for namespace in namespaces]
        if len(entries) > _APPLY_MOST:
            raise ValueError(
                f"{len(entries)} namespaces; at most {_APPLY_MOST} are applied at once"
            )
        request = registry_pb2.ApplyManifestRequest(
            entries=entries,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
        )
        response = self._ask_registry("ApplyManifest", request, timeout)
        return [
            Applied(_OUTCOMES[result.outcome], result.entry.namespace)
            for result in response.results
        ]

    def get_namespace(self, name: str, *, timeout: float | None = None) -> Namespace:
        """A namespace of the manifest; `NotFound` where there is none of that name."""
        request = registry_pb2.GetNamespaceRequest(name=name)
        return self._ask_registry("GetNamespace", request, timeout)

    def list_namespaces(
        self, *, owner: str = "", timeout: float | None = None
    ) -> Iterator[Namespace]:
        """The namespaces of the manifest by name, or those of one owner. Reads page by page."""
        token = ""
        while True:
            request = registry_pb2.ListNamespacesRequest(
                page_size=1000, page_token=token, owner=owner
            )
            page = self._ask_registry("ListNamespaces", request, timeout)
            yield from page.namespaces
            token = page.next_page_token
            if not token:
                return

    def delete_namespace(
        self,
        name: str,
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Removes a namespace; `PreconditionFailed` while its shard still runs it."""
        request = registry_pb2.DeleteNamespaceRequest(
            name=name, etag=etag, request_id=request_id or str(uuid.uuid4())
        )
        self._ask_registry("DeleteNamespace", request, timeout)

    # --- assignments

    def wait_for_assignment(
        self,
        namespace: str | Namespace,
        timeout: float = 60.0,
        on_change: Callable[[Assignment], None] | None = None,
    ) -> Assignment:
        """Waits until a shard owns a namespace; `AssignmentTimeout` where none does in time.

        Give the namespace itself, as `register` returned it, to be sure that an assignment of an
        earlier one of the same name is not taken for it. `on_change` is told each state that is
        seen, also that no shard fits yet and why.
        """
        name, uid = (
            (namespace, "") if isinstance(namespace, str) else (namespace.name, namespace.uid)
        )
        last = None
        for assignment in until_assigned(self._need_router(), name, uid, timeout):
            if on_change is not None:
                on_change(assignment)
            last = assignment
        if last is None or last.state != router_pb2.ASSIGNMENT_STATE_ASSIGNED:
            raise AssignmentTimeout(name, timeout, last)
        return last

    def watch_assignments(
        self, resume_revision: int = 0, timeout: float | None = None
    ) -> Iterator[TableChange]:
        """The table of assignments, then every change of it, in order of revision.

        Goes on over lost connections without a gap. Give the revision of the last change that was
        taken in to go on from there. Ends after `timeout` seconds, where given.
        """
        return watch(self._need_router(), resume_revision, timeout)

    def get_assignment(self, namespace: str, *, timeout: float | None = None) -> Assignment:
        """A namespace's assignment; `NotFound` where the router does not know the namespace."""
        request = router_pb2.GetAssignmentRequest(namespace=namespace)
        return self._ask_router("GetAssignment", request, timeout)

    def namespace_status(
        self, namespace: str, *, timeout: float | None = None
    ) -> router_pb2.NamespaceStatus:
        """What the shards are to be for a namespace, and what they are. Asked of the leader.

        Each of its `roles` has `reached`, and in `observed` the release, the drift, the broken
        rules, and what keeps the shard from its role.
        """
        request = router_pb2.GetNamespaceStatusRequest(namespace=namespace)
        return self._ask_router("GetNamespaceStatus", request, timeout)

    def list_namespace_statuses(
        self, *, shard: str = "", attention: bool = False, timeout: float | None = None
    ) -> Iterator[router_pb2.RoleSummary]:
        """Which release runs where, by namespace. Asked of the leader.

        With `attention` only what somebody should look at. `timeout` is for each page.
        """
        token = ""
        while True:
            request = router_pb2.ListNamespaceStatusesRequest(
                page_size=_PAGE, page_token=token, shard=shard, attention=attention
            )
            page = self._ask_router("ListNamespaceStatuses", request, timeout)
            yield from page.roles
            token = page.next_page_token
            if not token:
                return

    def list_namespace_events(
        self, namespace: str, *, timeout: float | None = None
    ) -> Iterator[router_pb2.NamespaceEvent]:
        """What happened to a namespace and why, newest first. `timeout` is for each page."""
        token = ""
        while True:
            request = router_pb2.ListNamespaceEventsRequest(
                namespace=namespace, page_size=_PAGE, page_token=token
            )
            page = self._ask_router("ListNamespaceEvents", request, timeout)
            yield from page.events
            token = page.next_page_token
            if not token:
                return

    def resolve(
        self,
        dag_id: str | None = None,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
    ) -> router_pb2.ResolveResponse:
        """Which shard owns a dag_id or a namespace; `NotFound` where no namespace owns it."""
        if (dag_id is None) == (namespace is None):
            raise ValueError("give either a dag_id or a namespace")
        request = (
            router_pb2.ResolveRequest(namespace=namespace)
            if dag_id is None
            else router_pb2.ResolveRequest(dag_id=dag_id)
        )
        return self._ask_router("Resolve", request, timeout)

    def batch_resolve(
        self, dag_ids: Iterable[str], *, timeout: float | None = None
    ) -> list[Owner | None]:
        """Who owns each of many dag_ids, in their order; None where no namespace does.

        Any number; each 10,000 are answered from one state of the table. `timeout` is for each
        such batch.
        """
        wanted = list(dag_ids)
        owners: list[Owner | None] = []
        for start in range(0, len(wanted), _BATCH_MOST):
            request = router_pb2.BatchResolveRequest(dag_ids=wanted[start : start + _BATCH_MOST])
            response = self._ask_router("BatchResolve", request, timeout)
            distinct = [_owner(route, response) for route in response.routes]
            owners += [
                distinct[number - 1] if number else None for number in response.route_numbers
            ]
        return owners

    def pin_namespace(
        self,
        namespace: str,
        shard: str,
        *,
        reason: str = "",
        expected_generation: int = 0,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Assignment:
        """Binds a namespace to a shard. Needs the operator role."""
        request = router_pb2.PinNamespaceRequest(
            namespace=namespace,
            shard=shard,
            reason=reason,
            expected_generation=expected_generation,
            validate_only=validate_only,
        )
        return self._ask_router("PinNamespace", request, timeout)

    def start_move(
        self,
        namespace: str,
        shard: str,
        *,
        reason: str = "",
        options: moves_pb2.MoveOptions | None = None,
        validate_only: bool = False,
        expected_generation: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> moves_pb2.StartMoveResponse:
        """Moves a namespace to another shard, live. Needs the operator role.

        With `validate_only` it only answers what speaks against it.
        Raises `PreconditionFailed` where something blocks it. Asked again with the same
        `request_id`, made up where none is given, it is the same move.
        """
        request = moves_pb2.StartMoveRequest(
            namespace=namespace,
            target_shard=shard,
            reason=reason,
            options=options,
            validate_only=validate_only,
            expected_generation=expected_generation,
            request_id=request_id or str(uuid.uuid4()),
        )
        return self._ask_moves("StartMove", request, timeout)

    def get_move(self, name: str, *, timeout: float | None = None) -> moves_pb2.Move:
        """The move of that id, or the latest of that namespace.

        With what it waits for, how far it is, and the proof of its runs once there is one.
        """
        return self._ask_moves("GetMove", moves_pb2.GetMoveRequest(name=name), timeout)

    def list_moves(
        self,
        *,
        namespace: str = "",
        shard: str = "",
        ended: bool = False,
        timeout: float | None = None,
    ) -> Iterator[moves_pb2.Move]:
        """Moves, the latest first; with `ended` those that have ended too.

        `timeout` is for each page.
        """
        token = ""
        while True:
            request = moves_pb2.ListMovesRequest(
                page_size=_PAGE,
                page_token=token,
                namespace=namespace,
                shard=shard,
                include_ended=ended,
            )
            page = self._ask_moves("ListMoves", request, timeout)
            yield from page.moves
            token = page.next_page_token
            if not token:
                return

    def abort_move(
        self, name: str, *, reason: str = "", timeout: float | None = None
    ) -> moves_pb2.Move:
        """Gives a move up, by its id or its namespace. Needs the operator role.

        `PreconditionFailed` once the target owns the namespace.
        """
        request = moves_pb2.AbortMoveRequest(name=name, reason=reason)
        return self._ask_moves("AbortMove", request, timeout)

    def wait_for_move(self, name: str, timeout: float, *, poll: float = 1.0) -> moves_pb2.Move:
        """Waits until a move has ended, done or aborted; `TimeoutError` where it has not."""
        deadline = time.monotonic() + timeout
        while True:
            move = self.get_move(name)
            if move.phase in (moves_pb2.MOVE_PHASE_DONE, moves_pb2.MOVE_PHASE_ABORTED):
                return move
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"move {move.id} has not ended after {timeout:.3g} s: {move.waiting}"
                )
            # A later move of the namespace is another one.
            name = move.id
            time.sleep(min(poll, left))

    def trigger_dag(
        self,
        dag_id: str,
        *,
        run_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        logical_date: datetime | None = None,
        note: str = "",
        timeout: float | None = None,
    ) -> dags_pb2.TriggerDagResponse:
        """Triggers a run on whichever shard owns the DAG.

        While the namespace is between two shards it asks again, for at most `timeout` seconds, and
        raises `Unavailable` then: nothing was done. Asked again with the same `run_id`, made up
        where none is given, it is the same run, and `existed` says so.
        """
        request = dags_pb2.TriggerDagRequest(
            dag_id=dag_id,
            run_id=run_id or f"manual__{uuid.uuid4()}",
            conf_json="" if conf is None else json.dumps(conf),
            note=note,
        )
        if logical_date is not None:
            if logical_date.tzinfo is None:
                raise ValueError("logical_date has no time zone")
            request.logical_date.FromDatetime(logical_date)
        return self._ask_dags("TriggerDag", request, timeout)

    def clear_dag_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        only_failed: bool = False,
        task_ids: Iterable[str] = (),
        timeout: float | None = None,
    ) -> dags_pb2.ClearDagRunResponse:
        """Has tasks of a run run again: all, those that failed, or those that are named.

        It waits for a move as `trigger_dag` does. `DeadlineExceeded` says that it may have been
        done; it is not repeated then, since tasks would run once more.
        """
        request = dags_pb2.ClearDagRunRequest(
            dag_id=dag_id, run_id=run_id, only_failed=only_failed, task_ids=list(task_ids)
        )
        return self._ask_dags("ClearDagRun", request, timeout, once=True)

    def pause_dag(self, dag_id: str, *, timeout: float | None = None) -> dags_pb2.Place:
        """Pauses a DAG where it is; waits for a move as `trigger_dag` does."""
        return self._ask_dags("PauseDag", dags_pb2.PauseDagRequest(dag_id=dag_id), timeout).place

    def unpause_dag(self, dag_id: str, *, timeout: float | None = None) -> dags_pb2.Place:
        """Lifts that; waits for a move as `trigger_dag` does."""
        request = dags_pb2.UnpauseDagRequest(dag_id=dag_id)
        return self._ask_dags("UnpauseDag", request, timeout).place

    def shard_status(self, shard: str, *, timeout: float | None = None) -> router_pb2.ShardStatus:
        """What is known of a shard: health, load, room. Asked of the leader."""
        request = router_pb2.GetShardStatusRequest(shard=shard)
        return self._ask_router("GetShardStatus", request, timeout)

    def router_status(self, *, timeout: float | None = None) -> router_pb2.RouterStatus:
        """What the replica that answers is, and how fresh its table."""
        request = router_pb2.GetRouterStatusRequest()
        return self._ask_router("GetRouterStatus", request, timeout)

    # --- inside

    def _need_router(self) -> Replicas:
        if self._router is None:
            raise ValueError("this client was made without the address of a router")
        return self._router

    def _ask_registry(self, method: str, request: Message, timeout: float | None) -> Any:
        if self._registry is None:
            raise ValueError("this client was made without the address of a registry")
        stub = registry_pb2_grpc.RegistryServiceStub
        return self._registry.call(stub, method, request, self._or_default(timeout))

    def _ask_router(self, method: str, request: Message, timeout: float | None) -> Any:
        stub = router_pb2_grpc.RouterServiceStub
        return self._need_router().call(stub, method, request, self._or_default(timeout))

    def _ask_moves(self, method: str, request: Message, timeout: float | None) -> Any:
        stub = moves_pb2_grpc.MoveServiceStub
        return self._need_router().call(stub, method, request, self._or_default(timeout))

    def _ask_dags(
        self, method: str, request: Message, timeout: float | None, *, once: bool = False
    ) -> Any:
        stub = dags_pb2_grpc.DagServiceStub
        limit = self._or_default(timeout)
        return self._need_router().call(stub, method, request, limit, once=once)

    def _or_default(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def _owner(route: router_pb2.Route, response: router_pb2.BatchResolveResponse) -> Owner:
    shard = response.shards[route.shard_number - 1] if route.shard_number else None
    return Owner(
        namespace=route.namespace,
        shard=shard.shard if shard else "",
        url=shard.endpoints.url if shard else "",
        generation=route.generation,
        retry_after=route.retry_after_ms / 1000,
    )


def state_name(state: int) -> str:
    """`ASSIGNED`, `MOVING`, `UNPLACED` or `RELEASED`; the number of one that is not known."""
    try:
        return router_pb2.AssignmentState.Name(state).removeprefix("ASSIGNMENT_STATE_")
    except ValueError:
        return str(state)
