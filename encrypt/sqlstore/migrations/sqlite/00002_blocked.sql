-- +goose Up
-- A table with a rowid: rows are only ever appended and no change makes one longer, so SQLite never moves a
-- row to another page. In a table clustered by its random ids it does, and secure_delete does not overwrite
-- what a rebuilt page leaves behind.
CREATE TABLE encrypt_key2 (
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
	blocked    INTEGER NOT NULL,
	PRIMARY KEY (tenant, id),
	UNIQUE (tenant, slot)
);
INSERT INTO encrypt_key2 SELECT tenant, id, slot, kind, version, purpose, person, retention, epoch, wrapped, commitment, created,
	number, 4611686018427387904 FROM encrypt_key;
DROP TABLE encrypt_key;
ALTER TABLE encrypt_key2 RENAME TO encrypt_key;
CREATE INDEX encrypt_key_person ON encrypt_key (tenant, person) WHERE kind = 'person';
CREATE INDEX encrypt_key_epoch ON encrypt_key (tenant, epoch, id);
CREATE INDEX encrypt_key_root ON encrypt_key (tenant, id) WHERE kind IN ('epoch', 'tenant');
CREATE INDEX encrypt_key_number ON encrypt_key (tenant, number) WHERE kind = 'tombstone';
CREATE INDEX encrypt_key_blocked ON encrypt_key (tenant, id) WHERE kind = 'person' AND blocked <> 4611686018427387904;
CREATE INDEX encrypt_key_join ON encrypt_key (tenant, person) WHERE kind = 'join';
CREATE INDEX encrypt_key_joined ON encrypt_key (tenant, purpose) WHERE kind = 'join';
CREATE INDEX encrypt_key_alive ON encrypt_key (tenant, id) WHERE kind = 'epoch';

-- +goose Down
CREATE TABLE encrypt_key1 (
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
INSERT INTO encrypt_key1 SELECT tenant, id, slot, kind, version, purpose, person, retention, epoch, wrapped, commitment, created,
	number FROM encrypt_key;
DROP TABLE encrypt_key;
ALTER TABLE encrypt_key1 RENAME TO encrypt_key;
CREATE INDEX encrypt_key_person ON encrypt_key (tenant, person) WHERE kind = 'person';
CREATE INDEX encrypt_key_epoch ON encrypt_key (tenant, epoch, id);
CREATE INDEX encrypt_key_root ON encrypt_key (tenant) WHERE kind IN ('epoch', 'tenant');
CREATE INDEX encrypt_key_number ON encrypt_key (tenant, number) WHERE kind = 'tombstone';
