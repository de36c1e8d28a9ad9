-- What was learnt from outside when a version was built: kept until it is asked for again.
CREATE TABLE observations (
    kind        word NOT NULL,             -- 'mcp'
    name        word NOT NULL,             -- of the server, as the project calls it
    spec        word NOT NULL,             -- SHA-256 of its entry in the project, without any value of the environment
    content     bytea NOT NULL,             -- the file that a version holds of it
    observed_at double precision NOT NULL,
    PRIMARY KEY (kind, name, spec)
);
