"""The guardrails of this shard as the agent wrote them, and where a file belongs.

Invariant: whoever asks gets the last good guardrails. A file that is missing, half written or
broken changes nothing but a line in the log; where this process never saw a good one, the copy on
disk that another process left stands in for it. `None` is answered only where there never was one.

Must not know what a DAG or a task is.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airfleet_airflow import files
from airfleet_airflow.rules import Rules

log = logging.getLogger("airfleet.guardrails")

VERSION = 1
FOLDER = ".airfleet"
FILE = "guardrails.json"
COPY = "guardrails.last-good.json"
SIZE_MAX = 64 << 20
"""A larger file is taken for broken. Bytes."""
CHECK_EVERY_S = 1.0
"""How long what was read is good without another look at the file."""


class Broken(ValueError):
    """A file that holds no guardrails."""


@dataclass(frozen=True)
class Namespace:
    """A namespace of this shard."""

    name: str
    prefixes: tuple[str, ...]
    rules: Rules

    def owns(self, dag_id: str) -> bool:
        """Whether the dag_id carries a prefix of the namespace."""
        return dag_id.startswith(self.prefixes)


class Guardrails:
    """What the agent wrote."""

    def __init__(self, revision: int, namespaces: Mapping[str, Namespace]) -> None:
        self.revision = revision
        self._namespaces = namespaces
        self._by_prefix = {
            prefix: namespace for namespace in namespaces.values() for prefix in namespace.prefixes
        }
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    @classmethod
    def parse(cls, text: bytes | str) -> Guardrails:
        """Reads the file's text: all of it is good, or it is `Broken`."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Broken(f"no JSON: {error}") from None
        if not isinstance(document, dict):
            raise Broken("no JSON object")
        if document.get("version") != VERSION:
            raise Broken(
                f"version {document.get('version')!r}, and this airfleet-airflow reads {VERSION}; "
                "upgrade it"
            )
        declared = document.get("namespaces")
        if not isinstance(declared, dict):
            raise Broken("namespaces is no object")
        revision = document.get("manifestRevision") or 0
        if not isinstance(revision, int):
            raise Broken("manifestRevision is no number")
        return cls(revision, {name: _namespace(name, it) for name, it in declared.items()})

    def namespace(self, name: str | None) -> Namespace | None:
        """The namespace of that name, where the shard has it."""
        return None if name is None else self._namespaces.get(name)

    def owner(self, dag_id: str) -> Namespace | None:
        """The namespace that owns a dag_id by its prefix."""
        for length in self._lengths:
            if (namespace := self._by_prefix.get(dag_id[:length])) is not None:
                return namespace
        return None


def _namespace(name: str, declared: Any) -> Namespace:
    if not isinstance(declared, dict):
        raise Broken(f"namespace {name} is no object")
    prefixes = declared.get("prefixes")
    if not isinstance(prefixes, list) or not prefixes:
        raise Broken(f"namespace {name} has no list of prefixes")
    if not all(isinstance(prefix, str) and prefix for prefix in prefixes):
        raise Broken(f"namespace {name} has a prefix that is no text")
    try:
        rules = Rules.parse(declared.get("rules"))
    except ValueError as error:
        raise Broken(f"namespace {name}: {error}") from None
    return Namespace(name, tuple(prefixes), rules)


@dataclass(frozen=True)
class Place:
    """Where a DAG file lies."""

    path: str
    """Below the folder of DAG files, as its author knows it: without the release. The whole path
    for a file that lies elsewhere."""
    folder: str | None
    """The folder of the first level, which is the name of a namespace, or of none."""


class Layout:
    """The folder of DAG files and what lies in `.airfleet` in it.

    `<dags>/<namespace>` is a symbolic link to a release,
    `<dags>/.airfleet/releases/<namespace>/<release>`. Airflow names files by either.
    """

    def __init__(self, dags: str, guardrails: str, state: str) -> None:
        self.dags = dags
        self.guardrails = guardrails
        self.state = state
        self._places: dict[str, Place] = {}
        self._roots: tuple[str, ...] = ()

    @classmethod
    def find(cls, environ: Mapping[str, str], dags_folder: Callable[[], str]) -> Layout:
        """The layout that the environment tells; `dags_folder` is asked where it does not."""
        guardrails = environ.get("AIRFLEET_GUARDRAILS") or ""
        beside, name = os.path.split(os.path.dirname(guardrails))
        dags = beside if name == FOLDER else dags_folder()
        guardrails = guardrails or os.path.join(dags, FOLDER, FILE)
        state = environ.get("AIRFLEET_STATE") or os.path.dirname(guardrails)
        return cls(dags, guardrails, state)

    def place(self, path: str) -> Place:
        """Where a file lies that Airflow names so."""
        place = self._places.get(path)
        if place is None:
            if len(self._places) > 10_000:
                self._places.clear()
            place = self._places[path] = self._find(path)
        return place

    def _find(self, path: str) -> Place:
        if not self._roots:
            roots = os.path.normpath(self.dags), os.path.realpath(self.dags)
            self._roots = tuple(dict.fromkeys(root.rstrip("/") + "/" for root in roots))
        # Not followed at first: the link into the release would lead away from the namespace.
        for form in (os.path.normpath(path), os.path.realpath(path)):
            for root in self._roots:
                if form.startswith(root):
                    return self._below(form[len(root) :])
        return Place(path, None)

    def _below(self, path: str) -> Place:
        parts = path.split("/")
        if parts[:2] == [FOLDER, "releases"] and len(parts) > 4:
            parts = [parts[2], *parts[4:]]
        return Place("/".join(parts), parts[0] if len(parts) > 1 else None)


class Source:
    """Guardrails from a file that changes."""

    def __init__(self, path: str, copy: str) -> None:
        self._path = path
        self._copy = copy
        self._good: Guardrails | None = None
        self._looked_at = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._complaint: str | None = None

    def current(self) -> Guardrails | None:
        """The last good guardrails; `None` where there never were any."""
        now = time.monotonic()
        if now - self._looked_at >= CHECK_EVERY_S:
            self._looked_at = now
            self._look()
        return self._good

    def _look(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError as error:
            self._seen = None
            self._keep(f"cannot be read: {error.strerror}")
            return
        signature = (found.st_mtime_ns, found.st_size, found.st_ino)
        if signature == self._seen:
            return
        try:
            text = _read(self._path)
            self._good = Guardrails.parse(text)
        except (OSError, Broken) as error:
            self._seen = signature
            self._keep(str(error))
            return
        self._seen = signature
        self._complaint = None
        self._save(text, found)

    def _keep(self, complaint: str) -> None:
        """Goes on without a good file; tells it once for each reason."""
        if self._good is None:
            self._good = self._saved()
        if complaint == self._complaint:
            return
        self._complaint = complaint
        level, instead = logging.WARNING, "every DAG is allowed"
        if self._good is not None:
            instead = f"those of manifest revision {self._good.revision} hold"
        elif self._seen is None:
            # An Airflow to which no agent came yet, whose every parse is a process of its own.
            level = logging.INFO
        log.log(level, "guardrails %s: %s; %s", self._path, complaint, instead)

    def _saved(self) -> Guardrails | None:
        try:
            return Guardrails.parse(_read(self._copy))
        except FileNotFoundError:
            return None
        except (OSError, Broken) as error:
            log.warning("copy of the last good guardrails %s: %s", self._copy, error)
            return None

    def _save(self, text: bytes, found: os.stat_result) -> None:
        """Leaves a copy, of the same age as its original, for processes that come later."""
        try:
            there = os.stat(self._copy)
            if (there.st_mtime_ns, there.st_size) == (found.st_mtime_ns, found.st_size):
                return
        except OSError:
            pass
        try:
            files.replace(self._copy, text, mtime_ns=found.st_mtime_ns)
        except OSError as error:
            # This process has them in its memory; a later one would have to do without.
            log.info("no copy of the last good guardrails: %s", error)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        text = file.read(SIZE_MAX + 1)
    if len(text) > SIZE_MAX:
        raise Broken(f"larger than {SIZE_MAX} bytes")
    return text
