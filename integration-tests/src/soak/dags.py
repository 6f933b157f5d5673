"""Six kinds of DAG whose tasks leave a line outside of Airflow when they begin and when they end."""

import os
import time
from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

START = pendulum.from_timestamp(AT)  # noqa: F821: put in before it is delivered
RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=3)}


def mark(what, ti):
    """One line, in one write."""
    fields = [os.environ["SHARD"], ti.dag_id, ti.run_id, ti.task_id, ti.map_index]
    line = "\t".join(map(str, [*fields, ti.try_number, what])) + "\n"
    file = os.open(os.environ["SOAK_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def work(ti, seconds=0, fails_first=False, **_):
    """Takes a while; fails the first time where it is told to."""
    mark("began", ti)
    time.sleep(seconds)
    if fails_first and ti.try_number == 1:
        raise RuntimeError("the first try fails")
    mark("ended", ti)
    return [1, 2, 3]


def task(task_id, **kwargs):
    """A task that works."""
    return PythonOperator(task_id=task_id, python_callable=work, op_kwargs=kwargs)


def dag(name, schedule, depends_on_past=False, **kwargs):
    """A DAG that runs as soon as it is there."""
    return DAG(
        f"pay.{name}",
        schedule=schedule,
        start_date=START,
        is_paused_upon_creation=False,
        default_args={**RETRIES, "depends_on_past": depends_on_past},
        **kwargs,
    )


def every(cron):
    """At these moments."""
    return CronTriggerTimetable(cron, timezone="UTC")


with dag("minutely", every("* * * * *"), catchup=True, max_active_runs=4):
    task("work")

by_interval = CronDataIntervalTimetable("*/2 * * * *", timezone="UTC")
with dag("chained", by_interval, depends_on_past=True, catchup=True):
    task("first") >> task("second")

with dag("latest", every("* * * * *"), catchup=False, max_active_runs=4):
    task("work")

with dag("mapped", every("*/2 * * * *"), catchup=True):
    numbers = task("numbers")
    each = PythonOperator.partial(task_id="each", python_callable=work).expand(
        op_kwargs=numbers.output.map(lambda number: {"seconds": number / 10})
    )
    each >> task("flaky", fails_first=True)

with dag("manual", None, catchup=False, max_active_runs=4):
    task("work")

with dag("long", None, catchup=False, max_active_runs=2):
    task("long", seconds=SECONDS) >> task("after")  # noqa: F821: likewise
