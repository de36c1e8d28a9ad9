-- Operations that somebody cancels or escalates, and found by kind, status and version; events found by what they name.

CREATE TABLE operations_anew (
    id          TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,               -- switch | ramp | rollback | drain | migration
    status      TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'timed_out', 'cancelled')),
    request     TEXT NOT NULL,
    progress    TEXT NOT NULL DEFAULT '{}',
    result      TEXT,
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL,
    owner       TEXT,                        -- the server that carries it on
    wish        TEXT CHECK (wish IN ('handover', 'cancel', 'stop')),  -- drain harder; stop: wait no more
    wish_by     TEXT,
    wish_reason TEXT,
    wish_at     REAL
) WITHOUT ROWID;
INSERT INTO operations_anew (id, kind, status, request, progress, result, created_at, updated_at, owner)
    SELECT id, kind, status, request, progress, result, created_at, updated_at, owner FROM operations;
DROP TABLE operations;
ALTER TABLE operations_anew RENAME TO operations;
CREATE INDEX operations_under_way ON operations (created_at) WHERE status = 'running';
CREATE INDEX operations_by_time ON operations (created_at, id);
CREATE INDEX operations_by_kind ON operations (kind, created_at, id);
CREATE INDEX operations_by_status ON operations (status, created_at, id);

-- The versions that an operation names: where it goes, and what it leaves or drains.
CREATE TABLE operation_versions (
    version   TEXT NOT NULL,
    operation TEXT NOT NULL,
    PRIMARY KEY (version, operation)
) WITHOUT ROWID;
INSERT INTO operation_versions (version, operation)
    SELECT version, id FROM (
        SELECT json_extract(request, '$.to') AS version, id FROM operations
        UNION SELECT json_extract(request, '$.from'), id FROM operations
        UNION SELECT json_extract(request, '$.version'), id FROM operations
        UNION SELECT json_extract(result, '$.to'), id FROM operations
        UNION SELECT json_extract(result, '$.from'), id FROM operations
    ) AS named WHERE version IS NOT NULL;

-- What an event names is found by it. `left_version`: where something moved from, if that is another one.
ALTER TABLE events ADD COLUMN version TEXT;
ALTER TABLE events ADD COLUMN left_version TEXT;
ALTER TABLE events ADD COLUMN operation TEXT;
UPDATE events SET version = coalesce(json_extract(data, '$.version'), json_extract(data, '$.to')),
                  left_version = json_extract(data, '$.from'),
                  operation = json_extract(data, '$.operation');
UPDATE events SET left_version = NULL WHERE left_version = version;
CREATE INDEX events_of_types ON events (type, id);
CREATE INDEX events_of_versions ON events (version, id) WHERE version IS NOT NULL;
CREATE INDEX events_of_left_versions ON events (left_version, id) WHERE left_version IS NOT NULL;
CREATE INDEX events_of_operations ON events (operation, id) WHERE operation IS NOT NULL;
