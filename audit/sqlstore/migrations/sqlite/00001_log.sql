-- +goose Up
CREATE TABLE audit_batches (
	log    TEXT NOT NULL,
	first  INTEGER NOT NULL,
	events INTEGER NOT NULL,
	crc    INTEGER NOT NULL,
	data   BLOB NOT NULL,
	PRIMARY KEY (log, first)
) STRICT;
CREATE TABLE audit_head (
	log  TEXT NOT NULL PRIMARY KEY,
	note BLOB NOT NULL
) STRICT;
CREATE TABLE audit_writer (
	log   TEXT NOT NULL PRIMARY KEY,
	token INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE audit_writer;
DROP TABLE audit_head;
DROP TABLE audit_batches;
