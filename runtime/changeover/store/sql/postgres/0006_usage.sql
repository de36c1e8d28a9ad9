-- What runs used, by version and graph, in buckets of time; written in the transaction that ends a run.

CREATE TABLE usage (
    at         bigint NOT NULL,           -- start of the minute, of an hour once it is old; 0: since the version was first used
    version    word NOT NULL,              -- outlives the version, which may be purged
    graph      word NOT NULL,
    kind       word NOT NULL CHECK (kind IN ('run', 'latency', 'model', 'tool')),
    agent      word NOT NULL,              -- whose model or tool; '': no agent's
    name       word NOT NULL,              -- of the model, of the tool; of latency: the longest of these runs, in seconds
    calls      bigint NOT NULL,           -- runs, or calls
    errors     bigint NOT NULL,           -- of them, timeouts included
    timeouts   bigint NOT NULL,
    interrupts bigint NOT NULL,           -- runs that ended waiting for somebody
    cancelled  bigint NOT NULL,
    seconds    double precision NOT NULL,              -- that they took together
    tokens_in  bigint NOT NULL,
    tokens_out bigint NOT NULL,
    PRIMARY KEY (at, version, graph, kind, agent, name)
);

-- Events that are counted for the metrics.
CREATE INDEX events_that_are_counted ON events (type) WHERE type IN ('version_ready', 'version_rejected',
    'routing_changed', 'version_drained', 'drain_stalled', 'thread_migrated', 'migration_refused', 'run_handed_over',
    'handover_refused', 'run_dead', 'threads_migrated');
