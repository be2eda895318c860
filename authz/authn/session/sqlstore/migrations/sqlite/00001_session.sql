-- +goose Up
CREATE TABLE authn_session (
	tenant   TEXT NOT NULL,
	id       TEXT NOT NULL,
	person   TEXT NOT NULL,
	hash     BLOB NOT NULL UNIQUE,
	external BLOB NOT NULL,
	epoch    INTEGER NOT NULL,
	version  INTEGER NOT NULL,
	seen     INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	body     BLOB NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX authn_session_person ON authn_session (tenant, person, seen);
CREATE INDEX authn_session_external ON authn_session (tenant, external);
CREATE INDEX authn_session_expires ON authn_session (expires);
CREATE TABLE authn_epoch (
	tenant TEXT NOT NULL,
	person TEXT NOT NULL,
	epoch  INTEGER NOT NULL,
	PRIMARY KEY (tenant, person)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE authn_epoch;
DROP TABLE authn_session;
