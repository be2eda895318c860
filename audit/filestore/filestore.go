// Package filestore keeps an audit log in segment files of one folder.
package filestore

import (
	"context"
	"errors"
	"iter"

	"github.com/crmguard/crmguard/audit/driver"
)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	SegmentBytes int64 // size at which a new segment file begins; 0: 64 MiB
}

// Store is a log in a folder.
type Store struct{}

// Open returns the store in the folder dir. Nothing is made or locked before
// Writer is called, so a reader may open the folder of a running writer.
func Open(dir string, opts *Options) (*Store, error) { return nil, errors.New("filestore: not ready") }

// Batches implements driver.Store.
func (s *Store) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] { return nil }

// Head implements driver.Store.
func (s *Store) Head(ctx context.Context) ([]byte, error) { return nil, nil }

// Writer implements driver.Store.
func (s *Store) Writer(ctx context.Context) (driver.Writer, error) { return nil, driver.ErrLocked }
