-- +goose Up
CREATE TABLE app_renewed (
	instance   TEXT NOT NULL PRIMARY KEY,
	generation BIGINT NOT NULL
);

-- +goose Down
DROP TABLE app_renewed;
