-- +goose Up
-- Authenticators of accounts. Times are whole microseconds since 1970 in UTC; 0 is "never".
CREATE TABLE auth_factors (
    id           TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    subject      TEXT   COLLATE "C" NOT NULL,
    kind         TEXT   COLLATE "C" NOT NULL, -- totp, key, recovery
    name         TEXT   NOT NULL,
    state        TEXT   COLLATE "C" NOT NULL, -- pending, active, disabled
    version      BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    used         BIGINT NOT NULL,
    disabled     BIGINT NOT NULL,
    disabled_by  TEXT   NOT NULL,
    failures     BIGINT NOT NULL, -- in a row
    next_attempt BIGINT NOT NULL, -- not before
    codes_left   BIGINT NOT NULL, -- of recovery codes
    last_step    BIGINT NOT NULL, -- whose code was used, of TOTP
    pending      BIGINT NOT NULL, -- until
    secret       BYTEA  NOT NULL -- sealed, with kind, subject and id as associated data
);
CREATE INDEX auth_factors_subject ON auth_factors (subject, created, id);
CREATE INDEX auth_factors_pending ON auth_factors (pending) WHERE state = 'pending';

-- Nobody's: what an attempt writes where there is no authenticator, for the time it takes.
INSERT INTO auth_factors (id, subject, kind, name, state, version, created, used, disabled, disabled_by, failures, next_attempt, codes_left, last_step, pending, secret)
VALUES ('', '', 'none', '', 'disabled', 0, 0, 0, 0, '', 0, 0, 0, 0, 0, decode(repeat('00', 60), 'hex'));

-- Whose a key is, by a hash of the credential id that it shows.
CREATE TABLE auth_keys (
    credential BYTEA  NOT NULL PRIMARY KEY CHECK (length(credential) = 32),
    factor     TEXT   COLLATE "C" NOT NULL REFERENCES auth_factors (id) ON DELETE CASCADE,
    subject    TEXT   COLLATE "C" NOT NULL
);
CREATE INDEX auth_keys_factor ON auth_keys (factor);

-- How keys know an account: random, and nothing about it.
CREATE TABLE auth_handles (
    subject TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    handle  BYTEA  NOT NULL UNIQUE CHECK (length(handle) = 64)
);

-- What a key was asked to sign, until it did.
CREATE TABLE auth_challenges (
    hash     BYTEA  NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    subject  TEXT   COLLATE "C" NOT NULL, -- '': whoever has the key
    ceremony TEXT   COLLATE "C" NOT NULL, -- bind, use, discover
    purpose  TEXT   COLLATE "C" NOT NULL,
    expires  BIGINT NOT NULL,
    data     TEXT   NOT NULL -- JSON, without the challenge
);
CREATE INDEX auth_challenges_subject ON auth_challenges (subject, expires, hash);
CREATE INDEX auth_challenges_expires ON auth_challenges (expires);

-- What owners are to be told, until they were.
CREATE TABLE auth_factor_notices (
    id          TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    at          BIGINT NOT NULL,
    subject     TEXT   COLLATE "C" NOT NULL,
    kind        TEXT   COLLATE "C" NOT NULL,
    factor      TEXT   COLLATE "C" NOT NULL,
    factor_kind TEXT   COLLATE "C" NOT NULL,
    name        TEXT   NOT NULL,
    by_whom     TEXT   NOT NULL
);
CREATE INDEX auth_factor_notices_at ON auth_factor_notices (at, id);

-- +goose Down
DROP TABLE auth_factor_notices;
DROP TABLE auth_challenges;
DROP TABLE auth_handles;
DROP TABLE auth_keys;
DROP TABLE auth_factors;
