"""Cron expressions with hashed offsets: same intervals, other minutes."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from croniter import croniter

from airfleet_airflow.smoothing import offset, smooth, smooth_all, spread
from airfleet_airflow.smoothing.cron import PRESETS

START = datetime(2026, 2, 20)
END = datetime(2026, 5, 10)
RUNS_MAX = 300
WORKFLOWS = Path(__file__).parents[3] / "examples" / "fleet" / "workflows.csv"


def fires(cron: str, start: datetime = START, end: datetime = END) -> list[datetime]:
    turns = croniter(cron, start - timedelta(seconds=1))
    found: list[datetime] = []
    while (at := turns.get_next(datetime)) < end and len(found) < RUNS_MAX:
        found.append(at)
    return found


def shift_of(cron: str, smoothed: str) -> timedelta:
    """By how much the second is later; fails where not every run is later by just that."""
    before, after = fires(cron), fires(smoothed)
    # At the edges one of them may have a run more.
    after = [at for at in after if at >= before[0]]
    count = min(len(before), len(after))
    assert count > 3 or count == len(before)
    shifts = {late - early for early, late in zip(before[:count], after[:count], strict=True)}
    assert len(shifts) == 1, f"{cron} -> {smoothed}: {shifts}"
    return shifts.pop()


CRONS = [
    *("0 6 * * *", "30 8 * * 1-5", "*/15 9-17 * * 1-5", "*/5 * * * *", "0 * * * *", "30 * * * 1"),
    *("15,45 8-18 * * 1-5", "45 */6 * * *", "58 9 * * Mon", "59 23 * * *", "0 8 1-7 * 1"),
    *("0 0 1 * *", "0 7 3-10 * ?", "@daily", "@hourly", "@weekly", "0 7,19 * * *", "5 4 * * sun"),
    *("*/7 * * * *", "10-20/5 3 * * *", "* * * * *", "0 0,23 * * *", "30 * * 3 *"),
    "0/20 0-22/2 * * *",
]


@pytest.mark.parametrize("cron", CRONS)
def test_every_interval_stays_as_it_is(cron: str) -> None:
    gaps = [late - early for early, late in pairwise(fires(PRESETS.get(cron, cron)))]
    shifts = set()
    for number in range(12):
        shift = shift_of(PRESETS.get(cron, cron), smooth(cron, f"dag-{number}"))
        assert timedelta() <= shift < timedelta(hours=1)
        assert not gaps or shift < min(gaps)
        shifts.add(shift)
    if cron not in ("59 23 * * *", "* * * * *"):
        assert len(shifts) > 1, "nothing was spread"


def test_every_interval_of_any_schedule_stays_as_it_is() -> None:
    random_ = random.Random(7)  # noqa: S311

    def field(count: int) -> str:
        values = sorted(random_.sample(range(count), random_.choice([1, 1, 1, 2, 3])))
        step = random_.choice([2, 3, 5, 10, 15])
        low = random_.randrange(count)
        return random_.choice(
            ["*", ",".join(map(str, values)), f"*/{step}", f"{low}-{count - 1}/{step}"]
        )

    for number in range(150):
        days = random_.choice(["* * *", "* * 1-5", "1 * *", "* * 0", "*/2 * *"])
        cron = f"{field(60)} {field(24)} {days}"
        max_shift = timedelta(minutes=random_.choice([1, 10, 60, 240]))
        smoothed = smooth(cron, f"dag-{number}", max_shift=max_shift)
        assert timedelta() <= shift_of(cron, smoothed) < max_shift, cron


def test_it_is_the_same_everywhere_and_always() -> None:
    # Changing these moves the schedules of everybody who uses them.
    assert offset("payments__daily", 60) == 37
    assert smooth("0 6 * * *", "payments__daily") == "37 6 * * *"
    assert smooth("0 6 * * *", "payments__hourly") == "57 6 * * *"
    assert spread("payments__daily", "@daily") == "37 6 * * *"


def test_a_shift_is_as_large_as_allowed() -> None:
    assert smooth("0 6 * * *", "x", max_shift=timedelta()) == "0 6 * * *"
    shifted = {smooth("0 6 * * *", f"{n}", max_shift=timedelta(minutes=3)) for n in range(50)}
    assert shifted == {"0 6 * * *", "1 6 * * *", "2 6 * * *"}
    # Never into the next day, which may not be a day on which it runs.
    assert all(smooth("50 23 * * 5", f"{n}").endswith(" 23 * * 5") for n in range(50))


@pytest.mark.parametrize("cron", ["", "0 6 * *", "61 6 * * *", "@never", "nonsense"])
def test_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        smooth(cron, "x")


SPREAD = {
    "@hourly": timedelta(hours=1),
    "@daily": timedelta(days=1),
    "@weekly": timedelta(days=7),
    timedelta(minutes=1): timedelta(minutes=1),
    timedelta(minutes=15): timedelta(minutes=15),
    timedelta(minutes=30): timedelta(minutes=30),
    timedelta(hours=1): timedelta(hours=1),
    timedelta(hours=6): timedelta(hours=6),
    timedelta(hours=12): timedelta(hours=12),
    timedelta(days=1): timedelta(days=1),
    timedelta(days=7): timedelta(days=7),
}


@pytest.mark.parametrize(("interval", "gap"), SPREAD.items())
def test_a_spread_schedule_has_its_interval(interval: str | timedelta, gap: timedelta) -> None:
    first = set()
    for number in range(20):
        times = fires(spread(f"dag-{number}", interval))
        assert {late - early for early, late in pairwise(times)} == {gap}
        first.add(times[0])
    assert len(first) > 1 or gap == timedelta(minutes=1)


@pytest.mark.parametrize(("preset", "runs"), [("@monthly", 12), ("@quarterly", 4), ("@yearly", 1)])
def test_rare_schedules_have_their_number_of_runs(preset: str, runs: int) -> None:
    crons = {spread(f"dag-{number}", preset) for number in range(20)}
    assert len(crons) > 10
    for cron in crons:
        assert len(fires(cron, datetime(2026, 1, 1), datetime(2027, 1, 1))) == runs


def test_a_spread_schedule_keeps_to_hours() -> None:
    for preset in ("@daily", "@weekly", "@monthly", "@quarterly", "@yearly"):
        hours = {int(spread(f"{n}", preset, hours=(1, 5)).split()[1]) for n in range(60)}
        assert hours == {1, 2, 3, 4}
    assert spread("x", "@daily", seed="1") != spread("x", "@daily", seed="2")


@pytest.mark.parametrize(
    "interval",
    [timedelta(minutes=7), timedelta(minutes=90), timedelta(seconds=30), timedelta(days=2), "0 6"],
)
def test_what_no_expression_can_say_is_refused(interval: str | timedelta) -> None:
    with pytest.raises(ValueError, match="interval"):
        spread("x", interval)


def test_hours_that_are_none_are_refused() -> None:
    for hours in ((5, 5), (5, 1), (-1, 3), (0, 25)):
        with pytest.raises(ValueError, match="hours"):
            spread("x", "@daily", hours=hours)


def real_schedules() -> dict[str, str]:
    with WORKFLOWS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["schedule_kind"] == "cron"]
    # Two of them have a sixth field, which croniter takes for seconds: sixty runs in a minute that
    # nobody meant. Here it is left out.
    return {
        f"{row['environment']}/{row['project']}.{row['workflow']}": " ".join(
            row["schedule"].split()[:5]
        )
        for row in rows
    }


def busiest(crons: Iterable[str]) -> int:
    """Runs in the busiest minute of three days that have much to do."""
    load: Counter[datetime] = Counter()
    for cron in crons:
        for day in (datetime(2026, 4, 1), datetime(2026, 3, 2), datetime(2026, 3, 7)):
            load.update(fires(cron, day, day + timedelta(days=1)))
    return max(load.values())


def test_real_schedules_together_are_five_times_smoother() -> None:
    crons = real_schedules()
    assert len(crons) == 128
    smoothed = smooth_all(crons)
    assert list(smoothed) == list(crons)
    for dag_id, cron in crons.items():
        if len(fires(cron)) > 1:
            assert timedelta() <= shift_of(cron, smoothed[dag_id]) < timedelta(hours=1)
    assert busiest(crons.values()) == 17
    assert busiest(smoothed.values()) * 5 <= 17


def test_together_does_not_depend_on_the_order() -> None:
    crons = real_schedules()
    turned = dict(reversed(crons.items()))
    assert smooth_all(turned) == smooth_all(crons)
    assert smooth_all({}) == {}


def test_minutes_are_taken_evenly() -> None:
    smoothed = smooth_all({f"dag-{number}": "0 6 * * *" for number in range(120)})
    assert set(Counter(smoothed.values()).values()) == {2}
