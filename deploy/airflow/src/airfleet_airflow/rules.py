"""What the DAGs of a namespace keep to, and whether one does.

Rules are read once into the form in which they are asked for, because a task may cost five
microseconds. They know DAGs and tasks by the attributes that Airflow 2.11 and 3 have in common.

A check answers with findings and never raises one; what a finding leads to is `policy`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

ENFORCE = "enforce"
WARN = "warn"

REFUSED = "refused"
"""The DAG does not get into Airflow."""
CHANGED = "changed"
"""The value was brought down to its limit."""
TOLD = "told"
"""Nothing was done."""

PREFIX = "AF101"
FOLDER = "AF102"
FOREIGN = "AF103"
QUEUE = "AF104"
POOL = "AF105"
KUBERNETES_NAMESPACE = "AF106"
KUBERNETES_CLUSTER = "AF107"
OPERATOR = "AF108"
EXECUTION_TIMEOUT = "AF109"
RETRIES = "AF110"
MAX_ACTIVE_RUNS = "AF111"
TAG = "AF112"
OWNER = "AF113"
UNCHECKED = "AF199"

CHANGES = frozenset({EXECUTION_TIMEOUT, RETRIES, MAX_ACTIVE_RUNS})
"""Rules that enforce by changing a value instead of refusing the DAG."""

_TEXT_MAX = 100
_SHOWN_MAX = 10


@dataclass(frozen=True)
class Finding:
    """Something that does not keep to a rule."""

    code: str
    mode: str
    action: str
    task_id: str | None
    message: str
    """What is wrong; what to change. One line."""


@dataclass(frozen=True)
class Defaults:
    """What this Airflow gives to a DAG or task whose author says nothing."""

    retries: int
    execution_timeout: timedelta | None
    max_active_runs: int


class Rules:
    """The rules of one namespace."""

    def __init__(self, declared: dict[str, Any]) -> None:
        self._mode = declared.get("mode") or ENFORCE
        self._modes: dict[str, str] = declared.get("modes") or {}
        self._queues = _words(declared, "queues")
        self._pools = _words(declared, "pools")
        self._kubernetes_namespaces = _words(declared, "kubernetesNamespaces")
        self._kubernetes_clusters = _words(declared, "kubernetesClusters")
        operators = declared.get("operators") or {}
        self._operators_allowed = _words(operators, "allow")
        self._operators_denied = _words(operators, "deny")
        timeout = declared.get("executionTimeout") or {}
        self._timeout_default = _seconds(timeout, "defaultSeconds")
        self._timeout_max = _seconds(timeout, "maxSeconds")
        retries = declared.get("retries") or {}
        self._retries_default = _number(retries, "default")
        self._retries_max = _number(retries, "max")
        self._runs_max = _number(declared.get("maxActiveRuns") or {}, "max") or None
        self._tags = _words(declared, "requiredTags")
        self._owners = _words(declared, "allowedOwners")

        self._timeout_unset = _least(self._timeout_default or self._timeout_max, self._timeout_max)
        self._fills_timeout = self.mode(EXECUTION_TIMEOUT) == ENFORCE
        self._fills_retries = self.mode(RETRIES) == ENFORCE
        self._counts_retries = self._retries_default is not None or self._retries_max is not None
        self._kubernetes = self._kubernetes_namespaces or self._kubernetes_clusters
        self._looks_at_class = bool(
            self._operators_allowed or self._operators_denied or self._kubernetes
        )
        self._classes: dict[type, tuple[str | None, bool]] = {}
        self._harmless: set[type] = set()

    @classmethod
    def parse(cls, declared: Any) -> Rules:
        """Reads `rules` of a namespace; a `ValueError` says what is wrong with them."""
        if declared is None:
            declared = {}
        if not isinstance(declared, dict):
            raise ValueError("rules is no object")
        modes = declared.get("modes") or {}
        if not isinstance(modes, dict):
            raise ValueError("modes is no object")
        for mode in (declared.get("mode") or ENFORCE, *modes.values()):
            if mode not in (ENFORCE, WARN):
                raise ValueError(f"{mode!r} is no mode: use {ENFORCE} or {WARN}")
        for name in ("operators", "executionTimeout", "retries", "maxActiveRuns"):
            if not isinstance(declared.get(name) or {}, dict):
                raise ValueError(f"{name} is no object")
        return cls(declared)

    def mode(self, code: str) -> str:
        """Whether a rule is enforced or only warns."""
        return self._modes.get(code, self._mode)

    def find(self, code: str, message: str, task_id: str | None = None) -> Finding:
        """A finding, with what this rule's mode does about it."""
        mode = self.mode(code)
        enforced = CHANGED if code in CHANGES else REFUSED
        action = TOLD if mode == WARN else enforced
        return Finding(code, mode, action, task_id, message)

    def check_dag(self, dag: Any, defaults: Defaults, findings: list[Finding]) -> None:
        """Looks at the DAG apart from its tasks; brings down what has a limit."""
        if self._runs_max is not None:
            self._check_runs(dag, self._runs_max, defaults, findings)
        if self._tags:
            missing = [tag for tag in self._tags if tag not in (dag.tags or ())]
            if missing:
                findings.append(
                    self.find(
                        TAG, f"{_tags(missing)} missing; add to the DAG's tags: {_list(missing)}"
                    )
                )

    def check_owners(self, dag: Any, findings: list[Finding]) -> None:
        """Looks at who owns the DAG's tasks; for when all of them are as they will be."""
        if self._owners and dag.task_dict:
            found: set[str] = set()
            for task in dag.task_dict.values():
                if task.owner in self._owners:
                    return
                found.update(part.strip() for part in str(task.owner).split(","))
            if not found.intersection(self._owners):
                findings.append(
                    self.find(
                        OWNER,
                        f"owner {_list(sorted(found))} is not allowed; "
                        f"set owner in default_args to one of: {_list(self._owners)}",
                    )
                )

    def check_task(self, task: Any, defaults: Defaults, findings: list[Finding]) -> None:
        """Looks at a task; fills what its author left unset, brings down what has a limit.

        Nearly every task keeps to every rule, so whether it does is asked here, without a call.
        """
        if self._queues and task.queue not in self._queues:
            findings.append(
                self.find(
                    QUEUE,
                    f"queue {_quote(task.queue)} is not allowed; "
                    f"set queue to one of: {_list(self._queues)}",
                    task.task_id,
                )
            )
        if self._pools and task.pool not in self._pools:
            findings.append(
                self.find(
                    POOL,
                    f"pool {_quote(task.pool)} is not allowed; "
                    f"set pool to one of: {_list(self._pools)}",
                    task.task_id,
                )
            )
        # A mapped task is of a class of Airflow's own, which is never among the harmless.
        if self._looks_at_class and type(task) not in self._harmless:
            self._check_class(task, findings)
        if self._timeout_unset is not None:
            timeout, longest = task.execution_timeout, self._timeout_max
            given = defaults.execution_timeout
            if timeout is None or (timeout == given and _is_unset(task, "execution_timeout")):
                if self._fills_timeout:
                    task.execution_timeout = self._timeout_unset
            elif longest is not None and timeout > longest:
                self._lower(EXECUTION_TIMEOUT, task, "execution_timeout", longest, findings)
        if self._counts_retries:
            retries, most = task.retries, self._retries_max
            if retries is None or (retries == defaults.retries and _is_unset(task, "retries")):
                if self._fills_retries:
                    self._fill_retries(task, retries or 0)
            elif most is not None and retries > most:
                self._lower(RETRIES, task, "retries", most, findings)
        # Without its own operator a task can still be given a pod, by its executor.
        if self._kubernetes_namespaces and (config := task.executor_config):
            pod = config.get("pod_override") if isinstance(config, dict) else None
            name = getattr(getattr(pod, "metadata", None), "namespace", None)
            self._check_kubernetes_namespace(task, name, findings)

    def _check_runs(self, dag: Any, most: int, defaults: Defaults, findings: list[Finding]) -> None:
        runs = dag.max_active_runs
        if 0 < runs <= most:
            return
        if runs != defaults.max_active_runs:
            self._lower(MAX_ACTIVE_RUNS, dag, "max_active_runs", most, findings)
        elif self.mode(MAX_ACTIVE_RUNS) == ENFORCE:
            # Whoever took what Airflow gives did nothing wrong.
            dag.max_active_runs = most

    def _fill_retries(self, task: Any, retries: int) -> None:
        fill = retries if self._retries_default is None else self._retries_default
        if self._retries_max is not None:
            fill = min(fill, self._retries_max)
        if fill != task.retries:
            task.retries = fill

    def _lower(self, code: str, owner: Any, name: str, most: Any, findings: list[Finding]) -> None:
        """Brings a value of a task or DAG down to its limit, where that is enforced."""
        enforced = self.mode(code) == ENFORCE
        message = (
            f"{name} is {getattr(owner, name)}, the limit is {most}"
            f"{', which was put in' if enforced else ''}; set at most {most}"
        )
        findings.append(self.find(code, message, getattr(owner, "task_id", None)))
        if enforced:
            setattr(owner, name, most)

    def _check_class(self, task: Any, findings: list[Finding]) -> None:
        # A mapped task is of a class of Airflow's own; what counts is what it becomes.
        mapped = getattr(task, "partial_kwargs", None)
        kind = type(task) if mapped is None else task.operator_class
        judged = self._classes.get(kind)
        if judged is None:
            judged = self._classes[kind] = (self._refusal(kind), _is_kubernetes(kind))
        refusal, kubernetes = judged
        if refusal is None and not kubernetes and mapped is None:
            self._harmless.add(kind)
        if refusal is not None:
            findings.append(self.find(OPERATOR, refusal, task.task_id))
        if kubernetes and self._kubernetes:
            given = _Arguments(task)
            for argument in ("namespace", "full_pod_spec"):
                for value in given.of(argument):
                    pod = getattr(value, "metadata", None)
                    name = value if pod is None else pod.namespace
                    self._check_kubernetes_namespace(task, name, findings)
            for argument in ("cluster_context", "cluster_name"):
                for name in given.of(argument):
                    self._check_kubernetes_cluster(task, name, findings)

    def _refusal(self, kind: type) -> str | None:
        """What is wrong with an operator. Cached: it is the same for every task of the class."""
        names = [
            name
            for base in kind.__mro__[:-1]
            for name in (base.__name__, f"{base.__module__}.{base.__qualname__}")
        ]

        def fits(patterns: Iterable[str]) -> str | None:
            return next((p for p in patterns if any(fnmatchcase(name, p) for name in names)), None)

        shown = _quote(kind.__name__)
        if (pattern := fits(self._operators_denied)) is not None:
            return f"operator {shown} is denied by {_quote(pattern)}; use another operator"
        if self._operators_allowed and fits(self._operators_allowed) is None:
            return f"operator {shown} is not allowed; use one of: {_list(self._operators_allowed)}"
        return None

    def _check_kubernetes_namespace(self, task: Any, name: Any, findings: list[Finding]) -> None:
        if wrong := _outside(name, self._kubernetes_namespaces):
            message = f"Kubernetes namespace {wrong}"
            findings.append(self.find(KUBERNETES_NAMESPACE, message, task.task_id))

    def _check_kubernetes_cluster(self, task: Any, name: Any, findings: list[Finding]) -> None:
        if wrong := _outside(name, self._kubernetes_clusters):
            message = f"Kubernetes cluster {wrong}"
            findings.append(self.find(KUBERNETES_CLUSTER, message, task.task_id))


class _Arguments:
    """What an operator was given, also where it is mapped."""

    def __init__(self, task: Any) -> None:
        partial = getattr(task, "partial_kwargs", None)
        self._fixed = task.__dict__ if partial is None else partial
        self._varying = getattr(getattr(task, "expand_input", None), "value", None)

    def of(self, name: str) -> list[Any]:
        """Every value that the argument takes."""
        values = [self._fixed.get(name)]
        if isinstance(self._varying, dict):
            each = self._varying.get(name)
            values += each if isinstance(each, (list, tuple)) else [each]
        elif isinstance(self._varying, (list, tuple)):
            values += [one.get(name) for one in self._varying if isinstance(one, dict)]
        return [value for value in values if value is not None]


def _outside(name: Any, allowed: tuple[str, ...]) -> str:
    """What is wrong with the name of something in Kubernetes; empty where nothing is.

    What is not given is what the shard's own configuration says, which is not the author's choice.
    """
    if not allowed or name is None or name in allowed:
        return ""
    known = isinstance(name, str) and "{{" not in name
    wrong = "is not allowed" if known else "is known only at run time and cannot be checked"
    return f"{_quote(name)} {wrong}; use one of: {_list(allowed)}"


def one_line(text: Any, most: int) -> str:
    """Text without line breaks, shortened."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _is_unset(task: Any, name: str) -> bool:
    """Whether the author of a task, which has the value that Airflow gives, left it to Airflow.

    Operators remember the arguments that they were made with. Mapped ones do not: there, the value
    that Airflow would give counts as unset.
    """
    given = getattr(task, "_BaseOperator__init_kwargs", None)
    return given is None or name not in given


def _is_kubernetes(kind: type) -> bool:
    return any("Kubernetes" in base.__name__ for base in kind.__mro__)


def _words(declared: dict[str, Any], name: str) -> tuple[str, ...]:
    words = declared.get(name) or ()
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{name} is no list of texts")
    return tuple(words)


def _number(declared: dict[str, Any], name: str) -> int | None:
    number = declared.get(name)
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{name} is {number!r}, which is no count")
    return number


def _seconds(declared: dict[str, Any], name: str) -> timedelta | None:
    seconds = _number(declared, name)
    try:
        return timedelta(seconds=seconds) if seconds else None
    except OverflowError:
        raise ValueError(f"{name} is {seconds}, which is too long") from None


def _least(value: timedelta | None, most: timedelta | None) -> timedelta | None:
    return value if value is None or most is None else min(value, most)


def _quote(text: Any) -> str:
    return repr(one_line(text, _TEXT_MAX)) if isinstance(text, str) else one_line(text, _TEXT_MAX)


def _list(words: Iterable[str]) -> str:
    words = list(words)
    shown = ", ".join(_quote(word) for word in words[:_SHOWN_MAX])
    more = len(words) - _SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _tags(missing: list[str]) -> str:
    return "required tag is" if len(missing) == 1 else "required tags are"
