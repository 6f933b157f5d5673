"""Channels to the replicas of one service, and calls that survive the loss of one.

A call goes to one replica. Where that cannot answer for now, it goes to the next, after a pause, as
long as the call's timeout allows. That is safe for every call made here: reads change nothing, and
writes carry a request id, with which the server answers a repeated call as it answered the first.
"""

from __future__ import annotations

import ipaddress
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from airfleet.errors import (
    AirfleetError,
    DeadlineExceeded,
    NotLeader,
    ResourceExhausted,
    Unavailable,
    from_rpc_error,
)

_PAUSE_FIRST = 0.1  # seconds
_PAUSE_MOST = 2.0
_ATTEMPT_MOST = 20.0  # longer than any call takes, shorter than a hung connection is noticed
_LEADER_HOPS_MOST = 3

_OPTIONS: list[tuple[str, Any]] = [
    # A watch is idle for long; without pings, a peer that vanished would never be noticed.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The defaults wait up to two minutes before a server that was away is tried again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Batches of dag_ids and pieces of snapshots are larger than the default of 4 MiB allows.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


@dataclass(frozen=True)
class Security:
    """How to reach the servers, and who is asking.

    Certificates and keys are PEM: a path, or the bytes themselves.
    """

    tls: bool | None = None
    """Use TLS. None means: yes where `ca` or `cert` is given."""
    ca: str | Path | bytes | None = None
    """Authorities that sign the servers' certificates; None means those of the system."""
    cert: str | Path | bytes | None = None
    """Certificate of this client."""
    key: str | Path | bytes | None = None
    """Key of that certificate."""
    token: str | None = None
    """Bearer token."""
    server_name: str | None = None
    """Name that the servers' certificates have, where it is not that of the address."""
    insecure: bool = False
    """Send the token without TLS to other machines, too."""

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        given = self.ca is not None or self.cert is not None
        return given if self.tls is None else self.tls

    def channel(self, address: str) -> grpc.Channel:
        """A channel to the server at `address`."""
        host, target, scheme = _split(address)
        tls = self.uses_tls or scheme == "https"
        if scheme == "http" and self.uses_tls:
            raise ValueError(f"{address}: http:// and TLS settings contradict each other")
        options = list(_OPTIONS)
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        if tls:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_pem(self.ca),
                private_key=_pem(self.key),
                certificate_chain=_pem(self.cert),
            )
            return grpc.secure_channel(target, credentials, options)
        if self.token and not self.insecure and not _is_loopback(host):
            raise ValueError(
                f"{address}: a token is not sent unencrypted to another machine; "
                "set up TLS, or pass insecure=True"
            )
        return grpc.insecure_channel(target, options)

    def metadata(self) -> list[tuple[str, str]]:
        """Headers of every call."""
        return [("authorization", f"Bearer {self.token}")] if self.token else []


def _pem(value: str | Path | bytes | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return Path(value).read_bytes()


def _split(address: str) -> tuple[str, str, str]:
    """Host, `host:port`, and the scheme, which may be empty."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if not parts.hostname or not parts.port or parts.scheme not in ("", "http", "https"):
        raise ValueError(f"{address!r} is not an address such as 127.0.0.1:7401")
    return parts.hostname, parts.netloc, parts.scheme


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Replicas:
    """The replicas of one service. Safe to use from several threads."""

    def __init__(self, addresses: str | Iterable[str], security: Security) -> None:
        given = addresses.split(",") if isinstance(addresses, str) else list(addresses)
        self._addresses: Sequence[str] = [address.strip() for address in given if address.strip()]
        if not self._addresses:
            raise ValueError("at least one address is needed, such as 127.0.0.1:7401")
        for address in self._addresses:
            _split(address)
        self._security = security
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._current = 0

    def close(self) -> None:
        """Closes every channel."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    @property
    def current(self) -> str:
        """Address of the replica that is asked next."""
        return self._addresses[self._current]

    def fail_over(self, failed: str) -> None:
        """Asks another replica from now on, unless that was done since `failed` was asked."""
        with self._lock:
            if self._addresses[self._current] == failed:
                self._current = (self._current + 1) % len(self._addresses)

    def channel(self, address: str) -> grpc.Channel:
        """The channel to one replica."""
        with self._lock:
            if address not in self._channels:
                self._channels[address] = self._security.channel(address)
            return self._channels[address]

    def metadata(self) -> list[tuple[str, str]]:
        """Headers of every call."""
        return self._security.metadata()

    def call(
        self,
        stub: Callable[[grpc.Channel], object],
        method: str,
        request: Message,
        timeout: float,
        *,
        once: bool = False,
    ) -> Any:
        """What `method` of the service answers. Made for methods that may be repeated.

        With `once` only what was certainly not done is tried again. Raises what the last try came
        to once no more is possible within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        pause = Backoff()
        leader = ""
        hops = 0
        while True:
            address = leader or self.current
            left = deadline - time.monotonic()
            try:
                return getattr(stub(self.channel(address)), method)(
                    request,
                    timeout=max(min(left, _ATTEMPT_MOST), 0.001),
                    metadata=self.metadata(),
                )
            except grpc.RpcError as raised:
                error = from_rpc_error(raised, address)
                cause = raised
            left = deadline - time.monotonic()
            if not worth_another_try(error, once=once) or left <= 0:
                raise error from cause
            if isinstance(error, NotLeader) and error.leader and hops < _LEADER_HOPS_MOST:
                leader = error.leader
                hops += 1
                continue
            # The leader that was named may be gone by now; the replicas know the next one.
            leader, hops = "", 0
            if not isinstance(error, ResourceExhausted):
                self.fail_over(address)
            wait = pause.next(error.retry_after)
            if wait >= left:
                raise error from cause
            time.sleep(wait)


class Backoff:
    """Pauses between tries: they double up to a limit, and each is shortened at random."""

    def __init__(self) -> None:
        self._pause = _PAUSE_FIRST

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now; not less than what the server asked for."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
        self._pause = min(self._pause * 2, _PAUSE_MOST)
        return max(pause, at_least or 0.0)

    def reset(self) -> None:
        """Starts over, after something worked."""
        self._pause = _PAUSE_FIRST


def worth_another_try(error: AirfleetError, *, once: bool = False) -> bool:
    """Whether the same call may be answered later; with `once`, and was certainly not done."""
    if once:
        # With when to ask again comes the word that nothing was done.
        return isinstance(error, Unavailable | ResourceExhausted) and error.retry_after is not None
    if isinstance(error, Unavailable | DeadlineExceeded):
        return True
    # A limit on the rate comes with a time to wait; one on the size never goes away.
    return isinstance(error, ResourceExhausted) and error.retry_after is not None
