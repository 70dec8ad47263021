-- +goose Up
-- The record's entry under which a decision was made or changed last; '' for none.
ALTER TABLE decisions ADD COLUMN entry TEXT NOT NULL DEFAULT '';

-- Entries of intent whose act was done: written in the act's own transaction.
CREATE TABLE decision_acts (
    entry TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- "node/sequence"
    at    BIGINT  NOT NULL -- Unix microseconds
);

-- +goose Down
DROP TABLE decision_acts;
ALTER TABLE decisions DROP COLUMN entry;
