-- +goose Up
-- What findings of rules propose to look into. Times are Unix microseconds; 0 means none.
CREATE TABLE incidents (
    id           TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- sorts by time
    category     TEXT    COLLATE "C" NOT NULL,
    key          TEXT    COLLATE "C" NOT NULL, -- what the value is of
    value        TEXT    COLLATE "C" NOT NULL,
    window_start BIGINT  NOT NULL,
    rules        TEXT    NOT NULL, -- JSON
    state        TEXT    NOT NULL,
    first_seen   BIGINT  NOT NULL,
    last_seen    BIGINT  NOT NULL,
    found        BIGINT  NOT NULL,
    touched      BIGINT  NOT NULL, -- rows of incident_accounts
    touched_more BIGINT  NOT NULL, -- 1: there are more accounts
    closed       BIGINT  NOT NULL,
    UNIQUE (category, key, value, window_start)
);
CREATE INDEX incidents_open ON incidents (category) WHERE closed = 0;
CREATE INDEX incidents_closed ON incidents (closed) WHERE closed > 0;

-- How each came into its states.
CREATE TABLE incident_changes (
    incident     TEXT    COLLATE "C" NOT NULL,
    number       BIGINT  NOT NULL, -- from 0
    state        TEXT    NOT NULL,
    made_by      TEXT    NOT NULL,
    at           BIGINT  NOT NULL,
    note         TEXT    NOT NULL,
    PRIMARY KEY (incident, number)
);

-- The first findings of each.
CREATE TABLE incident_findings (
    incident     TEXT    COLLATE "C" NOT NULL,
    finding      TEXT    COLLATE "C" NOT NULL,
    at           BIGINT  NOT NULL,
    PRIMARY KEY (incident, finding)
);
CREATE INDEX incident_findings_at ON incident_findings (at);

-- The first accounts that findings of each are about.
CREATE TABLE incident_accounts (
    incident     TEXT    COLLATE "C" NOT NULL,
    account      TEXT    COLLATE "C" NOT NULL,
    number       BIGINT  NOT NULL, -- in the order in which they were found, from 0
    PRIMARY KEY (incident, account)
);

-- One row. Every change of an incident begins by raising it, so that they never overlap.
CREATE TABLE incidents_revision (
    one          BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    revision     BIGINT  NOT NULL
);
INSERT INTO incidents_revision (one, revision) VALUES (1, 0);

CREATE INDEX decisions_incident ON decisions (incident, id) WHERE incident <> '';

-- +goose Down
DROP INDEX decisions_incident;
DROP TABLE incidents_revision;
DROP TABLE incident_accounts;
DROP TABLE incident_findings;
DROP TABLE incident_changes;
DROP TABLE incidents;
