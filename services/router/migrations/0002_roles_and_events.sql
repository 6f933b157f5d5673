-- What each namespace brings to its shard, as the manifest last declared it: agents are told while
-- the registry is away. In a table of its own, since only what is told is read, not the whole.
CREATE TABLE router_workloads (
    namespace TEXT COLLATE "C" PRIMARY KEY,
    -- JSON.
    workload TEXT NOT NULL,
    -- The manifest's revision of the namespace when this was taken in.
    manifest_revision BIGINT NOT NULL
);

-- Tells whether the workload changed, without reading it.
ALTER TABLE router_assignments ADD COLUMN workload_digest BIGINT NOT NULL DEFAULT 0;

-- The workloads of what is known already have to be read from the registry.
UPDATE router_state SET manifest_revision = 0;

-- Shards that had a namespace and were not seen to be rid of it. Written in the transaction that
-- takes the namespace away from them.
CREATE TABLE router_residues (
    namespace TEXT COLLATE "C" NOT NULL,
    shard TEXT COLLATE "C" NOT NULL,
    -- JSON array: those that it had. The namespace itself may be gone.
    prefixes TEXT NOT NULL,
    generation BIGINT NOT NULL,
    -- 'retired' or 'absent': what the shard is told to be.
    role TEXT NOT NULL,
    -- 'awaited', 'waived' or 'seen'.
    fence TEXT NOT NULL,
    reason TEXT NOT NULL,
    left_at BIGINT NOT NULL,
    purge_at BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (namespace, shard)
);

-- Numbers the events.
ALTER TABLE router_state ADD COLUMN event_sequence BIGINT NOT NULL DEFAULT 0;

-- What happened to namespaces: what the router decided, and what their agents saw. The latest of
-- each namespace.
CREATE TABLE router_events (
    sequence BIGINT PRIMARY KEY,
    -- Of whoever told it, so that what is told twice is kept once.
    id TEXT NOT NULL UNIQUE,
    namespace TEXT COLLATE "C" NOT NULL,
    -- Empty where it is about no shard.
    shard TEXT NOT NULL,
    -- 'router' or 'agent'.
    source TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    warning BIGINT NOT NULL,
    -- By the clock of whoever told it.
    happened_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL
);

CREATE INDEX router_events_by_namespace ON router_events (namespace, sequence);

CREATE INDEX router_events_by_age ON router_events (recorded_at);
