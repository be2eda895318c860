-- +goose Up
CREATE TABLE authn_passkey_user (
	tenant TEXT NOT NULL,
	person TEXT NOT NULL,
	handle BLOB NOT NULL UNIQUE,
	PRIMARY KEY (tenant, person)
);
CREATE TABLE authn_passkey (
	id              BLOB PRIMARY KEY,
	tenant          TEXT NOT NULL,
	person          TEXT NOT NULL,
	handle          BLOB NOT NULL,
	name            BLOB NOT NULL,
	public_key      BLOB NOT NULL,
	model           BLOB NOT NULL,
	format          TEXT NOT NULL,
	transports      TEXT NOT NULL,
	backup_eligible INTEGER NOT NULL,
	backed_up       INTEGER NOT NULL,
	count           INTEGER NOT NULL,
	created         INTEGER NOT NULL,
	used            INTEGER NOT NULL,
	cloned          INTEGER NOT NULL,
	mac             BLOB NOT NULL
);
CREATE INDEX authn_passkey_person ON authn_passkey (tenant, person, created);

-- +goose Down
DROP TABLE authn_passkey;
DROP TABLE authn_passkey_user;
