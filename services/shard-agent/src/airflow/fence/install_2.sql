-- The ownership fence, version 2: what this shard has to say of a move. Runs after version 1, in the
-- same transaction.

-- Written in the transactions that make it true, as JSON: when the fence was closed, how far DAGs
-- came as the namespace was sealed, what was inserted as it was started. One move of each namespace.
CREATE TABLE IF NOT EXISTS {schema}.airfleet_move (
  namespace text        NOT NULL PRIMARY KEY,
  notes     text        NOT NULL,
  noted_at  timestamptz NOT NULL DEFAULT now()
);
