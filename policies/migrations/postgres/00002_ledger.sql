-- +goose Up
-- What the gate did, or in shadow would have done, counted per hour.
CREATE TABLE ledger (
    hour    BIGINT  NOT NULL, -- Unix seconds of its beginning
    control TEXT    COLLATE "C" NOT NULL,
    action  BIGINT  NOT NULL,
    reason  TEXT    COLLATE "C" NOT NULL,
    rule    TEXT    COLLATE "C" NOT NULL,
    shadow  BIGINT  NOT NULL,
    device  BIGINT  NOT NULL, -- 1: a device that the account knows
    count   BIGINT  NOT NULL,
    PRIMARY KEY (hour, control, action, reason, rule, shadow, device)
);

-- +goose Down
DROP TABLE ledger;
