"""A worker builds only its own DAG, and nobody else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airfleet_airflow import parsing

NAMES = ["a", "b", "c"]


def run_task(monkeypatch: pytest.MonkeyPatch, dag_id: str, inherited: str | None = None) -> None:
    """Sets what Airflow sets in a process that runs a task."""
    monkeypatch.setattr(parsing, "_inherited", inherited)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "load")


def test_a_parsing_process_wants_everything() -> None:
    assert parsing.wanted() is None
    assert parsing.select(iter(NAMES)) == NAMES


def test_a_task_wants_its_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    run_task(monkeypatch, "payments__b")
    assert parsing.wanted() == "payments__b"
    assert parsing.select(NAMES, lambda name: f"payments__{name}") == ["b"]
    assert parsing.select(["payments__a", "payments__b"]) == ["payments__b"]


def test_in_doubt_everything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    run_task(monkeypatch, "another")
    assert parsing.select(NAMES) == NAMES, "the DAG is another of the file's"
    # A command that a task runs, such as `airflow dags reserialize`, inherits its environment.
    run_task(monkeypatch, "b", inherited="b")
    assert parsing.select(NAMES) == NAMES
    monkeypatch.setattr(parsing, "_inherited", None)
    monkeypatch.delenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID")
    assert parsing.select(NAMES) == NAMES, "no task"


def test_the_names_are_those_that_this_airflow_uses() -> None:
    try:
        from airflow.sdk import get_parsing_context
        from airflow.sdk.definitions._internal.dag_parsing_context import (
            _airflow_parsing_context_manager,
        )
    except ImportError:
        from airflow.utils.dag_parsing_context import (
            _airflow_parsing_context_manager,
            get_parsing_context,
        )
    before = dict(os.environ)
    try:
        with _airflow_parsing_context_manager(dag_id="b", task_id="load"):
            assert get_parsing_context().dag_id == "b"
            assert parsing.select(NAMES) == ["b"]
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_process_that_inherits_the_setting_parses_everything(tmp_path: Path) -> None:
    """A task that runs an Airflow command: the setting is there before Airflow is."""
    dag = tmp_path / "many.py"
    dag.write_text(
        "from dagkit import *\n"
        "from airfleet_airflow.parsing import select\n"
        "for name in select(['a', 'b'], lambda name: f'payments__{name}'):\n"
        "    with DAG(f'payments__{name}', start_date=START, schedule=None) as dag:\n"
        "        EmptyOperator(task_id='load')\n"
        "    globals()[name] = dag\n"
    )
    script = (
        "import airflow.settings\n"
        "try:\n"
        "    from airflow.dag_processing.dagbag import DagBag\n"
        "except ImportError:\n"
        "    from airflow.models.dagbag import DagBag\n"
        "import os, sys\n"
        "bag = DagBag(os.devnull, collect_dags=False)\n"
        "bag.process_file(sys.argv[1], safe_mode=False)\n"
        "print(*sorted(bag.dags))\n"
    )
    environ = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]),
        _AIRFLOW_PARSING_CONTEXT_DAG_ID="payments__a",
        _AIRFLOW_PARSING_CONTEXT_TASK_ID="load",
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(dag)],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines()[-1] == "payments__a payments__b"
