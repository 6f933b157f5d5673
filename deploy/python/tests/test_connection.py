"""Calls survive what may happen to a replica, and never do a thing twice."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest
from scripted import Refuse, Server, assignment, namespace

import airfleet

AWAY = Refuse(grpc.StatusCode.UNAVAILABLE, "the store is away", "UNAVAILABLE", retry_after=0.05)


def test_a_write_is_repeated_with_the_same_request_id() -> None:
    with Server() as server, airfleet.Client(registry=server.address) as client:
        server.create.answers = [AWAY, AWAY, namespace()]
        assert client.register(namespace()).name == "payments"
        ids = {request.request_id for request in server.create.requests}
        assert len(server.create.requests) == 3
        assert len(ids) == 1
        assert "" not in ids
        client.register(namespace())
        assert server.create.requests[-1].request_id not in ids


def test_a_refusal_is_not_repeated() -> None:
    with Server() as server, airfleet.Client(registry=server.address) as client:
        server.create.answers = [Refuse(grpc.StatusCode.ALREADY_EXISTS, reason="ALREADY_EXISTS")]
        with pytest.raises(airfleet.AlreadyExists):
            client.register(namespace())
        assert len(server.create.requests) == 1


def test_limits_are_repeated_only_when_the_server_says_after_how_long() -> None:
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    with Server() as server, airfleet.Client(registry=server.address) as client:
        server.create.answers = [Refuse(full, retry_after=0.01), namespace()]
        client.register(namespace())
        server.create.answers = [Refuse(full)]
        with pytest.raises(airfleet.ResourceExhausted):
            client.register(namespace())


def test_the_timeout_bounds_all_tries_together() -> None:
    with Server() as server, airfleet.Client(registry=server.address) as client:
        server.create.answers = [AWAY]
        with pytest.raises(airfleet.Unavailable, match="the store is away"):
            client.register(namespace(), timeout=0.5)
        assert len(server.create.requests) >= 2
        # A pause that is longer than what is left is not begun.
        server.create.answers = [Refuse(grpc.StatusCode.UNAVAILABLE, retry_after=60)]
        with pytest.raises(airfleet.Unavailable):
            client.register(namespace(), timeout=5)


def test_the_next_replica_is_asked_and_remembered() -> None:
    with Server() as one, Server() as two:
        one.get_assignment.answers = [AWAY]
        two.get_assignment.answers = [assignment("payments", "shard-a")]
        with airfleet.Client(router=[one.address, two.address]) as client:
            for _ in range(3):
                assert client.get_assignment("payments").shard == "shard-a"
        assert len(one.get_assignment.requests) == 1


def test_the_leader_is_followed() -> None:
    with Server() as follower, Server() as leader:
        follower.pin.answers = [
            Refuse(
                grpc.StatusCode.UNAVAILABLE,
                reason="NOT_LEADER",
                metadata={"leader": leader.address},
            )
        ]
        leader.pin.answers = [assignment("payments", "shard-b")]
        with airfleet.Client(router=follower.address, token="t") as client:
            assert client.pin_namespace("payments", "shard-b").shard == "shard-b"
        assert leader.pin.headers[0]["authorization"] == "Bearer t"


def test_replicas_that_name_each_other_as_leader_end_in_an_error() -> None:
    with Server() as one, Server() as two:
        for server, other in ((one, two), (two, one)):
            server.pin.answers = [
                Refuse(
                    grpc.StatusCode.UNAVAILABLE,
                    "this replica does not lead",
                    "NOT_LEADER",
                    {"leader": other.address},
                )
            ]
        with airfleet.Client(router=[one.address, two.address]) as client:
            with pytest.raises(airfleet.NotLeader) as raised:
                client.pin_namespace("payments", "shard-b", timeout=1)
        assert raised.value.leader in (one.address, two.address)
        assert len(one.pin.requests) + len(two.pin.requests) < 60


def test_a_token_does_not_leave_the_machine_unencrypted() -> None:
    with airfleet.Client(registry="192.0.2.1:7700", token="secret") as client:
        with pytest.raises(ValueError, match="not sent unencrypted"):
            client.get_namespace("payments")


def test_settings_that_cannot_work_are_refused() -> None:
    for arguments in (
        {},
        {"registry": ""},
        {"registry": "nowhere"},
        {"registry": "ftp://127.0.0.1:1"},
        {"router": "127.0.0.1:1", "cert": b""},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            airfleet.Client(**arguments)


def test_both_sides_show_their_certificates(tmp_path: Path) -> None:
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "1"]

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl("req", *key[:5], "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "x.csr")
        (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl("x509", "-req", "-in", "x.csr", *authority, "-days", "1", "-extfile", "ext",
                "-out", f"{name}.pem")  # fmt: skip

    def read(name: str) -> bytes:
        return (tmp_path / name).read_bytes()

    credentials = grpc.ssl_server_credentials(
        [(read("server.key"), read("server.pem"))], read("ca.pem"), require_client_auth=True
    )
    with Server(credentials) as server:
        server.create.answers = [namespace()]
        with airfleet.Client(
            registry=server.address,
            ca=tmp_path / "ca.pem",
            cert=tmp_path / "client.pem",
            key=read("client.key"),
        ) as client:
            assert client.register(namespace()).name == "payments"
        with airfleet.Client(registry=server.address, ca=tmp_path / "ca.pem") as client:
            with pytest.raises(airfleet.Unavailable):
                client.register(namespace(), timeout=0.5)
