"""What deploy/compose makes and configures works with the real binaries: TLS, tokens, roles.

The settings are those of the files, but for where the secrets lie, the names of the hosts, and the
stores, which are SQLite here.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE, until

import airfleet

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
SHARD = "shard-a0000"  # what a simulated agent makes of the name shard-a
SHARD_YAML = f"apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {{name: {SHARD}}}\n"


@dataclass
class Deployment:
    """Registry, router and an agent as compose would run them."""

    binary: Path
    folder: Path
    ports: dict[str, int]

    def command(self, *arguments: str, stdin: str) -> None:
        """Runs the airfleet command with the flags that prepare.sh names."""
        where = [
            f"--{name}=https://localhost:{self.ports[name]}" for name in ("registry", "router")
        ]
        known: list[str | Path] = [
            "--ca",
            self.secret("ca.pem"),
            "--token-file",
            self.secret("tokens/admin"),
        ]
        command: list[str | Path] = [self.binary, *where, *known, *arguments]
        subprocess.run(command, input=stdin, text=True, check=True, timeout=PATIENCE)

    def secret(self, name: str) -> Path:
        return self.folder / "secrets" / name

    def token(self, name: str) -> str:
        return self.secret(f"tokens/{name}").read_text()

    def client(self, token: str | None, timeout: float = PATIENCE) -> airfleet.Client:
        return airfleet.Client(
            registry=f"https://localhost:{self.ports['registry']}",
            router=f"https://localhost:{self.ports['router']}",
            ca=self.secret("ca.pem"),
            token=token,
            timeout=timeout,
        )


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(deployment: Deployment, name: str, binary: Path, *more: str) -> Iterator[None]:
    """Runs a service with its settings file until the block ends."""
    folder, ports = deployment.folder, deployment.ports
    text = (folder / f"{name}.toml").read_text()
    text = text.replace("/run/airfleet", str(folder / "secrets"))
    text = text.replace("/var/lib/airfleet", str(folder / f"{name}-state"))
    for host, service in (("registry", "registry"), ("router-1", "router"), ("router-2", "router")):
        port = {"registry": 7401, "router": 7402}[service]
        text = text.replace(f"https://{host}:{port}", f"https://localhost:{ports[service]}")
    (folder / f"{name}-state").mkdir()
    settings = folder / f"{name}-settings.toml"
    settings.write_text(text)
    sets = [f"server.listen=127.0.0.1:{ports[name]}", *more]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(binary, "--config", settings),
                *(word for setting in sets for word in ("--set", setting)),
                *(["--simulate"] if name == "agent" else []),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield
            assert process.poll() is None, (folder / f"{name}.log").read_text()
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def deployment(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("compose") / "compose"
    shutil.copytree(COMPOSE, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    subprocess.run([folder / "prepare.sh", SHARD], check=True, capture_output=True)
    made = Deployment(
        binary, folder, {name: free_port() for name in ("registry", "router", "agent")}
    )
    advertise = f"server.advertise=localhost:{made.ports['router']}"
    store = "store.url=sqlite:{}".format
    join = f"router.token_file={made.secret(f'tokens/join-{SHARD}')}"
    with ExitStack() as stack:
        for name, more in (
            ("registry", [store(folder / "registry.db")]),
            ("router", [store(folder / "router.db"), advertise]),
            ("agent", ["shard=shard-a", join]),
        ):
            stack.enter_context(running(made, name, binary.with_name(f"airfleet-{name}"), *more))
        yield made


def test_the_control_plane_assigns_to_a_shard_whose_agent_joined(deployment: Deployment) -> None:
    with deployment.client(deployment.token("admin")) as client:
        deployment.command("apply", "-f", "-", stdin=SHARD_YAML)
        until("the agent joined", lambda: client.shard_status(SHARD).connected)
        namespace = airfleet.namespace("payments", owners=["fin"], prefixes=["payments__"])
        registered = client.register(namespace)
        assert client.wait_for_assignment(registered, PATIENCE).shard == SHARD
        # The registry's own token lets it ask the router, which has not seen that nothing runs.
        with pytest.raises(airfleet.PreconditionFailed) as raised:
            client.delete_namespace("payments")
        assert raised.value.reason == "NOT_DRAINED"


def test_strangers_are_turned_away(deployment: Deployment) -> None:
    with deployment.client(None, timeout=5) as client:
        with pytest.raises(airfleet.Unauthenticated) as raised:
            client.get_namespace("payments")
        assert raised.value.reason == "CREDENTIALS_MISSING"
        with pytest.raises(airfleet.Unauthenticated):
            client.resolve("payments__daily")
    with deployment.client("0" * 64, timeout=5) as client:
        with pytest.raises(airfleet.Unauthenticated) as raised:
            client.get_namespace("payments")
        assert raised.value.reason == "TOKEN_INVALID"
    # An agent's token reports for its shard, and may do nothing else.
    with deployment.client(deployment.token(f"join-{SHARD}"), timeout=5) as client:
        with pytest.raises(airfleet.PermissionDenied):
            client.pin_namespace("payments", SHARD)


def test_the_compose_file_mounts_what_is_there_and_nothing_twice() -> None:
    document = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    made = {"secrets"}  # by prepare.sh
    for name, service in document["services"].items():
        targets = []
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2] if "${" not in volume else (volume, volume)
            targets.append(target)
            if source.startswith(".") and source.split("/")[1] not in made:
                assert (COMPOSE / source).exists(), f"{name} mounts {source}"
            elif not source.startswith("."):
                assert source in document["volumes"], f"{name} mounts {source}"
        assert len(targets) == len(set(targets)), name
        assert service.get("restart") == "unless-stopped", name
        ports = service.get("ports", [])
        assert all(port.startswith("127.0.0.1:") for port in ports), f"{name} is open to others"
