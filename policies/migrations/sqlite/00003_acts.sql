-- +goose Up
-- The record's entry under which a decision was made or changed last; '' for none.
ALTER TABLE decisions ADD COLUMN entry TEXT NOT NULL DEFAULT '';

-- Entries of intent whose act was done: written in the act's own transaction.
CREATE TABLE decision_acts (
    entry TEXT NOT NULL PRIMARY KEY, -- "node/sequence"
    at    INTEGER NOT NULL -- Unix microseconds
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE decision_acts;
ALTER TABLE decisions DROP COLUMN entry;
