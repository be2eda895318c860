package backup

import (
	"context"
	"iter"
)

// Schema describes what a source holds. It is kept encrypted, apart from Engine and Versions, which
// stand in the signed manifest.
type Schema struct {
	Engine   string           // what can take it back, "sqlite" or "postgres" for package sqlsource
	Versions map[string]int64 // migration versions by the name of their set; may be empty
	Data     []byte           // the engine's own description, opaque here
}

// Table describes the rows that follow it.
type Table struct {
	Name    string
	Columns []string
	// Key names the columns that tell rows apart, for snapshots that hold only what changed and for
	// restoring one row. Empty = all columns together; such a table takes more memory.
	Key []string
	// Parents names, by column, the table whose key (of one column) a row has there. May be empty.
	Parents map[string]string
	// Seq is the highest change number in the table, for sources that ask Writer.Since. 0 = none.
	Seq   int64
	Rows  int64 // how many; known of a Snapshot and by a Reader, a source need not say
	Bytes int64 // of the rows that a Snapshot holds itself, before compression; likewise
}

// Source is what is backed up.
type Source interface {
	// Dump writes the schema, then each table and its rows, all of one consistent moment. It
	// returns the first error of w as it is.
	Dump(ctx context.Context, w *Writer) error
}

// Sink is what is restored into. It never shows a half-restored store as a whole one: either all
// is one transaction, or the store is marked incomplete until the end.
type Sink interface {
	// Load reads r to its end, which is an error of r unless everything was authentic, and only
	// then makes the rows lasting. Error: ErrNotEmpty, before anything is read.
	Load(ctx context.Context, r *Reader) error
}

// KeySource gives the wrapped keys of persons, as opaque records of at most 1 MiB.
type KeySource interface {
	ExportKeys(ctx context.Context) iter.Seq2[[]byte, error]
}

// KeySink takes them back. It skips what it holds already, so that it may be called again, and
// stores nothing lasting when records yields an error.
type KeySink interface {
	ImportKeys(ctx context.Context, records iter.Seq2[[]byte, error]) error
}
