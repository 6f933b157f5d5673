"""How much smoothing takes from the busiest minute.

    smoothing.py WORKFLOWS.CSV

Takes the cron schedules of real workflows, counts how many begin in each minute of three months, as
are and smoothed, and sees to it that every interval between two runs of a workflow stayed as it
was. Prints JSON: begins in the busiest minute before, after `smooth_all`, and after `smooth` of
each alone.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from croniter import croniter

from airfleet_airflow.smoothing import smooth, smooth_all

BEGIN, END = datetime(2026, 1, 1), datetime(2026, 4, 1)


def main() -> None:
    """Measures, and prints."""
    crons = read(sys.argv[1])
    before = {name: begins(cron) for name, cron in crons.items()}
    together = {name: begins(cron) for name, cron in smooth_all(crons).items()}
    alone = {name: begins(smooth(cron, name)) for name, cron in crons.items()}
    for smoothed in (together, alone):
        for name, times in before.items():
            check(name, times, smoothed[name])
    print(
        json.dumps(
            {
                "schedules": len(crons),
                "before": busiest(before),
                "together": busiest(together),
                "alone": busiest(alone),
            }
        )
    )


def read(path: str) -> dict[str, str]:
    """The schedules, by workflow.

    A few have a sixth field, which croniter takes for seconds: sixty runs within a minute that
    nobody meant. It is left out.
    """
    with open(path) as file:
        rows = [row for row in csv.DictReader(file) if row["schedule_kind"] == "cron"]
    return {
        f"{row['environment']}/{row['project']}.{row['workflow']}": " ".join(
            row["schedule"].split()[:5]
        )
        for row in rows
    }


def begins(cron: str) -> list[datetime]:
    """All begins in the year."""
    turns = croniter(cron, BEGIN - timedelta(seconds=1))
    found = []
    while (at := turns.get_next(datetime)) < END:
        found.append(at)
    return found


def busiest(begins_by_workflow: Mapping[str, list[datetime]]) -> int:
    """Begins in the busiest minute."""
    return max(Counter(at for times in begins_by_workflow.values() for at in times).values())


def check(name: str, before: list[datetime], after: list[datetime]) -> None:
    """Fails where not every run is later by the same time, which keeps every interval."""
    # At the turn of the year one of them may have a run more.
    after = [at for at in after if at >= before[0]]
    assert abs(len(before) - len(after)) <= 1, name
    shifts = {late - early for early, late in zip(before, after, strict=False)}
    assert len(shifts) == 1, (name, shifts)
    assert timedelta() <= shifts.pop() < timedelta(hours=1), name


if __name__ == "__main__":
    main()
