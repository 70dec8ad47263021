-- +goose Up
-- Times are Unix microseconds.
-- Signatures of operators' calls, each good once.
CREATE TABLE api_signatures (
    signature TEXT    NOT NULL PRIMARY KEY,
    until     BIGINT  NOT NULL -- too old to be used after this
);
CREATE INDEX api_signatures_until ON api_signatures (until);

-- What operators were answered under an Idempotency-Key.
CREATE TABLE api_answers (
    operator        TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    request         TEXT    NOT NULL, -- SHA-256, hex
    status          BIGINT  NOT NULL, -- 0: not answered yet
    location        TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    until           BIGINT  NOT NULL,
    PRIMARY KEY (operator, idempotency_key)
);
CREATE INDEX api_answers_until ON api_answers (operator, until);

-- +goose Down
DROP TABLE api_answers;
DROP TABLE api_signatures;
