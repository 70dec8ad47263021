-- +goose Up
-- How many messages of one template went to one address in one hour, and how many did not.
-- "who" is a SHA-256 over template and address; since is Unix microseconds.
CREATE TABLE mail_counts (
    who   BYTEA  NOT NULL,
    since BIGINT NOT NULL,
    sent  BIGINT NOT NULL,
    held  BIGINT NOT NULL,
    PRIMARY KEY (who, since)
);
CREATE INDEX mail_counts_since ON mail_counts (since);

-- +goose Down
DROP TABLE mail_counts;
