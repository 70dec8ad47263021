-- +goose Up
-- What findings of rules propose to look into. Times are Unix microseconds; 0 means none.
CREATE TABLE incidents (
    id           TEXT    NOT NULL PRIMARY KEY, -- sorts by time
    category     TEXT    NOT NULL,
    key          TEXT    NOT NULL, -- what the value is of
    value        TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    rules        TEXT    NOT NULL, -- JSON
    state        TEXT    NOT NULL,
    first_seen   INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    found        INTEGER NOT NULL,
    touched      INTEGER NOT NULL, -- rows of incident_accounts
    touched_more INTEGER NOT NULL, -- 1: there are more accounts
    closed       INTEGER NOT NULL,
    UNIQUE (category, key, value, window_start)
) STRICT, WITHOUT ROWID;
CREATE INDEX incidents_open ON incidents (category) WHERE closed = 0;
CREATE INDEX incidents_closed ON incidents (closed) WHERE closed > 0;

-- How each came into its states.
CREATE TABLE incident_changes (
    incident TEXT    NOT NULL,
    number   INTEGER NOT NULL, -- from 0
    state    TEXT    NOT NULL,
    made_by  TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    note     TEXT    NOT NULL,
    PRIMARY KEY (incident, number)
) STRICT, WITHOUT ROWID;

-- The first findings of each.
CREATE TABLE incident_findings (
    incident TEXT    NOT NULL,
    finding  TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (incident, finding)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_findings_at ON incident_findings (at);

-- The first accounts that findings of each are about.
CREATE TABLE incident_accounts (
    incident TEXT    NOT NULL,
    account  TEXT    NOT NULL,
    number   INTEGER NOT NULL, -- in the order in which they were found, from 0
    PRIMARY KEY (incident, account)
) STRICT, WITHOUT ROWID;

-- One row. Every change of an incident begins by raising it, so that they never overlap.
CREATE TABLE incidents_revision (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO incidents_revision (one, revision) VALUES (1, 0);

CREATE INDEX decisions_incident ON decisions (incident, id) WHERE incident <> '';

-- +goose Down
DROP INDEX decisions_incident;
DROP TABLE incidents_revision;
DROP TABLE incident_accounts;
DROP TABLE incident_findings;
DROP TABLE incident_changes;
DROP TABLE incidents;
