"""Parse only the DAG that this worker runs.

A file that generates many DAGs builds all of them each time a worker begins one task of one of
them. Airflow tells such a process which DAG it is about; this module turns that into the choice
that is safe in every other process as well:

    from airfleet_airflow.parsing import select

    for name in select(CUSTOMERS, dag_id=lambda name: f"payments__{name}"):
        build(name)

In doubt everything is built: in the DAG processor; where the DAG that is wanted is not among those
on offer; and in a process that inherited the setting from the task that started it, such as
`airflow dags reserialize` in a BashOperator, which would otherwise take one DAG for all there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_DAG_ID = "_AIRFLOW_PARSING_CONTEXT_DAG_ID"
_TASK_ID = "_AIRFLOW_PARSING_CONTEXT_TASK_ID"

# Airflow loads the policies, and this module with them, before it forks the process that runs a
# task and tells it so. What is set already now was set by another process's task.
_inherited = os.environ.get(_DAG_ID)


def wanted() -> str | None:
    """The dag_id that this process runs a task of; `None` where every DAG is wanted."""
    if not is_task_process():
        return None
    return os.environ.get(_DAG_ID)


def is_task_process() -> bool:
    """Whether this process runs a task, as opposed to parsing files for all to see."""
    dag_id = os.environ.get(_DAG_ID)
    return dag_id is not None and dag_id != _inherited and _TASK_ID in os.environ


def select(items: Iterable[Item], dag_id: Callable[[Item], str] | None = None) -> list[Item]:
    """Those of `items` whose DAGs are to be built: the one that is wanted, or all.

    `dag_id` tells the dag_id of an item; without it, items are dag_ids. Every item is looked at, so
    let an item be cheap and do the work in the loop.
    """
    everything = list(items)
    target = wanted()
    if target is None:
        return everything
    chosen = [item for item in everything if (dag_id(item) if dag_id else item) == target]
    return chosen or everything
