"""What others build on: the format of guardrails, the codes, how Airflow finds the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow import settings
from conftest import IS_2, Shard

from airfleet_airflow import policy, rules
from airfleet_airflow.guardrails import Guardrails

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SCHEMA = json.loads((HERE.parent / "guardrails.schema.json").read_text())
EXAMPLE = json.loads((HERE / "guardrails.example.json").read_text())
CODES = {value for value in vars(rules).values() if re.fullmatch(r"AF1\d\d", str(value))}


def test_the_schema_and_its_examples_hold() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for document in (EXAMPLE, *SCHEMA["examples"]):
        validator.validate(document)
        Guardrails.parse(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"namespaces": {"A": {"prefixes": ["a__"]}}},
        {"namespaces": {"payments": {"prefixes": []}}},
        {"namespaces": {"payments": {"prefixes": ["p__"], "rules": {"quues": []}}}},
        {"namespaces": {"payments": {"prefixes": ["p__"], "rules": {"modes": {"X": "warn"}}}}},
    ],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**EXAMPLE, **change}, SCHEMA)


def test_every_rule_of_the_schema_is_in_the_example_and_is_read() -> None:
    declared = set(SCHEMA["$defs"]["rules"]["properties"])
    example = EXAMPLE["namespaces"]["payments"]["rules"]
    assert set(example) == declared
    read: set[str] = set()

    class Recording(dict):
        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

    rules.Rules.parse(Recording(example))
    assert read == declared


def test_the_example_is_read_as_it_is_meant() -> None:
    guardrails = Guardrails.parse(json.dumps(EXAMPLE))
    assert guardrails.revision == 12
    payments = guardrails.namespace("payments")
    assert payments is not None
    assert payments.prefixes == ("payments__", "payments.")
    assert payments.rules.mode("AF107") == "warn"
    assert payments.rules.mode("AF104") == "enforce"
    assert guardrails.owner("payments.daily") is payments
    assert guardrails.owner("payment") is None
    assert guardrails.namespace("reports").rules.mode("AF104") == "warn"


def test_every_code_is_documented_once() -> None:
    text = (ROOT / "docs" / "guardrails.md").read_text()
    headings = re.findall(r"^### (AF1\d\d)\b", text, re.MULTILINE)
    assert headings == sorted(CODES)


def test_every_field_that_the_agent_reads_is_documented(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["none"]}})
    shard.parse_dag('with DAG("payments__a", schedule=None):\n    EmptyOperator(task_id="load")\n')
    (line,) = shard.violations()
    text = (HERE.parent / "README.md").read_text()
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1))
    assert list(example) == list(line)
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert set(line) <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_airflow_finds_the_package_by_its_entry_points() -> None:
    groups = {
        group: [point for point in entry_points(group=group) if point.name == "airfleet"]
        for group in ("airflow.policy", "airflow.plugins")
    }
    assert {len(points) for points in groups.values()} == {1}
    assert groups["airflow.policy"][0].load() is policy
    assert not distribution("airfleet-airflow").requires, "it must not change an Airflow"
    manager = settings.POLICY_PLUGIN_MANAGER if IS_2 else settings.get_policy_plugin_manager()
    assert policy in manager.get_plugins()


def test_loading_the_policy_imports_nothing_heavy() -> None:
    """Every process of Airflow imports it, most of them for nothing."""
    script = (
        "import sys\n"
        "import pluggy\n"
        "import airfleet_airflow.policy\n"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in "
        "('airflow', 'croniter', 'pendulum', 'sqlalchemy')))"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == ""


@pytest.mark.skipif(not IS_2, reason="in Airflow 3 the command reads a running shard's database")
def test_the_command_line_shows_a_refusal(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    release = dags / ".airfleet" / "releases" / "payments" / "r1"
    release.mkdir(parents=True)
    (dags / ".airflowignore").write_text(".airfleet\n")
    (dags / "payments").symlink_to(release)
    (dags / ".airfleet" / "guardrails.json").write_text(json.dumps(EXAMPLE))
    source = (
        "from airflow import DAG\n"
        "from airflow.operators.bash import BashOperator\n"
        "from datetime import datetime\n"
        "with DAG({!r}, start_date=datetime(2026, 1, 1), schedule=None, tags=['team:payments'],"
        " default_args={{'owner': 'team-payments'}}):\n"
        "    {}\n"
    )
    (release / "bad.py").write_text(
        source.format("payments__bad", "BashOperator(task_id='x', bash_command='true')")
    )
    good = "from airflow.operators.empty import EmptyOperator as E; E(task_id='x')"
    (release / "good.py").write_text(source.format("payments__good", good))
    environ = dict(
        os.environ,
        AIRFLOW_HOME=str(tmp_path / "home"),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="CRITICAL",
        PYTHONWARNINGS="ignore",
    )

    def airflow(*arguments: str) -> str:
        command = [sys.executable, "-m", "airflow", *arguments]
        ran = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
        # It exits with 1 where there are import errors.
        assert ran.stdout or ran.returncode == 0, ran.stderr
        return ran.stdout

    airflow("db", "migrate")
    (error,) = json.loads(airflow("dags", "list-import-errors", "--output", "json"))
    assert error["filepath"].endswith("/dags/payments/bad.py")
    assert error["error"] == (
        "AirflowClusterPolicyViolation: AF108 payments__bad.x: operator 'BashOperator' is denied "
        "by 'BashOperator'; use another operator"
    )
    dag_ids = [dag["dag_id"] for dag in json.loads(airflow("dags", "list", "--output", "json"))]
    assert dag_ids == ["payments__good"]
    (found,) = (dags / ".airfleet" / "violations").glob("*.jsonl")
    line = json.loads(found.read_text())
    assert (line["dag_id"], line["code"]) == ("payments__bad", "AF108")
