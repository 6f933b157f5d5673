"""Cron timetables whose runs begin later by a time that is hashed from a seed.

Logical dates and data intervals are those of the cron expression, as if nothing were jittered: only
`run_after` moves. All runs of a DAG move alike, so the time between two of them stays as it is, and
a DAG can take up or give up jitter without a run lost or doubled.

Everything else is Airflow's own timetable. One thing has to be ours: with `catchup=False` Airflow
skips to the latest run that is due *now*, and a run that still waits for its jitter is not due.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airfleet_airflow.smoothing.cron import HOUR, offset

MAX_JITTER = timedelta(days=1)


class _Jittered:
    """Delays what the cron timetable beside it in a class says."""

    _seed: str
    _max_jitter: timedelta

    @property
    def jitter(self) -> timedelta:
        """How much later each run begins: whole seconds, at most `max_jitter`."""
        return timedelta(seconds=offset(self._seed, 1 + int(self._max_jitter.total_seconds())))

    @property
    def summary(self) -> str:
        """The expression and the delay, for the console."""
        return f"{super().summary} +{self.jitter}"  # type: ignore[misc]

    def validate(self) -> None:
        """Refuses what cannot be meant."""
        super().validate()  # type: ignore[misc]
        if not isinstance(self._seed, str) or not self._seed:
            raise AirflowTimetableInvalid("seed is empty; give the dag_id")
        if not timedelta() <= self._max_jitter <= MAX_JITTER:
            raise AirflowTimetableInvalid(
                f"max_jitter is {self._max_jitter}; it must be between 0 and {MAX_JITTER}"
            )

    def serialize(self) -> dict[str, Any]:
        """What the database keeps: the cron timetable's own, and the jitter's."""
        kept: dict[str, Any] = super().serialize()  # type: ignore[misc]
        return {**kept, "seed": self._seed, "max_jitter": self._max_jitter.total_seconds()}

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run of the cron timetable, later by the jitter."""
        info = self._undelayed(last_automated_data_interval, restriction)
        return None if info is None else info._replace(run_after=info.run_after + self.jitter)

    def _undelayed(
        self, last: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        return super().next_dagrun_info(  # type: ignore[misc]
            last_automated_data_interval=last, restriction=restriction
        )

    def _now(self) -> Any:
        """The time by which runs are due: what waits for its jitter is not."""
        return _utcnow() - self.jitter

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.serialize() == self.serialize()

    def __hash__(self) -> int:
        return hash((self._seed, self._max_jitter, self.summary))


class JitteredCronTriggerTimetable(_Jittered, CronTriggerTimetable):
    """A `CronTriggerTimetable` whose runs begin later by up to `max_jitter`.

    `seed` decides by how much; the dag_id is a good one. What else Airflow's timetable takes may be
    given too.
    """

    def __init__(
        self,
        cron: str,
        *,
        seed: str,
        max_jitter: timedelta = HOUR,
        timezone: Any = "UTC",
        **airflow: Any,
    ) -> None:
        super().__init__(cron, timezone=timezone, **airflow)
        self._seed = seed
        self._max_jitter = max_jitter

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JitteredCronTriggerTimetable:
        """Reads back what `serialize` wrote."""
        plain = CronTriggerTimetable.deserialize(data)
        airflow = {"interval": plain._interval}
        if hasattr(plain, "_run_immediately"):
            airflow["run_immediately"] = plain._run_immediately
        return cls(
            plain._expression,
            seed=data["seed"],
            max_jitter=timedelta(seconds=data["max_jitter"]),
            timezone=plain._timezone,
            **airflow,
        )

    def _undelayed(
        self, last: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        if restriction.catchup:
            return super()._undelayed(last, restriction)
        # The latest that is due, unless the next of all of them comes later.
        start = self._align_to_prev(self._now())
        after = super()._undelayed(last, restriction._replace(catchup=True, latest=None))
        if after is not None:
            start = max(start, after.data_interval.end)
        if restriction.earliest is not None:
            start = max(start, self._align_to_next(restriction.earliest))
        if restriction.latest is not None and restriction.latest < start:
            return None
        return DagRunInfo.interval(start - self._interval, start)


class JitteredCronDataIntervalTimetable(_Jittered, CronDataIntervalTimetable):
    """A `CronDataIntervalTimetable` whose runs begin later by up to `max_jitter`.

    `seed` decides by how much; the dag_id is a good one.
    """

    def __init__(
        self, cron: str, *, seed: str, max_jitter: timedelta = HOUR, timezone: Any = "UTC"
    ) -> None:
        super().__init__(cron, timezone)
        self._seed = seed
        self._max_jitter = max_jitter

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JitteredCronDataIntervalTimetable:
        """Reads back what `serialize` wrote."""
        plain = CronDataIntervalTimetable.deserialize(data)
        return cls(
            plain._expression,
            seed=data["seed"],
            max_jitter=timedelta(seconds=data["max_jitter"]),
            timezone=plain._timezone,
        )

    def _skip_to_latest(self, earliest: Any) -> Any:
        """Start of the latest interval whose run is due."""
        now = self._now()
        start = self._get_prev(now)
        if self._get_next(start) != now:
            start = self._get_prev(start)
        return start if earliest is None else max(start, self._align_to_next(earliest))


def _utcnow() -> Any:
    return pendulum.now("UTC")
