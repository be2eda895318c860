-- +goose Up
CREATE TABLE authn_token (
	id      TEXT COLLATE "C" PRIMARY KEY,
	tenant  TEXT NOT NULL,
	account TEXT NOT NULL,
	name    TEXT NOT NULL,
	made_by TEXT NOT NULL,
	scopes  TEXT NOT NULL,
	sources TEXT NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	used    BIGINT NOT NULL,
	revoked BIGINT NOT NULL,
	hash    BYTEA NOT NULL,
	mac     BYTEA NOT NULL
);
CREATE INDEX authn_token_account ON authn_token (tenant, account);

-- +goose Down
DROP TABLE authn_token;
