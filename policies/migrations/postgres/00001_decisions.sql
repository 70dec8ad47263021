-- +goose Up
-- Times are Unix microseconds; 0 means none. States: 0 live, 1 lifted, 2 lapsed, 3 expired.
CREATE TABLE decisions (
    id           TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    scope        TEXT    NOT NULL,
    value        TEXT    NOT NULL,
    action       BIGINT  NOT NULL,
    mode         TEXT    NOT NULL,
    origin       TEXT    NOT NULL,
    made_by      TEXT    NOT NULL,
    rule         TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    incident     TEXT    NOT NULL,
    window_start BIGINT  NOT NULL,
    created      BIGINT  NOT NULL,
    until        BIGINT  NOT NULL,
    lifted       BIGINT  NOT NULL,
    lifted_by    TEXT    NOT NULL,
    hold_off     BIGINT  NOT NULL,
    state        BIGINT  NOT NULL,
    revision     BIGINT  NOT NULL
);
CREATE UNIQUE INDEX decisions_live ON decisions (value, scope, origin, made_by, rule, action, mode) WHERE state = 0;
CREATE INDEX decisions_untold ON decisions (until) WHERE state IN (0, 2);
CREATE INDEX decisions_ended ON decisions (until) WHERE state IN (1, 3);
CREATE INDEX decisions_hold_off ON decisions (value, rule, hold_off) WHERE hold_off > 0;
CREATE INDEX decisions_changed ON decisions (revision);
CREATE INDEX decisions_value ON decisions (value, id);
CREATE INDEX decisions_rule ON decisions (rule, id);

-- One row. Every update begins by raising it, so updates never overlap and a
-- revision that can be read is complete.
CREATE TABLE decisions_revision (
    one      BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    revision BIGINT  NOT NULL
);
INSERT INTO decisions_revision (one, revision) VALUES (1, 0);

-- +goose Down
DROP TABLE decisions_revision;
DROP TABLE decisions;
