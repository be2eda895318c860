-- +goose Up
CREATE TABLE authn_token (
	id      TEXT PRIMARY KEY,
	tenant  TEXT NOT NULL,
	account TEXT NOT NULL,
	name    TEXT NOT NULL,
	made_by TEXT NOT NULL,
	scopes  TEXT NOT NULL,
	sources TEXT NOT NULL,
	created INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	used    INTEGER NOT NULL,
	revoked INTEGER NOT NULL,
	hash    BLOB NOT NULL,
	mac     BLOB NOT NULL
);
CREATE INDEX authn_token_account ON authn_token (tenant, account);

-- +goose Down
DROP TABLE authn_token;
