package backup

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// Key shards are snapshots like those of data, in a repository of their own: one table of opaque records.
const (
	shardEngine = "keys"
	shardTable  = "keys"
)

// keyDump makes a Source of a KeySource.
type keyDump struct{ keys KeySource }

func (d keyDump) Dump(ctx context.Context, w *Writer) error {
	if err := w.Schema(Schema{Engine: shardEngine}); err != nil {
		return err
	}
	if err := w.Table(Table{Name: shardTable, Columns: []string{"record"}}); err != nil {
		return err
	}
	for record, err := range d.keys.ExportKeys(ctx) {
		if err != nil {
			return err
		}
		if len(record) > maxRecord {
			return errors.New("backup: a key record is above 1 MiB")
		}
		if err := w.Row(record); err != nil {
			return err
		}
	}
	return nil
}

// keyLoad makes the load of a KeySink; nil reads and keeps nothing.
func keyLoad(sink KeySink) func(context.Context, *Reader) error {
	return func(ctx context.Context, r *Reader) error {
		t, err := r.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if errors.Is(err, io.EOF) || r.Schema().Engine != shardEngine || t.Name != shardTable || len(t.Columns) != 1 {
			return r.wrong()
		}
		records := func(yield func([]byte, error) bool) {
			for row, err := range r.Rows() {
				if err != nil {
					yield(nil, err)
					return
				}
				b, ok := row[0].([]byte)
				if !ok {
					yield(nil, r.wrong())
					return
				}
				if !yield(b, nil) {
					return
				}
			}
		}
		if sink != nil {
			if err := sink.ImportKeys(ctx, records); err != nil {
				return err
			}
		} else {
			for _, err := range records {
				if err != nil {
					return err
				}
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			if err == nil {
				err = r.wrong()
			}
			return err
		}
		return nil
	}
}

// expire deletes the sets that are older than Options.KeepShards, but for the newest: the sealed key
// first, which ends the set whatever happens next, its manifest last, so that a run that was
// interrupted is repeated.
func (s *space) expire(ctx context.Context) (removed int, err error) {
	numbers, err := s.numbers(ctx)
	if err != nil || len(numbers) < 2 {
		return 0, err
	}
	modified := map[string]time.Time{}
	for o, err := range s.bucket.List(ctx, snapshotPrefix) {
		if err != nil {
			return 0, object(snapshotPrefix, err)
		}
		modified[o.Name] = o.Modified
	}
	limit := s.opts.Now().Add(-s.opts.KeepShards)
	if s.opts.LockShards {
		limit = limit.Add(-2 * time.Second) // buckets lock to the second
	}
	for _, n := range numbers[:len(numbers)-1] {
		name := manifestName(n)
		m, err := s.manifest(ctx, n)
		switch {
		case err != nil && !errors.Is(err, ErrTampered) && !errors.Is(err, ErrStale):
			return removed, err
		case err != nil: // its age is known from the bucket only, its objects are loose
			if !modified[name].Before(limit) {
				continue
			}
		case !m.Created.Before(limit):
			continue
		default:
			var names []string
			for o, err := range s.bucket.List(ctx, keyPrefix+m.Snapshot.String()) {
				if err != nil {
					return removed, object(keyPrefix, err)
				}
				names = append(names, o.Name)
			}
			for _, o := range slices.Concat(m.Segments, m.Index) {
				if strings.HasPrefix(o.Name, segmentPrefix) {
					names = append(names, o.Name)
				}
			}
			names = append(names, name)
			for _, name := range names {
				err := s.bucket.Delete(ctx, name)
				if errors.Is(err, ErrLocked) { // by another clock, or by somebody else: again next time; see Report.Overdue
					break
				}
				if err != nil {
					return removed, object(name, err)
				}
				removed++
			}
			continue
		}
		if err := s.bucket.Delete(ctx, name); err != nil {
			return removed, object(name, err)
		}
		removed++
	}
	return removed, nil
}
