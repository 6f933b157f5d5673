"""What is left for the agent."""

from __future__ import annotations

import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import Shard

from airfleet_airflow import spool
from airfleet_airflow.rules import Finding
from airfleet_airflow.spool import Spool, Subject

DAG = """
with DAG("payments__daily", start_date=START, schedule=None):
    EmptyOperator(task_id="load", queue="{}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "daily.py").touch()
    return tmp_path / "state" / "violations"


def spool_of(folder: Path) -> Spool:
    return Spool(str(folder.parent), str(folder.parents[1]))


def subject(dag_id: str = "payments__daily", file: str = "payments/daily.py") -> Subject:
    return Subject(dag_id, "payments", file, 12)


def finding(task_id: str | None = "load", message: str = "wrong; mend it") -> Finding:
    return Finding("AF104", "warn", "told", task_id, message)


def lines(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_line_has_what_the_agent_reports(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["default"]}}, revision=12)
    shard.parse_dag(DAG.format("gpu"))
    (line,) = shard.violations()
    assert line.pop("first_seen") == line.pop("last_seen")
    assert line == {
        "code": "AF104",
        "mode": "enforce",
        "action": "refused",
        "namespace": "payments",
        "dag_id": "payments__daily",
        "task_id": "load",
        "message": "queue 'gpu' is not allowed; set queue to one of: 'default'",
        "file": "payments/daily.py",
        "manifest_revision": 12,
        "count": 1,
        "omitted": 0,
    }


def test_what_was_mended_is_taken_back(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["default"]}})
    shard.parse_dag(DAG.format("gpu"))
    assert shard.violations()
    shard.new_process()
    shard.parse_dag(DAG.format("default"))
    assert shard.violations() == []


def test_what_no_longer_has_a_rule_is_taken_back(shard: Shard) -> None:
    shard.rule({"payments": {}})
    shard.write("loose.py", DAG.format("default"))
    assert shard.parse("loose.py").error.startswith("AF102 ")
    assert shard.violations()
    shard.rule({"risk": {}})
    shard.parse("loose.py")
    assert shard.violations() == []


def test_a_process_that_runs_a_task_reports_nothing(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.rule({"payments": {"queues": ["default"]}})
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "payments__daily")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "load")
    assert shard.parse_dag(DAG.format("gpu")).error.startswith("AF104 ")
    assert shard.violations() == []


def test_the_same_is_not_written_over_and_over(folder: Path) -> None:
    spool_of(folder).settle(subject(), [finding()])
    (path,) = folder.glob("*.jsonl")
    first = path.stat()
    for _ in range(3):
        spool_of(folder).settle(subject(), [finding()])
    assert path.stat().st_ino == first.st_ino

    long_ago = time.time() - spool.REFRESH_S - 1
    os.utime(path, (long_ago, long_ago))
    old = json.loads(path.read_text())
    old.update(first_seen="2020-01-01T00:00:00Z", last_seen="2020-01-01T00:00:00Z")
    path.write_text(json.dumps(old) + "\n")
    os.utime(path, (long_ago, long_ago))
    spool_of(folder).settle(subject(), [finding()])
    (line,) = lines(folder)
    assert line["count"] == 2
    assert line["first_seen"] == "2020-01-01T00:00:00Z"
    assert line["last_seen"] > "2026"


def test_what_changes_is_written_at_once(folder: Path) -> None:
    one = spool_of(folder)
    one.settle(subject(), [finding()])
    one.settle(subject(), [finding(message="worse; mend it"), finding("other")])
    found = {line["task_id"]: (line["message"], line["count"]) for line in lines(folder)}
    assert found == {"load": ("worse; mend it", 2), "other": ("wrong; mend it", 1)}


def test_there_are_never_more_lines_than_fit(folder: Path) -> None:
    findings = [finding(f"t{number}", "x" * 9_000) for number in range(50)]
    spool_of(folder).settle(subject(), findings)
    found = lines(folder)
    assert len(found) == spool.LINES_MAX
    assert {line["omitted"] for line in found} == {50 - spool.LINES_MAX}
    assert {len(line["message"]) for line in found} == {spool.MESSAGE_MAX}


def test_there_are_never_more_files_than_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FILES_MAX", 3)
    one = spool_of(folder)
    for number in range(5):
        one.settle(subject(f"payments__{number}"), [finding()])
    assert {line["dag_id"] for line in lines(folder)} == {f"payments__{n}" for n in range(3)}
    assert (folder / "overflow").exists()
    one.settle(subject("payments__0"), [])
    one.settle(subject("payments__4"), [finding()])
    assert "payments__4" in {line["dag_id"] for line in lines(folder)}


def sweep(folder: Path) -> None:
    (folder / ".swept").unlink(missing_ok=True)
    spool_of(folder).holds_any()


def test_what_nobody_refreshes_is_removed(folder: Path) -> None:
    one = spool_of(folder)
    archive = folder.parents[1] / "payments" / "all.zip"
    archive.touch()
    one.settle(subject("payments__stays"), [finding()])
    one.settle(subject("payments__zipped", "payments/all.zip/daily.py"), [finding()])
    one.settle(subject("payments__gone", "payments/gone.py"), [finding()])
    one.settle(subject("payments__old"), [finding()])
    (old,) = (path for path in folder.glob("*.jsonl") if "payments__old" in path.read_text())
    (folder / ("0" * 32 + ".jsonl")).write_text("half a li")
    (folder / "overflow").touch()
    (folder / ".x.draft").touch()
    (folder / ".y.draft").touch()
    (folder / "README").touch()
    long_ago = time.time() - spool.KEEP_S - 1
    for path in (old, folder / ".x.draft", folder / "overflow", folder / "README"):
        os.utime(path, (long_ago, long_ago))

    sweep(folder)
    assert {line["dag_id"] for line in lines(folder)} == {"payments__stays", "payments__zipped"}
    others = {path.name for path in folder.iterdir() if path.suffix != ".jsonl"}
    assert others == {".swept", ".y.draft", "README"}, "and nothing that is not ours"


def test_sweeping_is_rare(folder: Path) -> None:
    one = spool_of(folder)
    one.settle(subject("payments__gone", "payments/gone.py"), [finding()])
    sweep(folder)
    assert lines(folder) == []
    one.settle(subject("payments__gone", "payments/gone.py"), [finding()])
    spool_of(folder).holds_any()
    assert lines(folder), "swept just before"


def _settle_many(folder: Path, rounds: int) -> None:
    one = spool_of(folder)
    for number in range(rounds):
        one.settle(subject(), [finding(message=f"{os.getpid()} {number}")])
        if number % 5 == 0:
            one.settle(subject(), [])


def test_processes_that_write_at_the_same_time_leave_whole_files(folder: Path) -> None:
    context = get_context("fork")
    writers = [context.Process(target=_settle_many, args=(folder, 150)) for _ in range(4)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        for path in folder.glob("*.jsonl"):
            try:
                text = path.read_text()
            except FileNotFoundError:
                continue
            assert text.endswith("\n")
            assert json.loads(text)["dag_id"] == "payments__daily"
            seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen
    assert not list(folder.glob(".*.draft"))
