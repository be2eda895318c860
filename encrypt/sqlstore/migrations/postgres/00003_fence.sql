-- +goose Up
CREATE TABLE encrypt_fence (
	kek    TEXT PRIMARY KEY,
	number BIGINT NOT NULL
);

-- +goose Down
DROP TABLE encrypt_fence;
