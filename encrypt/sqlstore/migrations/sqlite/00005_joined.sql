-- +goose Up
-- Of two indexes that a search for persons may use PostgreSQL takes any while its statistics know no rows; this one is for purposes only.
DROP INDEX encrypt_key_joined;
CREATE INDEX encrypt_key_joined ON encrypt_key (tenant, purpose) WHERE kind = 'join' AND purpose <> '';

-- +goose Down
DROP INDEX encrypt_key_joined;
CREATE INDEX encrypt_key_joined ON encrypt_key (tenant, purpose) WHERE kind = 'join';
