-- +goose Up
CREATE TABLE IF NOT EXISTS crm_persons (
    space INTEGER NOT NULL, person BLOB NOT NULL, row_id INTEGER NOT NULL,
    PRIMARY KEY (space, person, row_id)
) WITHOUT ROWID;
DROP TABLE IF EXISTS crm_reindex;
CREATE TABLE crm_reindex (type TEXT NOT NULL PRIMARY KEY, row_id INTEGER NOT NULL);

-- +goose Down
DROP TABLE crm_persons;
