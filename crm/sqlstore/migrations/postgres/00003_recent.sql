-- +goose Up
-- SQLite has crm_recent from here on; PostgreSQL keeps all tokens in crm_tokens.
SELECT 1;

-- +goose Down
SELECT 1;
