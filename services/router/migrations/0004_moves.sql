-- Moves of namespaces between shards, those that have ended included.
CREATE TABLE router_moves (
    -- Later ones sort later.
    id TEXT COLLATE "C" PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    began_revision BIGINT NOT NULL,
    phase TEXT NOT NULL,
    phase_began_at BIGINT NOT NULL,
    deadline_at BIGINT,
    attempt BIGINT NOT NULL,
    next_attempt_at BIGINT,
    -- JSON, as are the next two.
    last_error TEXT,
    cancel TEXT,
    options TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    staged_at BIGINT,
    quiesced_at BIGINT,
    flipped_at BIGINT,
    finished_at BIGINT,
    -- JSON: up to where the source came.
    sealed TEXT,
    -- Of whoever asked; empty where none was given.
    request_id TEXT NOT NULL,
    revision BIGINT NOT NULL
);

-- A namespace is moved by one move at a time.
CREATE UNIQUE INDEX router_moves_open ON router_moves (namespace) WHERE finished_at IS NULL;

-- What was given up may be asked for again by the same.
CREATE UNIQUE INDEX router_moves_by_request ON router_moves (request_id)
    WHERE request_id <> '' AND phase <> 'aborted';

CREATE INDEX router_moves_by_namespace ON router_moves (namespace, id);

-- Every phase and every try of each move, and why it was left.
CREATE TABLE router_move_phases (
    move_id TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    phase TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    reason TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    PRIMARY KEY (move_id, revision)
);
