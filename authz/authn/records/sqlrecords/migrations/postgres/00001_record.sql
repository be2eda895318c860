-- +goose Up
CREATE TABLE authn_record (
	tenant  TEXT NOT NULL,
	kind    TEXT NOT NULL,
	account TEXT NOT NULL,
	record  BYTEA NOT NULL,
	PRIMARY KEY (tenant, kind, account)
);

-- +goose Down
DROP TABLE authn_record;
