"""A real control plane to test against: `airfleet dev --shards 0` from the binary AIRFLEET_BIN."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import airfleet

PATIENCE = 60.0  # seconds that anything may take on a busy machine

SHARDS = """
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-a}
spec: {size: large, url: https://airflow-a.example.net}
---
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-b}
spec: {size: large, url: https://airflow-b.example.net}
"""


def until(what: str, condition: Callable[[], bool]) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)


@dataclass
class ControlPlane:
    """`airfleet dev --shards 0` in a folder of its own. Shards without agents count as healthy."""

    binary: Path
    folder: Path
    registry: str = ""
    router: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Starts it, on the ports that it had before, if any; returns when it serves."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        ports = [url.rpartition(":")[2] or "0" for url in (self.registry, self.router)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.binary, "dev", "--shards", "0", "--dir", self.folder / "state"),
                    *("--registry-port", ports[0], "--router-port", ports[1]),
                    *("--ready-file", ready),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until("airfleet dev is up", lambda: self._ended() or ready.exists())
        assert not self._ended(), (self.folder / "log").read_text()
        page = json.loads(ready.read_text())
        self.registry, self.router = page["registry"], page["router"]

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """Ends it without warning."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends it as Ctrl-C does, and checks that it ends well."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=PATIENCE)
        assert code == 0, (self.folder / "log").read_text()

    def client(self) -> airfleet.Client:
        """A client of it."""
        return airfleet.Client(registry=self.registry, router=self.router, timeout=PATIENCE)

    def command(self, *arguments: str | Path, stdin: str = "") -> str:
        """What the airfleet command prints."""
        where = ["--registry", self.registry, "--router", self.router]
        done = subprocess.run(
            [self.binary, *where, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def binary() -> Path:
    """The `airfleet` binary; others are beside it."""
    path = os.environ.get("AIRFLEET_BIN")
    if not path:
        pytest.fail("AIRFLEET_BIN does not name the airfleet binary: run scripts/test-python.sh")
    return Path(path)


def _running(binary: Path, folder: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(binary, folder)
    try:
        plane.start()
        plane.command("apply", "-f", "-", stdin=SHARDS)
        yield plane
        plane.stop()
    finally:
        if plane.process and plane.process.poll() is None:
            plane.kill()


@pytest.fixture(scope="session")
def plane(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with two large shards, shared by all tests."""
    yield from _running(binary, tmp_path_factory.mktemp("plane"))


@pytest.fixture
def own_plane(binary: Path, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, which it may kill."""
    yield from _running(binary, tmp_path)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[airfleet.Client]:
    """A client of the shared control plane."""
    with plane.client() as client:
        yield client
