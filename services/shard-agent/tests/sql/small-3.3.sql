-- A few rows of everything that is counted, for a migrated Airflow 3.3 database without DAGs.
INSERT INTO dag_bundle (name, active) VALUES ('dags-folder', TRUE);
INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('patient', 7, TRUE);

INSERT INTO dag (dag_id, is_paused, is_stale, relative_fileloc, last_parse_duration,
  next_dagrun_create_after, has_import_errors, exceeds_max_non_backfill, bundle_name,
  timetable_type, partition_mapper_info, max_active_tasks, max_consecutive_failed_dag_runs,
  has_task_concurrency_limits)
SELECT dag_id, is_paused, is_stale, file, duration, due, broken, has_all, 'dags-folder', '', '{}', 16, 0, FALSE
FROM (VALUES
  -- Two DAGs of one file share the time that it takes to parse.
  ('pay__daily', FALSE, FALSE, 'pay.py', 1.5, now() + interval '1 hour', FALSE, FALSE),
  ('pay__hourly', TRUE, FALSE, 'pay.py', 1.5, now() - interval '1 hour', FALSE, FALSE),
  -- Its file is gone.
  ('pay__gone', FALSE, TRUE, 'gone.py', 9.0, now() - interval '1 hour', FALSE, FALSE),
  -- Late by ten minutes; the next two are due as well but may not start.
  ('ads.clicks', FALSE, FALSE, 'ads.py', 0.1, now() - interval '10 minutes', FALSE, FALSE),
  ('ads.broken', FALSE, FALSE, 'broken.py', NULL, now() - interval '1 hour', TRUE, FALSE),
  ('ads.full', FALSE, FALSE, 'full.py', NULL, now() - interval '1 hour', FALSE, TRUE),
  ('über_etl', FALSE, FALSE, 'ueber.py', NULL, NULL, FALSE, FALSE),
  -- Nobody's: prefixes are no patterns, and case matters.
  ('pay_other', FALSE, FALSE, 'other.py', 0.2, NULL, FALSE, FALSE),
  ('PAY__daily', FALSE, FALSE, 'upper.py', NULL, NULL, FALSE, FALSE)
) AS d (dag_id, is_paused, is_stale, file, duration, due, broken, has_all);

INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, logical_date)
SELECT dag_id, run_id, 'scheduled', state, at, at
FROM (VALUES
  ('pay__daily', 'r1', 'success', now() - interval '3 hours'),
  ('pay__daily', 'r2', 'running', now() - interval '2 hours'),
  ('pay__daily', 'r3', 'queued', now() - interval '1 hour'),
  ('pay__gone', 'r1', 'running', now() - interval '1 hour'),
  ('ads.clicks', 'r1', 'running', now() - interval '1 hour'),
  ('ads.clicks', 'r2', 'failed', now() - interval '2 hours'),
  ('über_etl', 'r1', 'running', now() - interval '1 hour'),
  ('pay_other', 'r1', 'success', now() - interval '1 hour')
) AS r (dag_id, run_id, state, at);

INSERT INTO task_instance (id, dag_id, run_id, task_id, state, pool, pool_slots, scheduled_dttm,
  queued_dttm, start_date, map_index, try_number, max_tries)
SELECT gen_random_uuid(), dag_id, run_id, task_id, state, pool, slots, scheduled, queued, started, -1, 1, 1
FROM (VALUES
  ('pay__daily', 'r1', 'a', 'success', 'default_pool', 1, now() - interval '40 min', now(), now() - interval '39 min'),
  ('pay__daily', 'r1', 'b', 'success', 'default_pool', 1, now() - interval '40 min', now(), now() - interval '38 min'),
  ('pay__daily', 'r2', 'a', 'running', 'default_pool', 2, now() - interval '30 min', now(), now() - interval '25 min'),
  ('pay__daily', 'r2', 'b', 'queued', 'default_pool', 1, now() - interval '20 min', now() - interval '2 min', NULL),
  ('pay__daily', 'r2', 'c', 'scheduled', 'default_pool', 1, now() - interval '7 min', now() - interval '9 hours', NULL),
  ('pay__daily', 'r3', 'a', NULL, 'default_pool', 1, NULL, NULL, NULL),
  ('pay__gone', 'r1', 'a', 'running', 'default_pool', 3, NULL, NULL, now()),
  ('ads.clicks', 'r1', 'a', 'restarting', 'default_pool', 1, NULL, NULL, now()),
  ('ads.clicks', 'r1', 'b', 'deferred', 'default_pool', 5, NULL, NULL, now()),
  ('ads.clicks', 'r1', 'c', 'up_for_retry', 'default_pool', 1, NULL, NULL, now()),
  ('über_etl', 'r1', 'a', 'deferred', 'patient', 4, NULL, NULL, now()),
  ('pay_other', 'r1', 'a', 'success', 'default_pool', 1, NULL, NULL, now())
) AS t (dag_id, run_id, task_id, state, pool, slots, scheduled, queued, started);

INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event)
VALUES
  (now() - interval '39 min', 'pay__daily', 'a', 'r1', -1, 'running'),
  (now() - interval '38 min', 'pay__daily', 'b', 'r1', NULL, 'running'),
  (now() - interval '25 min', 'pay__daily', 'a', 'r2', -1, 'running'),
  (now() - interval '24 min', 'pay__daily', 'a', 'r2', -1, 'success'),
  (now() - interval '61 min', 'pay__daily', 'a', 'r1', -1, 'running'),
  (now() - interval '5 min', 'ads.clicks', 'a', 'r1', -1, 'running'),
  (now() - interval '4 min', 'ads.clicks', 'a', 'r1', -1, 'failed'),
  (now() - interval '3 min', 'ads.clicks', 'b', 'r1', -1, 'failed'),
  (now() - interval '5 min', 'pay_other', 'a', 'r1', -1, 'running'),
  (now() - interval '5 min', NULL, NULL, NULL, NULL, 'running'),
  (now() - interval '5 min', NULL, NULL, NULL, NULL, 'cli_scheduler');

INSERT INTO import_error (timestamp, filename, bundle_name, stacktrace)
VALUES (now(), 'a.py', 'dags-folder', 'x'), (now(), 'b.py', 'dags-folder', 'x');

INSERT INTO job (job_type, state, hostname, latest_heartbeat)
VALUES ('SchedulerJob', 'running', 'old', now() - interval '9 hours'),
  ('SchedulerJob', 'running', 'new', now() - interval '4 s'),
  ('SchedulerJob', 'success', 'stopped', now()),
  ('DagProcessorJob', 'running', 'new', now() - interval '6 s');
