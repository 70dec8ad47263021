-- +goose Up
-- What rules found, with what it takes to explain it. Times are Unix microseconds; 0 means none.
CREATE TABLE findings (
    id         TEXT    NOT NULL PRIMARY KEY, -- sorts by time
    rule       TEXT    NOT NULL,
    generation TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    account    TEXT    NOT NULL,
    body       TEXT    NOT NULL -- JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX findings_rule ON findings (rule, id);
CREATE INDEX findings_generation ON findings (generation);

-- What leads to a finding: ids of decisions, and the codes that people read out.
CREATE TABLE finding_references (
    reference TEXT    NOT NULL PRIMARY KEY,
    at        INTEGER NOT NULL,
    rule      TEXT    NOT NULL,
    decision  TEXT    NOT NULL, -- that was behind it; '' for none
    finding   TEXT    NOT NULL  -- '' where it is that of the decision
) STRICT, WITHOUT ROWID;
CREATE INDEX finding_references_at ON finding_references (at);

-- Rule files as they were when they found something.
CREATE TABLE rule_texts (
    generation TEXT    NOT NULL PRIMARY KEY, -- SHA-256 of the text, in hex
    rule       TEXT    NOT NULL,
    file       TEXT    NOT NULL,
    text       TEXT    NOT NULL,
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Accounts that a rule hit, each once, and whether that proved benign.
CREATE TABLE rule_hits (
    rule         TEXT    NOT NULL,
    generation   TEXT    NOT NULL,
    account      TEXT    NOT NULL,
    organization TEXT    NOT NULL,
    since        INTEGER NOT NULL, -- when the gate first saw the account
    at           INTEGER NOT NULL,
    device       TEXT    NOT NULL,
    network      TEXT    NOT NULL,
    fingerprint  TEXT    NOT NULL,
    benign       INTEGER NOT NULL,
    benign_by    TEXT    NOT NULL, -- the operator who said so; '' where it was proved
    PRIMARY KEY (rule, generation, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX rule_hits_account ON rule_hits (account, at) WHERE benign = 0;
CREATE INDEX rule_hits_at ON rule_hits (at);

-- How far rules have fallen that spent their budget: 0 stands, 1 step_up, 2 shadow.
CREATE TABLE rule_falls (
    rule       TEXT    NOT NULL,
    generation TEXT    NOT NULL,
    level      INTEGER NOT NULL,
    since      INTEGER NOT NULL, -- hits before do not count any more
    term       INTEGER NOT NULL, -- when it began to stand; what is told once is told once a term
    judgement  TEXT    NOT NULL, -- JSON
    changed_by TEXT    NOT NULL, -- the operator who set it back; '' for none
    PRIMARY KEY (rule, generation)
) STRICT, WITHOUT ROWID;

-- Which rules are in force on which node.
CREATE TABLE rule_nodes (
    node TEXT    NOT NULL PRIMARY KEY,
    hash TEXT    NOT NULL, -- of all of them
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE rule_nodes;
DROP TABLE rule_falls;
DROP TABLE rule_hits;
DROP TABLE rule_texts;
DROP TABLE finding_references;
DROP TABLE findings;
