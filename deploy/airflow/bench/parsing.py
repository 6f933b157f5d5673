"""How long a task waits for its DAG, in a file that generates many.

    parsing.py REPEATS DAGS

Loads a file of that many DAGs in a real Airflow, as the DAG processor does and as a process that
runs a task of one of them, with the setting by which Airflow tells it so. Prints JSON: the best
time of each, in seconds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

SOURCE = """
from datetime import datetime
from airfleet_airflow.parsing import select
try:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
    from airflow.operators.empty import EmptyOperator

for number in select(range(COUNT), dag_id=lambda number: f"bench__{number}"):
    with DAG(f"bench__{number}", start_date=datetime(2026, 1, 1), schedule="@daily") as dag:
        before = EmptyOperator(task_id="t0")
        for step in range(1, 5):
            task = EmptyOperator(task_id=f"t{step}")
            before >> task
            before = task
    globals()[f"dag_{number}"] = dag
"""


def main() -> None:
    """Measures, and prints."""
    repeats, count = int(sys.argv[1]), int(sys.argv[2])
    home = tempfile.mkdtemp()
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT="600",
    )
    import airflow.settings  # loads the policies, as in each of Airflow's processes

    assert airflow.settings is not None
    path = os.path.join(home, "many.py")
    with open(path, "w") as file:
        file.write(SOURCE.replace("COUNT", str(count)))

    def parse(expected: int) -> float:
        bag = _bag()
        begun = time.perf_counter()
        bag.process_file(path, only_if_updated=False, safe_mode=False)
        took = time.perf_counter() - begun
        assert len(bag.dags) == expected, (len(bag.dags), bag.import_errors)
        return took

    os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = f"bench__{count // 2}"
    os.environ["_AIRFLOW_PARSING_CONTEXT_TASK_ID"] = "t0"
    parse(1)  # what is imported only once is not counted
    one = min(parse(1) for _ in range(repeats * 10))
    del os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"]
    every = min(parse(count) for _ in range(repeats))
    print(json.dumps({"one_s": one, "all_s": every}))


def _bag() -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag(os.devnull, collect_dags=False)


if __name__ == "__main__":
    main()
