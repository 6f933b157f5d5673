-- A large Airflow 3.3 metadata database: 2,000 DAGs of 200 teams, 200,000 runs, 1,000,000 task
-- instances and 2,000,000 lines of audit log. Each DAG ran every half hour; every fifth is at work
-- now. Expects a migrated database without DAGs. Index-heavy tables are filled in the order in
-- which Airflow would have written them: by time.
INSERT INTO dag_bundle (name, active) VALUES ('dags-folder', TRUE);

INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, fileloc, relative_fileloc,
  last_parsed_time, last_parse_duration, timetable_type, partition_mapper_info, max_active_tasks,
  max_active_runs, max_consecutive_failed_dag_runs, has_task_concurrency_limits,
  has_import_errors, next_dagrun_create_after)
SELECT format('team%s__dag%s', d % 200, d), d % 50 = 0, FALSE, 'dags-folder',
  format('/dags/team%s/%s.py', d % 200, d), format('team%s/%s.py', d % 200, d),
  now() - interval '10 s', 0.25, '', '{}', 16, 16, 0, FALSE, FALSE,
  now() + ((d % 30) * interval '1 min')
FROM generate_series(0, 1999) AS d;

INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, start_date,
  end_date, data_interval_start, data_interval_end, log_template_id, triggered_by)
SELECT format('team%s__dag%s', d % 200, d), format('scheduled__%s', at), 'scheduled',
  CASE WHEN r = 0 AND d % 5 = 0 THEN CASE WHEN d % 25 = 0 THEN 'queued' ELSE 'running' END
       WHEN (r + d) % 40 = 0 THEN 'failed' ELSE 'success' END,
  at, at, at + interval '2 s', CASE WHEN r = 0 AND d % 5 = 0 THEN NULL ELSE at + interval '5 min' END,
  at - interval '30 min', at, 1, 'TIMETABLE'
FROM generate_series(99, 0, -1) AS r, generate_series(0, 1999) AS d,
  LATERAL (SELECT date_trunc('minute', now()) - r * interval '30 min' - (d % 30) * interval '1 min' AS at) AS t;

INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, state, try_number, max_tries,
  pool, pool_slots, queue, priority_weight, operator, hostname, unixname, scheduled_dttm,
  queued_dttm, start_date, end_date, duration, executor_config, updated_at, next_kwargs,
  context_carrier)
SELECT gen_random_uuid(), format('task%s', t), run.dag_id, run.run_id, -1, task.state, 1, 1,
  'default_pool', 1, 'default', 1, 'BashOperator', format('worker-%s', run.id % 20), 'airflow',
  CASE WHEN task.state IS NOT NULL THEN task.at END,
  CASE WHEN task.state NOT IN ('scheduled') THEN task.at + interval '1 s' END,
  CASE WHEN task.state NOT IN ('scheduled', 'queued') THEN task.at + task.delay END,
  CASE WHEN task.state IN ('success', 'failed') THEN task.at + task.delay + interval '40 s' END,
  CASE WHEN task.state IN ('success', 'failed') THEN 40 END,
  '\x80047d942e', task.at + interval '1 min', NULL, '{"__var": {}, "__type": "dict"}'
FROM dag_run AS run, generate_series(1, 5) AS t,
  LATERAL (SELECT run.run_after + t * interval '1 min' AS at,
    ((run.id * 7 + t) % 100) * interval '0.1 s' + interval '1 s' AS delay,
    CASE WHEN run.state = 'success' OR (run.state = 'failed' AND t < 5) THEN 'success'
         WHEN run.state = 'failed' THEN 'failed'
         WHEN run.state = 'queued' THEN NULL
         WHEN t = 1 THEN 'success'
         WHEN t = 2 THEN 'running'
         WHEN t = 3 AND run.id % 2 = 0 THEN 'queued'
         WHEN t = 3 THEN 'scheduled' END AS state) AS task
ORDER BY task.at;

INSERT INTO log (dttm, dag_id, task_id, map_index, run_id, try_number, event, logical_date, owner, extra)
SELECT line.dttm, ti.dag_id, ti.task_id, -1, ti.run_id, 1, line.event, NULL, 'airflow',
  format('{"host_name": "%s"}', ti.hostname)
FROM task_instance AS ti,
  LATERAL (VALUES (ti.start_date, 'running'),
    (ti.end_date, CASE WHEN ti.end_date IS NOT NULL THEN ti.state END)) AS line (dttm, event)
WHERE line.dttm IS NOT NULL
ORDER BY line.dttm;

INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
SELECT ti.dag_id, ti.task_id, ti.run_id, -1,
  json_build_object('bash_command', repeat('echo ', 30), 'env', NULL, 'cwd', NULL)
FROM task_instance AS ti JOIN dag_run AS run USING (dag_id, run_id)
WHERE run.run_after > now() - interval '15 hours';

INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
SELECT run.id, ti.task_id, -1, 'return_value', ti.dag_id, ti.run_id, to_jsonb(repeat('x', 60)), ti.end_date
FROM task_instance AS ti JOIN dag_run AS run USING (dag_id, run_id)
WHERE ti.end_date IS NOT NULL AND ti.task_id = 'task1';

INSERT INTO job (job_type, state, hostname, start_date, latest_heartbeat)
VALUES ('SchedulerJob', 'running', 'host', now(), now()),
  ('DagProcessorJob', 'running', 'host', now(), now()),
  ('TriggererJob', 'running', 'host', now(), now());

ANALYZE;
