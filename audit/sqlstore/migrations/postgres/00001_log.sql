-- +goose Up
CREATE TABLE audit_batches (
	log    TEXT NOT NULL,
	first  BIGINT NOT NULL,
	events BIGINT NOT NULL,
	crc    BIGINT NOT NULL,
	data   BYTEA NOT NULL,
	PRIMARY KEY (log, first)
);
CREATE TABLE audit_head (
	log  TEXT NOT NULL PRIMARY KEY,
	note BYTEA NOT NULL
);
CREATE TABLE audit_writer (
	log   TEXT NOT NULL PRIMARY KEY,
	token BIGINT NOT NULL
);

-- +goose Down
DROP TABLE audit_writer;
DROP TABLE audit_head;
DROP TABLE audit_batches;
