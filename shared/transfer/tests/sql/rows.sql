-- Rows of every table that travels, for a migrated Airflow 3.3 database. Replaced before it runs:
-- PREFIX starts the dag_ids, SALT tells one fill from another, DAGS, RUNS and TASKS are counts.
-- Odd values on purpose: NULLs, empty texts, unicode, binary data, mapped tasks, all states.
CREATE OR REPLACE FUNCTION pg_temp.key(kind text, VARIADIC parts text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
  SELECT CAST(md5('SALT' || kind || array_to_string(parts, '/')) AS uuid) $$;

INSERT INTO dag_bundle (name, active) VALUES ('dags-folder', true) ON CONFLICT DO NOTHING;
INSERT INTO asset (name, uri, "group", extra, created_at, updated_at)
SELECT 'PREFIXasset' || n, 's3://PREFIX/' || n, 'asset', '{"n": 1.50}', now(), now()
FROM generate_series(1, 3) n ON CONFLICT DO NOTHING;

INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, bundle_version, fileloc, owners, description,
  timetable_type, timetable_summary, partition_mapper_info, max_active_tasks, max_active_runs,
  max_consecutive_failed_dag_runs, has_task_concurrency_limits, has_import_errors,
  exceeds_max_non_backfill, next_dagrun, next_dagrun_data_interval_start,
  next_dagrun_data_interval_end, next_dagrun_create_after)
SELECT 'PREFIX' || CASE n WHEN 2 THEN 'ü☃' ELSE 'd' END || n, n % 3 = 0, false, 'dags-folder', NULL,
  '/dags/PREFIX.py', 'somebody', CASE WHEN n % 2 = 0 THEN 'it''s "odd" \ 💡' END,
  'airflow.timetables.trigger.CronTriggerTimetable', '0 * * * *', '{}', 16, 16, 0, false, false,
  false, to_timestamp(1700000000 + RUNS * 3600), to_timestamp(1700000000 + RUNS * 3600),
  to_timestamp(1700000000 + RUNS * 3600), to_timestamp(1700000000 + RUNS * 3600)
FROM generate_series(1, DAGS) n;

CREATE TEMP TABLE d AS SELECT dag_id, row_number() OVER (ORDER BY dag_id) AS n FROM dag
WHERE starts_with(dag_id, 'PREFIX');

INSERT INTO dag_version (id, version_number, dag_id, bundle_name, bundle_version, created_at, last_updated)
SELECT pg_temp.key('version', dag_id, v::text), v, dag_id, 'dags-folder', NULL, now(), now()
FROM d, generate_series(1, 2) v;
INSERT INTO serialized_dag (id, dag_id, data, created_at, last_updated, dag_hash, dag_version_id)
SELECT pg_temp.key('serialized', v.id::text), dag_id, jsonb_build_object('__version', 3, 'dag',
  jsonb_build_object('dag_id', dag_id, 'catchup', false, 'timetable', jsonb_build_object('__type',
    'airflow.timetables.trigger.CronTriggerTimetable', '__var', jsonb_build_object('expression',
    '0 * * * *', 'timezone', 'UTC', 'interval', 0.0, 'run_immediately', false)),
  'tasks', jsonb_build_array(jsonb_build_object('__type', 'operator', '__var',
    jsonb_build_object('task_id', 't1', 'pool', 'patient'))))),
  now(), now(), md5(v.id::text), v.id FROM dag_version v WHERE starts_with(dag_id, 'PREFIX');
INSERT INTO dag_code (id, dag_id, fileloc, created_at, last_updated, source_code, source_code_hash, dag_version_id)
SELECT pg_temp.key('code', id::text), dag_id, '/dags/PREFIX.py', now(), now(), E'# ünïcödé\n',
  'x', id FROM dag_version WHERE starts_with(dag_id, 'PREFIX');
INSERT INTO deadline_alert (id, created_at, serialized_dag_id, name, reference, interval, callback_def)
SELECT pg_temp.key('alert', id::text), now(), id, NULL, '{"a": 1}', '3600', '{}'
FROM serialized_dag WHERE starts_with(dag_id, 'PREFIX');

INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start,
  data_interval_end, run_after, queued_at, start_date, end_date, conf, creating_job_id,
  scheduled_by_job_id, log_template_id, created_dag_version_id, triggered_by, clear_number,
  context_carrier, partition_key)
SELECT dag_id, CASE WHEN r % 10 = 9 THEN 'manual__é ' || r ELSE 'scheduled__' || r END,
  CASE WHEN r % 10 = 9 THEN 'manual' ELSE 'scheduled' END,
  CASE WHEN r > RUNS - 2 THEN 'running' WHEN r % 7 = 0 THEN 'failed' ELSE 'success' END,
  CASE WHEN r % 20 = 19 THEN NULL ELSE to_timestamp(1700000000 + r * 3600) END,
  to_timestamp(1700000000 + r * 3600), to_timestamp(1700000000 + r * 3600),
  to_timestamp(1700000000 + r * 3600), now(), now(), now(),
  CASE WHEN r % 4 = 0 THEN '{"k": [1, null, "☃"]}'::jsonb END, 77, 78,
  (SELECT min(id) FROM log_template), pg_temp.key('version', dag_id, '2'), 'TIMETABLE', 0, '{}', NULL
FROM d, generate_series(1, RUNS) r;
CREATE TEMP TABLE r AS SELECT id, dag_id, run_id, state, row_number() OVER (ORDER BY dag_id, id) AS n
FROM dag_run WHERE starts_with(dag_id, 'PREFIX');
ANALYZE r;

INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, start_date, end_date, duration,
  state, try_number, max_tries, hostname, pool, pool_slots, queue, priority_weight, operator,
  queued_dttm, scheduled_dttm, queued_by_job_id, last_heartbeat_at, pid, executor_config,
  rendered_map_index, external_executor_id, next_kwargs, task_display_name, dag_version_id)
SELECT pg_temp.key('ti', dag_id, run_id, t::text), CASE WHEN t <= 2 THEN 't' || t ELSE 'mapped' END, dag_id, run_id,
  CASE WHEN t <= 2 THEN -1 ELSE t END,
  now(), now(), 1.0 / (t + 2), CASE WHEN r.state = 'running' THEN
    CASE t WHEN 1 THEN 'success' WHEN 2 THEN 'scheduled' WHEN 3 THEN 'up_for_retry' END
    ELSE CASE WHEN t % 5 = 0 THEN 'failed' ELSE 'success' END END,
  1 + t % 2, 3, 'wörker', CASE WHEN t = 1 THEN 'patient' ELSE 'default_pool' END, 1, 'default', t,
  'PythonOperator', now(), now(), 77, now(), 4242, '\x80049500ff'::bytea,
  CASE WHEN t > 2 THEN 'map ' || t END, md5('celery' || r.n || '/' || t),
  CASE WHEN t = 3 THEN '{"a": 1}'::jsonb END, '', pg_temp.key('version', dag_id, '1')
FROM r, generate_series(1, TASKS) t;
CREATE TEMP TABLE t AS SELECT ti.*, r.id AS number, row_number() OVER (ORDER BY ti.id) AS n
FROM task_instance ti JOIN r USING (dag_id, run_id);
ANALYZE t;

INSERT INTO task_instance_history (task_instance_id, task_id, dag_id, run_id, map_index, try_number,
  state, pool, pool_slots, trigger_timeout, dag_version_id, queued_by_job_id)
SELECT pg_temp.key('history', id::text), task_id, dag_id, run_id, map_index, 0, 'failed', 'default_pool', 1,
  '2026-01-02 03:04:05.000006', dag_version_id, 77 FROM t WHERE n % 3 = 0;
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
SELECT number, task_id, map_index, 'return_value', dag_id, run_id,
  CASE WHEN n % 2 = 0 THEN jsonb_build_object('__type', 'bytes', 'data', encode(sha256(id::text::bytea), 'base64'),
    'text', repeat('ü', (n % 40)::int)) END, now() FROM t;
INSERT INTO task_map (dag_id, task_id, run_id, map_index, length, keys)
SELECT dag_id, task_id, run_id, map_index, 2, CASE WHEN n % 2 = 0 THEN '["a"]'::jsonb END FROM t WHERE n % 4 = 0;
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields, k8s_pod_yaml)
SELECT dag_id, task_id, run_id, map_index, '{"sql":  "select 1"}', NULL FROM t WHERE n % 2 = 0;
INSERT INTO task_instance_note (ti_id, user_id, content, created_at, updated_at)
SELECT id, NULL, 'nöte ' || n, now(), now() FROM t WHERE n % 50 = 0;
INSERT INTO task_reschedule (ti_id, start_date, end_date, duration, reschedule_date)
SELECT id, now(), now(), 3, now() FROM t WHERE n % 60 = 0;
INSERT INTO task_state_store (dag_run_id, task_id, map_index, key, dag_id, run_id, value, updated_at)
SELECT number, task_id, map_index, 'k', dag_id, run_id, '"v"', now() FROM t WHERE n % 30 = 0;
INSERT INTO hitl_detail (ti_id, options, subject, params, created_at, params_input)
SELECT id, '["yes", "no"]', 'sure?', '{}', now(), '{}' FROM t WHERE n % 40 = 0;
INSERT INTO hitl_detail_history (ti_history_id, options, subject, params, created_at, params_input)
SELECT task_instance_id, '[]', '', '{}', now(), '{}' FROM task_instance_history
WHERE starts_with(dag_id, 'PREFIX') AND get_byte(sha256(task_instance_id::text::bytea), 0) < 16;
INSERT INTO dag_run_note (user_id, dag_run_id, content, created_at, updated_at)
SELECT 'u', id, E'line\nline\ttab \\ ', now(), now() FROM r WHERE n % 10 = 0;
INSERT INTO log (dttm, dag_id, task_id, map_index, event, run_id, owner, extra)
SELECT now(), dag_id, task_id, NULL, 'success', run_id, 'somebody', NULL FROM t WHERE n % 2 = 0;
INSERT INTO log (dttm, dag_id, event) SELECT now(), dag_id, 'paused' FROM d;

INSERT INTO asset_event (asset_id, extra, source_task_id, source_dag_id, source_run_id, source_map_index, timestamp)
SELECT a.id, '{"x": 1}', 't1', r.dag_id, r.run_id, -1, now() + r.n * interval '1 microsecond'
FROM r JOIN asset a ON a.name = 'PREFIXasset' || (r.n % 3 + 1) WHERE r.n % 5 = 0;
INSERT INTO dagrun_asset_event (dag_run_id, event_id)
SELECT r.id, e.id FROM asset_event e JOIN r ON r.dag_id = e.source_dag_id AND r.run_id = e.source_run_id;
INSERT INTO asset_dag_run_queue (asset_id, target_dag_id, created_at)
SELECT a.id, d.dag_id, now() FROM d JOIN asset a ON a.name = 'PREFIXasset1' WHERE d.n = 1;
DROP TABLE d, r, t;
