-- +goose Up
-- Times are Unix microseconds; 0 means none. States: pending, leased, uncertain (open), sent, given_up.
CREATE TABLE outbox (
    key        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    channel    TEXT NOT NULL,
    template   TEXT NOT NULL,
    recipient  TEXT NOT NULL,
    details    TEXT NOT NULL, -- JSON object of texts
    state      TEXT NOT NULL,
    owner      TEXT NOT NULL, -- who was handed it last
    created    BIGINT  NOT NULL,
    attempts   BIGINT  NOT NULL,
    next       BIGINT  NOT NULL, -- not before; of one that is handed out, the end of its lease
    message_id TEXT NOT NULL,
    lost       BIGINT  NOT NULL, -- how many notices it stands for, where the outbox was full
    settled    BIGINT  NOT NULL
);
CREATE INDEX outbox_due ON outbox (next, key) WHERE state IN ('pending', 'leased', 'uncertain');
CREATE INDEX outbox_overflow ON outbox (channel) WHERE template = 'outbox.overflow' AND state = 'pending';
CREATE INDEX outbox_settled ON outbox (settled) WHERE state IN ('sent', 'given_up');
CREATE INDEX outbox_created ON outbox (created, key);
CREATE INDEX outbox_state ON outbox (state);

-- One row: how many notices are open. Whoever changes it does so before locking a notice.
CREATE TABLE outbox_open (
    one    BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    number BIGINT  NOT NULL
);
INSERT INTO outbox_open (one, number) VALUES (1, 0);

-- +goose Down
DROP TABLE outbox_open;
DROP TABLE outbox;
