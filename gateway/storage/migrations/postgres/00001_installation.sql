-- +goose Up
-- The keys that things in this database were made with: their ids and a keyed
-- check of each, never the keys. Times are Unix microseconds; 0 means none.
CREATE TABLE storage_keys (
    id      TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    purpose TEXT    NOT NULL,
    proof   BYTEA   NOT NULL CHECK (length(proof) = 16),
    retired BIGINT  NOT NULL
);

-- +goose Down
DROP TABLE storage_keys;
