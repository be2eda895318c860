package backup

import (
	"context"
	"crypto/ed25519"
	"errors"
	"iter"
)

var errStub = errors.New("backup: stub")

// Open ...
func Open(ctx context.Context, bucket Bucket, pin ed25519.PublicKey, opts *Options) (*Repository, error) {
	return nil, errStub
}

// Backup writes a full snapshot of source and returns it when it is committed.
func (r *Repository) Backup(ctx context.Context, source Source, opts *BackupOptions) (Snapshot, error) {
	return Snapshot{}, errStub
}

// Snapshots returns all, oldest first.
func (r *Repository) Snapshots(ctx context.Context) ([]Snapshot, error) { return nil, errStub }

// Restore ... id "" = newest.
func (r *Repository) Restore(ctx context.Context, id string, sink Sink, key *PrivateKey, opts *RestoreOptions) (Snapshot, error) {
	return Snapshot{}, errStub
}

// RestoreKeys gives the newest key shards to sink.
func (r *Repository) RestoreKeys(ctx context.Context, sink KeySink, key *PrivateKey) error {
	return errStub
}

// Verify ...
func (r *Repository) Verify(ctx context.Context, opts *VerifyOptions) (*Report, error) {
	return nil, errStub
}

// PutTombstones writes the list now, not only with the next backup.
func (r *Repository) PutTombstones(ctx context.Context, list Tombstones) error { return errStub }

// Sweep removes what interrupted backups left.
func (r *Repository) Sweep(ctx context.Context) (removed int, err error) { return 0, errStub }

// Writer takes what a [Source] dumps.
type Writer struct{}

// Schema is called once, first.
func (w *Writer) Schema(s Schema) error { return errStub }

// Table begins a table.
func (w *Writer) Table(t Table) error { return errStub }

// Row writes a row.
func (w *Writer) Row(values ...any) error { return errStub }

// Reader gives a [Sink] what was dumped.
type Reader struct{}

// Schema returns the schema.
func (r *Reader) Schema() Schema { return Schema{} }

// Next moves to the next table; io.EOF after the last.
func (r *Reader) Next() (Table, error) { return Table{}, errStub }

// Rows yields the rows of the table.
func (r *Reader) Rows() iter.Seq2[[]any, error] { return nil }
