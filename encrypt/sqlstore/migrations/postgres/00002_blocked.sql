-- +goose Up
ALTER TABLE encrypt_key ADD COLUMN blocked BIGINT NOT NULL DEFAULT 4611686018427387904;
DROP INDEX encrypt_key_root;
CREATE INDEX encrypt_key_root ON encrypt_key (tenant, id) WHERE kind IN ('epoch', 'tenant');
CREATE INDEX encrypt_key_blocked ON encrypt_key (tenant, id) WHERE kind = 'person' AND blocked <> 4611686018427387904;
CREATE INDEX encrypt_key_join ON encrypt_key (tenant, person) WHERE kind = 'join';
CREATE INDEX encrypt_key_joined ON encrypt_key (tenant, purpose) WHERE kind = 'join';
CREATE INDEX encrypt_key_alive ON encrypt_key (tenant, id) WHERE kind = 'epoch';

-- +goose Down
DROP INDEX encrypt_key_alive;
DROP INDEX encrypt_key_joined;
DROP INDEX encrypt_key_join;
DROP INDEX encrypt_key_blocked;
DROP INDEX encrypt_key_root;
CREATE INDEX encrypt_key_root ON encrypt_key (tenant) WHERE kind IN ('epoch', 'tenant');
ALTER TABLE encrypt_key DROP COLUMN blocked;
