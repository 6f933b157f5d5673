-- One row: where the store stands. Every change of an assignment or shard happens in a transaction
-- that raises `revision` by one and marks the rows it wrote with it, so the rows themselves are the
-- change log, each at its latest; only what was removed needs a table of its own.
CREATE TABLE router_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    -- Drawn once; tells a snapshot of this store from one of another.
    store_id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    -- Removals are known from here on. Who stands further back has to read everything.
    removals_floor BIGINT NOT NULL,
    -- Highest generation of any row that was removed. New namespaces start from it, so that a name
    -- that comes back never has a generation that an agent has seen before.
    generation_floor BIGINT NOT NULL,
    -- The registry's manifest is taken into account up to here.
    manifest_revision BIGINT NOT NULL
);

CREATE TABLE router_assignments (
    namespace TEXT COLLATE "C" PRIMARY KEY,
    uid TEXT NOT NULL,
    -- Empty where no shard owns it.
    shard TEXT NOT NULL,
    generation BIGINT NOT NULL,
    -- 'assigned', 'unplaced' or 'released'.
    state TEXT NOT NULL,
    -- Empty where it is not pinned.
    pinned_shard TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON array.
    prefixes TEXT NOT NULL,
    -- JSON, as the manifest has them.
    demand TEXT NOT NULL,
    placement TEXT NOT NULL,
    -- The manifest's revision of the namespace; of a released one, the last that it was released
    -- at or after.
    manifest_revision BIGINT NOT NULL,
    -- 1 where the manifest no longer has it although a shard owns it.
    orphaned BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX router_assignments_by_revision ON router_assignments (revision);

CREATE TABLE router_shards (
    name TEXT COLLATE "C" PRIMARY KEY,
    uid TEXT NOT NULL,
    -- JSON, the shard as the manifest last had it.
    manifest TEXT NOT NULL,
    manifest_revision BIGINT NOT NULL,
    -- 0 where the manifest no longer has it although namespaces are on it.
    registered BIGINT NOT NULL,
    -- Unset where it is not cordoned.
    cordoned_at BIGINT,
    cordoned_by TEXT NOT NULL,
    cordon_reason TEXT NOT NULL,
    -- Released, so that it can be removed from the manifest: up to this revision of the manifest it
    -- takes nothing. 0 where it is not released.
    barred_revision BIGINT NOT NULL,
    -- When an agent of it first connected. Unset where none ever did.
    agent_seen_at BIGINT,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX router_shards_by_revision ON router_shards (revision);

CREATE TABLE router_removals (
    revision BIGINT NOT NULL,
    -- 'namespace' or 'shard'.
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (revision, kind, name)
);

-- What people overrode, and why.
CREATE TABLE router_overrides (
    revision BIGINT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    PRIMARY KEY (revision, action, subject)
);
