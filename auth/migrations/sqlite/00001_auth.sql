-- Times are whole microseconds since 1970 in UTC; 0 is "never".

-- +goose Up
CREATE TABLE auth_sessions (
    id           TEXT    NOT NULL PRIMARY KEY,
    token        BLOB    NOT NULL UNIQUE CHECK (length(token) = 32), -- SHA-256, never the token
    version      INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    organization TEXT    NOT NULL,
    device       TEXT    NOT NULL,
    aal          INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    seen         INTEGER NOT NULL,
    expires      INTEGER NOT NULL,
    source       TEXT    NOT NULL,
    ended        INTEGER NOT NULL,
    ended_by     TEXT    NOT NULL
) STRICT;
CREATE INDEX auth_sessions_subject ON auth_sessions (subject, created) WHERE ended = 0;
CREATE INDEX auth_sessions_expires ON auth_sessions (expires) WHERE ended = 0 AND expires > 0;
CREATE INDEX auth_sessions_seen    ON auth_sessions (seen) WHERE ended = 0 AND kind = 'browser';
CREATE INDEX auth_sessions_ended   ON auth_sessions (ended) WHERE ended > 0 AND kind = 'browser';

CREATE TABLE auth_credentials (
    hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    kind    TEXT    NOT NULL,
    session TEXT    NOT NULL REFERENCES auth_sessions (id) ON DELETE CASCADE,
    place   INTEGER NOT NULL, -- in the session's list
    since   INTEGER NOT NULL,
    retired INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_credentials_session ON auth_credentials (session);

CREATE TABLE auth_people (
    subject      TEXT    NOT NULL PRIMARY KEY,
    organization TEXT    NOT NULL,
    names        TEXT    NOT NULL, -- JSON arrays of strings
    mail         TEXT    NOT NULL,
    roles        TEXT    NOT NULL,
    language     TEXT    NOT NULL,
    time_zone    TEXT    NOT NULL,
    first_seen   INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE auth_typed_names (
    digest  BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 16), -- keyed
    subject TEXT    NOT NULL,
    since   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE auth_devices (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    generation INTEGER NOT NULL,
    presented  INTEGER NOT NULL,
    rotated    INTEGER NOT NULL,
    used       INTEGER NOT NULL,
    forked     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_devices_used   ON auth_devices (used);
CREATE INDEX auth_devices_unused ON auth_devices (used) WHERE presented = 0;

CREATE TABLE auth_device_subjects (
    device  BLOB    NOT NULL REFERENCES auth_devices (id) ON DELETE CASCADE,
    subject TEXT    NOT NULL,
    since   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (device, subject)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE auth_device_subjects;
DROP TABLE auth_devices;
DROP TABLE auth_typed_names;
DROP TABLE auth_people;
DROP TABLE auth_credentials;
DROP TABLE auth_sessions;
