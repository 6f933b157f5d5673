"""Writes to a file, as JSON, what Airflow itself makes of schedules: serialized, and the runs that they give."""

import datetime as dt
import json
import pathlib
import sys

import pendulum
from airflow.sdk import DAG, Asset
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import (
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from dateutil.relativedelta import relativedelta

HOUR = dt.timedelta(hours=1)
SCHEDULES = {
    "every minute": CronTriggerTimetable("* * * * *", timezone="UTC"),
    "minutes of each hour, Berlin": CronTriggerTimetable("*/20 * * * *", timezone="Europe/Berlin"),
    "half past, Adelaide": CronTriggerTimetable("30 * * * *", timezone="Australia/Adelaide"),
    "night, Berlin": CronTriggerTimetable("30 2 * * *", timezone="Europe/Berlin"),
    "every two hours, New York": CronTriggerTimetable("0 */2 * * *", timezone="America/New_York"),
    "with an interval": CronTriggerTimetable("15 6 * * 1-5", timezone="UTC", interval=24 * HOUR),
    "first and Mondays": CronTriggerTimetable("0 5 1 * 1", timezone="UTC"),
    "Sundays": CronTriggerTimetable("0 5 * * 7", timezone="UTC"),
    "names": CronTriggerTimetable("0 5 * jan-dec sun,wed", timezone="UTC"),
    "leap days": CronTriggerTimetable("0 0 29 2 *", timezone="UTC"),
    "data, hourly": CronDataIntervalTimetable("@hourly", timezone="UTC"),
    "data, quarterly": CronDataIntervalTimetable("@quarterly", timezone="UTC"),
    "data, weekly, Berlin": CronDataIntervalTimetable("@weekly", timezone="Europe/Berlin"),
    "data, night, Berlin": CronDataIntervalTimetable("30 2 * * *", timezone="Europe/Berlin"),
    "several": MultipleCronTriggerTimetable("0 5 * * *", "30 7,19 * * *", timezone="UTC"),
    "delta": DeltaTriggerTimetable(dt.timedelta(minutes=95)),
    "delta with an interval": DeltaTriggerTimetable(dt.timedelta(hours=36), interval=HOUR),
    "data, delta": DeltaDataIntervalTimetable(dt.timedelta(minutes=7)),
    "fixed offset": CronTriggerTimetable("0 3 * * *", timezone=pendulum.fixed_timezone(19800)),
}
OTHERS = {
    "manual": None,
    "once": "@once",
    "continuous": "@continuous",
    "asset": [Asset("s3://x")],
    "six fields": CronTriggerTimetable("0 0 * * * 30", timezone="UTC"),
    "months": DeltaDataIntervalTimetable(relativedelta(months=1)),
}
# Weeks around the ends of summer time, and a start that is on no boundary.
STARTS = [
    pendulum.datetime(2026, 3, 1, 0, 7, tz="UTC"),
    pendulum.datetime(2026, 10, 20, 11, 3, tz="UTC"),
]


def micros(time):
    return round(time.timestamp() * 1_000_000)


def serialized(schedule, **arguments):
    max_active = {"max_active_runs": 1} if schedule == "@continuous" else {}
    dag = DAG("x", schedule=schedule, start_date=STARTS[0], **max_active, **arguments)
    return DagSerialization.to_dict(dag)["dag"]


def runs(timetable, start):
    timetable, last, found = coerce_to_core_timetable(timetable), None, []
    restriction = TimeRestriction(earliest=start, latest=None, catchup=True)
    for _ in range(600):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        last = info.data_interval
        if found and info.run_after > start.add(weeks=5) and len(found) >= 6:
            break
        found.append([micros(info.logical_date), micros(info.run_after), micros(last.end)])
    return found


answer = {
    "schedules": [
        {"name": name, "timetable": serialized(t)["timetable"], "runs": [runs(t, s) for s in STARTS]}
        for name, t in SCHEDULES.items()
    ],
    "others": {name: serialized(s)["timetable"] for name, s in OTHERS.items()},
    "catchup": [serialized("@daily", catchup=c).get("catchup") for c in (False, True)],
    "start": [serialized("@daily").get("start_date"), micros(STARTS[0])],
}
pathlib.Path(sys.argv[1]).write_text(json.dumps(answer))
