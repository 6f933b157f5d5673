"""Airflow's cluster policies: every DAG keeps to the rules of its namespace.

Airflow loads this module in each of its processes, by the entry point `airflow.policy`, and calls
`dag_policy` for every DAG of a file that it parsed and then `task_policy` for each of its tasks. A
DAG's findings are gathered until its last task was seen, so that its author is told of all of them.

Invariant: a fault in here never keeps a DAG out. Only a finding of an enforced rule does, by
`AirflowClusterPolicyViolation` with one line:
`AF104 dag_id.task_id: what is wrong; what to change`.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any

import pluggy

from airfleet_airflow import parsing
from airfleet_airflow.guardrails import COPY, Guardrails, Layout, Namespace, Place, Source
from airfleet_airflow.rules import (
    FOLDER,
    FOREIGN,
    PREFIX,
    REFUSED,
    TOLD,
    UNCHECKED,
    WARN,
    Defaults,
    Finding,
    one_line,
)
from airfleet_airflow.spool import Spool, Subject

log = logging.getLogger("airfleet.guardrails")

hookimpl = pluggy.HookimplMarker("airflow.policy")

_LINE_MAX = 1_000


@hookimpl(trylast=True)
def dag_policy(dag: Any) -> None:
    """Begins to look at a DAG."""
    if guard := _guard or _process():
        guard.dag(dag)


# Last, so that what the shard's own policies put in is what is looked at.
@hookimpl(trylast=True)
def task_policy(task: Any) -> None:
    """Looks at one of its tasks."""
    if guard := _guard or _process():
        guard.task(task)


class Check:
    """A DAG that is being looked at."""

    __slots__ = ("dag", "findings", "left", "namespace", "place")

    def __init__(
        self, dag: Any, namespace: Namespace, place: Place, findings: list[Finding]
    ) -> None:
        self.dag = dag
        self.namespace = namespace
        self.place = place
        self.findings = findings
        self.left = len(dag.task_dict)


class Guard:
    """What a process needs to judge DAGs."""

    def __init__(self, layout: Layout, defaults: Defaults) -> None:
        self._layout = layout
        self._defaults = defaults
        self._source = Source(layout.guardrails, os.path.join(layout.state, COPY))
        self._spool = Spool(layout.state, layout.dags)
        self._check: Check | None = None
        self._revision = 0

    def dag(self, dag: Any) -> None:
        """A DAG comes in; its tasks follow one by one."""
        self._check = None
        check = self._begin(dag)
        if check is None:
            return
        if check.findings and check.findings[0].action == REFUSED:
            # A DAG of somebody else does not have to keep to this namespace's rules as well.
            self._finish(check)
            return
        try:
            check.namespace.rules.check_dag(dag, self._defaults, check.findings)
        except Exception as error:
            _unchecked(check, None, error)
        if check.left:
            self._check = check
        else:
            self._finish(check)

    def task(self, task: Any) -> None:
        """A task comes in."""
        check = self._check
        if check is None:
            return
        try:
            if task.dag is not check.dag:
                return
            check.namespace.rules.check_task(task, self._defaults, check.findings)
        except Exception as error:
            _unchecked(check, task.task_id, error)
        check.left -= 1
        if check.left == 0:
            self._check = None
            try:
                check.namespace.rules.check_owners(check.dag, check.findings)
            except Exception as error:
                _unchecked(check, None, error)
            self._finish(check)

    def _begin(self, dag: Any) -> Check | None:
        """Finds the namespace of a DAG; none where there are no rules for it."""
        try:
            guardrails = self._source.current()
            if guardrails is None:
                return None
            self._revision = guardrails.revision
            place = self._layout.place(dag.fileloc)
            namespace, finding = _claim(dag.dag_id, place, guardrails)
            if namespace is None:
                self._report(dag.dag_id, "", place, [])
                return None
            return Check(dag, namespace, place, [] if finding is None else [finding])
        except Exception:
            log.exception("DAG %s could not be given to a namespace", dag.dag_id)
            return None

    def _finish(self, check: Check) -> None:
        """All was seen: tells it, and refuses the DAG where a rule does."""
        dag_id = check.dag.dag_id
        refused = [finding for finding in check.findings if finding.action == REFUSED]
        others = [finding for finding in check.findings if finding.action != REFUSED]
        for finding in others:
            log.warning("%s", _line(dag_id, finding))
        try:
            self._report(dag_id, check.namespace.name, check.place, refused + others)
        except Exception:
            log.exception("findings of DAG %s could not be reported", dag_id)
        if refused:
            line = _line(dag_id, refused[0])
            if len(refused) > 1:
                codes = " ".join(sorted({finding.code for finding in refused[1:]}))
                line += f" (and {len(refused) - 1} more: {codes})"
            raise _violation(line)

    def _report(self, dag_id: str, namespace: str, place: Place, findings: list[Finding]) -> None:
        # A worker sees the same DAGs as the DAG processor, perhaps on a machine without an agent.
        if (findings or self._spool.holds_any()) and not parsing.is_task_process():
            self._spool.settle(Subject(dag_id, namespace, place.path, self._revision), findings)


def _unchecked(check: Check, task_id: str | None, error: Exception) -> None:
    """A fault of ours, or a DAG that is made like no other: it is told, and goes on."""
    log.exception("DAG %s could not be checked completely", check.dag.dag_id)
    message = f"could not be checked: {type(error).__name__}: {error}; tell the platform team"
    check.findings.append(Finding(UNCHECKED, WARN, TOLD, task_id, message))


def _claim(
    dag_id: str, place: Place, guardrails: Guardrails
) -> tuple[Namespace | None, Finding | None]:
    """The namespace whose rules a DAG keeps to, and what is wrong with where it lies."""
    home = guardrails.namespace(place.folder)
    if home is not None:
        if home.owns(dag_id):
            return home, None
        owner = guardrails.owner(dag_id)
        if owner is not None:
            message = (
                f"belongs to namespace {owner.name}, but {place.path} lies in the folder of "
                f"{home.name}; move it there: a file has DAGs of one namespace"
            )
            return home, home.rules.find(FOREIGN, message)
        prefixes = " or ".join(repr(prefix) for prefix in home.prefixes[:5])
        message = (
            f"dag_id carries no prefix of namespace {home.name}, in whose folder {place.path} "
            f"lies; begin it with {prefixes}"
        )
        return home, home.rules.find(PREFIX, message)
    owner = guardrails.owner(dag_id)
    if owner is None:
        return None, None
    message = (
        f"belongs to namespace {owner.name}, but {place.path} lies outside of its folder; "
        f"move it to the DAG files of {owner.name}, or choose another dag_id"
    )
    return owner, owner.rules.find(FOLDER, message)


def _line(dag_id: str, finding: Finding) -> str:
    where = f"{dag_id}.{finding.task_id}" if finding.task_id else dag_id
    return one_line(f"{finding.code} {where}: {finding.message}", _LINE_MAX)


def _violation(line: str) -> Exception:
    from airflow.exceptions import AirflowClusterPolicyViolation

    violation: Exception = AirflowClusterPolicyViolation(line)
    return violation


_guard: Guard | None = None


def _process() -> Guard | None:
    """This process's guard, made when the first DAG comes: most processes never see one."""
    global _guard
    try:
        _guard = Guard(Layout.find(os.environ, _dags_folder), _defaults())
    except Exception:
        log.exception("guardrails cannot be applied; every DAG is allowed")
    return _guard


def _dags_folder() -> str:
    from airflow.configuration import conf

    return os.path.expanduser(str(conf.get("core", "dags_folder")))


def _defaults() -> Defaults:
    from airflow.configuration import conf

    timeout = conf.get("core", "default_task_execution_timeout", fallback="")
    return Defaults(
        retries=conf.getint("core", "default_task_retries", fallback=0),
        execution_timeout=timedelta(seconds=float(timeout)) if timeout else None,
        max_active_runs=conf.getint("core", "max_active_runs_per_dag", fallback=16),
    )
