-- +goose Up
-- Acts that the record announced and that happened, each written with the act.
CREATE TABLE auth_acts (
    entry TEXT NOT NULL PRIMARY KEY, -- "node/sequence", the record's entry
    at    INTEGER NOT NULL -- whole microseconds since 1970 in UTC
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE auth_acts;
