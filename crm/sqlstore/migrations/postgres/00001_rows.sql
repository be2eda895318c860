-- +goose Up
CREATE TABLE crm_counter (id BIGINT PRIMARY KEY CHECK (id = 1), seq BIGINT NOT NULL);
INSERT INTO crm_counter (id, seq) VALUES (1, 0);
CREATE TABLE crm_types (type_id BIGINT PRIMARY KEY, type TEXT COLLATE "C" NOT NULL UNIQUE, columns TEXT NOT NULL);
CREATE TABLE crm_spaces (space BIGINT PRIMARY KEY, tenant TEXT COLLATE "C" NOT NULL, type TEXT COLLATE "C" NOT NULL, UNIQUE (tenant, type));
CREATE TABLE crm_tokens (
    space BIGINT NOT NULL, token BIGINT NOT NULL, row_id BIGINT NOT NULL,
    PRIMARY KEY (space, token, row_id)
);
CREATE TABLE crm_uniques (
    space BIGINT NOT NULL, token BIGINT NOT NULL, row_id BIGINT NOT NULL,
    PRIMARY KEY (space, token)
);
CREATE TABLE crm_applied (log TEXT COLLATE "C" NOT NULL, event BIGINT NOT NULL, PRIMARY KEY (log, event));

-- +goose Down
DROP TABLE crm_applied;
DROP TABLE crm_uniques;
DROP TABLE crm_tokens;
DROP TABLE crm_spaces;
DROP TABLE crm_types;
DROP TABLE crm_counter;
