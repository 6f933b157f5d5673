-- Plans of moves, as they were reviewed. One is carried out at a time.
CREATE TABLE router_plans (
    name TEXT COLLATE "C" PRIMARY KEY,
    -- SHA-256 of the plan.
    hash TEXT NOT NULL,
    -- 'ready', 'applying', 'stopped', 'done' or 'cancelled'.
    state TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- JSON: the whole plan.
    plan TEXT NOT NULL,
    -- JSON: the plan without its moves, for lists.
    summary TEXT NOT NULL,
    moves BIGINT NOT NULL
);

CREATE INDEX router_plans_by_age ON router_plans (created_at);

-- How far each move of a plan is that has begun.
CREATE TABLE router_plan_moves (
    plan TEXT COLLATE "C" NOT NULL,
    -- In the plan, from 0.
    position BIGINT NOT NULL,
    -- 'running', 'done', 'failed' or 'skipped'.
    stage TEXT NOT NULL,
    detail TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (plan, position)
);

-- One row while rebalancing is frozen.
CREATE TABLE router_freeze (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    frozen_at BIGINT NOT NULL
);
