-- Threads that are carried from one version to another: who saved their state, what they wait for, what they were asked.

-- The version whose contract the newest state has, where that is not the thread's own: its next run migrates it first.
ALTER TABLE threads ADD COLUMN saved_by word REFERENCES versions (id);
-- The waiting set as JSON; NULL: unknown where something waits, else nothing does.
ALTER TABLE threads ADD COLUMN waits word;
CREATE INDEX threads_saved_by_another ON threads (saved_by) WHERE saved_by IS NOT NULL;
CREATE INDEX threads_that_wait ON threads (version, graph) WHERE waiting IS NOT NULL;

ALTER TABLE version_graphs ADD COLUMN chain word NOT NULL DEFAULT '[]';  -- the steps of migration of the graph, JSON

-- Questions that are known by another id since their thread was migrated.
CREATE TABLE moved_interrupts (
    thread_id word NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    old_id    word NOT NULL,
    new_id    word NOT NULL,
    PRIMARY KEY (thread_id, old_id)
);

-- Items of the long-term memory and the steps that they have come through, which all versions share.
CREATE TABLE item_moves (
    graph   word NOT NULL,
    step    bigint NOT NULL,
    digest  word NOT NULL,                 -- of the step
    forward bigint NOT NULL,              -- which way the items were sent last
    done    bigint NOT NULL DEFAULT 0,
    at      double precision NOT NULL,
    PRIMARY KEY (graph, step)
);
CREATE TABLE moved_items (
    graph  word NOT NULL,
    prefix word NOT NULL,                  -- namespace and key, as in LangGraph's table
    key    word NOT NULL,
    step   bigint NOT NULL,
    is_new bigint NOT NULL,               -- has the form of after the step
    due    bigint NOT NULL,               -- its turn is still to come on the present way
    kept   word,                           -- what the way back needs, as JSON
    reason word NOT NULL DEFAULT '',       -- why it could not be moved
    PRIMARY KEY (graph, prefix, key, step)
);
CREATE INDEX moved_items_due ON moved_items (graph, step, prefix, key) WHERE due = 1;
CREATE INDEX moved_items_failed ON moved_items (graph, step) WHERE reason <> '';

CREATE OR REPLACE FUNCTION only_unreferenced_versions_are_purged() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.status NOT IN ('retired', 'rejected') OR EXISTS (SELECT 1 FROM threads WHERE version = OLD.id)
       OR EXISTS (SELECT 1 FROM threads WHERE saved_by = OLD.id) THEN
        PERFORM refuse('only unreferenced versions can be purged');
    END IF;
    RETURN OLD;
END $$;
