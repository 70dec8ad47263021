-- +goose Up
-- Copies of the record of every node, byte for byte: headers of segments and frames.
CREATE TABLE record_segments (
    node   TEXT    NOT NULL,
    first  INTEGER NOT NULL,
    header BLOB    NOT NULL,
    PRIMARY KEY (node, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE record_frames (
    node     TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    frame    BLOB    NOT NULL,
    PRIMARY KEY (node, sequence),
    FOREIGN KEY (node, segment) REFERENCES record_segments (node, first)
) STRICT;

-- +goose Down
DROP TABLE record_frames;
DROP TABLE record_segments;
