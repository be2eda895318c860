-- +goose Up
CREATE TABLE authn_lockout (
	tenant       TEXT NOT NULL,
	account      BLOB NOT NULL,
	kind         INTEGER NOT NULL,
	other        BLOB NOT NULL,
	failures     INTEGER NOT NULL,
	level        INTEGER NOT NULL,
	locked_until INTEGER NOT NULL,
	ends         INTEGER NOT NULL,
	PRIMARY KEY (tenant, account, kind, other)
) WITHOUT ROWID;
CREATE INDEX authn_lockout_ends ON authn_lockout (tenant, ends);

-- +goose Down
DROP TABLE authn_lockout;
