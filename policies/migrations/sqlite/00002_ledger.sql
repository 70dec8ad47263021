-- +goose Up
-- What the gate did, or in shadow would have done, counted per hour.
CREATE TABLE ledger (
    hour    INTEGER NOT NULL, -- Unix seconds of its beginning
    control TEXT    NOT NULL,
    action  INTEGER NOT NULL,
    reason  TEXT    NOT NULL,
    rule    TEXT    NOT NULL,
    shadow  INTEGER NOT NULL,
    device  INTEGER NOT NULL, -- 1: a device that the account knows
    count   INTEGER NOT NULL,
    PRIMARY KEY (hour, control, action, reason, rule, shadow, device)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE ledger;
