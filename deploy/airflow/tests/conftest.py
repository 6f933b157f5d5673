"""Runs in a real Airflow, 2.11 or 3, into whose environment the package was installed."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Before Airflow is imported, which reads it once.
_HOME = tempfile.mkdtemp(prefix="airfleet-airflow-")
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
)
for name in ("AIRFLEET_GUARDRAILS", "AIRFLEET_STATE"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).parent))

import airflow  # noqa: E402
from airflow import settings  # noqa: E402, F401  what loads the policies

IS_2 = airflow.__version__.startswith("2.")
if IS_2:
    from airflow.models.dagbag import DagBag
else:
    from airflow.dag_processing.dagbag import DagBag

from airfleet_airflow import guardrails as snapshot  # noqa: E402
from airfleet_airflow import policy, spool  # noqa: E402


def pytest_report_header() -> str:
    return f"airflow {airflow.__version__}"


@dataclass
class Parsed:
    """What became of files."""

    dags: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The only error there is, without the name of its class."""
        (error,) = self.errors.values()
        assert error.startswith("AirflowClusterPolicyViolation: "), error
        assert "\n" not in error
        return error.removeprefix("AirflowClusterPolicyViolation: ")


@dataclass
class Shard:
    """The folder of DAG files of a shard, laid out as the agent does it."""

    dags: Path

    @property
    def state(self) -> Path:
        return self.dags / ".airfleet"

    @property
    def guardrails(self) -> Path:
        return self.state / "guardrails.json"

    def rule(self, namespaces: dict[str, dict[str, Any]], revision: int = 1) -> None:
        """Writes guardrails as the agent does; rules by namespace, whose prefix is its name."""
        document = {
            "version": 1,
            "manifestRevision": revision,
            "namespaces": {
                name: {"prefixes": [f"{name}__"], "rules": rules}
                for name, rules in namespaces.items()
            },
        }
        self.write_guardrails(json.dumps(document))

    def write_guardrails(self, text: str) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        draft = self.state / "guardrails.json.draft"
        draft.write_text(text)
        draft.replace(self.guardrails)
        self.forget_clock()

    def forget_clock(self) -> None:
        """Lets the process look at the file again, as if a second had passed."""
        if policy._guard is not None:
            policy._guard._source._looked_at = float("-inf")
            policy._guard._spool._listed_at = float("-inf")

    def new_process(self) -> None:
        """Forgets what a process that parses files keeps in its memory."""
        policy._guard = None

    def release(self, namespace: str, files: dict[str, str], release: str = "r1") -> None:
        """Delivers DAG files, as the agent does: a folder, and a link that is switched to it."""
        folder = self.state / "releases" / namespace / release
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("from dagkit import *\n" + textwrap.dedent(text))
        link = self.dags / f".{namespace}.draft"
        link.symlink_to(folder)
        link.replace(self.dags / namespace)

    def write(self, name: str, text: str) -> Path:
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from dagkit import *\n" + textwrap.dedent(text))
        return path

    def parse(self, *names: str) -> Parsed:
        """Has Airflow load files below the folder."""
        parsed = Parsed()
        for name in names:
            bag = DagBag(dag_folder=os.devnull, collect_dags=False)
            bag.process_file(str(self.dags / name), only_if_updated=False, safe_mode=False)
            parsed.dags.update(bag.dags)
            parsed.errors.update(bag.import_errors)
        return parsed

    def parse_dag(self, body: str, namespace: str = "payments") -> Parsed:
        """Delivers one file of a namespace and loads it."""
        self.release(namespace, {"daily.py": body}, release=f"r{os.urandom(4).hex()}")
        self.forget_clock()
        return self.parse(f"{namespace}/daily.py")

    def violations(self) -> list[dict[str, Any]]:
        """What the agent would read."""
        lines = []
        for path in sorted((self.state / spool.FOLDER).glob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    shard = Shard(tmp_path / "dags")
    shard.state.mkdir(parents=True)
    monkeypatch.setenv("AIRFLEET_GUARDRAILS", str(shard.guardrails))
    monkeypatch.setattr(policy, "_guard", None)
    assert snapshot.CHECK_EVERY_S > 0
    return shard
