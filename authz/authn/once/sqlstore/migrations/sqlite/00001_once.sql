-- +goose Up
CREATE TABLE authn_once (
	id      BLOB PRIMARY KEY,
	value   BLOB NOT NULL,
	expires INTEGER NOT NULL
);
CREATE INDEX authn_once_expires ON authn_once (expires);

-- +goose Down
DROP TABLE authn_once;
