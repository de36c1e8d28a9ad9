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

-- What happened to a thread is found by the thread.
ALTER TABLE events ADD COLUMN thread_id TEXT;
CREATE INDEX events_of_threads ON events (thread_id, id) WHERE thread_id IS NOT NULL;

-- Holders are counted and listed from this index alone, however many there are.
DROP INDEX threads_that_hold;
CREATE INDEX threads_that_hold ON threads (version, updated_at, holds, policy, pin_expires, graph) WHERE holds IS NOT NULL;
CREATE INDEX threads_with_a_pin_that_expires ON threads (pin_expires) WHERE pin_expires IS NOT NULL;
CREATE INDEX holds_by_version ON holds (version);

-- A pin of the thread's own that has expired is none; what the last switch or the graph says may pin it still.
DROP VIEW holders;
CREATE VIEW holders AS
    SELECT version, 'run' AS kind, id, status AS reason, created_at AS since FROM runs WHERE status IN ('pending', 'running')
    UNION ALL
    SELECT version, 'thread', id, holds, updated_at FROM threads
     WHERE holds IS NOT NULL
       AND (holds <> 'pinned' OR pin_expires IS NULL OR pin_expires > (julianday('now') - 2440587.5) * 86400.0
            OR coalesce((SELECT routing.threads FROM routing ORDER BY revision DESC LIMIT 1),
                        (SELECT g.threads FROM version_graphs g
                          WHERE g.version = threads.version AND g.graph = threads.graph)) = 'pinned')
    UNION ALL
    SELECT version, 'hold', id, reason, created_at FROM holds
     WHERE expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0
    UNION ALL
    SELECT apart.value, 'routing', apart.key, 'graph routed apart', routing.at
      FROM routing, json_each(routing.graphs) AS apart
     WHERE routing.revision = (SELECT max(revision) FROM routing);

UPDATE runs SET attempts = 1 WHERE status = 'running';               -- those that began before this was counted
