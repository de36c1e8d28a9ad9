-- What the clients of the LangGraph server keep: assistants, stored requests and streams of runs, crons, webhooks.

CREATE TABLE assistants (
    id         word PRIMARY KEY,             -- UUID, lower case
    version    bigint NOT NULL,             -- which row of assistant_versions applies
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL
);

CREATE TABLE assistant_versions (
    assistant   word NOT NULL REFERENCES assistants (id) ON DELETE CASCADE,
    version     bigint NOT NULL,            -- 1, 2, ... never reused
    graph       word NOT NULL,
    name        word NOT NULL,
    description word,
    config      word NOT NULL DEFAULT '{}',
    context     word NOT NULL DEFAULT '{}',
    metadata    word NOT NULL DEFAULT '{}',
    created_at  double precision NOT NULL,
    PRIMARY KEY (assistant, version)
);
CREATE INDEX assistants_by_graph ON assistant_versions (graph);

ALTER TABLE threads ADD COLUMN temporary bigint NOT NULL DEFAULT 0;  -- made for one run, gone with it
ALTER TABLE threads ADD COLUMN ttl_strategy word CHECK (ttl_strategy IN ('delete', 'keep_latest'));
ALTER TABLE threads ADD COLUMN ttl_minutes double precision;
ALTER TABLE threads ADD COLUMN expires_at double precision;                       -- renewed by each run and each change of state
ALTER TABLE threads ADD COLUMN state_updated_at double precision;
CREATE INDEX threads_by_update ON threads (updated_at);
CREATE INDEX threads_that_expire ON threads (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE runs ADD COLUMN assistant_id word;
ALTER TABLE runs ADD COLUMN multitask_strategy word NOT NULL DEFAULT 'enqueue'
    CHECK (multitask_strategy IN ('reject', 'enqueue', 'interrupt', 'rollback'));
ALTER TABLE runs ADD COLUMN kwargs word;                              -- the request, so that it can be made again
ALTER TABLE runs ADD COLUMN begin_at double precision;                            -- not before this time
CREATE INDEX runs_by_status ON runs (status, seq) WHERE status IN ('pending', 'running');

-- The stream of a run that was asked to be resumable, an event a row.
CREATE TABLE run_events (
    run_id word NOT NULL,
    seq    bigint NOT NULL,                 -- 1, 2, ...: the event's id
    event  word NOT NULL,
    data   bytea NOT NULL,                    -- JSON
    at     double precision NOT NULL,
    PRIMARY KEY (run_id, seq)
);
CREATE INDEX run_events_by_age ON run_events (at);


CREATE TABLE crons (
    id               word PRIMARY KEY,
    assistant_id     word NOT NULL,
    thread_id        word,                   -- NULL: a thread of its own for each run
    schedule         word NOT NULL,
    timezone         word,
    end_time         double precision,
    enabled          bigint NOT NULL DEFAULT 1,
    on_run_completed word NOT NULL DEFAULT 'delete' CHECK (on_run_completed IN ('delete', 'keep')),
    payload          word NOT NULL,          -- the body of the run
    metadata         word NOT NULL DEFAULT '{}',
    next_run_at      double precision,                   -- NULL: it fires no more
    created_at       double precision NOT NULL,
    updated_at       double precision NOT NULL
);
CREATE INDEX crons_due ON crons (next_run_at) WHERE enabled = 1 AND next_run_at IS NOT NULL;

-- Webhooks that are still to be delivered, written with the end of their run.
CREATE TABLE webhooks (
    id       word PRIMARY KEY,
    run_id   word NOT NULL,
    url      word NOT NULL,
    host     word NOT NULL,                  -- of the URL, lower case
    body     word NOT NULL,                  -- JSON object
    attempts bigint NOT NULL DEFAULT 0,
    next_at  double precision NOT NULL,
    error    word
);
CREATE INDEX webhooks_due ON webhooks (next_at);

-- Where people say what they think of a run, by a key that the run was given.
CREATE TABLE feedback (
    token      word PRIMARY KEY,             -- SHA-256 of the secret in its address, hex
    run_id     word NOT NULL,
    key        word NOT NULL,
    score      double precision,
    value      word,
    comment    word,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL
);
CREATE INDEX feedback_by_run ON feedback (run_id);
CREATE INDEX feedback_unanswered ON feedback (created_at) WHERE score IS NULL AND value IS NULL AND comment IS NULL;
