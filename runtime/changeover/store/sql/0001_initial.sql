-- Tables of changeover. Times are Unix seconds (REAL). Ids of versions are text: v7, or a registered name.
-- What must never be written is refused here, so that no code path can write it.

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,                 -- SHA-256 of data, hex
    data   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE versions (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,         -- 'v' || number, or the name of a registered version
    digest     TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL,
    bad        INTEGER NOT NULL DEFAULT 0,   -- left by a rollback; never promoted by the watcher
    bad_graphs TEXT NOT NULL DEFAULT '[]',   -- the same for graphs that were rolled back apart
    registered INTEGER NOT NULL DEFAULT 0,   -- made in code: has no snapshot to be rebuilt from
    message    TEXT NOT NULL DEFAULT '',
    manifest   TEXT NOT NULL,                -- {path: digest of blob}
    changed    TEXT NOT NULL DEFAULT '[]',   -- paths that differ from the version built before
    problems   TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    touched_at REAL NOT NULL                 -- last change of status, for the keep time
);
CREATE UNIQUE INDEX one_current_version ON versions (status) WHERE status = 'current';
CREATE UNIQUE INDEX one_ramping_version ON versions (status) WHERE status = 'ramping';

CREATE TABLE moves (source TEXT NOT NULL, target TEXT NOT NULL, PRIMARY KEY (source, target)) WITHOUT ROWID;

CREATE TABLE contracts (
    graph_digest TEXT PRIMARY KEY,
    format       INTEGER NOT NULL,
    digest       TEXT NOT NULL,              -- equal digests: the state of one fits the other
    contract     TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE version_graphs (
    version      TEXT NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    graph        TEXT NOT NULL,
    graph_digest TEXT NOT NULL REFERENCES contracts (graph_digest),
    threads      TEXT NOT NULL DEFAULT 'auto',
    description  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (version, graph)
) WITHOUT ROWID;

-- The routing is the newest row; its history is the rest. A change without a row of history cannot exist,
-- and two writers that saw the same revision cannot both insert the next one.
CREATE TABLE routing (
    revision  INTEGER PRIMARY KEY,
    current   TEXT NOT NULL REFERENCES versions (id),
    graphs    TEXT NOT NULL DEFAULT '{}',
    ramping   TEXT REFERENCES versions (id),
    percent   REAL NOT NULL DEFAULT 0,
    salt      TEXT NOT NULL DEFAULT '',
    threads   TEXT,                          -- thread policy of the last switch
    action    TEXT NOT NULL,                 -- start | switch | ramp | rollback
    operation TEXT NOT NULL,
    previous  TEXT,
    actor     TEXT NOT NULL,
    reason    TEXT NOT NULL DEFAULT '',
    at        REAL NOT NULL
);

CREATE TABLE threads (
    id          TEXT PRIMARY KEY,
    graph       TEXT,
    version     TEXT REFERENCES versions (id),
    policy      TEXT,                        -- the thread's own; NULL: that of the routing, then of the graph
    pin_expires REAL,
    status      TEXT NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'busy', 'interrupted', 'error')),
    waiting     TEXT,                        -- interrupt | breakpoint | failure: what its head waits for
    holds       TEXT,                        -- why it is a holder of its version: interrupt | breakpoint | pinned
    reason      TEXT NOT NULL DEFAULT '',    -- why it is on its version
    metadata    TEXT NOT NULL DEFAULT '{}',
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX threads_that_hold ON threads (version, holds) WHERE holds IS NOT NULL;
CREATE INDEX threads_by_version ON threads (version, updated_at);

CREATE TABLE runs (
    seq               INTEGER PRIMARY KEY,                -- order of arrival
    id                TEXT NOT NULL UNIQUE,
    thread_id         TEXT,
    graph             TEXT NOT NULL,
    version           TEXT NOT NULL REFERENCES versions (id),
    requested_version TEXT,
    reason            TEXT NOT NULL,                      -- why this version
    continues         INTEGER NOT NULL DEFAULT 0,         -- no new input: goes on with what waits
    status            TEXT NOT NULL CHECK (status IN ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
    status_reason     TEXT NOT NULL DEFAULT '',
    fence             INTEGER NOT NULL DEFAULT 1,
    metadata          TEXT NOT NULL DEFAULT '{}',
    created_at        REAL NOT NULL,
    started_at        REAL,
    ended_at          REAL
);
CREATE UNIQUE INDEX one_running_run_per_thread ON runs (thread_id) WHERE status = 'running' AND thread_id IS NOT NULL;
CREATE INDEX runs_active_by_version ON runs (version) WHERE status IN ('pending', 'running');
CREATE INDEX runs_pending_by_thread ON runs (thread_id, seq) WHERE status = 'pending';
CREATE INDEX runs_by_thread ON runs (thread_id, seq);

CREATE TABLE holds (
    id         TEXT PRIMARY KEY,
    version    TEXT NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    reason     TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL
) WITHOUT ROWID;

CREATE TABLE operations (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,                -- switch | rollback | drain
    status     TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'timed_out')),
    request    TEXT NOT NULL,
    progress   TEXT NOT NULL DEFAULT '{}',
    result     TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   REAL NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE notes (                         -- single facts, such as the bytes of the folder that were seen last
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE idempotency (
    key     TEXT PRIMARY KEY,
    request TEXT NOT NULL,                   -- digest of method, path and body
    status  INTEGER NOT NULL,
    body    TEXT NOT NULL,
    at      REAL NOT NULL
) WITHOUT ROWID;

-- Everything that still needs a version, counted from the rows themselves.
CREATE VIEW holders AS
    SELECT version, 'run' AS kind, id, status AS reason, created_at AS since FROM runs WHERE status IN ('pending', 'running')
    UNION ALL
    SELECT version, 'thread', id, holds, updated_at FROM threads WHERE holds IS NOT NULL
    UNION ALL
    SELECT version, 'hold', id, reason, created_at FROM holds
     WHERE expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0
    UNION ALL
    SELECT apart.value, 'routing', apart.key, 'graph routed apart', routing.at
      FROM routing, json_each(routing.graphs) AS apart
     WHERE routing.revision = (SELECT max(revision) FROM routing);

CREATE TRIGGER legal_moves_only BEFORE UPDATE OF status ON versions
WHEN OLD.status <> NEW.status
 AND NOT EXISTS (SELECT 1 FROM moves WHERE source = OLD.status AND target = NEW.status)
BEGIN SELECT RAISE(ABORT, 'illegal move of a version'); END;

CREATE TRIGGER drained_means_no_holders BEFORE UPDATE OF status ON versions
WHEN NEW.status IN ('drained', 'retired') AND EXISTS (SELECT 1 FROM holders WHERE version = NEW.id)
BEGIN SELECT RAISE(ABORT, 'version still has holders'); END;

CREATE TRIGGER no_run_on_a_rejected_version BEFORE INSERT ON runs
WHEN (SELECT status FROM versions WHERE id = NEW.version) = 'rejected'
BEGIN SELECT RAISE(ABORT, 'a rejected version cannot run'); END;

CREATE TRIGGER no_hold_on_a_rejected_version BEFORE INSERT ON holds
WHEN (SELECT status FROM versions WHERE id = NEW.version) = 'rejected'
BEGIN SELECT RAISE(ABORT, 'a rejected version cannot be held'); END;

CREATE TRIGGER a_new_run_drains_again AFTER INSERT ON runs
WHEN NEW.status IN ('pending', 'running')
BEGIN UPDATE versions SET status = 'draining', touched_at = NEW.created_at
       WHERE id = NEW.version AND status IN ('drained', 'retired'); END;

CREATE TRIGGER a_run_that_moves_drains_again AFTER UPDATE OF version ON runs
WHEN NEW.status IN ('pending', 'running')
BEGIN UPDATE versions SET status = 'draining'
       WHERE id = NEW.version AND status IN ('drained', 'retired'); END;

CREATE TRIGGER a_thread_that_holds_drains_again AFTER UPDATE OF holds, version ON threads
WHEN NEW.holds IS NOT NULL
BEGIN UPDATE versions SET status = 'draining', touched_at = NEW.updated_at
       WHERE id = NEW.version AND status IN ('drained', 'retired'); END;

CREATE TRIGGER a_new_hold_drains_again AFTER INSERT ON holds
BEGIN UPDATE versions SET status = 'draining', touched_at = NEW.created_at
       WHERE id = NEW.version AND status IN ('drained', 'retired'); END;

CREATE TRIGGER only_unreferenced_versions_are_purged BEFORE DELETE ON versions
WHEN OLD.status NOT IN ('retired', 'rejected') OR EXISTS (SELECT 1 FROM threads WHERE version = OLD.id)
BEGIN SELECT RAISE(ABORT, 'only unreferenced versions can be purged'); END;

CREATE TRIGGER history_is_written_once BEFORE UPDATE ON routing
BEGIN SELECT RAISE(ABORT, 'history is written once'); END;

CREATE TRIGGER routing_names_the_current_version AFTER INSERT ON routing
WHEN NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.current AND status = 'current')
BEGIN SELECT RAISE(ABORT, 'routing must name the current version'); END;
