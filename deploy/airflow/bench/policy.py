"""What the policy costs a DAG and a task.

    policy.py ROUNDS

Calls Airflow's own `dag_policy` and `task_policy`, which call the installed package as they do
while a file is parsed, for real DAGs that keep to every rule there is, file by file. Prints JSON:
microseconds of processor time a DAG and a task, and of the same calls where no policy is installed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from datetime import datetime, timedelta
from typing import Any

FILES = 8
DAGS = 50
"""In a file."""
TASKS = 40


def main() -> None:
    """Measures, and prints."""
    rounds = int(sys.argv[1])
    dags = os.path.join(tempfile.mkdtemp(), "dags")
    os.environ.update(
        AIRFLOW_HOME=os.path.dirname(dags),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=dags,
    )
    os.makedirs(os.path.join(dags, ".airfleet"))
    with open(os.path.join(dags, ".airfleet", "guardrails.json"), "w") as file:
        json.dump(guardrails(), file)
    import airflow.settings as settings

    from airfleet_airflow import policy

    def look(tasks: int) -> float:
        """Microseconds a DAG. New ones each time: what is filled in, is filled in once."""
        took = 0.0
        for number in range(FILES):
            made = make_dags(dags, number, tasks)
            begun = time.process_time()
            for dag, its_tasks in made:
                settings.dag_policy(dag)
                for task in its_tasks:
                    settings.task_policy(task)
            took += time.process_time() - begun
            gc.collect()
        return took / FILES / DAGS * 1e6

    def cost() -> tuple[float, float]:
        look(1)
        one, all_ = (min(look(tasks) for _ in range(rounds)) for tasks in (1, TASKS))
        task = (all_ - one) / (TASKS - 1)
        return one - task, task

    with_policy = cost()
    assert policy._guard is not None, "the policy was not called"
    current = policy._guard._source.current()
    assert current is not None
    assert current.namespace("bench") is not None
    assert not os.path.exists(os.path.join(dags, ".airfleet", "violations"))
    manager = getattr(settings, "POLICY_PLUGIN_MANAGER", None)
    (manager or settings.get_policy_plugin_manager()).unregister(policy)
    without = cost()
    names = ("dag_us", "task_us", "dag_without_us", "task_without_us")
    print(json.dumps(dict(zip(names, with_policy + without, strict=True))))


def guardrails() -> dict[str, Any]:
    """Every rule, in a shard that has fifty namespaces."""
    namespaces: dict[str, Any] = {
        f"other-{number}": {"prefixes": [f"other-{number}__"], "rules": {"queues": ["default"]}}
        for number in range(50)
    }
    namespaces["bench"] = {
        "prefixes": ["bench__", "bench."],
        "rules": {
            "queues": ["default", "heavy"],
            "pools": ["default_pool", "bench"],
            "kubernetesNamespaces": ["bench"],
            "kubernetesClusters": ["gke-1"],
            "operators": {"allow": ["EmptyOperator"], "deny": ["BashOperator", "airflow.ssh.*"]},
            "executionTimeout": {"defaultSeconds": 3600, "maxSeconds": 21600},
            "retries": {"default": 2, "max": 5},
            "maxActiveRuns": {"max": 4},
            "requiredTags": ["team:bench"],
            "allowedOwners": ["bench"],
        },
    }
    return {"version": 1, "manifestRevision": 1, "namespaces": namespaces}


def make_dags(folder: str, file: int, tasks: int) -> list[Any]:
    """DAGs of one file, each with its tasks; half of these leave to the policy what it fills in."""
    try:
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.sdk import DAG
    except ImportError:
        from airflow import DAG
        from airflow.operators.empty import EmptyOperator
    made = []
    for number in range(DAGS):
        dag = DAG(
            f"bench__{tasks}_{file}_{number}",
            start_date=datetime(2026, 1, 1),
            schedule=None,
            tags=["team:bench"],
            max_active_runs=2,
            default_args={"owner": "bench"},
        )
        dag.fileloc = os.path.join(folder, "bench", f"file_{file}.py")
        for step in range(tasks):
            given = {"retries": 1, "execution_timeout": timedelta(minutes=5)} if step % 2 else {}
            EmptyOperator(task_id=f"t{step}", dag=dag, **given)
        made.append((dag, dag.tasks))
    return made


if __name__ == "__main__":
    main()
