-- +goose Up
CREATE TABLE crm_counter (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL);
INSERT INTO crm_counter (id, seq) VALUES (1, 0);
CREATE TABLE crm_types (type_id INTEGER PRIMARY KEY, type TEXT NOT NULL UNIQUE, columns TEXT NOT NULL);
CREATE TABLE crm_spaces (space INTEGER PRIMARY KEY, tenant TEXT NOT NULL, type TEXT NOT NULL, UNIQUE (tenant, type));
CREATE TABLE crm_tokens (
    space INTEGER NOT NULL, token INTEGER NOT NULL, row_id INTEGER NOT NULL,
    PRIMARY KEY (space, token, row_id)
) WITHOUT ROWID;
CREATE TABLE crm_uniques (
    space INTEGER NOT NULL, token INTEGER NOT NULL, row_id INTEGER NOT NULL,
    PRIMARY KEY (space, token)
) WITHOUT ROWID;
CREATE TABLE crm_applied (log TEXT NOT NULL, event INTEGER NOT NULL, PRIMARY KEY (log, event)) WITHOUT ROWID;

-- +goose Down
DROP TABLE crm_applied;
DROP TABLE crm_uniques;
DROP TABLE crm_tokens;
DROP TABLE crm_spaces;
DROP TABLE crm_types;
DROP TABLE crm_counter;
