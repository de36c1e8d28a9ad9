-- One outbox for what is told to others: how a run ended, and the events that an alert of the settings names.

CREATE TABLE outbox (
    id       TEXT PRIMARY KEY,
    run_id   TEXT,                           -- of a webhook
    url      TEXT,                           -- of a webhook; where an alert goes is looked up when it is sent
    alert    TEXT,                           -- which alert of the settings
    lane     TEXT NOT NULL,                  -- what hangs keeps only its own lane waiting: a host, or an alert
    body     TEXT NOT NULL,                  -- JSON object
    fold     TEXT,                           -- of an alert: equal ones have the same
    again    INTEGER NOT NULL DEFAULT 0,     -- how many more events it stands for
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at  REAL NOT NULL,
    error    TEXT,
    CHECK ((run_id IS NULL) = (url IS NULL) AND (url IS NULL) <> (alert IS NULL))
) WITHOUT ROWID;
INSERT INTO outbox (id, run_id, url, lane, body, attempts, next_at, error)
    SELECT id, run_id, url, host, body, attempts, next_at, error FROM webhooks;
DROP TABLE webhooks;
CREATE INDEX outbox_due ON outbox (next_at);
CREATE INDEX outbox_folds ON outbox (fold) WHERE fold IS NOT NULL;

-- What the servers of this database tell of, and to which alert of their settings; no address is in it.
CREATE TABLE alerts (
    alert  TEXT NOT NULL,                    -- digest of the address as it is written, its variables unresolved
    name   TEXT NOT NULL,                    -- what the settings call it
    type   TEXT NOT NULL,                    -- of the event
    action TEXT,                             -- only of events with this action
    PRIMARY KEY (alert, name)
) WITHOUT ROWID;

-- When the last of equal alerts is due, for as long as the next one has to wait for that.
CREATE TABLE alerts_told (
    fold TEXT PRIMARY KEY,
    at   REAL NOT NULL
) WITHOUT ROWID;

CREATE VIEW alerts_of_events AS
    SELECT events.id AS event, events.at, alert, name, data,
           alert || '/' || name || '/' || coalesce(json_extract(data, '$.version'), json_extract(data, '$.to'), '')
                 || '/' || coalesce(json_extract(data, '$.kind') || ':' || json_extract(data, '$.name'),
                                 json_extract(data, '$.cron_id'), '') AS fold
      FROM events JOIN alerts ON alerts.type = events.type
     WHERE action IS NULL OR action = json_extract(data, '$.action');

-- An alert is written with its event, whoever writes that: the first at once, its equals of the next minute as one.
CREATE TRIGGER events_are_told AFTER INSERT ON events
WHEN EXISTS (SELECT 1 FROM alerts WHERE type = NEW.type)
BEGIN
    DELETE FROM alerts_told WHERE at < NEW.at - 60;
    UPDATE outbox SET again = again + 1
     WHERE attempts = 0 AND fold IN (SELECT fold FROM alerts_of_events WHERE event = NEW.id);
    INSERT INTO outbox (id, alert, lane, body, fold, next_at)
        SELECT lower(hex(randomblob(16))), alert, alert,
               '{"event":' || event || ',"type":"' || name || '","at":' || at || ',"details":' || data || '}', fold,
               max(at, coalesce((SELECT told.at + 60 FROM alerts_told AS told WHERE told.fold = mine.fold), 0))
          FROM alerts_of_events AS mine WHERE event = NEW.id
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.fold = mine.fold AND attempts = 0);
    INSERT INTO alerts_told (fold, at)
        SELECT fold, next_at FROM outbox
         WHERE attempts = 0 AND fold IN (SELECT fold FROM alerts_of_events WHERE event = NEW.id)
        ON CONFLICT (fold) DO UPDATE SET at = excluded.at;
END;
