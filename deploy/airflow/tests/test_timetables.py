"""Timetables with jitter: Airflow's own, but later."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables import interval as airflow_interval
from airflow.timetables import trigger as airflow_trigger
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable
from conftest import Shard

from airfleet_airflow.smoothing import (
    JitteredCronDataIntervalTimetable,
    JitteredCronTriggerTimetable,
    timetables,
)

UTC = "UTC"
PAIRS = [
    pytest.param(JitteredCronTriggerTimetable, CronTriggerTimetable, id="trigger"),
    pytest.param(JitteredCronDataIntervalTimetable, CronDataIntervalTimetable, id="interval"),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The time, for Airflow's timetables and ours."""
    now = [pendulum.datetime(2026, 3, 10, 12)]
    for module, name in (
        (airflow_trigger, "utcnow"),
        (airflow_interval, "utcnow"),
        (timetables, "_utcnow"),
    ):
        monkeypatch.setattr(module, name, lambda: now[0])
    return now


def plain(kind: Any, cron: str, zone: str = UTC) -> Any:
    zoned = pendulum.timezone(zone)
    return kind(cron, timezone=zoned) if kind is CronTriggerTimetable else kind(cron, zoned)


@pytest.mark.parametrize(("jittered", "airflow"), PAIRS)
def test_without_jitter_it_is_airflows_own(jittered: Any, airflow: Any, clock: list[Any]) -> None:
    random_ = random.Random(11)  # noqa: S311
    crons = ["0 6 * * *", "*/20 * * * *", "30 2 * * *", "0 9 * * 1-5", "0 0 1 * *", "15 */5 * * *"]
    compared = 0
    for _ in range(400):
        cron, zone = random_.choice(crons), random_.choice([UTC, "Europe/Berlin"])
        ours = jittered(cron, seed="x", max_jitter=timedelta(), timezone=zone)
        theirs = plain(airflow, cron, zone)
        # Around a change of the clocks, sometimes just when a run is due.
        minutes = random_.choice([random_.randrange(60 * 24 * 60), 60 * 6, 60 * 24 * 20])
        clock[0] = pendulum.datetime(2026, 3, 1).add(minutes=minutes)
        start = pendulum.datetime(2026, 1, 1).add(minutes=random_.randrange(60 * 24 * 120))
        earliest = random_.choice([None, start])
        latest = random_.choice([None, None, clock[0].add(days=random_.randrange(-20, 20))])
        restriction = TimeRestriction(earliest, latest, random_.choice([True, False]))
        last = None
        for _ in range(4):
            asked = {"last_automated_data_interval": last, "restriction": restriction}
            expected = theirs.next_dagrun_info(**asked)
            assert ours.next_dagrun_info(**asked) == expected, (cron, zone, clock, asked)
            compared += expected is not None
            if expected is None:
                break
            last = expected.data_interval
            clock[0] = clock[0].add(minutes=random_.randrange(60 * 24 * 2))
    assert compared > 500


@pytest.mark.parametrize(("jittered", "airflow"), PAIRS)
@pytest.mark.parametrize("catchup", [True, False])
def test_runs_are_later_and_nothing_else(
    jittered: Any, airflow: Any, catchup: bool, clock: list[Any]
) -> None:
    ours = jittered("0 6 * * *", seed="payments__daily")
    theirs = plain(airflow, "0 6 * * *")
    assert timedelta() < ours.jitter <= timedelta(hours=1)
    restriction = TimeRestriction(pendulum.datetime(2026, 3, 1), None, catchup)
    last = None
    for _ in range(5):
        asked = {"last_automated_data_interval": last, "restriction": restriction}
        run, expected = ours.next_dagrun_info(**asked), theirs.next_dagrun_info(**asked)
        assert run.data_interval == expected.data_interval
        assert run.logical_date == expected.logical_date
        assert run.run_after == expected.run_after + ours.jitter
        last = run.data_interval
        clock[0] = clock[0].add(days=1)
    manual = {"run_after": clock[0]}
    assert ours.infer_manual_data_interval(**manual) == theirs.infer_manual_data_interval(**manual)


@pytest.mark.parametrize(("jittered", "_airflow"), PAIRS)
def test_a_run_that_waits_for_its_jitter_hides_none_that_is_due(
    jittered: Any, _airflow: Any, clock: list[Any]
) -> None:
    """With `catchup=False`, the scheduler was away until a minute after six."""
    ours = jittered("0 6 * * *", seed="payments__daily")
    assert ours.jitter > timedelta(minutes=1)
    clock[0] = pendulum.datetime(2026, 3, 10, 6, 1)
    restriction = TimeRestriction(pendulum.datetime(2026, 3, 1), None, False)
    run = ours.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    # Yesterday's, for today's is not due before its jitter is over.
    assert run.run_after == pendulum.datetime(2026, 3, 9, 6) + ours.jitter
    clock[0] = pendulum.datetime(2026, 3, 10, 6) + ours.jitter
    run = ours.next_dagrun_info(
        last_automated_data_interval=run.data_interval, restriction=restriction
    )
    assert run.run_after == clock[0], "and then it is"


def test_seeds_spread() -> None:
    jitters = {
        JitteredCronTriggerTimetable("0 6 * * *", seed=f"dag-{number}").jitter
        for number in range(200)
    }
    assert len(jitters) > 180
    assert min(jitters) < timedelta(minutes=5)
    assert max(jitters) > timedelta(minutes=55)


@pytest.mark.parametrize(
    ("seed", "jitter"),
    [("", timedelta(hours=1)), ("x", timedelta(seconds=-1)), ("x", timedelta(days=2))],
)
def test_what_cannot_be_meant_is_refused(seed: str, jitter: timedelta) -> None:
    with pytest.raises(AirflowTimetableInvalid):
        JitteredCronTriggerTimetable("0 6 * * *", seed=seed, max_jitter=jitter).validate()
    with pytest.raises(AirflowTimetableInvalid):
        JitteredCronDataIntervalTimetable("0 6 * *", seed="x").validate()


DAGS = """
from airfleet_airflow.smoothing import (
    JitteredCronDataIntervalTimetable, JitteredCronTriggerTimetable
)
with DAG("payments__trigger", start_date=START, schedule=JitteredCronTriggerTimetable(
    "0 6 * * *", seed="a", max_jitter=timedelta(minutes=30), timezone="Europe/Berlin",
    interval=timedelta(days=1),
)):
    EmptyOperator(task_id="load")
with DAG("payments__interval", start_date=START, schedule=JitteredCronDataIntervalTimetable(
    "0 6 * * *", seed="b", max_jitter=timedelta(minutes=30)
)):
    EmptyOperator(task_id="load")
"""


def test_airflow_stores_it_and_reads_it_back(shard: Shard) -> None:
    parsed = shard.parse_dag(DAGS)
    assert not parsed.errors
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    for dag in parsed.dags.values():
        stored = Serialized.to_dict(dag)
        timetable = Serialized.from_dict(stored).timetable
        assert type(timetable) is type(dag.timetable)
        assert timetable == dag.timetable
        assert timetable.jitter == dag.timetable.jitter
        assert timetable.summary.startswith("0 6 * * * +0:")
    trigger = parsed.dags["payments__trigger"].timetable
    assert trigger != parsed.dags["payments__interval"].timetable
    other = JitteredCronTriggerTimetable("0 6 * * *", seed="a")
    assert trigger != other
    assert len({trigger, other, JitteredCronTriggerTimetable("0 6 * * *", seed="a")}) == 2
