-- +goose Up
-- How many messages of one template went to one address in one hour, and how many did not.
-- "who" is a SHA-256 over template and address; since is Unix microseconds.
CREATE TABLE mail_counts (
    who   BLOB    NOT NULL,
    since INTEGER NOT NULL,
    sent  INTEGER NOT NULL,
    held  INTEGER NOT NULL,
    PRIMARY KEY (who, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_counts_since ON mail_counts (since);

-- +goose Down
DROP TABLE mail_counts;
