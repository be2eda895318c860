-- +goose Up
CREATE TABLE authn_once (
	id      BYTEA PRIMARY KEY,
	value   BYTEA NOT NULL,
	expires BIGINT NOT NULL
);
CREATE INDEX authn_once_expires ON authn_once (expires);

-- +goose Down
DROP TABLE authn_once;
