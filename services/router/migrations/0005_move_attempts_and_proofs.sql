-- How often a move of a plan was begun: each time under a key of its own.
ALTER TABLE router_plan_moves ADD COLUMN attempt BIGINT NOT NULL DEFAULT 1;
-- Runs of each DAG as they were found at both ends when the move was decided. JSON.
ALTER TABLE router_moves ADD COLUMN proof TEXT;
-- From when on the source started nothing any more, and until when the target did not. Microseconds.
ALTER TABLE router_moves ADD COLUMN dark_from BIGINT;
ALTER TABLE router_moves ADD COLUMN dark_until BIGINT;
