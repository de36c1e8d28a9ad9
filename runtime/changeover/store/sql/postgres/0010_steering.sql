-- Operations that somebody cancels or escalates, and found by kind, status and version; events found by what they name.

ALTER TABLE operations DROP CONSTRAINT operations_status_check;
ALTER TABLE operations ADD CONSTRAINT operations_status_check
    CHECK (status IN ('running', 'done', 'failed', 'timed_out', 'cancelled'));
ALTER TABLE operations ADD COLUMN wish word CHECK (wish IN ('handover', 'cancel', 'stop'));  -- drain harder; stop: wait no more
ALTER TABLE operations ADD COLUMN wish_by word;
ALTER TABLE operations ADD COLUMN wish_reason word;
ALTER TABLE operations ADD COLUMN wish_at double precision;
CREATE INDEX operations_by_time ON operations (created_at, id);
CREATE INDEX operations_by_kind ON operations (kind, created_at, id);
CREATE INDEX operations_by_status ON operations (status, created_at, id);

-- The versions that an operation names: where it goes, and what it leaves or drains.
CREATE TABLE operation_versions (
    version   word NOT NULL,
    operation word NOT NULL,
    PRIMARY KEY (version, operation)
);
INSERT INTO operation_versions (version, operation)
    SELECT version, id FROM (
        SELECT json_extract(request, '$.to') AS version, id FROM operations
        UNION SELECT json_extract(request, '$.from'), id FROM operations
        UNION SELECT json_extract(request, '$.version'), id FROM operations
        UNION SELECT json_extract(result, '$.to'), id FROM operations
        UNION SELECT json_extract(result, '$.from'), id FROM operations
    ) AS named WHERE version IS NOT NULL;

-- What an event names is found by it. `left_version`: where something moved from, if that is another one.
ALTER TABLE events ADD COLUMN version word;
ALTER TABLE events ADD COLUMN left_version word;
ALTER TABLE events ADD COLUMN operation word;
UPDATE events SET version = told.version, left_version = nullif(told.left_version, told.version), operation = told.operation
  FROM (SELECT id, coalesce(data ->> 'version', data ->> 'to') AS version, data ->> 'from' AS left_version,
               data ->> 'operation' AS operation
          FROM (SELECT id, jsonb_of(data) AS data FROM events OFFSET 0) AS read) AS told  -- read once, not for each name
 WHERE told.id = events.id AND coalesce(told.version, told.left_version, told.operation) IS NOT NULL;
CREATE INDEX events_of_types ON events (type, id);
CREATE INDEX events_of_versions ON events (version, id) WHERE version IS NOT NULL;
CREATE INDEX events_of_left_versions ON events (left_version, id) WHERE left_version IS NOT NULL;
CREATE INDEX events_of_operations ON events (operation, id) WHERE operation IS NOT NULL;
ANALYZE events;  -- else the planner knows nothing of the new columns until it comes to that by itself
