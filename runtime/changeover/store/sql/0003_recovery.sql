-- Who executes what: servers with their leases, runs with their owner and fence, the gate that holds runs back.

-- A process that executes runs. It is alive while its lease lasts; its runs are anybody's after that.
CREATE TABLE servers (
    id          TEXT PRIMARY KEY,
    host        TEXT NOT NULL,               -- where its pid means something
    pid         INTEGER NOT NULL,
    url         TEXT NOT NULL DEFAULT '',
    started_at  REAL NOT NULL,
    lease_until REAL NOT NULL
) WITHOUT ROWID;

-- `fence` rises with each change of owner: what carries an older one is refused.
ALTER TABLE runs ADD COLUMN owner TEXT;                            -- a server; NULL: let go of, for whoever comes
ALTER TABLE runs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;   -- processes that began to execute it
ALTER TABLE runs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;      -- what it was asked is in the state of its thread
ALTER TABLE runs ADD COLUMN answered TEXT NOT NULL DEFAULT '[]';   -- ids of tasks that took the answer it gave
ALTER TABLE runs ADD COLUMN wish TEXT CHECK (wish IN ('handover', 'cancel', 'undo'));  -- what its owner shall do with it
ALTER TABLE runs ADD COLUMN wish_reason TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_owner ON runs (owner) WHERE status IN ('pending', 'running');
CREATE INDEX runs_with_a_wish ON runs (owner) WHERE wish IS NOT NULL;

ALTER TABLE operations ADD COLUMN owner TEXT;                      -- the server that carries it on
CREATE INDEX operations_under_way ON operations (created_at) WHERE status = 'running';

-- While there is a row, runs are accepted and none begins: the operation that made it drains first.
CREATE TABLE gate (
    operation TEXT PRIMARY KEY,
    until     REAL NOT NULL                  -- it opens by itself then
) WITHOUT ROWID;
