package backup

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"

	"github.com/crmguard/crmguard/backup/backupkey"
)

func newDataKey() *dataKey {
	var k dataKey
	rand.Read(k[:])
	return &k
}

// Reader gives a [Sink] what was dumped. Whatever it gives was signed and is authentic, but only its
// end, io.EOF of Next, says that it was all. It is not for concurrent use.
type Reader struct {
	m        *manifest
	key      *dataKey
	frames   <-chan frame
	failed   func() error // waits for the end of the frames and says why they ended
	schema   Schema
	progress *progress

	at     int // tables begun
	cols   int // values of a stored row
	shown  int // columns of the table
	mac    hash.Hash
	rows   int64
	bytes  int64
	ahead  *frame // taken from frames and not used yet
	err    error
	atEnd  bool
	listed bool // the rows of the table were all given

	rewrite func(Table) (func([]any) error, error)
	change  func([]any) error // of the rows of this table
}

// Schema returns what the source said first.
func (r *Reader) Schema() Schema { return r.schema }

// Snapshot returns what the manifest says, such as the number of rows to expect.
func (r *Reader) Snapshot() Snapshot { return r.m.snapshot() }

// Rewrite gives change each table that Next moves to from now on, and each of its rows to the function that change returned for
// it, which sets the row's values anew in their places; nil leaves the table's rows out, and they are still checked. An error of
// either ends the reading and is what the restore returns. It is for a [Sink] in front of another: package sandbox.
func (r *Reader) Rewrite(change func(Table) (row func(values []any) error, err error)) {
	r.rewrite = change
}

func (r *Reader) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	return r.err
}

// wrong is for what the signed manifest and the authentic frames disagree on.
func (r *Reader) wrong() error { return r.fail(object(manifestName(r.m.Number), errMalformed)) }

// frame takes the next one.
func (r *Reader) frame() (frame, error) {
	if r.err != nil {
		return frame{}, r.err
	}
	if r.ahead != nil {
		f := *r.ahead
		r.ahead = nil
		return f, nil
	}
	f, ok := <-r.frames
	if !ok {
		if err := r.failed(); err != nil {
			return frame{}, r.fail(err)
		}
		return frame{}, r.wrong() // ended without a frame that says so
	}
	return f, nil
}

// begin reads the schema.
func (r *Reader) begin() error {
	f, err := r.frame()
	if err != nil {
		return err
	}
	var s schemaFrame
	if f.kind != frameSchema || f.table != noTable || f.rows != 0 || strictJSON(f.plain, &s) != nil || s.Engine != r.m.Engine {
		return r.wrong()
	}
	r.schema = Schema(s)
	return nil
}

// Next moves to the next table, and past those rows of the last one that were not read. At the end it
// compares everything with the manifest and returns io.EOF.
func (r *Reader) Next() (Table, error) {
	if r.atEnd {
		return Table{}, io.EOF
	}
	for r.cols > 0 && !r.listed {
		if _, err := r.rowsFrame(); err != nil {
			return Table{}, err
		}
	}
	f, err := r.frame()
	if err != nil {
		return Table{}, err
	}
	switch f.kind {
	case frameTable:
		t, err := parseTable(f.plain)
		if f.table != uint32(r.at) || f.rows != 0 || r.at >= len(r.m.Tables) || err != nil ||
			t.Name != r.m.Tables[r.at].Name || len(t.Columns) == 0 {
			return Table{}, r.wrong()
		}
		r.at++
		r.cols, r.shown, r.rows, r.bytes, r.listed = len(t.Columns), len(t.Columns), 0, 0, false
		if t.Counted {
			r.cols++
		}
		r.mac = r.key.rowDigest(r.m.Snapshot, f.plain)
		r.progress.add(t.Name, 0, 0, 0)
		m := &r.m.Tables[r.at-1]
		out := Table{Name: t.Name, Columns: t.Columns, Key: t.Key, Parents: t.Parents, Seq: m.Seq, Rows: m.Rows, Bytes: m.Bytes}
		if r.rewrite != nil {
			if r.change, err = r.rewrite(out); err != nil {
				return Table{}, r.fail(err)
			}
		}
		return out, nil
	case frameEnd:
		if f.table != noTable || f.rows != 0 || len(f.plain) != 0 || r.at != len(r.m.Tables) {
			return Table{}, r.wrong()
		}
		if _, more := <-r.frames; more {
			return Table{}, r.wrong()
		}
		if err := r.failed(); err != nil { // the rest of the last segment
			return Table{}, r.fail(err)
		}
		r.atEnd = true
		return Table{}, io.EOF
	}
	return Table{}, r.wrong()
}

// rowsFrame takes the next rows of the table; nil when there are no more, after comparing with the manifest.
func (r *Reader) rowsFrame() (*frame, error) {
	f, err := r.frame()
	if err != nil {
		return nil, err
	}
	if f.kind == frameRows {
		if f.table != uint32(r.at-1) || f.rows == 0 {
			return nil, r.wrong()
		}
		r.mac.Write(f.plain)
		r.rows += int64(f.rows)
		r.bytes += int64(len(f.plain))
		r.progress.add("", int64(f.rows), int64(len(f.plain)), 0)
		return &f, nil
	}
	r.ahead, r.listed = &f, true
	t := r.m.Tables[r.at-1]
	// What a chain gave was held against the manifests of all its snapshots already.
	if t.Rows != r.rows || r.m.Parent == 0 && (t.Bytes != r.bytes || !hmac.Equal(t.Digest[:], r.mac.Sum(nil))) {
		return nil, r.wrong()
	}
	return nil, nil
}

// Rows yields the rows of the table. The slice is used again for the next row; byte slices in it are
// the receiver's to keep, within the memory of their frame. The last pair may hold an error and no row.
func (r *Reader) Rows() iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		if r.err != nil {
			yield(nil, r.err)
			return
		}
		if r.rewrite != nil && r.change == nil {
			return // Next reads past them
		}
		row := make([]any, r.cols)
		for r.cols > 0 && !r.listed {
			f, err := r.rowsFrame()
			if err != nil {
				yield(nil, err)
				return
			}
			if f == nil {
				return
			}
			b := f.plain
			for range f.rows {
				if b, err = parseRow(b, row); err != nil {
					yield(nil, r.wrong())
					return
				}
				if r.rewrite != nil {
					if err := r.change(row[:r.shown]); err != nil {
						yield(nil, r.fail(err))
						return
					}
				}
				if !yield(row[:r.shown], nil) {
					// The rest of the frame is passed over, and so is no longer checked for its form.
					return
				}
			}
			if len(b) != 0 {
				yield(nil, r.wrong())
				return
			}
		}
	}
}

// read gives the content of a snapshot to load. It returns nil only when everything was read and authentic.
func (s *space) read(ctx context.Context, m *manifest, key *backupkey.Private, progress *progress, load func(context.Context, *Reader) error) error {
	var levels []*level
	var k *dataKey
	var err error
	if m.version > 1 && m.Kind == kindData && key != nil {
		if levels, err = s.levels(ctx, m, key); err != nil {
			return err
		}
		defer clearLevels(levels)
		k = levels[0].data
	} else {
		if k, err = s.key(ctx, m, key); err != nil {
			return err
		}
		defer clear(k[:])
	}
	ctx, cancel := context.WithCancel(ctx)
	frames := make(chan frame, 4)
	var ferr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		give := func(f frame) error {
			select {
			case frames <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(levels) > 1 || m.partial() {
			ferr = s.merge(ctx, levels, progress, give)
		} else {
			ferr = s.frames(ctx, m, k, progress, give)
		}
		close(frames)
	}()
	r := &Reader{m: m, key: k, frames: frames, progress: progress, failed: func() error { <-done; return ferr }}
	err = r.begin()
	if err == nil {
		err = load(ctx, r)
	}
	cancel()
	<-done
	if r.err != nil {
		return r.err // whatever the sink made of it
	}
	if err == nil && !r.atEnd {
		err = errors.New("backup: the sink did not read to the end")
	}
	return err
}

// frames opens the segments one after the other, fetching the next meanwhile.
func (s *space) frames(ctx context.Context, m *manifest, k *dataKey, progress *progress, out func(frame) error) error {
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	type fetched struct {
		b   []byte
		err error
	}
	next := make(chan fetched)
	go func() {
		defer close(next)
		for _, o := range m.Segments {
			b, err := s.fetch(ctx, o)
			select {
			case next <- fetched{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	ended := false
	for i, o := range m.Segments {
		f, ok := <-next
		if !ok {
			return ctx.Err()
		}
		if f.err != nil {
			return f.err
		}
		progress.add("", 0, 0, int64(len(f.b)))
		err := readSegment(f.b, k, m.version, m.Snapshot, uint32(i), zdec, func(f frame) error {
			if ended {
				return ErrTampered
			}
			ended = f.kind == frameEnd
			return out(f)
		})
		if err != nil {
			return object(o.Name, err)
		}
	}
	return nil
}

// anyNumber lets a damaged manifest at the end of the chain be passed over.
const anyNumber = 1 << 30

// find returns the manifest of a snapshot, and the newest one. The newest is asked for by an empty id and
// then must be sound; by its own id a snapshot is found although a later manifest is damaged.
func (r *Repository) find(ctx context.Context, id string) (m, newest *manifest, err error) {
	if id == "" {
		newest, err = r.data.newest(ctx)
	} else {
		newest, err = r.data.sound(ctx, anyNumber)
	}
	if err != nil {
		return nil, nil, err
	}
	if newest == nil {
		return nil, nil, fmt.Errorf("%w: no snapshot", ErrNotFound)
	}
	if (id == "" || id == newest.Snapshot.String()) && !newest.partial() {
		return newest, newest, r.data.whole(ctx, newest)
	}
	if id == "" {
		return r.beforePartial(ctx, newest)
	}
	err = fmt.Errorf("%w: no such snapshot", ErrNotFound)
	for m, cerr := range r.data.chain(ctx) {
		switch {
		case cerr == nil && m.Snapshot.String() == id && !m.partial():
			return m, newest, r.data.whole(ctx, m)
		case errors.Is(cerr, ErrStale) || ctx.Err() != nil:
			return nil, nil, cerr
		case cerr != nil:
			err = cerr // perhaps the one that is looked for
		}
	}
	return nil, nil, err
}

// beforePartial finds the newest that is more than something to build on.
func (r *Repository) beforePartial(ctx context.Context, newest *manifest) (*manifest, *manifest, error) {
	for n := newest.Number; n > 0; n-- {
		m, err := r.data.manifest(ctx, n)
		if err != nil {
			return nil, nil, err
		}
		if !m.partial() {
			return m, newest, r.data.whole(ctx, m)
		}
	}
	return nil, nil, fmt.Errorf("%w: no snapshot", ErrNotFound)
}

// whole returns ErrNotFound for a snapshot that was pruned, in part or as a whole.
func (s *space) whole(ctx context.Context, m *manifest) error {
	list, err := s.pruned(ctx)
	if err != nil {
		if errors.Is(err, ErrTampered) { // Verify's to report; what is missing will show
			return nil
		}
		return err
	}
	if _, condemned := list.since(m); !condemned {
		return nil
	}
	if err := s.present(ctx, m); errors.Is(err, ErrTampered) {
		return fmt.Errorf("%w: the snapshot was pruned", ErrNotFound)
	} else if err != nil {
		return err
	}
	return nil
}

// Restore loads a snapshot, the newest for an empty id, into an empty sink. Its order: the newest
// tombstone list and the newest key shards are read and checked, keys are imported, tombstones
// replayed, rows loaded; so no erased person's row is ever there with a key. What fails before the
// rows may be repeated. Errors: ErrNotFound, ErrKey, ErrTampered, ErrVersion, ErrStale (the newest
// tombstone list or shard set is older than the newest manifest says), ErrReplay, ErrNotEmpty, and
// those of the sinks.
func (r *Repository) Restore(ctx context.Context, id string, sink Sink, key *backupkey.Private, opts *RestoreOptions) (Snapshot, error) {
	var o RestoreOptions
	if opts != nil {
		o = *opts
	}
	m, newest, err := r.find(ctx, id)
	if err != nil {
		return Snapshot{}, err
	}
	list, err := r.tombstones(ctx, newest)
	if err != nil {
		return Snapshot{}, err
	}
	if list.Number > 0 && o.Tombstones == nil {
		return Snapshot{}, ErrReplay
	}
	if o.Keys != nil {
		if err := r.restoreKeys(ctx, newest, o.Keys, key); err != nil {
			return Snapshot{}, err
		}
	}
	if list.Number > 0 {
		if err := o.Tombstones(ctx, list); err != nil {
			return Snapshot{}, err
		}
	}
	if err := r.data.read(ctx, m, key, newProgress(r.opts.Observer, m.rows()), sink.Load); err != nil {
		return Snapshot{}, err
	}
	return m.snapshot(), nil
}

// RestoreKeys gives the newest key shards to sink, as [Repository.Restore] does: for a database that
// was restored by other means, or lost its keys only. The caller replays the tombstones that the
// records themselves do not hold. Errors as of Restore.
func (r *Repository) RestoreKeys(ctx context.Context, sink KeySink, key *backupkey.Private) error {
	newest, err := r.data.newest(ctx)
	if err != nil {
		return err
	}
	return r.restoreKeys(ctx, newest, sink, key)
}

func (r *Repository) restoreKeys(ctx context.Context, newest *manifest, sink KeySink, key *backupkey.Private) error {
	set, err := r.shardSet(ctx, newest)
	if err != nil || set == nil {
		return err
	}
	p := newProgress(r.opts.Observer, 0)
	// Once into nothing: nothing is imported from a set that does not open to its end.
	if err := r.shards.read(ctx, set, key, p, keyLoad(nil)); err != nil {
		return err
	}
	return r.shards.read(ctx, set, key, p, keyLoad(sink))
}

// shardSet returns the newest set of key shards, nil when there is none and none was ever said to be.
func (r *Repository) shardSet(ctx context.Context, newest *manifest) (*manifest, error) {
	if r.shards == nil {
		if newest != nil && newest.Shards > 0 {
			return nil, errors.New("backup: the key shards are in a bucket that was not given: Options.Shards")
		}
		return nil, nil
	}
	set, err := r.shards.newest(ctx)
	if err != nil {
		return nil, err
	}
	if newest != nil && newest.Shards > 0 && (set == nil || set.Number < newest.Shards) {
		return nil, object(manifestName(newest.Shards), ErrStale)
	}
	return set, nil
}

// discard reads everything and keeps nothing: what Verify does.
func discard(_ context.Context, r *Reader) error {
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, err := range r.Rows() {
			if err != nil {
				return err
			}
		}
	}
}
