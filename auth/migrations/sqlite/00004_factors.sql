-- +goose Up
-- Authenticators of accounts. Times are whole microseconds since 1970 in UTC; 0 is "never".
CREATE TABLE auth_factors (
    id           TEXT    NOT NULL PRIMARY KEY,
    subject      TEXT    NOT NULL,
    kind         TEXT    NOT NULL, -- totp, key, recovery
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL, -- pending, active, disabled
    version      INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    used         INTEGER NOT NULL,
    disabled     INTEGER NOT NULL,
    disabled_by  TEXT    NOT NULL,
    failures     INTEGER NOT NULL, -- in a row
    next_attempt INTEGER NOT NULL, -- not before
    codes_left   INTEGER NOT NULL, -- of recovery codes
    last_step    INTEGER NOT NULL, -- whose code was used, of TOTP
    pending      INTEGER NOT NULL, -- until
    secret       BLOB    NOT NULL -- sealed, with kind, subject and id as associated data
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_factors_subject ON auth_factors (subject, created, id);
CREATE INDEX auth_factors_pending ON auth_factors (pending) WHERE state = 'pending';

-- Nobody's: what an attempt writes where there is no authenticator, for the time it takes.
INSERT INTO auth_factors (id, subject, kind, name, state, version, created, used, disabled, disabled_by, failures, next_attempt, codes_left, last_step, pending, secret)
VALUES ('', '', 'none', '', 'disabled', 0, 0, 0, 0, '', 0, 0, 0, 0, 0, zeroblob(60));

-- Whose a key is, by a hash of the credential id that it shows.
CREATE TABLE auth_keys (
    credential BLOB    NOT NULL PRIMARY KEY CHECK (length(credential) = 32),
    factor     TEXT    NOT NULL REFERENCES auth_factors (id) ON DELETE CASCADE,
    subject    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_keys_factor ON auth_keys (factor);

-- How keys know an account: random, and nothing about it.
CREATE TABLE auth_handles (
    subject TEXT    NOT NULL PRIMARY KEY,
    handle  BLOB    NOT NULL UNIQUE CHECK (length(handle) = 64)
) STRICT, WITHOUT ROWID;

-- What a key was asked to sign, until it did.
CREATE TABLE auth_challenges (
    hash     BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    subject  TEXT    NOT NULL, -- '': whoever has the key
    ceremony TEXT    NOT NULL, -- bind, use, discover
    purpose  TEXT    NOT NULL,
    expires  INTEGER NOT NULL,
    data     TEXT    NOT NULL -- JSON, without the challenge
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_challenges_subject ON auth_challenges (subject, expires, hash);
CREATE INDEX auth_challenges_expires ON auth_challenges (expires);

-- What owners are to be told, until they were.
CREATE TABLE auth_factor_notices (
    id          TEXT    NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    subject     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    factor      TEXT    NOT NULL,
    factor_kind TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    by_whom     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_factor_notices_at ON auth_factor_notices (at, id);

-- +goose Down
DROP TABLE auth_factor_notices;
DROP TABLE auth_challenges;
DROP TABLE auth_handles;
DROP TABLE auth_keys;
DROP TABLE auth_factors;
