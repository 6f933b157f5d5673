#!/usr/bin/env python3
"""Derives the example fleet from workflows.csv: one namespace a project, one YAML file each.

    python3 examples/fleet/derive.py            write the YAML files anew
    python3 examples/fleet/derive.py --check    compare with the files that are there, write nothing

Standard library only, and deterministic: the same table gives the same bytes. Exit code 0 when
the files are written or agree, 1 when `--check` finds a difference or the table cannot be read.

How a namespace follows from its project's rows
-----------------------------------------------
DAGs. A row is a workflow in one environment, and a workflow that is in several has the same dag_id
`<project>.<workflow>` in each. A fleet knows a dag_id once, so 394 rows are 305 DAGs. Where a
dag_id has several rows, the row of the furthest environment counts: production, else test, else
development.

    demand.dags               = distinct dag_ids of the project

Task starts. A DAG that is paused upon creation starts nothing. Otherwise it runs
  - as often as its cron expression fires, averaged over a week (see `Cron.fires_per_week`);
  - once a day where it waits for datasets: the table does not say how often those change;
  - not on a schedule where it has none: such DAGs are started by hand or by others.

    demand.taskStartsPerHour  = ceil(sum(runs per week x tasks) / 168)

Running slots. How long tasks take is not in the table; TASK_MINUTES is an assumption. A run is
taken to do one task after the other: it holds one slot for tasks x TASK_MINUTES, at most a day.
What counts is the busiest hour of the week: the mean number of slots held in it, rounded. A peak by
the minute would reserve a whole slot for a DAG that runs five minutes a day, and such reservations
add up to several times what the fleet ever runs at once. DAGs that do not fire every week stay out
of it: a slot reserved for a monthly run would stand empty for the rest of the month. Dataset runs
have no known hour and add their average over the week.

    demand.runningSlots       = round(busiest hour of cron runs + average of dataset runs)

So most projects reserve no slot, a few one or two, the largest 15; all together 28.

Metadata bytes and parse time are left out. Nothing in the table tells them, and a dimension that is
not declared counts with what the shard's agent measures.

Labels. `business-unit` is the unit of most of the project's rows, as a slug (ties: by alphabet);
`environment` is the furthest that any of its workflows reaches; `gpu` is there where a workflow
asks for a GPU profile. Every unit that has rows in the project owns it, the one with most first.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE = HERE / "workflows.csv"
NAMESPACES = HERE / "namespaces"

ENVIRONMENTS = ("production", "test", "development")  # furthest first
TASK_MINUTES = 5
DATASET_RUNS_PER_WEEK = 7

MINUTES_PER_DAY = 24 * 60
MINUTES_PER_WEEK = 7 * MINUTES_PER_DAY
HOURS_PER_WEEK = 7 * 24

# Airflow's presets, without a time zone: the average over a week does not depend on one.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
NEVER = ("@once", "@continuous", "@none")

SCHEDULE_WORDS = {"cron": "on cron schedules", "dataset": "by dataset", "none": "unscheduled"}
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off")

MONTHS = {
    name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}
WEEKDAYS = {name: n for n, name in enumerate("sun mon tue wed thu fri sat".split())}

# The calendar repeats after 28 years as long as no century year is skipped: 10,227 days, which are
# 1,461 whole weeks, with every pairing of weekday and date as often as it comes.
CYCLE_START = date(2001, 1, 1)
CYCLE_DAYS = 10_227
CYCLE = [CYCLE_START + timedelta(days=n) for n in range(CYCLE_DAYS)]


def field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    """The values that one field of a cron expression stands for."""

    def number(word: str) -> int:
        value = (names or {}).get(word.lower())
        value = int(word) if value is None else value
        if not low <= value <= high:
            raise ValueError(f"{word!r} is not between {low} and {high}")
        return value

    values: set[int] = set()
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        step = int(step_text) if step_text else 1
        if step < 1:
            raise ValueError(f"step {step_text!r} is not positive")
        if span in ("*", "?"):
            first, last = low, high
        elif "-" in span:
            first, last = (number(word) for word in span.split("-", 1))
        else:
            first = number(span)
            last = high if step_text else first
        if first > last:
            raise ValueError(f"{span!r} runs backwards")
        values.update(range(first, last + 1, step))
    return frozenset(values)


@dataclass(frozen=True)
class Cron:
    """When a cron expression fires."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    any_day: bool  # the day field does not restrict
    any_weekday: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Reads five fields or a preset.

        A sixth field that is `*` is taken as a year, as the two such expressions of the table
        (`0 7 3-10 * ? *`) mean it. `?` reads as `*`; weekday 7 is Sunday.
        """
        parts = PRESETS.get(text.strip().lower(), text).split()
        if len(parts) == 6 and parts[5] == "*":
            parts.pop()
        if len(parts) != 5:
            raise ValueError(f"{text!r} is not a cron expression of five fields")
        minute, hour, day, month, weekday = parts
        return cls(
            minutes=field(minute, 0, 59),
            hours=field(hour, 0, 23),
            days=field(day, 1, 31),
            months=field(month, 1, 12, MONTHS),
            weekdays=frozenset(n % 7 for n in field(weekday, 0, 7, WEEKDAYS)),
            any_day=day[0] in "*?",
            any_weekday=weekday[0] in "*?",
        )

    def on(self, day: date) -> bool:
        """Whether it fires on that day. Where both day fields restrict, either one suffices."""
        if day.month not in self.months:
            return False
        by_date = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_date and by_weekday
        return by_date or by_weekday

    def fires_per_week(self) -> Fraction:
        """How often it fires a week, averaged over a full cycle of the calendar. Exact."""
        days = sum(map(self.on, CYCLE))
        return Fraction(days * len(self.minutes) * len(self.hours) * 7, CYCLE_DAYS)

    def minutes_of_week(self) -> Iterator[int]:
        """Minutes of the week, from Sunday 0:00, at which it fires where it fires every week."""
        if not self.any_day or len(self.months) < 12:
            return
        for weekday in sorted(self.weekdays):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    yield weekday * MINUTES_PER_DAY + hour * 60 + minute


@dataclass(frozen=True)
class Workflow:
    """One row of the table."""

    environment: str
    project: str
    name: str
    business_unit: str
    schedule_kind: str
    schedule: str
    tasks: int
    paused: bool
    profile: str

    @property
    def cron(self) -> Cron | None:
        """Its cron schedule; None where it has none or starts paused."""
        unscheduled = self.paused or self.schedule_kind != "cron" or self.schedule.lower() in NEVER
        return None if unscheduled else Cron.parse(self.schedule)

    @property
    def by_dataset(self) -> bool:
        """Whether it runs when datasets change."""
        return self.schedule_kind == "dataset" and not self.paused

    def runs_per_week(self) -> Fraction:
        """Scheduled runs a week."""
        if cron := self.cron:
            return cron.fires_per_week()
        return Fraction(DATASET_RUNS_PER_WEEK if self.by_dataset else 0)

    def run_minutes(self) -> int:
        """How long a run holds its slot."""
        return min(self.tasks * TASK_MINUTES, MINUTES_PER_DAY)


def read_table(path: Path) -> list[Workflow]:
    """The rows of the table."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Workflow(
                environment=row["environment"],
                project=row["project"],
                name=row["workflow"],
                business_unit=row["business_unit"],
                schedule_kind=row["schedule_kind"],
                schedule=row["schedule"].strip(),
                tasks=int(row["tasks"]),
                paused=row["paused_upon_creation"] == "true",
                profile=row["compute_profile"],
            )
            for row in csv.DictReader(file)
        ]


def one_per_dag(rows: Iterable[Workflow]) -> list[Workflow]:
    """One row a dag_id: that of the furthest environment."""
    furthest: dict[str, Workflow] = {}
    for row in sorted(rows, key=lambda row: ENVIRONMENTS.index(row.environment)):
        furthest.setdefault(row.name, row)
    return [furthest[name] for name in sorted(furthest)]


def task_starts_per_hour(dags: Iterable[Workflow]) -> int:
    """Task starts an hour, averaged over a week and rounded up."""
    return ceil(sum((dag.runs_per_week() * dag.tasks for dag in dags), Fraction()) / HOURS_PER_WEEK)


def running_slots(dags: Iterable[Workflow]) -> int:
    """Slots held in the busiest hour of the week; see the head of this file."""
    held = [0] * HOURS_PER_WEEK  # slot minutes, by hour of the week
    by_dataset = Fraction()
    for dag in dags:
        if dag.by_dataset:
            by_dataset += Fraction(DATASET_RUNS_PER_WEEK * dag.run_minutes(), MINUTES_PER_WEEK)
        if cron := dag.cron:
            for start in cron.minutes_of_week():
                for minute in range(start, start + dag.run_minutes()):
                    # What goes on past Saturday goes on in the next week, which is like this one.
                    held[minute % MINUTES_PER_WEEK // 60] += 1
    return floor(Fraction(max(held), 60) + by_dataset + Fraction(1, 2))


def slug(text: str) -> str:
    """`Central Digital` becomes `central-digital`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def render(project: str, rows: list[Workflow]) -> str:
    """The namespace of a project, as YAML."""
    dags = one_per_dag(rows)
    units = Counter(slug(row.business_unit) for row in rows)
    owners = sorted(units, key=lambda unit: (-units[unit], unit))
    labels = {
        "business-unit": owners[0],
        "environment": next(e for e in ENVIRONMENTS if any(row.environment == e for row in rows)),
    }
    if any(dag.profile.startswith("gpu-") for dag in dags):
        labels["gpu"] = '"true"'
    demand = {
        "dags": len(dags),
        "taskStartsPerHour": task_starts_per_hour(dags),
        "runningSlots": running_slots(dags),
    }
    kinds = Counter(dag.schedule_kind for dag in dags)
    words = ", ".join(f"{kinds[k]} {text}" for k, text in SCHEDULE_WORDS.items() if kinds[k])
    tasks = sum(dag.tasks for dag in dags)
    lines = [
        "# Derived from examples/fleet/workflows.csv by examples/fleet/derive.py; do not edit.",
        "apiVersion: airfleet.dev/v1",
        "kind: Namespace",
        "metadata:",
        f"  name: {scalar(project)}",
        "  labels:",
        *(f"    {key}: {value}" for key, value in labels.items()),
        f"  description: {len(dags)} DAGs, {tasks} tasks ({words})",
        "spec:",
        "  owners:",
        *(f"    - {owner}" for owner in owners),
        "  prefixes:",
        f"    - {scalar(project + '.')}",
        "  demand:",
        *(f"    {name}: {amount}" for name, amount in demand.items() if amount),
    ]
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """The text as a YAML scalar, quoted where it could be read as something else."""
    plain = re.fullmatch(r"[a-z][a-z0-9_.-]*", text) and text not in YAML_WORDS
    return text if plain else f'"{text}"'


def derive(rows: list[Workflow]) -> dict[str, str]:
    """File name to content, for every project."""
    projects: dict[str, list[Workflow]] = defaultdict(list)
    for row in rows:
        projects[row.project].append(row)
    for project in projects:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{2,49}", project):
            raise ValueError(f"project {project!r} cannot be the name of a namespace")
    return {f"{project}.yaml": render(project, projects[project]) for project in sorted(projects)}


def differences(wanted: dict[str, str]) -> list[str]:
    """What the folder has differently."""
    have = {path.name: path.read_text(encoding="utf-8") for path in NAMESPACES.glob("*.yaml")}
    found = []
    for name in sorted(wanted.keys() | have.keys()):
        if name not in have:
            found.append(f"{name} is missing")
        elif name not in wanted:
            found.append(f"{name} belongs to no project")
        elif have[name] != wanted[name]:
            found.append(f"{name} differs")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    parser = argparse.ArgumentParser(
        description="Derives the example fleet from workflows.csv: one namespace a project.",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the files, write nothing"
    )
    options = parser.parse_args(arguments)
    try:
        wanted = derive(read_table(TABLE))
    except (OSError, KeyError, ValueError) as error:
        print(f"cannot derive the fleet from {TABLE}: {error}", file=sys.stderr)
        return 1
    found = differences(wanted)
    if options.check:
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print(
                "run `python3 examples/fleet/derive.py` and commit what it writes", file=sys.stderr
            )
            return 1
        print(f"{len(wanted)} namespaces agree with workflows.csv")
        return 0
    NAMESPACES.mkdir(exist_ok=True)
    for path in NAMESPACES.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (NAMESPACES / name).write_text(content, encoding="utf-8")
    print(f"{len(wanted)} namespaces written, {len(found)} of them new or changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
