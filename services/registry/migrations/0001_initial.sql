-- One row: where the store stands. Every transaction that changes the manifest raises `revision`
-- by one, however many entries it changes; `sequence` counts the changes themselves.
CREATE TABLE registry_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    -- Counts of what is registered, so that telling them needs no scan.
    namespaces BIGINT NOT NULL,
    shards BIGINT NOT NULL,
    -- Every event after this revision is kept.
    events_floor BIGINT NOT NULL
);

-- The manifest as it is. `manifest` is what the user declared, as JSON; all else is the registry's.
CREATE TABLE registry_entries (
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('namespace', 'shard')),
    name TEXT COLLATE "C" NOT NULL,
    uid TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- What entries are found by.
CREATE TABLE registry_labels (
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, name, key)
);

CREATE INDEX registry_labels_by_value ON registry_labels (kind, key, value, name);

CREATE TABLE registry_owners (
    namespace TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner, namespace)
);

CREATE INDEX registry_owners_by_namespace ON registry_owners (namespace);

-- Who owns which dag_ids. No prefix starts with that of another namespace.
CREATE TABLE registry_prefixes (
    prefix TEXT COLLATE "C" PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL
);

CREATE INDEX registry_prefixes_by_namespace ON registry_prefixes (namespace);

-- Every change, once: the audit, the history that watches resume from, and the answers to calls
-- that are repeated. `before` and `after` are JSON of the whole entry, NULL where there is none.
CREATE TABLE registry_events (
    sequence BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('create', 'update', 'delete')),
    happened_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    before TEXT,
    after TEXT
);

CREATE INDEX registry_events_by_revision ON registry_events (revision, sequence);

CREATE INDEX registry_events_by_kind ON registry_events (kind, sequence);

CREATE INDEX registry_events_by_name ON registry_events (kind, name, sequence);

-- Calls that carried a request id of their own, for as long as they may be repeated. The answer is
-- put together again from the events of its revision.
CREATE TABLE registry_requests (
    actor TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    -- Of what was asked; the same id with another fingerprint is refused.
    fingerprint TEXT NOT NULL,
    revision BIGINT NOT NULL,
    -- JSON: for each entry in the order of the call its kind, name and outcome.
    items TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (actor, request_id)
);

CREATE INDEX registry_requests_by_age ON registry_requests (created_at);
