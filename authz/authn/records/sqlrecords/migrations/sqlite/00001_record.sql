-- +goose Up
CREATE TABLE authn_record (
	tenant  TEXT NOT NULL,
	kind    TEXT NOT NULL,
	account TEXT NOT NULL,
	record  BLOB NOT NULL,
	PRIMARY KEY (tenant, kind, account)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE authn_record;
