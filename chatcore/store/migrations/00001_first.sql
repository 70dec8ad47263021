-- +goose Up
-- Times are unix microseconds, 0 meaning never. Secrets are SHA-256 hashes.

CREATE TABLE organizations (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	name       TEXT    NOT NULL,
	created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE accounts (
	id              INTEGER PRIMARY KEY AUTOINCREMENT,
	organization_id INTEGER NOT NULL REFERENCES organizations (id),
	my_room_id      INTEGER NOT NULL REFERENCES rooms (id),
	email           TEXT    NOT NULL,
	email_key       TEXT    NOT NULL UNIQUE, -- see chat.EmailKey
	password        TEXT    NOT NULL,        -- PHC string
	name            TEXT    NOT NULL,
	handle          TEXT    NOT NULL,
	department      TEXT    NOT NULL,
	title           TEXT    NOT NULL,
	language        TEXT    NOT NULL CHECK (language IN ('ja', 'en')),
	time_zone       TEXT    NOT NULL,
	created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX accounts_organization ON accounts (organization_id);

CREATE TABLE sessions (
	hash       BLOB    PRIMARY KEY,
	account_id INTEGER NOT NULL REFERENCES accounts (id),
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_account ON sessions (account_id, created_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE tokens (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	account_id INTEGER NOT NULL REFERENCES accounts (id),
	hash       BLOB    NOT NULL UNIQUE,
	name       TEXT    NOT NULL,
	created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_account ON tokens (account_id);

CREATE TABLE password_resets (
	hash       BLOB    PRIMARY KEY,
	account_id INTEGER NOT NULL REFERENCES accounts (id),
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX password_resets_account ON password_resets (account_id, created_at);

-- A mail leaves the outbox when the link in it has expired, at the latest.
CREATE TABLE outbox (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	recipient  TEXT    NOT NULL,
	subject    TEXT    NOT NULL,
	body       TEXT    NOT NULL,
	language   TEXT    NOT NULL,
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE rooms (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	type        TEXT    NOT NULL CHECK (type IN ('my', 'direct', 'group')),
	name        TEXT    NOT NULL,
	description TEXT    NOT NULL,
	icon        TEXT    NOT NULL,
	message_num INTEGER NOT NULL DEFAULT 0,
	created_at  INTEGER NOT NULL,
	updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
	room_id    INTEGER NOT NULL REFERENCES rooms (id),
	account_id INTEGER NOT NULL REFERENCES accounts (id),
	role       TEXT    NOT NULL CHECK (role IN ('admin', 'member', 'readonly')),
	sticky     INTEGER NOT NULL DEFAULT 0,
	read_id    INTEGER NOT NULL DEFAULT 0, -- every message up to this one was read
	fetched_id INTEGER NOT NULL DEFAULT 0, -- and up to this one fetched by the API
	PRIMARY KEY (room_id, account_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_account ON members (account_id, room_id);

CREATE TABLE messages (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	room_id     INTEGER NOT NULL REFERENCES rooms (id),
	account_id  INTEGER NOT NULL REFERENCES accounts (id),
	body        TEXT    NOT NULL,
	self_unread INTEGER NOT NULL DEFAULT 0,
	sent_at     INTEGER NOT NULL,
	updated_at  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX messages_room ON messages (room_id, id);

CREATE TABLE mentions (
	room_id    INTEGER NOT NULL,
	account_id INTEGER NOT NULL,
	message_id INTEGER NOT NULL REFERENCES messages (id),
	PRIMARY KEY (room_id, account_id, message_id)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT never gives a number twice, and there is one writer: so event
-- numbers grow in the order in which readers come to see them.
CREATE TABLE events (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	type       TEXT    NOT NULL,
	room_id    INTEGER NOT NULL REFERENCES rooms (id),
	message_id INTEGER NOT NULL DEFAULT 0,
	at         INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE events;
DROP TABLE mentions;
DROP TABLE messages;
DROP TABLE members;
DROP TABLE outbox;
DROP TABLE password_resets;
DROP TABLE tokens;
DROP TABLE sessions;
DROP TABLE accounts;
DROP TABLE rooms;
DROP TABLE organizations;
