-- +goose Up
CREATE TABLE IF NOT EXISTS crm_recent (
    space INTEGER NOT NULL, token INTEGER NOT NULL, row_id INTEGER NOT NULL,
    PRIMARY KEY (space, token, row_id)
) WITHOUT ROWID;

-- +goose Down
INSERT OR IGNORE INTO crm_tokens (space, token, row_id) SELECT space, token, row_id FROM crm_recent ORDER BY space, token, row_id;
DROP TABLE crm_recent;
