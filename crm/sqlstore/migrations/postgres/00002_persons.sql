-- +goose Up
CREATE TABLE IF NOT EXISTS crm_persons (
    space BIGINT NOT NULL, person BYTEA NOT NULL, row_id BIGINT NOT NULL,
    PRIMARY KEY (space, person, row_id)
);
DROP TABLE IF EXISTS crm_reindex;
CREATE TABLE crm_reindex (type TEXT COLLATE "C" NOT NULL PRIMARY KEY, row_id BIGINT NOT NULL);

-- +goose Down
DROP TABLE crm_persons;
