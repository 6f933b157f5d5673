-- A few rows of everything that is counted, for a migrated Airflow 2.11 database without DAGs.
INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('patient', -1, TRUE);

INSERT INTO dag (dag_id, is_paused, is_active, next_dagrun_create_after, has_import_errors,
  max_active_tasks, max_consecutive_failed_dag_runs, has_task_concurrency_limits)
SELECT dag_id, is_paused, is_active, due, broken, 16, 0, FALSE
FROM (VALUES
  ('pay__daily', FALSE, TRUE, now() + interval '1 hour', FALSE),
  ('pay__hourly', TRUE, TRUE, now() - interval '1 hour', FALSE),
  ('pay__gone', FALSE, FALSE, now() - interval '1 hour', FALSE),
  ('ads.clicks', FALSE, TRUE, now() - interval '10 minutes', FALSE),
  ('ads.broken', FALSE, TRUE, now() - interval '1 hour', TRUE),
  ('pay_other', NULL, TRUE, NULL, NULL)
) AS d (dag_id, is_paused, is_active, due, broken);

INSERT INTO dag_run (dag_id, run_id, run_type, state, execution_date, clear_number)
SELECT dag_id, run_id, 'scheduled', state, at, 0
FROM (VALUES
  ('pay__daily', 'r1', 'success', now() - interval '3 hours'),
  ('pay__daily', 'r2', 'running', now() - interval '2 hours'),
  ('pay__daily', 'r3', 'queued', now() - interval '1 hour'),
  ('ads.clicks', 'r1', 'running', now() - interval '1 hour')
) AS r (dag_id, run_id, state, at);

INSERT INTO task_instance (dag_id, run_id, task_id, state, pool, pool_slots, queued_dttm,
  start_date, map_index)
SELECT dag_id, run_id, task_id, state, pool, slots, queued, started, -1
FROM (VALUES
  ('pay__daily', 'r1', 'a', 'success', 'default_pool', 1, now() - interval '40 min', now() - interval '39 min'),
  ('pay__daily', 'r2', 'a', 'running', 'default_pool', 2, now() - interval '30 min', now() - interval '26 min'),
  ('pay__daily', 'r2', 'b', 'queued', 'default_pool', 1, now() - interval '2 min', NULL),
  ('pay__daily', 'r2', 'c', 'scheduled', 'default_pool', 1, now() - interval '9 hours', NULL),
  ('ads.clicks', 'r1', 'a', 'deferred', 'patient', 5, NULL, now())
) AS t (dag_id, run_id, task_id, state, pool, slots, queued, started);

INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event)
VALUES
  (now() - interval '39 min', 'pay__daily', 'a', 'r1', NULL, 'running'),
  (now() - interval '26 min', 'pay__daily', 'a', 'r2', -1, 'running'),
  (now() - interval '61 min', 'pay__daily', 'a', 'r1', -1, 'running'),
  (now() - interval '4 min', 'ads.clicks', 'a', 'r1', -1, 'failed');

INSERT INTO import_error (timestamp, filename, stacktrace) VALUES (now(), 'a.py', 'x');

INSERT INTO job (job_type, state, hostname, latest_heartbeat)
VALUES ('SchedulerJob', 'running', 'new', now() - interval '4 s'),
  ('LocalTaskJob', 'running', 'new', now()),
  ('TriggererJob', 'failed', 'stopped', now());
