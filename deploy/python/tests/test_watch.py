"""Watches have no gaps, whatever happens to their connection."""

from __future__ import annotations

import threading

import grpc
import pytest
from scripted import Refuse, Server, assignment, change, namespace, progress, snapshot, take

import airfleet
from airfleet.watch import TableChange

AWAY = Refuse(grpc.StatusCode.UNAVAILABLE, "gone", "UNAVAILABLE", retry_after=0.01)


def names(changes: list[object]) -> list[list[str]]:
    found = []
    for item in changes:
        assert isinstance(item, TableChange)
        found.append([upsert.namespace for upsert in item.upserts])
    return found


def resumes(server: Server) -> list[int]:
    return [request.resume_revision for request in server.watches.requests]


def test_a_snapshot_in_pieces_is_one_change() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        pieces = snapshot(5, [assignment("one")], [], [assignment("two")])
        server.watches.answers = [[*pieces, change(5, 6, assignment("one", "a"))]]
        first, second = take(client.watch_assignments(), 2)
        assert names([first, second]) == [["one", "two"], ["one"]]
        assert isinstance(first, TableChange)
        assert isinstance(second, TableChange)
        assert (first.reset, first.revision) == (True, 5)
        assert (second.reset, second.revision) == (False, 6)


def test_a_change_in_pieces_is_one_change() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.watches.answers = [
            [change(5, 5, assignment("lost")), AWAY],
            [change(5, 5, assignment("one")), change(5, 6, assignment("two"))],
        ]
        [whole] = take(client.watch_assignments(5), 1)
        assert names([whole]) == [["one", "two"]]
        assert isinstance(whole, TableChange)
        assert whole.revision == 6
        assert resumes(server) == [5, 5]


def test_a_lost_watch_resumes_where_it_was() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.watches.answers = [
            [*snapshot(5, [assignment("one")]), progress(8), AWAY],
            [change(8, 9, assignment("two")), AWAY],
            [change(9, 10, assignment("three"))],
        ]
        assert names(take(client.watch_assignments(), 3)) == [["one"], ["two"], ["three"]]
        assert resumes(server) == [0, 8, 9]


def test_a_snapshot_that_breaks_off_is_not_taken_in() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        whole = snapshot(5, [assignment("one")], [assignment("two")])
        server.watches.answers = [[whole[0], AWAY], whole]
        assert names(take(client.watch_assignments(), 1)) == [["one", "two"]]
        assert resumes(server) == [0, 0]


def test_a_gap_begins_anew_with_the_whole_table() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.watches.answers = [
            [change(3, 4, assignment("one")), change(6, 7, assignment("lost"))],
            snapshot(7, [assignment("all")]),
        ]
        assert names(take(client.watch_assignments(3), 2)) == [["one"], ["all"]]
        assert resumes(server) == [3, 0]


def test_a_revision_that_is_gone_begins_anew_with_the_whole_table() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.watches.answers = [
            [Refuse(grpc.StatusCode.OUT_OF_RANGE, reason="COMPACTED")],
            snapshot(7, [assignment("all")]),
        ]
        assert names(take(client.watch_assignments(3), 1)) == [["all"]]
        assert resumes(server) == [3, 0]


def test_a_refused_watch_ends_and_one_with_a_timeout_ends_quietly() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.watches.answers = [[Refuse(grpc.StatusCode.PERMISSION_DENIED, reason="NO")]]
        with pytest.raises(airfleet.PermissionDenied):
            take(client.watch_assignments(), 1)
        server.watches.answers = [[AWAY]]
        assert list(client.watch_assignments(timeout=0.3)) == []


def test_waiting_reads_the_present_state_and_watches_from_there() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.get_assignment.answers = [assignment("payments", reason="no shard fits")]
        server.watches.answers = [
            [
                progress(7),
                change(7, 8, assignment("other", "shard-x")),
                change(8, 9, assignment("payments", "shard-a")),
            ]
        ]
        seen: list[str] = []
        found = client.wait_for_assignment("payments", 5, on_change=lambda a: seen.append(a.shard))
        assert found.shard == "shard-a"
        assert seen == ["", "shard-a"]
        assert resumes(server) == [7]


def test_waiting_begins_anew_on_the_next_replica() -> None:
    unknown = Refuse(grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND")
    with Server() as one, Server() as two:
        one.get_assignment.answers = [unknown]
        one.watches.answers = [[progress(8), AWAY]]
        two.get_assignment.answers = [assignment("payments", "shard-b")]
        with airfleet.Client(router=[one.address, two.address]) as client:
            assert client.wait_for_assignment("payments", 5).shard == "shard-b"
        assert two.watches.requests == []


def test_waiting_tells_what_was_seen_last() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        server.get_assignment.answers = [assignment("payments", reason="none of 2 shards will do")]
        silence = threading.Event()
        server.watches.answers = [[silence]]
        with pytest.raises(airfleet.AssignmentTimeout, match="none of 2 shards will do") as raised:
            client.wait_for_assignment("payments", 0.3)
        silence.set()
        assert raised.value.last is not None
        assert isinstance(raised.value, TimeoutError)


def test_an_assignment_of_an_earlier_namespace_of_that_name_does_not_count() -> None:
    with Server() as server, airfleet.Client(router=server.address) as client:
        old, new = assignment("payments", "shard-a"), assignment("payments", "shard-b", 9)
        old.namespace_uid, new.namespace_uid = "old", "new"
        server.get_assignment.answers = [old]
        server.watches.answers = [[change(7, 9, new)]]
        registered = namespace()
        registered.uid = "new"
        assert client.wait_for_assignment(registered, 5).shard == "shard-b"
