-- +goose Up
CREATE TABLE authn_session (
	tenant   TEXT NOT NULL,
	id       TEXT NOT NULL,
	person   TEXT NOT NULL,
	hash     BYTEA NOT NULL UNIQUE,
	external BYTEA NOT NULL,
	epoch    BIGINT NOT NULL,
	version  BIGINT NOT NULL,
	seen     BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	body     BYTEA NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX authn_session_person ON authn_session (tenant, person, seen);
CREATE INDEX authn_session_external ON authn_session (tenant, external);
CREATE INDEX authn_session_expires ON authn_session (expires);
CREATE TABLE authn_epoch (
	tenant TEXT NOT NULL,
	person TEXT NOT NULL,
	epoch  BIGINT NOT NULL,
	PRIMARY KEY (tenant, person)
);

-- +goose Down
DROP TABLE authn_epoch;
DROP TABLE authn_session;
