-- +goose Up
-- The keys of a person are found by their slots, which begin with the person: one index less that every new key writes to.
DROP INDEX encrypt_key_person;

-- +goose Down
CREATE INDEX encrypt_key_person ON encrypt_key (tenant, person) WHERE kind = 'person';
