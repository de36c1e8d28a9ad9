-- Plans count what rests from this index alone, whatever the rows weigh; what waits is read from the rows.
-- Lists say `waiting IS NULL`, so that this one, which is not in their order, is not taken for them.
CREATE INDEX threads_that_rest ON threads (graph, version, saved_by, holds, policy, pin_expires, status, waiting, id)
    WHERE coalesce(waiting, '') = '';
