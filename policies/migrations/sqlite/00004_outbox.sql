-- +goose Up
-- Times are Unix microseconds; 0 means none. States: pending, leased, uncertain (open), sent, given_up.
CREATE TABLE outbox (
    key        TEXT NOT NULL PRIMARY KEY,
    channel    TEXT NOT NULL,
    template   TEXT NOT NULL,
    recipient  TEXT NOT NULL,
    details    TEXT NOT NULL, -- JSON object of texts
    state      TEXT NOT NULL,
    owner      TEXT NOT NULL, -- who was handed it last
    created    INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    next       INTEGER NOT NULL, -- not before; of one that is handed out, the end of its lease
    message_id TEXT NOT NULL,
    lost       INTEGER NOT NULL, -- how many notices it stands for, where the outbox was full
    settled    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (next, key) WHERE state IN ('pending', 'leased', 'uncertain');
CREATE INDEX outbox_overflow ON outbox (channel) WHERE template = 'outbox.overflow' AND state = 'pending';
CREATE INDEX outbox_settled ON outbox (settled) WHERE state IN ('sent', 'given_up');
CREATE INDEX outbox_created ON outbox (created, key);
CREATE INDEX outbox_state ON outbox (state);

-- One row: how many notices are open. Whoever changes it does so before locking a notice.
CREATE TABLE outbox_open (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_open (one, number) VALUES (1, 0);

-- +goose Down
DROP TABLE outbox_open;
DROP TABLE outbox;
