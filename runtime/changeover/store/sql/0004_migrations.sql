-- Threads that are carried from one version to another: who saved their state, what they wait for, what they were asked.

-- The version whose contract the newest state has, where that is not the thread's own: its next run migrates it first.
ALTER TABLE threads ADD COLUMN saved_by TEXT REFERENCES versions (id);
-- The waiting set as JSON; NULL: unknown where something waits, else nothing does.
ALTER TABLE threads ADD COLUMN waits TEXT;
CREATE INDEX threads_saved_by_another ON threads (saved_by) WHERE saved_by IS NOT NULL;
CREATE INDEX threads_that_wait ON threads (version, graph) WHERE waiting IS NOT NULL;

ALTER TABLE version_graphs ADD COLUMN chain TEXT NOT NULL DEFAULT '[]';  -- the steps of migration of the graph, JSON

-- Questions that are known by another id since their thread was migrated.
CREATE TABLE moved_interrupts (
    thread_id TEXT NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    old_id    TEXT NOT NULL,
    new_id    TEXT NOT NULL,
    PRIMARY KEY (thread_id, old_id)
) WITHOUT ROWID;

-- Items of the long-term memory and the steps that they have come through, which all versions share.
CREATE TABLE item_moves (
    graph   TEXT NOT NULL,
    step    INTEGER NOT NULL,
    digest  TEXT NOT NULL,                 -- of the step
    forward INTEGER NOT NULL,              -- which way the items were sent last
    done    INTEGER NOT NULL DEFAULT 0,
    at      REAL NOT NULL,
    PRIMARY KEY (graph, step)
) WITHOUT ROWID;
CREATE TABLE moved_items (
    graph  TEXT NOT NULL,
    prefix TEXT NOT NULL,                  -- namespace and key, as in LangGraph's table
    key    TEXT NOT NULL,
    step   INTEGER NOT NULL,
    is_new INTEGER NOT NULL,               -- has the form of after the step
    due    INTEGER NOT NULL,               -- its turn is still to come on the present way
    kept   TEXT,                           -- what the way back needs, as JSON
    reason TEXT NOT NULL DEFAULT '',       -- why it could not be moved
    PRIMARY KEY (graph, prefix, key, step)
) WITHOUT ROWID;
CREATE INDEX moved_items_due ON moved_items (graph, step, prefix, key) WHERE due = 1;
CREATE INDEX moved_items_failed ON moved_items (graph, step) WHERE reason <> '';

DROP TRIGGER only_unreferenced_versions_are_purged;
CREATE TRIGGER only_unreferenced_versions_are_purged BEFORE DELETE ON versions
WHEN OLD.status NOT IN ('retired', 'rejected') OR EXISTS (SELECT 1 FROM threads WHERE version = OLD.id)
  OR EXISTS (SELECT 1 FROM threads WHERE saved_by = OLD.id)
BEGIN SELECT RAISE(ABORT, 'only unreferenced versions can be purged'); END;
