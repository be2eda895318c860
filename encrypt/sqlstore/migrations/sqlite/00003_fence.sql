-- +goose Up
CREATE TABLE encrypt_fence (
	kek    TEXT PRIMARY KEY,
	number INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE encrypt_fence;
