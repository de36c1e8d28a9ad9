-- What runs used, by version and graph, in buckets of time; written in the transaction that ends a run.

CREATE TABLE usage (
    at         INTEGER NOT NULL,           -- start of the minute, of an hour once it is old; 0: since the version was first used
    version    TEXT NOT NULL,              -- outlives the version, which may be purged
    graph      TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('run', 'latency', 'model', 'tool')),
    agent      TEXT NOT NULL,              -- whose model or tool; '': no agent's
    name       TEXT NOT NULL,              -- of the model, of the tool; of latency: the longest of these runs, in seconds
    calls      INTEGER NOT NULL,           -- runs, or calls
    errors     INTEGER NOT NULL,           -- of them, timeouts included
    timeouts   INTEGER NOT NULL,
    interrupts INTEGER NOT NULL,           -- runs that ended waiting for somebody
    cancelled  INTEGER NOT NULL,
    seconds    REAL NOT NULL,              -- that they took together
    tokens_in  INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    PRIMARY KEY (at, version, graph, kind, agent, name)
) WITHOUT ROWID;

-- Events that are counted for the metrics.
CREATE INDEX events_that_are_counted ON events (type) WHERE type IN ('version_ready', 'version_rejected',
    'routing_changed', 'version_drained', 'drain_stalled', 'thread_migrated', 'migration_refused', 'run_handed_over',
    'handover_refused', 'run_dead', 'threads_migrated');
