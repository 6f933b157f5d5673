"""Tests of derive.py: python3 -m unittest discover -s examples/fleet"""

import unittest
from dataclasses import replace
from fractions import Fraction

import derive
from derive import Cron, Workflow

ROW = Workflow("production", "proj", "flow", "HQ", "cron", "0 6 * * *", 1, False, "")


class CronTest(unittest.TestCase):
    """How often expressions fire, against figures counted by hand."""

    def assert_per_week(self, text, expected):
        self.assertEqual(Cron.parse(text).fires_per_week(), expected, text)

    def test_whole_weeks(self):
        for text, expected in {
            "* * * * *": 7 * 24 * 60,
            "*/5 * * * *": 7 * 24 * 12,
            "@hourly": 7 * 24,
            "@daily": 7,
            "@weekly": 1,
            "0 5 * * MON-FRI": 5,
            "0 20 * * 7": 1,  # 7 and 0 are both Sunday
            "0 1 * * Tue": 1,
            "15,45 8-18 * * 1-5": 2 * 11 * 5,
            "45 */6 * * *": 4 * 7,
            "5/20 * * * *": 3 * 24 * 7,  # from 5 on, every 20 minutes
        }.items():
            self.assert_per_week(text, expected)

    def test_parts_of_the_year_average_over_all_years(self):
        year = Fraction(1461, 4 * 7)  # weeks
        self.assert_per_week("@monthly", 12 / year)
        self.assert_per_week("@quarterly", 4 / year)
        self.assert_per_week("@yearly", 1 / year)
        self.assert_per_week("0 0 1 2-8/6 *", 2 / year)
        self.assert_per_week("0 0 29 2 *", Fraction(1, 4) / year)
        self.assert_per_week("0 7 3-10 * ? *", 8 * 12 / year)

    def test_a_date_or_a_weekday_suffices_where_both_restrict(self):
        # 84 first-to-seventh days a year and every Monday, one seventh of those 84 counted once.
        year = Fraction(1461, 4)
        self.assert_per_week("0 8 1-7 * 1", 7 * (84 + (year - 84) / 7) / year)

    def test_what_is_no_expression_is_refused(self):
        for text in (
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "x * * * *",
        ):
            with self.assertRaises(ValueError, msg=text):
                Cron.parse(text)


class DemandTest(unittest.TestCase):
    """What the rows of a project add up to."""

    def test_a_dag_in_several_environments_counts_once_as_in_the_furthest(self):
        rows = [
            replace(ROW, environment="development", tasks=1),
            replace(ROW, environment="production", tasks=3),
            replace(ROW, environment="test", tasks=2),
        ]
        self.assertEqual([dag.tasks for dag in derive.one_per_dag(rows)], [3])

    def test_task_starts_are_averaged_and_rounded_up(self):
        hourly = replace(ROW, schedule="@hourly", tasks=4)
        self.assertEqual(derive.task_starts_per_hour([hourly]), 4)
        self.assertEqual(derive.task_starts_per_hour([hourly, replace(ROW, name="other")]), 5)
        dataset = replace(ROW, schedule_kind="dataset", schedule="", tasks=24)
        self.assertEqual(derive.task_starts_per_hour([dataset]), 1)

    def test_paused_and_unscheduled_dags_start_nothing(self):
        idle = [
            replace(ROW, paused=True),
            replace(ROW, schedule_kind="none", schedule=""),
            replace(ROW, schedule_kind="dataset", schedule="", paused=True),
            replace(ROW, schedule="@once"),
        ]
        self.assertEqual(derive.task_starts_per_hour(idle), 0)
        self.assertEqual(derive.running_slots(idle), 0)

    def test_slots_are_those_of_the_busiest_hour(self):
        hour = 60 // derive.TASK_MINUTES  # tasks that fill a slot for an hour
        at_six = replace(ROW, tasks=hour)
        self.assertEqual(derive.running_slots([at_six]), 1)
        self.assertEqual(derive.running_slots([at_six, replace(at_six, schedule="0 7 * * *")]), 1)
        self.assertEqual(derive.running_slots([at_six, replace(at_six, schedule="0 6 * * 2")]), 2)
        self.assertEqual(derive.running_slots([replace(ROW, tasks=1)]), 0)

    def test_a_run_over_the_end_of_the_week_goes_on_in_the_next(self):
        hour = 60 // derive.TASK_MINUTES
        late = replace(ROW, schedule="0 23 * * 6", tasks=2 * hour)
        sunday = replace(ROW, schedule="0 0 * * 0", tasks=hour)
        self.assertEqual(derive.running_slots([late, sunday]), 2)

    def test_runs_that_meet_once_a_month_reserve_nothing(self):
        self.assertEqual(derive.running_slots([replace(ROW, schedule="0 6 1 * *", tasks=500)]), 0)


class FilesTest(unittest.TestCase):
    """The files in the repository."""

    def test_the_files_agree_with_the_table(self):
        rows = derive.read_table(derive.TABLE)
        self.assertEqual(len(rows), 394)
        wanted = derive.derive(rows)
        self.assertEqual(len(wanted), 55)
        self.assertEqual(derive.differences(wanted), [])

    def test_names_that_yaml_would_misread_are_quoted(self):
        self.assertEqual(derive.scalar("hmcts."), "hmcts.")
        self.assertEqual(derive.scalar("007"), '"007"')
        self.assertEqual(derive.scalar("on"), '"on"')

    def test_a_project_that_cannot_be_a_name_is_refused(self):
        with self.assertRaises(ValueError):
            derive.derive([replace(ROW, project="No Name")])


if __name__ == "__main__":
    unittest.main()
