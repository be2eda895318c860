-- +goose Up
CREATE TABLE encrypt_key (
	tenant     TEXT NOT NULL,
	id         BLOB NOT NULL,
	slot       TEXT NOT NULL,
	kind       TEXT NOT NULL,
	version    INTEGER NOT NULL,
	purpose    TEXT NOT NULL,
	person     BLOB NOT NULL,
	retention  TEXT NOT NULL,
	epoch      BLOB NOT NULL,
	wrapped    BLOB NOT NULL,
	commitment BLOB NOT NULL,
	created    INTEGER NOT NULL,
	number     INTEGER NOT NULL,
	PRIMARY KEY (tenant, id),
	UNIQUE (tenant, slot)
) WITHOUT ROWID;
CREATE INDEX encrypt_key_person ON encrypt_key (tenant, person) WHERE kind = 'person';
CREATE INDEX encrypt_key_epoch ON encrypt_key (tenant, epoch, id);
CREATE INDEX encrypt_key_root ON encrypt_key (tenant) WHERE kind IN ('epoch', 'tenant');
CREATE INDEX encrypt_key_number ON encrypt_key (tenant, number) WHERE kind = 'tombstone';
CREATE TABLE encrypt_erasure (
	tenant TEXT PRIMARY KEY,
	number INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE encrypt_erasure;
DROP TABLE encrypt_key;
