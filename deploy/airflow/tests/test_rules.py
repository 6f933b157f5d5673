"""Each rule on real DAGs: what is refused, changed, filled in, and what is said of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from conftest import Shard

from airfleet_airflow import policy


def dag(tasks: str, arguments: str = "") -> str:
    body = "\n".join(f"    {line}" for line in tasks.strip().splitlines())
    return f'with DAG("payments__daily", start_date=START, schedule=None, {arguments}):\n{body}\n'


REFUSED = [
    (
        {"queues": ["default", "heavy"]},
        dag('EmptyOperator(task_id="load", queue="gpu")'),
        "AF104 payments__daily.load: queue 'gpu' is not allowed; set queue to one of: "
        "'default', 'heavy'",
    ),
    (
        {"pools": ["payments_pool"]},
        dag('EmptyOperator(task_id="load")'),
        "AF105 payments__daily.load: pool 'default_pool' is not allowed; set pool to one of: "
        "'payments_pool'",
    ),
    (
        {"kubernetesNamespaces": ["payments"]},
        dag('KubernetesPodOperator(task_id="pod", namespace="kube-system")'),
        "AF106 payments__daily.pod: Kubernetes namespace 'kube-system' is not allowed; use one of: "
        "'payments'",
    ),
    (
        {"kubernetesNamespaces": ["payments"]},
        dag('KubernetesPodOperator(task_id="pod", namespace="{{ params.where }}")'),
        "AF106 payments__daily.pod: Kubernetes namespace '{{ params.where }}' is known only at run "
        "time and cannot be checked; use one of: 'payments'",
    ),
    (
        {"kubernetesNamespaces": ["payments"]},
        "from types import SimpleNamespace as N\n"
        + dag(
            'EmptyOperator(task_id="load", executor_config='
            '{"pod_override": N(metadata=N(namespace="kube-system"))})'
        ),
        "AF106 payments__daily.load: Kubernetes namespace 'kube-system' is not allowed; "
        "use one of: 'payments'",
    ),
    (
        {"kubernetesNamespaces": ["payments"]},
        "from types import SimpleNamespace as N\n"
        + dag(
            'KubernetesPodOperator(task_id="pod", '
            'full_pod_spec=N(metadata=N(namespace="kube-system")))'
        ),
        "AF106 payments__daily.pod: Kubernetes namespace 'kube-system' is not allowed; use one of: "
        "'payments'",
    ),
    (
        {"kubernetesNamespaces": ["payments"]},
        dag(
            'KubernetesPodOperator.partial(task_id="pod").expand('
            'namespace=["payments", "kube-system"])'
        ),
        "AF106 payments__daily.pod: Kubernetes namespace 'kube-system' is not allowed; use one of: "
        "'payments'",
    ),
    (
        {"kubernetesClusters": ["gke-1"]},
        dag('GKEStartPodOperator(task_id="pod", cluster_name="gke-2")'),
        "AF107 payments__daily.pod: Kubernetes cluster 'gke-2' is not allowed; use one of: 'gke-1'",
    ),
    (
        {"operators": {"deny": ["BashOperator"]}},
        dag('BashOperator(task_id="shell", bash_command="true")'),
        "AF108 payments__daily.shell: operator 'BashOperator' is denied by 'BashOperator'; "
        "use another operator",
    ),
    (
        {"operators": {"deny": ["BashOperator"]}},
        dag('BashOperator.partial(task_id="shell").expand(bash_command=["true"])'),
        "AF108 payments__daily.shell: operator 'BashOperator' is denied by 'BashOperator'; "
        "use another operator",
    ),
    (
        {"operators": {"deny": ["BashOperator"]}},
        "class Shell(BashOperator):\n    pass\n"
        + dag('Shell(task_id="shell", bash_command="true")'),
        "AF108 payments__daily.shell: operator 'Shell' is denied by 'BashOperator'; "
        "use another operator",
    ),
    (
        {"operators": {"deny": ["airflow.*.bash.*"]}},
        dag('BashOperator(task_id="shell", bash_command="true")'),
        "AF108 payments__daily.shell: operator 'BashOperator' is denied by 'airflow.*.bash.*'; "
        "use another operator",
    ),
    (
        {"operators": {"allow": ["PythonOperator"]}},
        dag('EmptyOperator(task_id="load")'),
        "AF108 payments__daily.load: operator 'EmptyOperator' is not allowed; use one of: "
        "'PythonOperator'",
    ),
    (
        {"requiredTags": ["team:payments", "tier:1", "pii:no"]},
        dag('EmptyOperator(task_id="load")', 'tags=["tier:1"]'),
        "AF112 payments__daily: required tags are missing; add to the DAG's tags: "
        "'team:payments', 'pii:no'",
    ),
    (
        {"requiredTags": ["team:payments"]},
        'DAG("payments__daily", start_date=START, schedule=None)\n'
        'dag = DAG("payments__daily", start_date=START, schedule=None)',
        "AF112 payments__daily: required tag is missing; add to the DAG's tags: 'team:payments'",
    ),
    (
        {"allowedOwners": ["team-payments", "platform"]},
        dag('EmptyOperator(task_id="load", owner="somebody, else")'),
        "AF113 payments__daily: owner 'else', 'somebody' is not allowed; set owner in default_args "
        "to one of: 'team-payments', 'platform'",
    ),
]


@pytest.mark.parametrize(("rules", "body", "line"), REFUSED)
def test_a_dag_that_breaks_a_rule_is_refused(
    shard: Shard, rules: dict[str, Any], body: str, line: str
) -> None:
    shard.rule({"payments": rules})
    parsed = shard.parse_dag(body)
    assert parsed.error == line
    assert not parsed.dags

    shard.rule({"payments": {**rules, "mode": "warn"}})
    parsed = shard.parse_dag(body)
    assert list(parsed.dags) == ["payments__daily"]
    assert not parsed.errors
    (found,) = shard.violations()
    assert (found["code"], found["mode"], found["action"]) == (line[:5], "warn", "told")
    assert line.endswith(found["message"])

    code = line[:5]
    shard.rule({"payments": {**rules, "modes": {code: "warn"}}})
    assert not shard.parse_dag(body).errors

    shard.rule({"payments": {}})
    assert not shard.parse_dag(body).errors
    assert shard.violations() == []


ALLOWED = [
    ({"queues": ["default"], "pools": ["default_pool"]}, dag('EmptyOperator(task_id="load")')),
    ({"queues": [], "pools": None, "operators": {}}, dag('EmptyOperator(task_id="x", queue="q")')),
    (
        {"kubernetesNamespaces": ["payments"], "kubernetesClusters": ["gke-1"]},
        # What is not given is the shard's own configuration; other operators' arguments of the same
        # name mean something else.
        "class Ftp(BaseOperator):\n"
        "    def __init__(self, namespace, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.namespace = namespace\n"
        + dag(
            'KubernetesPodOperator(task_id="pod")\n'
            'KubernetesPodOperator(task_id="own", namespace="payments", cluster_context="gke-1")\n'
            'Ftp(task_id="ftp", namespace="xml")'
        ),
    ),
    # A class stands for its subclasses: the decorated function's operator is one.
    ({"operators": {"allow": ["PythonOperator"]}}, dag("task(lambda: 1).override(task_id='x')()")),
    (
        {"operators": {"allow": ["*.EmptyOperator"], "deny": ["BashOperator"]}},
        dag('EmptyOperator(task_id="load")'),
    ),
    ({"requiredTags": ["a"]}, dag('EmptyOperator(task_id="load")', 'tags=["b", "a"]')),
    (
        {"allowedOwners": ["team"]},
        dag('EmptyOperator(task_id="a", owner="team")\nEmptyOperator(task_id="b", owner="other")'),
    ),
]


@pytest.mark.parametrize(("rules", "body"), ALLOWED)
def test_a_dag_that_keeps_to_its_rules_is_let_in(
    shard: Shard, rules: dict[str, Any], body: str
) -> None:
    shard.rule({"payments": rules})
    parsed = shard.parse_dag(body)
    assert not parsed.errors
    assert list(parsed.dags) == ["payments__daily"]
    assert shard.violations() == []


def test_all_findings_of_a_dag_are_told_at_once(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["q"], "requiredTags": ["t"], "allowedOwners": ["o"]}})
    parsed = shard.parse_dag(dag('EmptyOperator(task_id="a")\nEmptyOperator(task_id="b")'))
    assert parsed.error == (
        "AF112 payments__daily: required tag is missing; add to the DAG's tags: 't' "
        "(and 3 more: AF104 AF113)"
    )
    found = [(line["code"], line["task_id"]) for line in shard.violations()]
    assert found == [("AF112", None), ("AF104", "a"), ("AF104", "b"), ("AF113", None)]


LIMITS = {
    "executionTimeout": {"defaultSeconds": 3600, "maxSeconds": 21600},
    "retries": {"default": 2, "max": 5},
    "maxActiveRuns": {"max": 4},
}
TASKS = """
EmptyOperator(task_id="unset")
EmptyOperator(task_id="set", retries=0, execution_timeout=timedelta(minutes=5))
EmptyOperator(task_id="over", retries=9, execution_timeout=timedelta(hours=8))
BashOperator.partial(task_id="mapped_unset").expand(bash_command=["true"])
BashOperator.partial(task_id="mapped_set", retries=1, execution_timeout=timedelta(hours=8)).expand(
    bash_command=["true"]
)
"""


def values(parsed: Any) -> dict[str, tuple[int, timedelta | None]]:
    tasks = parsed.dags["payments__daily"].tasks
    return {task.task_id: (task.retries, task.execution_timeout) for task in tasks}


def test_what_is_unset_is_filled_and_what_is_over_is_brought_down(shard: Shard) -> None:
    shard.rule({"payments": LIMITS})
    parsed = shard.parse_dag(dag(TASKS, "max_active_runs=10"))
    hour = timedelta(hours=1)
    assert not parsed.errors
    assert values(parsed) == {
        "unset": (2, hour),
        # An author's 0 is no less an author's word.
        "set": (0, timedelta(minutes=5)),
        "over": (5, 6 * hour),
        "mapped_unset": (2, hour),
        "mapped_set": (1, 6 * hour),
    }
    assert parsed.dags["payments__daily"].max_active_runs == 4
    found = {(line["code"], line["task_id"]): line for line in shard.violations()}
    # Filling in a default is nothing to complain of.
    assert set(found) == {
        ("AF109", "over"),
        ("AF110", "over"),
        ("AF109", "mapped_set"),
        ("AF111", None),
    }
    assert {line["action"] for line in found.values()} == {"changed"}
    assert found["AF109", "over"]["message"] == (
        "execution_timeout is 8:00:00, the limit is 6:00:00, which was put in; set at most 6:00:00"
    )
    assert found["AF111", None]["message"] == (
        "max_active_runs is 10, the limit is 4, which was put in; set at most 4"
    )


def test_with_warnings_alone_nothing_is_changed(shard: Shard) -> None:
    shard.rule({"payments": {**LIMITS, "mode": "warn"}})
    parsed = shard.parse_dag(dag(TASKS, "max_active_runs=10"))
    assert values(parsed) == {
        "unset": (0, None),
        "set": (0, timedelta(minutes=5)),
        "over": (9, timedelta(hours=8)),
        "mapped_unset": (0, None),
        "mapped_set": (1, timedelta(hours=8)),
    }
    assert parsed.dags["payments__daily"].max_active_runs == 10
    assert [line["action"] for line in shard.violations()] == ["told"] * 4
    found = {line["code"]: line["message"] for line in shard.violations()}
    assert found["AF110"] == "retries is 9, the limit is 5; set at most 5"


@pytest.mark.parametrize(
    ("rules", "retries", "timeout"),
    [
        ({"retries": {"max": 5}}, 0, None),
        ({"retries": {"default": 7, "max": 5}}, 5, None),
        ({"retries": {"default": 0}}, 0, None),
        ({"executionTimeout": {"maxSeconds": 60}}, 0, timedelta(minutes=1)),
        ({"executionTimeout": {"defaultSeconds": 60}}, 0, timedelta(minutes=1)),
        ({"executionTimeout": {"defaultSeconds": 0, "maxSeconds": 0}}, 0, None),
    ],
)
def test_halves_of_a_limit(
    shard: Shard, rules: dict[str, Any], retries: int, timeout: timedelta | None
) -> None:
    shard.rule({"payments": rules})
    parsed = shard.parse_dag(dag('EmptyOperator(task_id="unset")'))
    assert values(parsed)["unset"] == (retries, timeout)
    assert shard.violations() == []


def test_runs_that_airflow_itself_allows_are_cut_without_a_word(shard: Shard) -> None:
    shard.rule({"payments": {"maxActiveRuns": {"max": 3}}})
    parsed = shard.parse_dag(dag('EmptyOperator(task_id="load")'))
    assert parsed.dags["payments__daily"].max_active_runs == 3
    assert shard.violations() == []


def test_changes_reach_what_airflow_stores(shard: Shard) -> None:
    shard.rule({"payments": LIMITS})
    parsed = shard.parse_dag(dag(TASKS, "max_active_runs=10"))
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    stored = Serialized.to_dict(parsed.dags["payments__daily"])["dag"]
    assert stored["max_active_runs"] == 4
    tasks = {task["__var"]["task_id"]: task["__var"] for task in stored["tasks"]}
    assert tasks["over"]["retries"] == 5
    assert tasks["over"]["execution_timeout"] == 21600.0
    assert tasks["mapped_set"]["partial_kwargs"]["execution_timeout"] in (
        21600.0,
        {"__var": 21600.0, "__type": "timedelta"},
    )


def test_a_fault_of_the_policy_keeps_no_dag_out(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    body = "class Odd(str):\n    __hash__ = None\n" + dag(
        'odd = EmptyOperator(task_id="odd")\n'
        'object.__setattr__(odd, "retries", "many")\n'
        'EmptyOperator(task_id="load", queue="gpu")'
    )
    rules = {"retries": {"max": 5}, "queues": ["default"]}
    shard.rule({"payments": {**rules, "modes": {"AF104": "warn"}}})
    parsed = shard.parse_dag(body)
    assert list(parsed.dags) == ["payments__daily"]
    found = {(line["code"], line["task_id"]): line for line in shard.violations()}
    # The other task was looked at all the same.
    assert set(found) == {("AF199", "odd"), ("AF104", "load")}
    assert found["AF199", "odd"]["action"] == "told"
    assert "TypeError" in found["AF199", "odd"]["message"]

    shard.rule({"payments": rules})
    assert shard.parse_dag(body).error.startswith("AF104 payments__daily.load")


def test_nothing_that_fails_inside_reaches_airflow(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.rule({"payments": {"queues": ["q"]}})

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    body = dag('EmptyOperator(task_id="load")')
    for name in ("Layout.place", "Source.current"):
        owner, method = name.split(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(policy, owner), method, fail)
            assert list(shard.parse_dag(body).dags) == ["payments__daily"]
    for name in ("_defaults", "Layout"):
        with monkeypatch.context() as patch:
            patch.setattr(policy, name, fail)
            shard.new_process()
            assert list(shard.parse_dag(body).dags) == ["payments__daily"]
    # A report that fails does not take the refusal away.
    with monkeypatch.context() as patch:
        patch.setattr(policy.Spool, "settle", fail)
        assert shard.parse_dag(body).error.startswith("AF104 ")


def test_names_of_an_author_do_not_break_the_line(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["default"]}})
    parsed = shard.parse_dag(dag(r'EmptyOperator(task_id="load", queue="a\nb" + "x" * 500)'))
    assert len(parsed.error) < 300
