"""The file of guardrails: what is read, and what holds while it is not there or broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Shard

from airfleet_airflow.guardrails import Broken, Guardrails, Source

DAG = """
with DAG("payments__daily", start_date=START, schedule=None):
    EmptyOperator(task_id="load")
"""
STRICT = {"payments": {"queues": ["none"]}}

BROKEN = {
    "empty": "",
    "half written": '{"version": 1, "namespaces": {"payments": {"pref',
    "no object": "[]",
    "nested too deeply": "[" * 100_000,
    "of a later version": '{"version": 2, "namespaces": {}}',
    "without namespaces": '{"version": 1}',
    "with a revision that is none": '{"version": 1, "namespaces": {}, "manifestRevision": "x"}',
    "with a namespace that is none": '{"version": 1, "namespaces": {"payments": 1}}',
    "without prefixes": '{"version": 1, "namespaces": {"payments": {"prefixes": []}}}',
    "with an empty prefix": '{"version": 1, "namespaces": {"payments": {"prefixes": [""]}}}',
}
for rules in (
    [],
    {"mode": "strict"},
    {"mode": {"a": 1}},
    {"modes": {"AF104": "off"}},
    {"modes": ["AF104"]},
    {"queues": "default"},
    {"queues": [1]},
    {"operators": ["BashOperator"]},
    {"operators": {"deny": "BashOperator"}},
    {"executionTimeout": 60},
    {"executionTimeout": {"maxSeconds": "60"}},
    {"executionTimeout": {"maxSeconds": 10**18}},
    {"retries": {"max": -1}},
    {"retries": {"max": True}},
    {"maxActiveRuns": {"max": 1.5}},
):
    document = {"version": 1, "namespaces": {"payments": {"prefixes": ["p__"], "rules": rules}}}
    BROKEN[f"with rules {json.dumps(rules)}"] = json.dumps(document)


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_told_from_a_good_one(text: str) -> None:
    with pytest.raises(Broken):
        Guardrails.parse(text)


@pytest.mark.parametrize("text", [*list(BROKEN.values())[:5], None])
def test_the_last_good_guardrails_hold(
    shard: Shard, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    shard.rule(STRICT, revision=7)
    assert shard.parse_dag(DAG).error.startswith("AF104 ")
    if text is None:
        shard.guardrails.unlink()
    else:
        shard.write_guardrails(text)
    for _ in range(3):
        assert shard.parse_dag(DAG).error.startswith("AF104 "), "in this process"
    assert [r.message for r in caplog.records if "manifest revision 7 hold" in r.message][1:] == []
    for _ in range(2):
        shard.new_process()
        assert shard.parse_dag(DAG).error.startswith("AF104 "), "in a new process"

    shard.rule({"payments": {}}, revision=8)
    assert not shard.parse_dag(DAG).errors, "until there are good ones again"
    shard.guardrails.unlink()
    shard.new_process()
    assert not shard.parse_dag(DAG).errors, "and then these hold"


def test_where_there_never_were_guardrails_every_dag_is_allowed(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="airfleet.guardrails")
    for text in (None, "broken"):
        if text:
            shard.write_guardrails(text)
        for _ in range(3):
            shard.forget_clock()
            assert list(shard.parse_dag(DAG).dags) == ["payments__daily"]
    told = [r.getMessage() for r in caplog.records if r.name == "airfleet.guardrails"]
    assert len(told) == 2, told
    assert "cannot be read: No such file or directory; every DAG is allowed" in told[0]
    assert "no JSON" in told[1]


def test_a_broken_copy_is_no_worse_than_none(shard: Shard) -> None:
    (shard.state / "guardrails.last-good.json").write_text('{"vers')
    assert list(shard.parse_dag(DAG).dags) == ["payments__daily"]
    shard.rule(STRICT)
    shard.new_process()
    assert shard.parse_dag(DAG).error
    assert json.loads((shard.state / "guardrails.last-good.json").read_text())["namespaces"]


def test_a_change_is_seen_at_the_next_look(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    shard.rule(STRICT)
    now = [100.0]
    monkeypatch.setattr("airfleet_airflow.guardrails.time.monotonic", lambda: now[0])
    source = Source(str(shard.guardrails), str(shard.state / "copy.json"))

    def revision() -> int:
        current = source.current()
        assert current is not None
        return current.revision

    assert revision() == 1
    shard.rule(STRICT, revision=2)
    now[0] += 0.9
    assert revision() == 1, "a look costs, so there is one a second"
    now[0] += 0.1
    assert revision() == 2


def test_a_file_is_read_once_as_long_as_it_stays(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.rule(STRICT)
    reads: list[str] = []
    parse = Guardrails.parse

    def counting(text: Any) -> Guardrails:
        reads.append(text)
        return parse(text)

    monkeypatch.setattr(Guardrails, "parse", counting)
    source = Source(str(shard.guardrails), str(shard.state / "copy.json"))
    for _ in range(5):
        source._looked_at = float("-inf")
        source.current()
    assert len(reads) == 1
    shard.write_guardrails("broken")
    for _ in range(5):
        source._looked_at = float("-inf")
        source.current()
    assert len(reads) == 2, "a broken one as well"


def test_a_copy_is_written_once_for_each_good_file(shard: Shard, tmp_path: Path) -> None:
    shard.rule(STRICT)
    copy = tmp_path / "state" / "copy.json"

    def process() -> os.stat_result:
        Source(str(shard.guardrails), str(copy)).current()
        return copy.stat()

    first = process()
    assert copy.read_text() == shard.guardrails.read_text()
    assert process().st_ino == first.st_ino
    shard.rule(STRICT, revision=2)
    assert process().st_ino != first.st_ino
    assert not list(copy.parent.glob(".*"))


def test_a_state_that_cannot_be_written_costs_reports_alone(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRFLEET_STATE", str(tmp_path / "file" / "state"))
    shard.rule(STRICT)
    for _ in range(3):
        assert shard.parse_dag(DAG).error.startswith("AF104 ")
    told = [r.getMessage() for r in caplog.records if "are not reported" in r.getMessage()]
    assert len(told) == 1
    assert "writable" in told[0]
