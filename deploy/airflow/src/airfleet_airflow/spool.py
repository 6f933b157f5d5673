"""What does not keep to the rules, left for the agent.

One file a DAG, `<state>/violations/<hash of the dag_id>.jsonl`, one JSON object a line and
finding. It is state, not a log: a parse of the DAG replaces its file, and a DAG that keeps to the
rules again has none. So a crash loses at most what the next parse writes again, nothing has to be
rotated, and the agent may read as often or as seldom as it likes.

Invariants: a file appears whole or not at all; there are never more than `FILES_MAX`, each with at
most `LINES_MAX` lines, and the file `overflow` says when something was left out. A folder that
cannot be written costs the report, never a DAG.

The README tells the agent's side of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airfleet_airflow import files
from airfleet_airflow.rules import Finding, one_line

log = logging.getLogger("airfleet.guardrails")

FOLDER = "violations"
FILES_MAX = 5_000
LINES_MAX = 20
MESSAGE_MAX = 500
"""Characters."""
REFRESH_S = 60.0
"""A file whose findings stay the same is written at most this often."""
KEEP_S = 24 * 3600.0
"""A file that nobody refreshed for so long is removed."""
SWEEP_S = 60.0
"""How often what belongs to nobody any more is looked for."""
LIST_S = 5.0
"""How long a process believes what it knows of the folder."""

_Key = tuple[Any, Any]
_Line = dict[str, Any]

_PASSING = frozenset({"first_seen", "last_seen", "count", "manifest_revision"})
_SUFFIX = ".jsonl"
_SWEPT = ".swept"
_OVERFLOW = "overflow"


@dataclass(frozen=True)
class Subject:
    """A DAG that something was found of."""

    dag_id: str
    namespace: str
    file: str
    """Below the folder of DAG files."""
    revision: int
    """Of the manifest."""


class Spool:
    """The folder in which findings lie."""

    def __init__(self, state: str, dags: str) -> None:
        self._folder = os.path.join(state, FOLDER)
        self._dags = dags
        self._names: set[str] = set()
        self._listed_at = float("-inf")
        self._complained = False

    def settle(self, subject: Subject, findings: Sequence[Finding]) -> None:
        """Makes the folder say of a DAG what was just found, which may be nothing."""
        self._look()
        name = hashlib.blake2b(subject.dag_id.encode(), digest_size=16).hexdigest() + _SUFFIX
        try:
            if findings:
                self._write(name, subject, findings)
            elif name in self._names:
                self._names.discard(name)
                os.unlink(os.path.join(self._folder, name))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._complain(error)

    def holds_any(self) -> bool:
        """Whether there are findings of any DAG; where not, there is nothing to take back."""
        self._look()
        return bool(self._names)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._listed_at < LIST_S:
            return
        self._listed_at = now
        try:
            found = os.listdir(self._folder)
        except FileNotFoundError:
            self._names = set()
            return
        except OSError as error:
            self._complain(error)
            return
        self._names = {name for name in found if name.endswith(_SUFFIX)}
        if found and self._due():
            self._sweep()

    def _write(self, name: str, subject: Subject, findings: Sequence[Finding]) -> None:
        path = os.path.join(self._folder, name)
        if name not in self._names and len(self._names) >= FILES_MAX:
            files.replace(os.path.join(self._folder, _OVERFLOW), b"")
            return
        before = {_key(line): line for line in _lines(path)} if name in self._names else {}
        omitted = max(0, len(findings) - LINES_MAX)
        now = _now()
        lines: dict[_Key, _Line] = {}
        for finding in findings[:LINES_MAX]:
            line = _line(subject, finding)
            old = before.get(_key(line), {})
            count = old.get("count")
            line["first_seen"] = old.get("first_seen") or now
            line["last_seen"] = now
            line["count"] = count + 1 if isinstance(count, int) else 1
            line["omitted"] = omitted
            lines[_key(line)] = line
        if _say_the_same(before, lines) and time.time() - os.stat(path).st_mtime < REFRESH_S:
            return
        text = "".join(json.dumps(line) + "\n" for line in lines.values())
        files.replace(path, text.encode())
        self._names.add(name)

    def _due(self) -> bool:
        """Whether the folder was not swept for long; whoever asks first does it."""
        marker = os.path.join(self._folder, _SWEPT)
        try:
            if time.time() - os.stat(marker).st_mtime < SWEEP_S:
                return False
        except OSError:
            pass
        try:
            with open(marker, "a"):
                os.utime(marker)
        except OSError:
            return False
        return True

    def _sweep(self) -> None:
        """Removes what nobody refreshes any more: of DAGs that are gone, of killed processes."""
        for folder in (self._folder, os.path.dirname(self._folder)):
            files.remove_abandoned(folder)
        for name in (*self._names, _OVERFLOW):
            path = os.path.join(self._folder, name)
            with contextlib.suppress(OSError):
                kept = time.time() - os.stat(path).st_mtime < KEEP_S
                if kept and name != _OVERFLOW:
                    file = next((line.get("file") for line in _lines(path)), None)
                    kept = isinstance(file, str) and self._exists(file)
                if not kept:
                    os.unlink(path)
        self._names = {name for name in os.listdir(self._folder) if name.endswith(_SUFFIX)}

    def _exists(self, file: str) -> bool:
        # A module in an archive is named as if the archive were a folder.
        archive, inside, _ = file.partition(".zip/")
        return os.path.exists(os.path.join(self._dags, archive + ".zip" if inside else file))

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning("violations are not reported: %s; make %s writable", error, self._folder)


def _line(subject: Subject, finding: Finding) -> _Line:
    return {
        "code": finding.code,
        "mode": finding.mode,
        "action": finding.action,
        "namespace": subject.namespace,
        "dag_id": subject.dag_id,
        "task_id": finding.task_id,
        "message": one_line(finding.message, MESSAGE_MAX),
        "file": subject.file,
        "manifest_revision": subject.revision,
    }


def _lines(path: str) -> list[_Line]:
    """The lines of a file; none of what is broken."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except (OSError, ValueError):
        return []
    return [line for line in lines if isinstance(line, dict)]


def _key(line: _Line) -> _Key:
    return line.get("code"), line.get("task_id")


def _say_the_same(before: dict[_Key, _Line], after: dict[_Key, _Line]) -> bool:
    def lasting(lines: dict[_Key, _Line]) -> list[_Line]:
        return [{k: v for k, v in line.items() if k not in _PASSING} for line in lines.values()]

    return lasting(before) == lasting(after)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
