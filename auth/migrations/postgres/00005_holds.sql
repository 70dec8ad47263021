-- +goose Up
-- How sure a session is, by what, and for whom; what its token was before. Times are
-- whole microseconds since 1970 in UTC; 0 is "never".
ALTER TABLE auth_sessions ADD COLUMN verified BIGINT NOT NULL DEFAULT 0;
ALTER TABLE auth_sessions ADD COLUMN factor TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE auth_sessions ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE auth_sessions ADD COLUMN country TEXT NOT NULL DEFAULT '';
ALTER TABLE auth_sessions ADD COLUMN rested BIGINT NOT NULL DEFAULT 0; -- microseconds
ALTER TABLE auth_sessions ADD COLUMN previous BYTEA CHECK (length(previous) = 32); -- token, as SHA-256
ALTER TABLE auth_sessions ADD COLUMN previous_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE auth_sessions ADD COLUMN previous_aal BIGINT NOT NULL DEFAULT 0;
ALTER TABLE auth_sessions ADD COLUMN previous_verified BIGINT NOT NULL DEFAULT 0;
ALTER TABLE auth_sessions ADD COLUMN previous_factor TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE auth_sessions ADD COLUMN previous_rested BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX auth_sessions_previous ON auth_sessions (previous) WHERE previous IS NOT NULL;
CREATE INDEX auth_sessions_history ON auth_sessions (subject, created);
CREATE INDEX auth_device_subjects_subject ON auth_device_subjects (subject, last, device);

ALTER TABLE auth_factor_notices ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE auth_factor_notices ADD COLUMN country TEXT NOT NULL DEFAULT '';
ALTER TABLE auth_factor_notices ADD COLUMN source TEXT NOT NULL DEFAULT '';

-- Log-ins whose answer waits for a factor.
CREATE TABLE auth_holds (
    id           TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    token        BYTEA  NOT NULL UNIQUE CHECK (length(token) = 32), -- SHA-256, never the token
    state        TEXT   COLLATE "C" NOT NULL, -- waiting, approved, released, denied, expired
    need         TEXT   COLLATE "C" NOT NULL, -- factor, confirm, enrol
    subject      TEXT   COLLATE "C" NOT NULL,
    organization TEXT   NOT NULL,
    device       TEXT   NOT NULL,
    client       TEXT   NOT NULL,
    client_kind  TEXT   COLLATE "C" NOT NULL,
    fingerprint  BYTEA  NOT NULL CHECK (length(fingerprint) = 16),
    network      TEXT   NOT NULL,
    source       TEXT   NOT NULL,
    country      TEXT   NOT NULL,
    attempt      BYTEA  NOT NULL CHECK (length(attempt) = 16), -- keyed digest of name and password
    route        TEXT   NOT NULL,
    method       TEXT   NOT NULL,
    return_to    TEXT   NOT NULL,
    code         TEXT   NOT NULL, -- that the client shows
    tries        BIGINT NOT NULL, -- wrong codes
    matched      BIGINT NOT NULL, -- 1: the code was typed
    aal          BIGINT NOT NULL,
    factor_kind  TEXT   COLLATE "C" NOT NULL,
    approved     BIGINT NOT NULL,
    approved_by  TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    expires      BIGINT NOT NULL,
    ended        BIGINT NOT NULL, -- 0: waiting or approved
    ended_by     TEXT   NOT NULL,
    answer       BYTEA -- sealed, with id and subject as associated data; NULL when ended
);
CREATE INDEX auth_holds_subject ON auth_holds (subject, created, id) WHERE ended = 0;
CREATE INDEX auth_holds_attempt ON auth_holds (attempt, created, id) WHERE ended = 0;
CREATE INDEX auth_holds_expires ON auth_holds (expires, id) WHERE ended = 0;
CREATE INDEX auth_holds_history ON auth_holds (subject, created, id) WHERE ended > 0;
CREATE INDEX auth_holds_ended   ON auth_holds (ended) WHERE ended > 0;

-- What an open hold keeps from opening anything.
CREATE TABLE auth_hold_credentials (
    hash    BYTEA  NOT NULL CHECK (length(hash) = 32),
    created BIGINT NOT NULL, -- the hold
    hold    TEXT   COLLATE "C" NOT NULL REFERENCES auth_holds (id) ON DELETE CASCADE,
    kind    TEXT   COLLATE "C" NOT NULL,
    place   BIGINT NOT NULL, -- in the hold's list
    PRIMARY KEY (hash, created, hold)
);
CREATE INDEX auth_hold_credentials_hold ON auth_hold_credentials (hold);

-- How many holds are open. Each change of a hold changes it too.
CREATE TABLE auth_holds_open (
    one   BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    holds BIGINT NOT NULL
);
INSERT INTO auth_holds_open (one, holds) VALUES (1, 0);

-- Secrets that work once.
CREATE TABLE auth_slips (
    id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    purpose    TEXT   COLLATE "C" NOT NULL, -- confirm, enrol_link, enrol_code, recovery
    subject    TEXT   COLLATE "C" NOT NULL,
    for_what   TEXT   COLLATE "C" NOT NULL,
    by_whom    TEXT   NOT NULL,
    salt       BYTEA  NOT NULL CHECK (length(salt) = 16),
    secret     BYTEA UNIQUE CHECK (length(secret) = 32), -- SHA-256 of salt and secret; NULL: it has none yet
    created    BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    used       BIGINT NOT NULL,
    used_for   TEXT   COLLATE "C" NOT NULL,
    cancelled  BIGINT NOT NULL
);
CREATE INDEX auth_slips_open     ON auth_slips (subject, purpose, created, id) WHERE used = 0 AND cancelled = 0;
CREATE INDEX auth_slips_due      ON auth_slips (purpose, not_before, id) WHERE used = 0 AND cancelled = 0 AND secret IS NULL;
CREATE INDEX auth_slips_used_for ON auth_slips (used_for, used) WHERE used > 0;
CREATE INDEX auth_slips_expires  ON auth_slips (expires);

-- Wrong secrets in a row, of all slips of a purpose for an account.
CREATE TABLE auth_slip_failures (
    purpose      TEXT   COLLATE "C" NOT NULL,
    subject      TEXT   COLLATE "C" NOT NULL,
    failures     BIGINT NOT NULL,
    next_attempt BIGINT NOT NULL, -- not before
    PRIMARY KEY (purpose, subject)
);

-- +goose Down
DROP TABLE auth_slip_failures;
DROP TABLE auth_slips;
DROP TABLE auth_holds_open;
DROP TABLE auth_hold_credentials;
DROP TABLE auth_holds;
ALTER TABLE auth_factor_notices DROP COLUMN source;
ALTER TABLE auth_factor_notices DROP COLUMN country;
ALTER TABLE auth_factor_notices DROP COLUMN client;
DROP INDEX auth_device_subjects_subject;
DROP INDEX auth_sessions_history;
DROP INDEX auth_sessions_previous;
ALTER TABLE auth_sessions DROP COLUMN previous_rested;
ALTER TABLE auth_sessions DROP COLUMN previous_factor;
ALTER TABLE auth_sessions DROP COLUMN previous_verified;
ALTER TABLE auth_sessions DROP COLUMN previous_aal;
ALTER TABLE auth_sessions DROP COLUMN previous_until;
ALTER TABLE auth_sessions DROP COLUMN previous;
ALTER TABLE auth_sessions DROP COLUMN rested;
ALTER TABLE auth_sessions DROP COLUMN country;
ALTER TABLE auth_sessions DROP COLUMN client;
ALTER TABLE auth_sessions DROP COLUMN factor;
ALTER TABLE auth_sessions DROP COLUMN verified;
