-- +goose Up
CREATE TABLE authn_passkey_user (
	tenant TEXT NOT NULL,
	person TEXT NOT NULL,
	handle BYTEA NOT NULL UNIQUE,
	PRIMARY KEY (tenant, person)
);
CREATE TABLE authn_passkey (
	id              BYTEA PRIMARY KEY,
	tenant          TEXT NOT NULL,
	person          TEXT NOT NULL,
	handle          BYTEA NOT NULL,
	name            BYTEA NOT NULL,
	public_key      BYTEA NOT NULL,
	model           BYTEA NOT NULL,
	format          TEXT NOT NULL,
	transports      TEXT NOT NULL,
	backup_eligible BIGINT NOT NULL,
	backed_up       BIGINT NOT NULL,
	count           BIGINT NOT NULL,
	created         BIGINT NOT NULL,
	used            BIGINT NOT NULL,
	cloned          BIGINT NOT NULL,
	mac             BYTEA NOT NULL
);
CREATE INDEX authn_passkey_person ON authn_passkey (tenant, person, created);

-- +goose Down
DROP TABLE authn_passkey;
DROP TABLE authn_passkey_user;
