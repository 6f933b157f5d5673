-- The ownership fence, version 1. Runs in one transaction; `{schema}` is the schema of Airflow's
-- own tables. Only additions: a later version adds a file of its own.

CREATE TABLE IF NOT EXISTS {schema}.airfleet_fence_version (
  version      bigint      NOT NULL PRIMARY KEY,
  installed_at timestamptz NOT NULL DEFAULT now(),
  installed_by text        NOT NULL
);

-- What this shard is for each namespace: the last order that was obeyed, and the role that was
-- reached completely. Outlives the agent's own disk.
CREATE TABLE IF NOT EXISTS {schema}.airfleet_role (
  namespace          text        NOT NULL PRIMARY KEY,
  role               text        NOT NULL,
  generation         bigint      NOT NULL,
  revision           bigint      NOT NULL DEFAULT 0,
  -- The transaction that closed its fence: what began before may still unpause a DAG.
  closed_txid        bigint,
  reached_role       text,
  reached_generation bigint,
  reached_at         timestamptz
);

-- The prefixes that are fenced or owned. A dag_id belongs to the longest one that it begins with;
-- one that begins with none is nobody's and is left alone. The collation is by bytes, whatever that
-- of the database is: what is looked up depends on it.
CREATE TABLE IF NOT EXISTS {schema}.airfleet_fence (
  prefix    text COLLATE "C" NOT NULL PRIMARY KEY,
  namespace text             NOT NULL,
  -- Whether its DAGs may be unpaused: only while the namespace is ACTIVE here.
  open      boolean          NOT NULL DEFAULT false,
  -- Whether it is of a namespace that this shard has no role for.
  elsewhere boolean          NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS airfleet_fence_namespace ON {schema}.airfleet_fence (namespace);

-- The pause state that users gave a DAG, for as long as the fence forces another one.
CREATE TABLE IF NOT EXISTS {schema}.airfleet_pause (
  dag_id    text COLLATE "C" NOT NULL PRIMARY KEY,
  is_paused boolean          NOT NULL,
  noted_at  timestamptz      NOT NULL DEFAULT now()
);

-- Pools, variables and connections that Airfleet made, by which it may change and remove them.
CREATE TABLE IF NOT EXISTS {schema}.airfleet_owned (
  kind      text        NOT NULL,
  name      text        NOT NULL,
  namespace text        NOT NULL,
  -- Digest of what the manifest declared when it was last made so: where it is still declared so and
  -- found otherwise, somebody else changed it.
  declared  text        NOT NULL,
  since     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (kind, name)
);
CREATE INDEX IF NOT EXISTS airfleet_owned_namespace ON {schema}.airfleet_owned (namespace);

-- Whether the fence forces a DAG to be paused. The greatest prefix that is not above the dag_id is
-- its own, or shares with its own all that it has in common with the dag_id: so each step shortens
-- what is looked for to that, and there are as many steps as prefixes nest, and seldom one more.
CREATE OR REPLACE FUNCTION {schema}.airfleet_fenced(sought text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
  probe  text COLLATE "C" := sought;
  best   text COLLATE "C";
  is_open boolean;
  common integer;
BEGIN
  LOOP
    SELECT f.prefix, f.open INTO best, is_open FROM {schema}.airfleet_fence f
      WHERE f.prefix <= probe ORDER BY f.prefix DESC LIMIT 1;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    IF starts_with(sought, best) THEN
      RETURN NOT is_open;
    END IF;
    common := 0;
    WHILE substr(best, common + 1, 1) = substr(probe, common + 1, 1)
      AND common < length(best) LOOP
      common := common + 1;
    END LOOP;
    IF common = 0 THEN
      RETURN false;
    END IF;
    probe := left(probe, common);
  END LOOP;
END
$body$;

-- Keeps a fenced DAG paused, whoever unpauses it. It never raises: an error in here would end the
-- scheduler or the DAG processor. Where it cannot find out, it denies.
--
-- A DAG that is created while it is fenced was to get the state that NEW has: Airflow's default, or
-- its author's is_paused_upon_creation. That is noted here, for nobody can tell it later. A state
-- that is noted already is not overwritten: trying to unpause a fenced DAG changes nothing.
--
-- It runs with the rights of its owner, so that Airflow's own role needs none on these tables.
CREATE OR REPLACE FUNCTION {schema}.airfleet_keep_paused() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
  IF {schema}.airfleet_fenced(NEW.dag_id) THEN
    IF TG_OP = 'INSERT' THEN
      INSERT INTO {schema}.airfleet_pause (dag_id, is_paused)
        VALUES (NEW.dag_id, coalesce(NEW.is_paused, false)) ON CONFLICT DO NOTHING;
    END IF;
    NEW.is_paused := true;
  END IF;
  RETURN NEW;
EXCEPTION WHEN OTHERS THEN
  NEW.is_paused := true;
  RETURN NEW;
END
$body$;
