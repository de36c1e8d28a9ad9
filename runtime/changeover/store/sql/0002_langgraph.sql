-- What the clients of the LangGraph server keep: assistants, stored requests and streams of runs, crons, webhooks.

CREATE TABLE assistants (
    id         TEXT PRIMARY KEY,             -- UUID, lower case
    version    INTEGER NOT NULL,             -- which row of assistant_versions applies
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE assistant_versions (
    assistant   TEXT NOT NULL REFERENCES assistants (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL,            -- 1, 2, ... never reused
    graph       TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT,
    config      TEXT NOT NULL DEFAULT '{}',
    context     TEXT NOT NULL DEFAULT '{}',
    metadata    TEXT NOT NULL DEFAULT '{}',
    created_at  REAL NOT NULL,
    PRIMARY KEY (assistant, version)
) WITHOUT ROWID;
CREATE INDEX assistants_by_graph ON assistant_versions (graph);

ALTER TABLE threads ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0;  -- made for one run, gone with it
ALTER TABLE threads ADD COLUMN ttl_strategy TEXT CHECK (ttl_strategy IN ('delete', 'keep_latest'));
ALTER TABLE threads ADD COLUMN ttl_minutes REAL;
ALTER TABLE threads ADD COLUMN expires_at REAL;                       -- renewed by each run and each change of state
ALTER TABLE threads ADD COLUMN state_updated_at REAL;
CREATE INDEX threads_by_update ON threads (updated_at);
CREATE INDEX threads_that_expire ON threads (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE runs ADD COLUMN assistant_id TEXT;
ALTER TABLE runs ADD COLUMN multitask_strategy TEXT NOT NULL DEFAULT 'enqueue'
    CHECK (multitask_strategy IN ('reject', 'enqueue', 'interrupt', 'rollback'));
ALTER TABLE runs ADD COLUMN kwargs TEXT;                              -- the request, so that it can be made again
ALTER TABLE runs ADD COLUMN begin_at REAL;                            -- not before this time
CREATE INDEX runs_by_status ON runs (status, seq) WHERE status IN ('pending', 'running');

-- The stream of a run that was asked to be resumable, an event a row.
CREATE TABLE run_events (
    run_id TEXT NOT NULL,
    seq    INTEGER NOT NULL,                 -- 1, 2, ...: the event's id
    event  TEXT NOT NULL,
    data   BLOB NOT NULL,                    -- JSON
    at     REAL NOT NULL,
    PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE INDEX run_events_by_age ON run_events (at);


CREATE TABLE crons (
    id               TEXT PRIMARY KEY,
    assistant_id     TEXT NOT NULL,
    thread_id        TEXT,                   -- NULL: a thread of its own for each run
    schedule         TEXT NOT NULL,
    timezone         TEXT,
    end_time         REAL,
    enabled          INTEGER NOT NULL DEFAULT 1,
    on_run_completed TEXT NOT NULL DEFAULT 'delete' CHECK (on_run_completed IN ('delete', 'keep')),
    payload          TEXT NOT NULL,          -- the body of the run
    metadata         TEXT NOT NULL DEFAULT '{}',
    next_run_at      REAL,                   -- NULL: it fires no more
    created_at       REAL NOT NULL,
    updated_at       REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX crons_due ON crons (next_run_at) WHERE enabled = 1 AND next_run_at IS NOT NULL;

-- Webhooks that are still to be delivered, written with the end of their run.
CREATE TABLE webhooks (
    id       TEXT PRIMARY KEY,
    run_id   TEXT NOT NULL,
    url      TEXT NOT NULL,
    host     TEXT NOT NULL,                  -- of the URL, lower case
    body     TEXT NOT NULL,                  -- JSON object
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at  REAL NOT NULL,
    error    TEXT
) WITHOUT ROWID;
CREATE INDEX webhooks_due ON webhooks (next_at);

-- Where people say what they think of a run, by a key that the run was given.
CREATE TABLE feedback (
    token      TEXT PRIMARY KEY,             -- SHA-256 of the secret in its address, hex
    run_id     TEXT NOT NULL,
    key        TEXT NOT NULL,
    score      REAL,
    value      TEXT,
    comment    TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX feedback_by_run ON feedback (run_id);
CREATE INDEX feedback_unanswered ON feedback (created_at) WHERE score IS NULL AND value IS NULL AND comment IS NULL;
