-- +goose Up
CREATE TABLE encrypt_key (
	tenant     TEXT NOT NULL,
	id         BYTEA NOT NULL,
	slot       TEXT NOT NULL,
	kind       TEXT NOT NULL,
	version    BIGINT NOT NULL,
	purpose    TEXT NOT NULL,
	person     BYTEA NOT NULL,
	retention  TEXT NOT NULL,
	epoch      BYTEA NOT NULL,
	wrapped    BYTEA NOT NULL,
	commitment BYTEA NOT NULL,
	created    BIGINT NOT NULL,
	number     BIGINT NOT NULL,
	PRIMARY KEY (tenant, id),
	UNIQUE (tenant, slot)
);
CREATE INDEX encrypt_key_person ON encrypt_key (tenant, person) WHERE kind = 'person';
CREATE INDEX encrypt_key_epoch ON encrypt_key (tenant, epoch, id);
CREATE INDEX encrypt_key_root ON encrypt_key (tenant) WHERE kind IN ('epoch', 'tenant');
CREATE INDEX encrypt_key_number ON encrypt_key (tenant, number) WHERE kind = 'tombstone';
CREATE TABLE encrypt_erasure (
	tenant TEXT PRIMARY KEY,
	number BIGINT NOT NULL
);

-- +goose Down
DROP TABLE encrypt_erasure;
DROP TABLE encrypt_key;
