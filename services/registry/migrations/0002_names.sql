-- Pools, variables and connections that a namespace has on its shard. Any two namespaces may come to
-- lie on one shard, so a name is given once in the fleet. Variables and connections whose value the
-- shard's own secrets backend has are not here: nobody writes those.
CREATE TABLE registry_names (
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('pool', 'variable', 'connection')),
    name TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE INDEX registry_names_by_namespace ON registry_names (namespace);
