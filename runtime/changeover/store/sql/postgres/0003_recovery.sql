-- Who executes what: servers with their leases, runs with their owner and fence, the gate that holds runs back.

-- A process that executes runs. It is alive while its lease lasts; its runs are anybody's after that.
CREATE TABLE servers (
    id          word PRIMARY KEY,
    host        word NOT NULL,               -- where its pid means something
    pid         bigint NOT NULL,
    url         word NOT NULL DEFAULT '',
    started_at  double precision NOT NULL,
    lease_until double precision NOT NULL
);

-- `fence` rises with each change of owner: what carries an older one is refused.
ALTER TABLE runs ADD COLUMN owner word;                            -- a server; NULL: let go of, for whoever comes
ALTER TABLE runs ADD COLUMN attempts bigint NOT NULL DEFAULT 0;   -- processes that began to execute it
ALTER TABLE runs ADD COLUMN begun bigint NOT NULL DEFAULT 0;      -- what it was asked is in the state of its thread
ALTER TABLE runs ADD COLUMN answered word NOT NULL DEFAULT '[]';   -- ids of tasks that took the answer it gave
ALTER TABLE runs ADD COLUMN wish word CHECK (wish IN ('handover', 'cancel', 'undo'));  -- what its owner shall do with it
ALTER TABLE runs ADD COLUMN wish_reason word NOT NULL DEFAULT '';
CREATE INDEX runs_by_owner ON runs (owner) WHERE status IN ('pending', 'running');
CREATE INDEX runs_with_a_wish ON runs (owner) WHERE wish IS NOT NULL;

ALTER TABLE operations ADD COLUMN owner word;                      -- the server that carries it on
CREATE INDEX operations_under_way ON operations (created_at) WHERE status = 'running';

-- While there is a row, runs are accepted and none begins: the operation that made it drains first.
CREATE TABLE gate (
    operation word PRIMARY KEY,
    until     double precision NOT NULL                  -- it opens by itself then
);

-- What happened to a thread is found by the thread.
ALTER TABLE events ADD COLUMN thread_id word;
CREATE INDEX events_of_threads ON events (thread_id, id) WHERE thread_id IS NOT NULL;

-- Holders are counted and listed from this index alone, however many there are.
DROP INDEX threads_that_hold;
CREATE INDEX threads_that_hold ON threads (version, updated_at, holds, policy, pin_expires, graph) WHERE holds IS NOT NULL;
CREATE INDEX threads_with_a_pin_that_expires ON threads (pin_expires) WHERE pin_expires IS NOT NULL;
CREATE INDEX holds_by_version ON holds (version);

-- A pin of the thread's own that has expired is none; what the last switch or the graph says may pin it still.
DROP VIEW holders;
-- Columns of one type in all parts: else Postgres looks at the holders of every version to find those of one.
CREATE VIEW holders AS
    SELECT version, CAST('run' AS word) AS kind, id, status AS reason, created_at AS since
      FROM runs WHERE status IN ('pending', 'running')
    UNION ALL
    SELECT version, CAST('thread' AS word), id, holds, updated_at FROM threads
     WHERE holds IS NOT NULL
       AND (holds <> 'pinned' OR pin_expires IS NULL OR pin_expires > (julianday('now') - 2440587.5) * 86400.0
            OR coalesce((SELECT routing.threads FROM routing ORDER BY revision DESC LIMIT 1),
                        (SELECT g.threads FROM version_graphs g
                          WHERE g.version = threads.version AND g.graph = threads.graph)) = 'pinned')
    UNION ALL
    SELECT version, CAST('hold' AS word), id, reason, created_at FROM holds
     WHERE expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0
    UNION ALL
    SELECT CAST(apart.value AS word), CAST('routing' AS word), CAST(apart.key AS word),
           CAST('graph routed apart' AS word), routing.at
      FROM routing, json_each(routing.graphs) AS apart
     WHERE routing.revision = (SELECT max(revision) FROM routing);

UPDATE runs SET attempts = 1 WHERE status = 'running';               -- those that began before this was counted
