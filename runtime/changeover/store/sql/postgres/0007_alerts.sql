-- One outbox for what is told to others: how a run ended, and the events that an alert of the settings names.

CREATE TABLE outbox (
    id       word PRIMARY KEY,
    run_id   word,                           -- of a webhook
    url      word,                           -- of a webhook; where an alert goes is looked up when it is sent
    alert    word,                           -- which alert of the settings
    lane     word NOT NULL,                  -- what hangs keeps only its own lane waiting: a host, or an alert
    body     word NOT NULL,                  -- JSON object
    fold     word,                           -- of an alert: equal ones have the same
    again    bigint NOT NULL DEFAULT 0,     -- how many more events it stands for
    attempts bigint NOT NULL DEFAULT 0,
    next_at  double precision NOT NULL,
    error    word,
    CHECK ((run_id IS NULL) = (url IS NULL) AND (url IS NULL) <> (alert IS NULL))
);
INSERT INTO outbox (id, run_id, url, lane, body, attempts, next_at, error)
    SELECT id, run_id, url, host, body, attempts, next_at, error FROM webhooks;
DROP TABLE webhooks;
CREATE INDEX outbox_due ON outbox (next_at);
CREATE INDEX outbox_folds ON outbox (fold) WHERE fold IS NOT NULL;

-- What the servers of this database tell of, and to which alert of their settings; no address is in it.
CREATE TABLE alerts (
    alert  word NOT NULL,                    -- digest of the address as it is written, its variables unresolved
    name   word NOT NULL,                    -- what the settings call it
    type   word NOT NULL,                    -- of the event
    action word,                             -- only of events with this action
    PRIMARY KEY (alert, name)
);

-- When the last of equal alerts is due, for as long as the next one has to wait for that.
CREATE TABLE alerts_told (
    fold word PRIMARY KEY,
    at   double precision NOT NULL
);

CREATE VIEW alerts_of_events AS
    SELECT events.id AS event, events.at, alert, name, data,
           alert || '/' || name || '/' || coalesce(json_extract(data, '$.version'), json_extract(data, '$.to'), '')
                 || '/' || coalesce(json_extract(data, '$.kind') || ':' || json_extract(data, '$.name'),
                                 json_extract(data, '$.cron_id'), '') AS fold
      FROM events JOIN alerts ON alerts.type = events.type
     WHERE action IS NULL OR action = json_extract(data, '$.action');

-- An alert is written with its event, whoever writes that: the first at once, its equals of the next minute as one.
CREATE FUNCTION events_are_told() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM alerts WHERE type = NEW.type) THEN
        RETURN NULL;
    END IF;
    DELETE FROM alerts_told WHERE at < NEW.at - 60;
    UPDATE outbox SET again = again + 1
     WHERE attempts = 0 AND fold IN (SELECT fold FROM alerts_of_events WHERE event = NEW.id);
    INSERT INTO outbox (id, alert, lane, body, fold, next_at)
        SELECT replace(gen_random_uuid()::text, '-', ''), alert, alert,
               '{"event":' || event || ',"type":"' || name || '","at":' || at || ',"details":' || data || '}', fold,
               greatest(at, (SELECT told.at + 60 FROM alerts_told AS told WHERE told.fold = mine.fold))
          FROM alerts_of_events AS mine WHERE event = NEW.id
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.fold = mine.fold AND attempts = 0);
    INSERT INTO alerts_told (fold, at)
        SELECT fold, next_at FROM outbox
         WHERE attempts = 0 AND fold IN (SELECT fold FROM alerts_of_events WHERE event = NEW.id)
        ON CONFLICT (fold) DO UPDATE SET at = excluded.at;
    RETURN NULL;
END $$;
CREATE TRIGGER events_are_told AFTER INSERT ON events FOR EACH ROW
    EXECUTE FUNCTION events_are_told();
