-- +goose Up
-- One row. Every change begins by raising it, so changes of all nodes come one
-- after the other, and a revision that can be read is complete.
CREATE TABLE auth_revision (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO auth_revision (one, revision) VALUES (1, 0);

-- The revision that wrote a row last, and the one that ended a session; 0: before there were any.
ALTER TABLE auth_sessions ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE auth_sessions ADD COLUMN end_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE auth_people ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

-- What other nodes have to hear of: a session's first version is nobody's but its
-- maker's until it is asked for. What ended has a later version too.
CREATE INDEX auth_sessions_changed ON auth_sessions (revision, id) WHERE version > 1;
CREATE INDEX auth_people_changed ON auth_people (revision);

-- +goose Down
DROP INDEX auth_people_changed;
DROP INDEX auth_sessions_changed;
ALTER TABLE auth_people DROP COLUMN revision;
ALTER TABLE auth_sessions DROP COLUMN end_revision;
ALTER TABLE auth_sessions DROP COLUMN revision;
DROP TABLE auth_revision;
