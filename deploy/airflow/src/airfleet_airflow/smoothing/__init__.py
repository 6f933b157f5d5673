"""Schedules that do not all begin at the full hour.

People write `0 6 * * *`, all of them, and at six o'clock every scheduler, database and worker has a
bad minute. Two ways out, both deterministic, both without any state:

- `smooth`, `smooth_all` and `spread` give another cron expression, with offsets that are hashed
  from the dag_id.
- `JitteredCronTriggerTimetable` and `JitteredCronDataIntervalTimetable` keep the expression, the
  logical dates and the data intervals, and only let each run begin later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airfleet_airflow.smoothing.cron import offset, smooth, smooth_all, spread

if TYPE_CHECKING:
    from airfleet_airflow.smoothing.timetables import (
        JitteredCronDataIntervalTimetable,
        JitteredCronTriggerTimetable,
    )

__all__ = [
    "JitteredCronDataIntervalTimetable",
    "JitteredCronTriggerTimetable",
    "offset",
    "smooth",
    "smooth_all",
    "spread",
]


def __getattr__(name: str) -> Any:
    # Late: the timetables need Airflow's own, which cost more than a cron expression should.
    if name.startswith("Jittered"):
        from airfleet_airflow.smoothing import timetables

        return getattr(timetables, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
