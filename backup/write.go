package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Writer takes what a [Source] dumps. It is not for concurrent use.
type Writer struct {
	ctx   context.Context
	s     *space
	m     *manifest
	key   *dataKey
	mac   hash.Hash
	cols  int
	begun bool
	buf   []byte
	rows  uint32
	err   error

	frames   chan frame
	done     chan struct{} // closed when the packer has ended
	progress *progress
}

// progress counts for an observer.
type progress struct {
	mu      sync.Mutex
	p       Progress
	observe func(Progress)
}

func (p *progress) add(table string, rows, bytes, stored int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if table != "" {
		p.p.Table = table
	}
	p.p.Rows += rows
	p.p.Bytes += bytes
	p.p.Stored += stored
	if p.observe != nil {
		p.observe(p.p)
	}
}

// Schema must be called once, before any table. Nothing is kept of s.
func (w *Writer) Schema(s Schema) error {
	if w.err != nil {
		return w.err
	}
	if w.begun || s.Engine == "" {
		return w.fail(errors.New("backup: a dump begins with one schema that names its engine"))
	}
	w.begun = true
	w.m.Engine, w.m.Versions = s.Engine, map[string]int64{}
	for k, v := range s.Versions {
		w.m.Versions[k] = v
	}
	b, err := json.Marshal(schemaFrame{Engine: s.Engine, Versions: w.m.Versions, Data: s.Data})
	if err != nil {
		return w.fail(err)
	}
	if len(b) > maxRow {
		return w.fail(errors.New("backup: the schema is too large"))
	}
	return w.send(frame{kind: frameSchema, table: noTable, plain: b})
}

// Table ends the table before and begins another, whose rows follow. Names are unique.
func (w *Writer) Table(t Table) error {
	if w.err != nil {
		return w.err
	}
	same := func(m manifestTable) bool { return m.Name == t.Name }
	if !w.begun || t.Name == "" || len(t.Columns) == 0 || slices.ContainsFunc(w.m.Tables, same) {
		return w.fail(errors.New("backup: a table needs a schema before it, a name of its own and columns"))
	}
	if err := w.endTable(); err != nil {
		return err
	}
	b, err := json.Marshal(tableFrame{Name: t.Name, Columns: t.Columns})
	if err != nil {
		return w.fail(err)
	}
	if len(b) > maxRow {
		return w.fail(errors.New("backup: too many columns"))
	}
	w.mac = w.key.rowDigest(w.m.Snapshot, b)
	w.cols = len(t.Columns)
	w.m.Tables = append(w.m.Tables, manifestTable{Name: t.Name})
	w.progress.add(t.Name, 0, 0, 0)
	return w.send(frame{kind: frameTable, table: w.table(), plain: b})
}

func (w *Writer) table() uint32 { return uint32(len(w.m.Tables) - 1) }

// Row writes one row of the table: a value for each column, of type nil, int64, float64, string,
// []byte, bool or [time.Time] (whose zone is not kept). Nothing is kept of values. The rest of the
// dump is lost after an error.
func (w *Writer) Row(values ...any) error {
	if w.err != nil {
		return w.err
	}
	if w.cols == 0 || len(values) != w.cols {
		return w.fail(errors.New("backup: a row has a value for each column of its table"))
	}
	at := len(w.buf)
	var err error
	for _, v := range values {
		if w.buf, err = appendValue(w.buf, v); err != nil {
			return w.fail(err)
		}
	}
	if len(w.buf)-at > maxRow {
		return w.fail(fmt.Errorf("backup: a row of table %s is above 64 MiB", w.m.Tables[w.table()].Name))
	}
	w.rows++
	if len(w.buf) >= frameTarget {
		return w.flush()
	}
	return nil
}

// flush sends the rows at hand.
func (w *Writer) flush() error {
	if w.rows == 0 {
		return nil
	}
	t := &w.m.Tables[w.table()]
	t.Rows += int64(w.rows)
	t.Bytes += int64(len(w.buf))
	w.mac.Write(w.buf)
	w.progress.add("", int64(w.rows), int64(len(w.buf)), 0)
	f := frame{kind: frameRows, table: w.table(), rows: w.rows, plain: w.buf}
	w.buf, w.rows = make([]byte, 0, frameTarget+frameTarget/4), 0
	return w.send(f)
}

func (w *Writer) endTable() error {
	if w.cols == 0 {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	copy(w.m.Tables[w.table()].Digest[:], w.mac.Sum(nil))
	w.cols = 0
	return nil
}

func (w *Writer) send(f frame) error {
	select {
	case w.frames <- f:
		return nil
	case <-w.ctx.Done():
		return w.fail(context.Cause(w.ctx))
	}
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

type schemaFrame struct {
	Engine   string           `json:"engine"`
	Versions map[string]int64 `json:"versions"`
	Data     []byte           `json:"data"`
}

type tableFrame struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// write dumps source into objects and returns the manifest that is to be committed.
func (s *space) write(ctx context.Context, name string, source Source, progress *progress) (*manifest, error) {
	if s.opts.Signer == nil || s.opts.Recipient == nil {
		return nil, fmt.Errorf("%w: the repository was opened for reading", ErrKey)
	}
	m := &manifest{
		Repository: s.id, Kind: s.kind, Snapshot: newID(), Name: name, Created: s.opts.Now().UTC(), Versions: map[string]int64{},
		Tables: []manifestTable{}, Cipher: cipherName, Compression: compressionName, Digest: digestName,
	}
	key := newDataKey()
	defer clear(key[:])
	m.Commitment = key.commitment(s.id, m.Snapshot)
	header, err := sealKey(key, s.opts.Recipient, s.id, m.Snapshot)
	if err != nil {
		return nil, err
	}
	o, err := s.put(ctx, keyName(m.Snapshot, s.opts.Recipient.id), header)
	if err != nil {
		return nil, err
	}
	m.Keys = append(m.Keys, o)
	progress.add("", 0, 0, o.Size)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &Writer{ctx: ctx, s: s, m: m, key: key, frames: make(chan frame, 2), done: make(chan struct{}), progress: progress}
	var segments []manifestObject
	go func() {
		defer close(w.done)
		var err error
		if segments, err = w.pack(ctx); err != nil {
			cancel(err)
		}
	}()
	err = source.Dump(ctx, w)
	if w.err != nil {
		err = w.err // a source that swallowed it
	}
	if err == nil && !w.begun {
		err = errors.New("backup: the source dumped nothing")
	}
	if err == nil {
		err = w.endTable()
	}
	if err == nil {
		err = w.send(frame{kind: frameEnd, table: noTable})
	}
	if err != nil {
		cancel(err)
	}
	close(w.frames)
	<-w.done
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause // the first error of all
	}
	m.Segments = segments
	return m, nil
}

// pack turns frames into segments while the source reads on, and stores each while the next is built.
func (w *Writer) pack(ctx context.Context) ([]manifestObject, error) {
	zenc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	defer zenc.Close()
	type stored struct {
		o   manifestObject
		err error
	}
	var all []manifestObject
	var pending chan stored
	wait := func() error {
		if pending == nil {
			return nil
		}
		r := <-pending
		pending = nil
		if r.err != nil {
			return r.err
		}
		all = append(all, r.o)
		w.progress.add("", 0, 0, r.o.Size)
		return nil
	}
	var seg *segmentWriter
	number := uint32(0)
	for f := range w.frames {
		if ctx.Err() != nil {
			break
		}
		if seg == nil {
			seg = newSegmentWriter(w.key, w.m.Snapshot, number, zenc)
			number++
		}
		if len(seg.buf)+len(f.plain) >= segmentTarget || f.kind == frameEnd {
			f.flags |= flagLast
		}
		seg.add(f)
		if f.flags&flagLast != 0 {
			b := seg.finish()
			seg = nil
			if err := wait(); err != nil {
				return nil, err
			}
			pending = make(chan stored, 1)
			go func(ch chan stored) {
				o, err := w.s.put(ctx, segmentPrefix+newID().String(), b)
				ch <- stored{o, err}
			}(pending)
		}
	}
	if err := wait(); err != nil {
		return nil, err
	}
	return all, ctx.Err()
}

// Backup writes a full snapshot of source and returns it when it is committed: before that, nothing
// shows. Person keys go to the shard bucket, in a set of their own, and sets that are too old are
// deleted. Errors: ErrFull, ErrStale (a snapshot that was seen is gone), ErrKey (opened for
// reading), and the source's own.
func (r *Repository) Backup(ctx context.Context, source Source, opts *BackupOptions) (Snapshot, error) {
	var o BackupOptions
	if opts != nil {
		o = *opts
	}
	if o.Name == "" {
		o.Name = "default"
	}
	if len(o.Anchor) > maxAnchor {
		return Snapshot{}, errors.New("backup: the anchor is above 64 KiB")
	}
	if o.Keys != nil && r.shards == nil {
		return Snapshot{}, errors.New("backup: person keys need a shard bucket")
	}
	newest, err := r.data.sound(ctx, anyNumber) // a damaged one is Verify's to report and must not end the backups
	if err != nil {
		return Snapshot{}, err
	}
	if o.Tombstones.Number > 0 {
		if err := r.PutTombstones(ctx, o.Tombstones); err != nil {
			return Snapshot{}, err
		}
	}
	p := &progress{observe: r.opts.Observer}
	m, err := r.data.write(ctx, o.Name, source, p)
	if err != nil {
		return Snapshot{}, err
	}
	m.Anchor = o.Anchor
	list, err := r.tombstones(ctx, newest)
	if err != nil {
		return Snapshot{}, err
	}
	m.Tombstones = list.Number
	if newest != nil {
		m.Shards = newest.Shards
	}
	if o.Keys != nil {
		// After the rows: a key is stored before the first row that needs it.
		set, err := r.shards.write(ctx, o.Name, keyDump{o.Keys}, p)
		if err != nil {
			return Snapshot{}, err
		}
		set.Tombstones = m.Tombstones
		if err := r.shards.commit(ctx, set); err != nil {
			return Snapshot{}, err
		}
		m.Shards = set.Number
	}
	if err := r.data.present(ctx, m); err != nil {
		return Snapshot{}, err
	}
	if err := r.data.commit(ctx, m); err != nil {
		return Snapshot{}, err
	}
	if r.shards != nil {
		if _, err := r.shards.expire(ctx); err != nil {
			return m.snapshot(), fmt.Errorf("backup: the snapshot is committed, old key shards remain: %w", err)
		}
	}
	return m.snapshot(), nil
}

// present looks that each object of a snapshot still lies there before it is committed.
func (s *space) present(ctx context.Context, m *manifest) error {
	want := map[string]int64{}
	for _, o := range slices.Concat(m.Keys, m.Segments) {
		want[o.Name] = o.Size
	}
	for _, prefix := range []string{keyPrefix, segmentPrefix} {
		for o, err := range s.bucket.List(ctx, prefix) {
			if err != nil {
				return object(prefix, err)
			}
			if size, ok := want[o.Name]; ok && size == o.Size {
				delete(want, o.Name)
			}
		}
	}
	for name := range want {
		return object(name, ErrTampered)
	}
	return nil
}
