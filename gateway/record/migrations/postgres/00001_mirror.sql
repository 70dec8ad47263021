-- +goose Up
-- Copies of the record of every node, byte for byte: headers of segments and frames.
CREATE TABLE record_segments (
    node   TEXT COLLATE "C" NOT NULL,
    first  BIGINT NOT NULL,
    header BYTEA  NOT NULL,
    PRIMARY KEY (node, first)
);
CREATE TABLE record_frames (
    node     TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    segment  BIGINT NOT NULL,
    frame    BYTEA  NOT NULL,
    PRIMARY KEY (node, sequence),
    FOREIGN KEY (node, segment) REFERENCES record_segments (node, first)
);

-- +goose Down
DROP TABLE record_frames;
DROP TABLE record_segments;
