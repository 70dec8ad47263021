-- Times are whole microseconds since 1970 in UTC; 0 is "never".

-- +goose Up
CREATE TABLE auth_sessions (
    id           TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    token        BYTEA  NOT NULL UNIQUE CHECK (length(token) = 32), -- SHA-256, never the token
    version      BIGINT NOT NULL,
    kind         TEXT   COLLATE "C" NOT NULL,
    subject      TEXT   COLLATE "C" NOT NULL,
    organization TEXT   NOT NULL,
    device       TEXT   NOT NULL,
    aal          BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    seen         BIGINT NOT NULL,
    expires      BIGINT NOT NULL,
    source       TEXT   NOT NULL,
    ended        BIGINT NOT NULL,
    ended_by     TEXT   NOT NULL
);
CREATE INDEX auth_sessions_subject ON auth_sessions (subject, created) WHERE ended = 0;
CREATE INDEX auth_sessions_expires ON auth_sessions (expires) WHERE ended = 0 AND expires > 0;
CREATE INDEX auth_sessions_seen    ON auth_sessions (seen) WHERE ended = 0 AND kind = 'browser';
CREATE INDEX auth_sessions_ended   ON auth_sessions (ended) WHERE ended > 0 AND kind = 'browser';

CREATE TABLE auth_credentials (
    hash    BYTEA  NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    kind    TEXT   COLLATE "C" NOT NULL,
    session TEXT   COLLATE "C" NOT NULL REFERENCES auth_sessions (id) ON DELETE CASCADE,
    place   BIGINT NOT NULL, -- in the session's list
    since   BIGINT NOT NULL,
    retired BIGINT NOT NULL
);
CREATE INDEX auth_credentials_session ON auth_credentials (session);

CREATE TABLE auth_people (
    subject      TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL,
    names        TEXT   NOT NULL, -- JSON arrays of strings
    mail         TEXT   NOT NULL,
    roles        TEXT   NOT NULL,
    language     TEXT   NOT NULL,
    time_zone    TEXT   NOT NULL,
    first_seen   BIGINT NOT NULL,
    last_seen    BIGINT NOT NULL
);

CREATE TABLE auth_typed_names (
    digest  BYTEA  NOT NULL PRIMARY KEY CHECK (length(digest) = 16), -- keyed
    subject TEXT   COLLATE "C" NOT NULL,
    since   BIGINT NOT NULL
);

CREATE TABLE auth_devices (
    id         BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    generation BIGINT NOT NULL,
    presented  BIGINT NOT NULL,
    rotated    BIGINT NOT NULL,
    used       BIGINT NOT NULL,
    forked     BIGINT NOT NULL
);
CREATE INDEX auth_devices_used   ON auth_devices (used);
CREATE INDEX auth_devices_unused ON auth_devices (used) WHERE presented = 0;

CREATE TABLE auth_device_subjects (
    device  BYTEA  NOT NULL REFERENCES auth_devices (id) ON DELETE CASCADE,
    subject TEXT   COLLATE "C" NOT NULL,
    since   BIGINT NOT NULL,
    last    BIGINT NOT NULL,
    PRIMARY KEY (device, subject)
);

-- +goose Down
DROP TABLE auth_device_subjects;
DROP TABLE auth_devices;
DROP TABLE auth_typed_names;
DROP TABLE auth_people;
DROP TABLE auth_credentials;
DROP TABLE auth_sessions;
