-- Lists of threads and runs, by whatever they are chosen: a page and a count come from one index each.

-- The page of any filter is found in one of these two alone, in the order of the list.
DROP INDEX threads_by_update;
CREATE INDEX threads_by_update ON threads (updated_at, id, version, graph, status, waiting, policy, pin_expires);
DROP INDEX threads_by_version;
CREATE INDEX threads_by_version ON threads (version, updated_at, id, graph, status, waiting, policy, pin_expires);
-- Counts. Lists do not say that a thread is not temporary, so that this one, which has no order for them, is not taken.
CREATE INDEX threads_by_place ON threads (version, graph, status, waiting, temporary) WHERE temporary = 0;
-- What waits at which node is read from the rows that `threads_that_wait` finds: their waiting sets are too long for it.

-- Those that wait for a person; since when is not changed by who edits their metadata, pins or migrates them.
UPDATE threads SET state_updated_at = updated_at WHERE state_updated_at IS NULL AND waiting IS NOT NULL;
CREATE INDEX threads_that_ask ON threads (state_updated_at, id, version, graph, status, waiting, temporary)
    WHERE status = 'interrupted' AND waiting IN ('interrupt', 'breakpoint') AND temporary = 0;

CREATE INDEX runs_by_version ON runs (version, seq, graph);
CREATE INDEX runs_by_graph ON runs (graph, seq, version);
CREATE INDEX runs_that_failed ON runs (status, seq) WHERE status IN ('error', 'timeout', 'interrupted');
