-- +goose Up
CREATE TABLE authn_lockout (
	tenant       TEXT NOT NULL,
	account      BYTEA NOT NULL,
	kind         BIGINT NOT NULL,
	other        BYTEA NOT NULL,
	failures     BIGINT NOT NULL,
	level        BIGINT NOT NULL,
	locked_until BIGINT NOT NULL,
	ends         BIGINT NOT NULL,
	PRIMARY KEY (tenant, account, kind, other)
);
CREATE INDEX authn_lockout_ends ON authn_lockout (tenant, ends);

-- +goose Down
DROP TABLE authn_lockout;
