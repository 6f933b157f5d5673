"""Cron expressions with hashed offsets.

Pure: the same arguments give the same expression, on every machine and in every release of Python
and of this package. Changing the hash would move everybody's schedule, so it never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

from croniter import croniter

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

HOUR = timedelta(hours=1)
_DAY_MINUTES = 24 * 60


def offset(seed: str, below: int) -> int:
    """A number from 0 up to but not including `below`, always the same for a seed."""
    if below < 1:
        raise ValueError(f"below is {below}; there is no offset, it must be at least 1")
    return int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big") % below


def smooth(cron: str, dag_id: str, *, max_shift: timedelta = HOUR) -> str:
    """The same schedule, later by some minutes that are hashed from the dag_id.

    Every run is later by the same time, so every interval between two runs stays as it is, and so
    do the days on which it runs. A run is never so late that the next one would be due, nor on the
    next day. `0 6 * * *` becomes one of `0 6 * * *` to `59 6 * * *`, and `*/15 * * * *` one of
    fifteen.

    Each DAG for itself: where DAGs are many, two of them now and then get the same minute. For
    those that are known together there is `smooth_all`.
    """
    schedule = _Schedule(cron, max_shift)
    return schedule.later(schedule.shifts[offset(dag_id, len(schedule.shifts))])


def smooth_all(crons: Mapping[str, str], *, max_shift: timedelta = HOUR) -> dict[str, str]:
    """Smooths the schedules of many dag_ids together, so that no minute has more than it must.

    Each DAG may be as late as with `smooth`. One after the other, in an order that is hashed from
    the dag_ids, takes the minutes that the fewest others have, whatever days they run on. The same
    DAGs always get the same; one more or less moves some of the others, by minutes.
    """
    load = [0] * _DAY_MINUTES
    smoothed = {}
    for dag_id in sorted(crons, key=lambda dag_id: (offset(dag_id, 1 << 64), dag_id)):
        schedule = _Schedule(crons[dag_id], max_shift)
        # Where several are as good, the hash decides, as it does for a DAG alone.
        first = offset(dag_id, len(schedule.shifts))
        turns = schedule.shifts[first:] + schedule.shifts[:first]

        def cost(shift: int, schedule: _Schedule = schedule) -> tuple[int, int]:
            taken = [load[minute] for minute in schedule.minutes_of_day(shift)]
            return max(taken), sum(taken)

        shift = min(turns, key=cost)
        for minute in schedule.minutes_of_day(shift):
            load[minute] += 1
        smoothed[dag_id] = schedule.later(shift)
    return {dag_id: smoothed[dag_id] for dag_id in crons}


def spread(
    dag_id: str, interval: str | timedelta, *, hours: tuple[int, int] = (0, 24), seed: str = ""
) -> str:
    """A cron expression for something that has to happen this often, no matter exactly when.

    `interval` is a preset (`@hourly`, `@daily`, `@weekly`, `@monthly`, `@quarterly`, `@yearly`) or
    a `timedelta` that divides an hour or a day, or is a week. What happens at most once a day
    happens within `hours`, from the first up to but not including the second. `seed` gives another
    choice.
    """
    first, end = hours
    if not 0 <= first < end <= 24:
        raise ValueError(f"hours is {hours}; it must be two hours of a day, such as (1, 5)")
    key = f"{seed}:{dag_id}" if seed else dag_id
    preset = _preset(interval) if isinstance(interval, timedelta) else interval
    if isinstance(preset, int):
        at = offset(key, preset)
        if preset < 60:
            return f"{_write(range(at, 60, preset), 60)} * * * *"
        return f"{at % 60} {_write(range(at // 60, 24, preset // 60), 24)} * * *"
    if preset == "@hourly":
        return f"{offset(key, 60)} * * * *"
    # One hash for the minute of the day, others for the day, so that these do not go together.
    minute = first * 60 + offset(key, (end - first) * 60)
    at_time = f"{minute % 60} {minute // 60}"
    day = 1 + offset(f"{key}:day", 28)
    if preset in ("@daily", "@midnight"):
        return f"{at_time} * * *"
    if preset == "@weekly":
        return f"{at_time} * * {offset(f'{key}:day', 7)}"
    if preset == "@monthly":
        return f"{at_time} {day} * *"
    if preset == "@quarterly":
        month = 1 + offset(f"{key}:month", 3)
        return f"{at_time} {day} {','.join(str(m) for m in range(month, 13, 3))} *"
    if preset in ("@yearly", "@annually"):
        return f"{at_time} {day} {1 + offset(f'{key}:month', 12)} *"
    raise ValueError(
        f"{interval!r} is no interval; use a preset such as @daily, or a timedelta, "
        "or smooth() for a cron expression"
    )


def _preset(interval: timedelta) -> str | int:
    """The preset of that length; else minutes that divide an hour, or hours that divide a day."""
    seconds = interval.total_seconds()
    minutes = int(seconds // 60)
    if seconds != minutes * 60 or minutes < 1:
        raise ValueError(f"interval is {interval}; it must be whole minutes")
    presets = {60: "@hourly", _DAY_MINUTES: "@daily", 7 * _DAY_MINUTES: "@weekly"}
    if minutes in presets:
        return presets[minutes]
    if (minutes < 60 and 60 % minutes == 0) or (minutes % 60 == 0 and _DAY_MINUTES % minutes == 0):
        return minutes
    raise ValueError(
        f"interval is {interval}; no cron expression repeats so: it must divide an hour or a day, "
        "or be a week"
    )


class _Schedule:
    """A cron expression that can be shifted within a day."""

    def __init__(self, cron: str, max_shift: timedelta) -> None:
        fields = PRESETS.get(cron.strip(), cron).split()
        # Raises what is wrong with it, as Airflow does.
        expanded = croniter(" ".join(fields)).expanded
        self._days = fields[2:]
        self._minutes = _numbers(expanded[0], 60)
        self._hours = _numbers(expanded[1], 24)
        # Every hour of every day.
        self._all_alike = len(self._hours) == 24 and set(fields[2:5]) <= {"*", "?"}
        times = self.minutes_of_day(0)
        # Minutes between the two runs of a day that are closest to each other.
        closest = min((b - a for a, b in pairwise(times)), default=_DAY_MINUTES)
        limit = max(1, int(max_shift.total_seconds()) // 60)
        self.shifts = [s for s in range(min(limit, closest)) if self._is_possible(s)]
        """By how many minutes it can be later; nothing is always possible."""

    def minutes_of_day(self, shift: int) -> list[int]:
        """All times of a day at which it runs when it is later by so much."""
        times = (hour * 60 + minute + shift for hour in self._hours for minute in self._minutes)
        if self._all_alike:
            # The next day's first takes the place of this day's last.
            times = (time % _DAY_MINUTES for time in times)
        return sorted(times)

    def later(self, shift: int) -> str:
        """The expression that is later by so many minutes."""
        times = self.minutes_of_day(shift)
        minutes = sorted({time % 60 for time in times})
        hours = sorted({time // 60 for time in times})
        return " ".join([_write(minutes, 60), _write(hours, 24), *self._days])

    def _is_possible(self, shift: int) -> bool:
        times = self.minutes_of_day(shift)
        # Minutes and hours are combined each with each: all of these must be meant.
        combined = len({time % 60 for time in times}) * len({time // 60 for time in times})
        return times[-1] < _DAY_MINUTES and combined == len(times)


def _numbers(values: Sequence[int | str], count: int) -> list[int]:
    if "*" in values:
        return list(range(count))
    return sorted({int(value) for value in values})


def _write(values: Sequence[int], count: int) -> str:
    """Numbers as a field: `*`, `7-59/15`, `8-18` or `3,4,9`."""
    first, last = values[0], values[-1]
    if len(values) == count:
        return "*"
    if len(values) > 2:
        step = values[1] - first
        if list(values) == list(range(first, last + 1, step)):
            if step == 1:
                return f"{first}-{last}"
            if last + step >= count:
                return f"*/{step}" if first == 0 else f"{first}-{count - 1}/{step}"
            return f"{first}-{last}/{step}"
    return ",".join(str(value) for value in values)
