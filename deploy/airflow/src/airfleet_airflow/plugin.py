"""Makes Airflow know the timetables: it reads only registered ones back from its database."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airfleet_airflow.smoothing.timetables import (
    JitteredCronDataIntervalTimetable,
    JitteredCronTriggerTimetable,
)


class AirfleetPlugin(AirflowPlugin):
    """Registers the timetables."""

    name = "airfleet"
    timetables = [JitteredCronDataIntervalTimetable, JitteredCronTriggerTimetable]  # noqa: RUF012
