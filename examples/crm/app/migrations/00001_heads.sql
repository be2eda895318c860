-- +goose Up
CREATE TABLE app_head (
	instance TEXT NOT NULL PRIMARY KEY,
	size     BIGINT NOT NULL,
	note     TEXT NOT NULL,
	at       TEXT NOT NULL
);

-- +goose Down
DROP TABLE app_head;
