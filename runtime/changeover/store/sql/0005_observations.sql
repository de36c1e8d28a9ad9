-- What was learnt from outside when a version was built: kept until it is asked for again.
CREATE TABLE observations (
    kind        TEXT NOT NULL,             -- 'mcp'
    name        TEXT NOT NULL,             -- of the server, as the project calls it
    spec        TEXT NOT NULL,             -- SHA-256 of its entry in the project, without any value of the environment
    content     BLOB NOT NULL,             -- the file that a version holds of it
    observed_at REAL NOT NULL,
    PRIMARY KEY (kind, name, spec)
) WITHOUT ROWID;
