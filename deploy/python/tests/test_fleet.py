"""The client against a real control plane."""

from __future__ import annotations

import csv
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import PATIENCE, ControlPlane, until

import airfleet
from airfleet import TableChange

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def unique(slots: int = 0) -> airfleet.Namespace:
    """A namespace that no other test has."""
    name = f"ns-{uuid.uuid4().hex[:12]}"
    demand = {"runningSlots": slots}
    return airfleet.namespace(name, owners=["fin"], prefixes=[f"{name}__"], demand=demand)


def test_a_namespace_is_registered_assigned_and_resolved(client: airfleet.Client) -> None:
    wanted = unique()
    registered = client.register(wanted)
    assert registered.uid
    assert registered.etag
    assignment = client.wait_for_assignment(registered, PATIENCE)
    assert assignment.shard in ("shard-a", "shard-b")
    assert assignment.namespace_uid == registered.uid
    assert client.get_assignment(wanted.name) == assignment

    by_dag = client.resolve(f"{wanted.name}__daily")
    assert (by_dag.namespace, by_dag.shard) == (wanted.name, assignment.shard)
    assert by_dag.endpoints.url == f"https://airflow-{assignment.shard[-1]}.example.net"
    assert client.resolve(namespace=wanted.name).generation == assignment.generation
    with pytest.raises(airfleet.NotFound) as raised:
        client.resolve("nobodys.dag")
    assert raised.value.reason == "NOT_FOUND"


def test_what_happened_to_a_namespace_is_told(client: airfleet.Client) -> None:
    wanted = unique()
    assignment = client.wait_for_assignment(client.register(wanted), PATIENCE)
    events = list(client.list_namespace_events(wanted.name))
    assert events[0].code == "ASSIGNED"
    assert (events[0].shard, events[0].source) == (assignment.shard, "router")
    status = client.namespace_status(wanted.name)
    assert [role.shard for role in status.roles] == [assignment.shard]
    assert status.assignment == assignment
    listed = client.list_namespace_statuses(shard=assignment.shard)
    assert wanted.name in {role.namespace for role in listed}
    with pytest.raises(airfleet.NotFound):
        list(client.list_namespace_events("never-heard-of"))


def test_the_example_fleet_is_applied_and_every_dag_has_its_owner(plane: ControlPlane) -> None:
    with plane.client() as client:
        files = sorted((EXAMPLES / "fleet/namespaces").glob("*.yaml"))
        fleet = [namespace for file in files for namespace in airfleet.load(file)]
        applied = client.apply(fleet)
        assert [done.namespace.name for done in applied] == [wanted.name for wanted in fleet]
        assert {done.outcome for done in applied} == {"created"}
        for done in applied:
            client.wait_for_assignment(done.namespace, PATIENCE)
        assert {done.outcome for done in client.apply(fleet)} == {"unchanged"}
        listed = {namespace.name for namespace in client.list_namespaces(owner="hmpps")}
        assert {"hmpps", "prison-safety-dsai"} <= listed
        assert "opg" not in listed

        with (EXAMPLES / "fleet/workflows.csv").open(newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        dag_ids = [f"{row['project']}.{row['workflow']}" for row in rows]
        owners = client.batch_resolve([*dag_ids, "nobodys.dag"] * 30)
        assert len(owners) == 30 * (len(rows) + 1)
        expected = [*(row["project"] for row in rows), None] * 30
        assert [owner and owner.namespace for owner in owners] == expected
        first = owners[0]
        assert first is not None
        single = client.resolve(dag_ids[0])
        assert (first.shard, first.url) == (single.shard, single.endpoints.url)
        assert first.generation == single.generation


def test_waiting_may_begin_before_the_namespace_is_registered(client: airfleet.Client) -> None:
    wanted = unique()
    found: list[airfleet.Assignment] = []
    waiting = threading.Thread(
        target=lambda: found.append(client.wait_for_assignment(wanted.name, PATIENCE))
    )
    waiting.start()
    client.register(wanted)
    waiting.join(PATIENCE)
    assert [assignment.namespace for assignment in found] == [wanted.name]


def test_a_namespace_that_fits_nowhere_is_told_why_until_it_fits(client: airfleet.Client) -> None:
    large = unique(slots=10_000)
    client.register(large)
    with pytest.raises(airfleet.AssignmentTimeout, match="NO_ROOM on 2") as raised:
        client.wait_for_assignment(large.name, timeout=1)
    assert raised.value.last is not None
    assert airfleet.state_name(raised.value.last.state) == "UNPLACED"

    reasons: list[str] = []
    unplaced = threading.Event()

    def changed(seen: airfleet.Assignment) -> None:
        reasons.append(seen.reason)
        unplaced.set()

    found: list[airfleet.Assignment] = []
    waiting = threading.Thread(
        target=lambda: found.append(client.wait_for_assignment(large.name, PATIENCE, changed))
    )
    waiting.start()
    assert unplaced.wait(PATIENCE)
    large.demand.running_slots = 1
    assert client.apply([large])[0].outcome == "updated"
    waiting.join(PATIENCE)
    assert [assignment.namespace for assignment in found] == [large.name]
    assert "NO_ROOM" in reasons[0]


def test_a_repeated_call_is_answered_as_the_first(client: airfleet.Client) -> None:
    wanted, request_id = unique(), str(uuid.uuid4())
    first = client.register(wanted, request_id=request_id)
    assert client.register(wanted, request_id=request_id) == first
    with pytest.raises(airfleet.AlreadyExists):
        client.register(wanted)
    with pytest.raises(airfleet.InvalidArgument) as raised:
        client.register(unique(), request_id=request_id)
    assert raised.value.reason == "REQUEST_ID_REUSED"


def test_a_dry_run_changes_nothing(client: airfleet.Client) -> None:
    wanted = unique()
    assert client.apply([wanted], validate_only=True)[0].outcome == "created"
    client.register(wanted, validate_only=True)
    with pytest.raises(airfleet.NotFound):
        client.get_namespace(wanted.name)


def test_every_wrong_field_is_told_at_once(client: airfleet.Client) -> None:
    wrong = airfleet.Namespace(name="X!", prefixes=["a b"], demand={"dags": -1})
    with pytest.raises(airfleet.InvalidArgument) as raised:
        client.register(wrong)
    codes = {violation.field: violation.code for violation in raised.value.fields}
    assert codes == {
        "namespace.name": "INVALID_NAME",
        "namespace.owners": "REQUIRED",
        "namespace.prefixes[0]": "INVALID_PREFIX",
        "namespace.demand.dags": "OUT_OF_RANGE",
    }


def test_an_overlap_names_the_other_namespace(client: airfleet.Client) -> None:
    owner = client.register(unique())
    intruder = unique()
    intruder.prefixes.append(f"{owner.name}__sub")
    with pytest.raises(airfleet.PreconditionFailed) as raised:
        client.register(intruder)
    assert raised.value.reason == "PREFIX_OVERLAP"
    assert raised.value.metadata["namespace"] == owner.name


def test_conflicts_are_found_by_etag_and_deletions_reach_the_router(
    client: airfleet.Client,
) -> None:
    unplaceable = unique(slots=10_000)
    registered = client.register(unplaceable)
    unplaceable.description = "changed"
    changed = client.apply([unplaceable])[0].namespace
    with pytest.raises(airfleet.Conflict) as raised:
        client.delete_namespace(registered.name, etag=registered.etag)
    assert raised.value.etag == changed.etag
    client.delete_namespace(changed.name, etag=changed.etag)
    with pytest.raises(airfleet.NotFound):
        client.get_namespace(changed.name)

    # Shards without an agent are only used in trials like this one, and give up what they own.
    placed = client.register(unique())
    client.wait_for_assignment(placed, PATIENCE)
    revision = client.router_status().revision
    client.delete_namespace(placed.name)
    for change in client.watch_assignments(revision):
        if placed.name in change.deleted:
            break
    with pytest.raises(airfleet.NotFound):
        client.get_assignment(placed.name)


def test_a_watch_tells_the_table_and_then_each_change(client: airfleet.Client) -> None:
    known = client.register(unique())
    client.wait_for_assignment(known, PATIENCE)
    changes = client.watch_assignments()
    whole = next(changes)
    assert whole.reset
    assert known.name in {assignment.namespace for assignment in whole.upserts}
    new = client.register(unique())
    revision = whole.revision
    for change in changes:
        assert not change.reset
        assert change.revision > revision
        revision = change.revision
        if any(assignment.namespace == new.name for assignment in change.upserts):
            break
    # From before the change, it is told again; from after it, no more.
    again = next(client.watch_assignments(whole.revision))
    assert not again.reset
    assert list(client.watch_assignments(revision, timeout=0.5)) == []


def test_status_of_router_and_shards(client: airfleet.Client) -> None:
    assert client.router_status().leader
    status = client.shard_status("shard-a")
    assert (status.capacity.dags, status.capacity.running_slots) == (1000, 20)
    with pytest.raises(airfleet.NotFound):
        client.shard_status("no-such-shard")


def test_a_pin_moves_what_is_drained_and_needs_a_shard_that_will_do(
    client: airfleet.Client,
) -> None:
    placed = client.register(unique())
    before = client.wait_for_assignment(placed, PATIENCE)
    other = "shard-b" if before.shard == "shard-a" else "shard-a"
    pinned = client.pin_namespace(placed.name, other, reason="trial")
    assert (pinned.shard, pinned.pinned_shard) == (other, other)
    assert pinned.generation == before.generation + 1
    with pytest.raises(airfleet.Conflict) as raised:
        client.pin_namespace(placed.name, before.shard, expected_generation=before.generation)
    assert raised.value.metadata["generation"] == str(pinned.generation)

    placed.placement.region = "elsewhere"
    placed.etag = ""
    changed = client.apply([placed])[0].namespace
    until("the router knows", lambda: client.router_status().manifest_revision >= changed.revision)
    with pytest.raises(airfleet.PreconditionFailed) as refused:
        client.pin_namespace(placed.name, before.shard)
    assert refused.value.reason == "SHARD_UNFIT"
    assert [violation.kind for violation in refused.value.preconditions] == ["REGION_MISMATCH"]
    assert client.get_assignment(placed.name).shard == other


def test_what_speaks_against_a_move_is_told_and_nothing_is_moved(client: airfleet.Client) -> None:
    # Shards without agents: a move needs both.
    placed = client.register(unique())
    before = client.wait_for_assignment(placed, PATIENCE)
    other = "shard-b" if before.shard == "shard-a" else "shard-a"
    looked = client.start_move(placed.name, other, validate_only=True)
    assert looked.move.id == ""
    assert {finding.code for finding in looked.findings} == {"AGENT_AWAY"}
    with pytest.raises(airfleet.PreconditionFailed) as refused:
        client.start_move(placed.name, other, reason="trial")
    assert refused.value.reason == "MOVE_BLOCKED"
    assert list(client.list_moves(namespace=placed.name, ended=True)) == []
    for ask in (client.get_move, client.abort_move):
        with pytest.raises(airfleet.NotFound):
            ask(placed.name)
    daily = f"{placed.prefixes[0]}daily"
    owner = client.batch_resolve([daily])[0]
    assert owner is not None
    assert (owner.shard, owner.retry_after) == (before.shard, 0.0)
    # Nobody speaks for the shard: it is asked again until the time is over, and nothing is done.
    changes: list[Callable[[str, float], object]] = [
        lambda dag_id, timeout: client.trigger_dag(dag_id, conf={"day": 1}, timeout=timeout),
        lambda dag_id, timeout: client.clear_dag_run(dag_id, "asked", timeout=timeout),
        lambda dag_id, timeout: client.pause_dag(dag_id, timeout=timeout),
        lambda dag_id, timeout: client.unpause_dag(dag_id, timeout=timeout),
    ]
    for change in changes:
        began = time.monotonic()
        with pytest.raises(airfleet.Unavailable) as away:
            change(daily, 1.5)
        assert away.value.reason == "AGENT_AWAY"
        assert away.value.retry_after == 1.0
        assert time.monotonic() - began > 1.0, "it was asked twice"
        with pytest.raises(airfleet.NotFound):
            change("nobodys.daily", 5.0)
    with pytest.raises(ValueError, match="time zone"):
        client.trigger_dag(daily, logical_date=datetime(2026, 1, 1))


def test_watches_and_calls_survive_a_kill_of_the_control_plane(own_plane: ControlPlane) -> None:
    with own_plane.client() as client:
        before = client.register(unique())
        client.wait_for_assignment(before, PATIENCE)
        seen: dict[str, str] = {}
        resets: list[int] = []
        target = unique()
        began = threading.Event()

        def follow() -> None:
            last: TableChange | None = None
            for change in client.watch_assignments(timeout=PATIENCE):
                assert last is None or change.revision > last.revision
                last = change
                if change.reset:
                    resets.append(change.revision)
                seen.update({a.namespace: a.shard for a in change.upserts})
                began.set()
                if seen.get(target.name):
                    return

        following = threading.Thread(target=follow)
        following.start()
        assert began.wait(PATIENCE)
        own_plane.kill()
        # Asked while nobody answers; answered once somebody does, and done once.
        registered: list[airfleet.Namespace] = []
        registering = threading.Thread(target=lambda: registered.append(client.register(target)))
        registering.start()
        own_plane.start()
        registering.join(PATIENCE)
        following.join(PATIENCE)
        assert [namespace.name for namespace in registered] == [target.name]
        assert before.name in seen
        assert seen[target.name] == client.wait_for_assignment(target.name, PATIENCE).shard
        assert len(resets) == 1, "the watch resumed where it was"
        assert client.resolve(namespace=before.name).shard == seen[before.name]
