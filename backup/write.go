package backup

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/crmguard/crmguard/backup/policy"
)

// Writer takes what a [Source] dumps. It is not for concurrent use.
type Writer struct {
	ctx   context.Context
	s     *space
	m     *manifest
	key   *dataKey
	cols  int
	begun bool
	buf   []byte
	rows  uint32
	err   error

	index   *indexWriter // nil for key shards
	sent    uint32       // frames
	skipped int64        // rows since the last word to the observer that are as they were
	passed  int64        // and their bytes

	frames   chan frame
	done     chan struct{} // closed when the packer has ended
	layout   []dataFrame   // the packer's, until done
	ends     []uint32      // likewise
	packed   []int64       // likewise, by table
	digests  []hash.Hash   // likewise
	spare    spares        // buffers of frames that were compressed
	apart    bool          // the rows of the table are indexed beside the dump, frame by frame
	indexing sync.WaitGroup
	indexErr error // of that
	progress *progress
}

// spares keeps a few buffers for the next that needs one.
type spares chan []byte

// take returns an empty one, nil when there is none.
func (s spares) take() []byte {
	select {
	case b := <-s:
		return b[:0]
	default:
		return nil
	}
}

// give keeps b, unless it is much above the size that most have.
func (s spares) give(b []byte, size int) {
	if cap(b) > 0 && cap(b) <= 2*size {
		select {
		case s <- b:
		default:
		}
	}
}

// progress counts for an observer.
type progress struct {
	mu      sync.Mutex
	p       Progress
	observe func(Progress)
}

func newProgress(observe func(Progress), total int64) *progress {
	return &progress{observe: observe, p: Progress{Began: time.Now(), Total: max(0, total)}}
}

// expect changes how many rows are expected.
func (p *progress) expect(rows int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.p.Total = max(0, p.p.Total+rows)
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
	if w.index != nil {
		w.index.schema(b)
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
	if w.index == nil {
		t.Key, t.Parents = t.Columns, nil
	}
	f, b, err := marshalTable(t)
	if err != nil {
		return w.fail(err)
	}
	if len(b) > maxRow {
		return w.fail(errors.New("backup: too many columns"))
	}
	w.cols = len(t.Columns)
	w.m.Tables = append(w.m.Tables, manifestTable{Name: t.Name, Whole: true})
	if w.index != nil {
		if err := w.index.table(f, b, t.Seq); err != nil {
			return w.fail(err)
		}
		w.apart = w.index.independent()
	}
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
	if w.index != nil && (w.index.rest || w.index.byKey) {
		return w.fail(errors.New("backup: no row comes after Rest"))
	}
	at := len(w.buf)
	var err error
	for i, v := range values {
		if w.buf, err = appendValue(w.buf, v); err != nil {
			return w.fail(err)
		}
		if w.index != nil && !w.apart {
			w.index.ends[i] = len(w.buf) - at
		}
	}
	if len(w.buf)-at > maxRow-maxCount {
		return w.fail(fmt.Errorf("backup: a row of table %s is above 64 MiB", w.m.Tables[w.table()].Name))
	}
	var e entry
	if w.index != nil && !w.apart {
		w.buf, e = w.index.identify(w.buf, at)
		if w.index.comparing() {
			full := w.index.batch.add(w.buf[at:], e)
			w.buf = w.buf[:at]
			if full {
				return w.compare()
			}
			return nil
		}
	}
	return w.hold(at, e)
}

// hold keeps the row from at in buf, whose values end at index.ends, and sends what is enough for a frame. A large row does not
// wait for others.
func (w *Writer) hold(at int, e entry) error {
	if at > 0 && len(w.buf)-at >= frameTarget/2 {
		row := append(w.spare.take(), w.buf[at:]...)
		w.buf = w.buf[:at]
		if err := w.flush(); err != nil {
			return err
		}
		w.spare.give(w.buf, frameTarget)
		w.buf, at = row, 0
	}
	if w.index != nil && !w.apart {
		e.frame = w.sent
		w.index.keep(w.buf[at:], e)
	}
	w.rows++
	if len(w.buf) >= frameTarget {
		return w.flush()
	}
	return nil
}

// compare takes of the rows that wait for it those that are to be kept.
func (w *Writer) compare() error {
	x := w.index
	if len(x.batch.items) == 0 {
		return nil
	}
	if err := x.compare(); err != nil {
		return w.fail(err)
	}
	begin := 0
	for _, r := range x.batch.items {
		row := x.batch.rows[begin:r.end]
		begin = r.end
		if !r.keep {
			w.skipped++
			w.passed += int64(len(row))
			continue
		}
		if _, err := split(row, x.ends); err != nil {
			return w.fail(err)
		}
		at := len(w.buf)
		w.buf = append(w.buf, row...)
		if err := w.hold(at, r.entry); err != nil {
			return err
		}
	}
	x.batch.reset()
	w.tell()
	return nil
}

// tell counts the rows that were passed over for the observer.
func (w *Writer) tell() {
	if w.skipped > 0 {
		w.progress.add("", w.skipped, w.passed, 0)
		w.skipped, w.passed = 0, 0
	}
}

// Since tells a source that knows change numbers from which on the rows of the table at hand are wanted: those above the
// number that is returned, Table.Seq of the snapshot before. The rows are followed by [Writer.Rest]. When it returns
// false, all rows are wanted: the snapshot is full, the table has another form, the schema changed, or the numbers went back.
func (w *Writer) Since() (seq int64, ok bool) {
	x := w.index
	w.indexing.Wait()
	if w.err != nil || x == nil || w.cols == 0 || !x.delta || x.base.scan || !x.same || w.rows > 0 || x.begun() {
		return 0, false
	}
	t := &w.m.Tables[w.table()]
	if x.below.Seq <= 0 || t.Seq < x.below.Seq || !maps.Equal(w.m.Versions, x.base.levels[0].m.Versions) {
		return 0, false
	}
	x.bySeq = true
	w.apart = x.independent()
	w.progress.expect(-x.below.Rows)
	return x.below.Seq, true
}

// Rest says, after the rows above Since, how many rows the table has in all. When that fits the rows that were given, the others
// are as they were and it returns true. Otherwise rows are gone, and the source gives the key of each row
// of the table to [Writer.Key].
func (w *Writer) Rest(rows int64) (all bool, err error) {
	x := w.index
	if w.err != nil {
		return false, w.err
	}
	if x == nil || !x.bySeq || x.rest || x.byKey {
		return false, w.fail(errors.New("backup: Rest is called once, after Since and the rows"))
	}
	if err := w.indexed(); err != nil {
		return false, err
	}
	if err := x.settle(); err != nil {
		return false, w.fail(err)
	}
	x.rest = rows == x.below.Rows+x.added
	x.byKey, x.total = !x.rest, rows
	if x.byKey {
		if err := x.loadKeys(); err != nil {
			return false, w.fail(err)
		}
	}
	return x.rest, nil
}

// Key says that there is a row with this key, a value for each column of Table.Key, in that order.
func (w *Writer) Key(values ...any) (err error) {
	x := w.index
	if w.err != nil {
		return w.err
	}
	if x == nil || !x.byKey || len(values) != len(x.shape.t.Key) {
		return w.fail(errors.New("backup: Key is called after Rest, with the values of the key"))
	}
	b := x.scratch[:0]
	for _, v := range values {
		if b, err = appendValue(b, v); err != nil {
			return w.fail(err)
		}
	}
	x.scratch = b
	x.keys++
	if x.present = append(x.present, x.mac.of(macID, b)); len(x.present) < spillRows {
		return nil
	}
	if err := x.markKeys(); err != nil {
		return w.fail(err)
	}
	return nil
}

// flush sends the rows at hand.
func (w *Writer) flush() error {
	w.tell()
	if w.rows == 0 {
		return nil
	}
	t := &w.m.Tables[w.table()]
	t.Held += int64(w.rows)
	t.Bytes += int64(len(w.buf))
	w.progress.add("", int64(w.rows), int64(len(w.buf)), 0)
	f := frame{kind: frameRows, table: w.table(), rows: w.rows, plain: w.buf}
	if w.buf, w.rows = w.spare.take(), 0; w.buf == nil && len(f.plain) >= frameTarget { // more of them will come
		w.buf = make([]byte, 0, frameTarget+frameTarget/16)
	}
	return w.send(f)
}

// indexed sends the rows at hand and waits until the index has all that came.
func (w *Writer) indexed() error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.indexing.Wait(); w.indexErr != nil {
		return w.fail(w.indexErr)
	}
	return nil
}

func (w *Writer) endTable() error {
	if w.cols == 0 {
		return nil
	}
	if w.index != nil {
		if err := w.compare(); err != nil {
			return err
		}
	}
	if err := w.indexed(); err != nil {
		return err
	}
	t := &w.m.Tables[w.table()]
	t.Rows = t.Held
	if w.index != nil {
		gone, err := w.index.endTable()
		if err != nil {
			return w.fail(err)
		}
		for part := range slices.Chunk(gone, frameTarget/8) {
			b := make([]byte, 0, 8*len(part))
			for _, id := range part {
				b = binary.BigEndian.AppendUint64(b, id)
			}
			if err := w.send(frame{kind: frameGone, table: w.table(), rows: uint32(len(part)), plain: b}); err != nil {
				return err
			}
		}
	}
	w.cols = 0
	return nil
}

func (w *Writer) send(f frame) error {
	w.sent++
	w.indexing.Add(1)
	select {
	case w.frames <- f:
		return nil
	case <-w.ctx.Done():
		w.indexing.Done()
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
	Name    string            `json:"name"`
	Columns []string          `json:"columns"`
	Key     []string          `json:"key"`
	Counted bool              `json:"counted"`
	Parents map[string]string `json:"parents"`
}

// write dumps source into objects and returns the manifest that is to be committed. It is compared with base, and built on
// it if base says so. path is that of a journal, "" for none.
func (s *space) write(ctx context.Context, name string, source Source, base *base, path string, progress *progress) (*manifest, error) {
	if s.opts.Signer == nil || s.opts.Recipient == nil {
		return nil, fmt.Errorf("%w: the repository was opened for reading", ErrKey)
	}
	m := &manifest{
		version: snapshotVersion, Repository: s.id, Kind: s.kind, Snapshot: newID(), Name: name, Created: s.opts.Now().UTC(), Versions: map[string]int64{},
		Tables: []manifestTable{}, Cipher: cipherName, Compression: compressionName, Digest: digestName,
		Index: []manifestObject{}, Anomalies: []policy.Anomaly{},
	}
	if base != nil && base.delta {
		p := base.levels[0].m
		m.Parent, m.ParentDigest, m.Depth = p.Number, p.digest, p.Depth+1
	}
	key := newDataKey()
	defer clear(key[:])
	plain := s
	var j *journal
	if path != "" {
		var err error
		j, err = newJournal(path, journalHead{Version: 1, Repository: s.id, Snapshot: m.Snapshot, Name: name, Created: m.Created, Key: key[:],
			Parent: m.Parent, ParentDigest: m.ParentDigest, Depth: m.Depth})
		if err != nil {
			return nil, err
		}
		defer j.f.Close()
		s = &space{bucket: &journaled{Bucket: s.bucket, j: j, turn: sync.NewCond(&sync.Mutex{})}, kind: s.kind, id: s.id, pin: s.pin, opts: s.opts, seen: s.head(), index: s.index}
	}
	m.Commitment = key.commitment(s.id, m.Snapshot)
	header, err := sealKey(key, s.opts.Recipient, s.id, m.Snapshot)
	if err != nil {
		return nil, err
	}
	o, err := plain.put(ctx, keyName(m.Snapshot, s.opts.Recipient.ID()), header)
	if err == nil && j != nil {
		err = j.note(o)
	}
	if err != nil {
		return nil, err
	}
	m.Keys = append(m.Keys, o)
	progress.add("", 0, 0, o.Size)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &Writer{ctx: ctx, s: s, m: m, key: key, frames: make(chan frame), done: make(chan struct{}), spare: make(spares, 1), progress: progress}
	if s.kind == kindData {
		index, _, err := s.indexKey()
		if err != nil {
			return nil, err
		}
		zenc, err := newEncoder()
		if err != nil {
			return nil, err
		}
		defer zenc.Close()
		m.IndexKey = key.sealIndexKey(index, m.Snapshot)
		w.index = &indexWriter{s: plain, ctx: ctx, m: m, key: index, base: base, zenc: zenc}
		defer func() {
			w.indexing.Wait()
			w.index.close()
		}()
	}
	var segments []manifestObject
	go func() {
		defer close(w.done)
		var err error
		if segments, err = w.pack(ctx); err != nil {
			cancel(err)
		}
	}()
	ended := false
	end := func() {
		if !ended {
			ended = true
			close(w.frames)
			<-w.done
		}
	}
	defer func() { // also when the source panics
		cancel(nil)
		end()
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
	end()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause // the first error of all
	}
	m.Segments = segments
	for i, n := range w.packed {
		m.Tables[i].Packed = n
	}
	for i, d := range w.digests {
		copy(m.Tables[i].Digest[:], d.Sum(nil))
	}
	if w.index != nil {
		if base != nil && base.delta && m.Engine != base.levels[0].m.Engine {
			return nil, errFull
		}
		if err := w.index.finish(w.layout, w.ends); err != nil {
			return nil, err
		}
		for _, o := range m.Index {
			progress.add("", 0, 0, o.Size)
		}
	}
	return m, nil
}

const (
	maxPackers = 4 // frames that are compressed at once; each takes some megabytes
	uploads    = 2 // segments that are stored at once; one of them while the next is built
)

func newEncoder() (*zstd.Encoder, error) { return newEncoders(1) }

// newEncoders makes one for so many callers at once.
func newEncoders(n int) (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(n), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(frameTarget), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return e, nil
}

// budget bounds the bytes that are under way.
type budget struct {
	mu         sync.Mutex
	less       sync.Cond
	used, most int
}

func newBudget(most int) *budget {
	b := &budget{most: most}
	b.less.L = &b.mu
	return b
}

// take waits until there is room for n more, or nothing else is under way.
func (b *budget) take(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.used > 0 && b.used+n > b.most {
		b.less.Wait()
	}
	b.used += n
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.less.Signal()
}

// packedFrame is a frame that is being compressed.
type packedFrame struct {
	frame
	size int         // of its plain
	done chan []byte // gives its compressed bytes
}

// compress gives the frames in their order, several being compressed at once. Whoever takes them calls done for each that is
// ready, and end.
func (w *Writer) compress(ctx context.Context, spare spares) (frames <-chan *packedFrame, done func(*packedFrame), end func(), err error) {
	n := max(1, min(runtime.GOMAXPROCS(0), maxPackers))
	zenc, err := newEncoders(n)
	if err != nil {
		return nil, nil, nil, err
	}
	under := newBudget((n + 1) * (frameTarget + frameTarget/4))
	done = func(p *packedFrame) { under.give(p.size) }
	digest := w.key.derive("digest", w.m.Snapshot[:])
	work, order := make(chan *packedFrame), make(chan *packedFrame, n-1)
	go func() {
		defer close(order)
		defer close(work)
		number := uint32(0)
		for f := range w.frames {
			if f.kind == frameRows && w.apart && ctx.Err() == nil && w.indexErr == nil {
				w.indexErr = w.index.rows(f, number)
			}
			w.indexing.Done()
			number++
			switch f.kind {
			case frameTable:
				w.digests = append(w.digests, newRowDigest(digest, f.plain))
			case frameRows, frameGone:
				w.digests[f.table].Write(f.plain)
			}
			p := &packedFrame{frame: f, size: len(f.plain), done: make(chan []byte, 1)}
			under.take(p.size)
			order <- p
			work <- p
		}
	}()
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for p := range work {
				var z []byte
				if ctx.Err() == nil {
					if z = spare.take(); cap(z) < p.size {
						z = make([]byte, 0, p.size+frameTarget/16)
					}
					z = zenc.EncodeAll(p.plain, z)
				}
				if p.kind == frameRows {
					w.spare.give(p.plain, frameTarget)
				}
				p.plain = nil
				p.done <- z
			}
		})
	}
	return order, done, func() {
		go func() {
			for p := range order { // what came after a failure
				done(p)
			}
			workers.Wait()
			zenc.Close()
		}()
	}, nil
}

// stored is a segment in the bucket.
type stored struct {
	o   manifestObject
	err error
}

// pack turns frames into segments while the source reads on, and stores some while the next are built.
func (w *Writer) pack(ctx context.Context) ([]manifestObject, error) {
	spare, segments := make(spares, 1), make(spares, uploads)
	frames, done, end, err := w.compress(ctx, spare)
	if err != nil {
		return nil, err
	}
	defer end()
	var all []manifestObject
	var pending []chan stored
	ctx, cancel := context.WithCancel(ctx)
	defer func() { // after a failure nothing is stored any more
		cancel()
		for _, r := range pending {
			<-r
		}
	}()
	wait := func(most int) error {
		for len(pending) > most {
			r := <-pending[0]
			pending = pending[1:]
			if r.err != nil {
				return r.err
			}
			all = append(all, r.o)
			w.progress.add("", 0, 0, r.o.Size)
		}
		return nil
	}
	var seg *segmentWriter
	number := uint32(0)
	for f := range frames {
		z := <-f.done
		if done(f); ctx.Err() != nil {
			break
		}
		if seg == nil {
			if err := wait(uploads - 1); err != nil { // which gives its memory back
				return nil, err
			}
			b := segments.take()
			if b == nil && number > 0 {
				b = make([]byte, 0, segmentTarget+frameTarget)
			}
			seg = reuseSegmentWriter(b, w.key, w.m.Snapshot, number, nil)
			number++
		}
		if len(seg.buf)+f.size >= segmentTarget || f.kind == frameEnd {
			f.flags |= flagLast
		}
		w.layout = append(w.layout, dataFrame{segment: number - 1, place: place{number: seg.count, offset: uint32(len(seg.buf))},
			kind: f.kind, table: f.table, rows: f.rows})
		seg.addPacked(f.frame, z)
		if f.kind == frameRows {
			for int(f.table) >= len(w.packed) {
				w.packed = append(w.packed, 0)
			}
			w.packed[f.table] += int64(len(z))
		}
		spare.give(z, frameTarget)
		if f.flags&flagLast != 0 {
			w.ends = append(w.ends, uint32(len(seg.buf)))
			b := seg.finish()
			seg = nil
			ch := make(chan stored, 1)
			pending = append(pending, ch)
			go func() {
				o, err := w.s.put(ctx, segmentPrefix+newID().String(), b)
				if err == nil {
					segments.give(b, segmentTarget)
				}
				ch <- stored{o, err}
			}()
		}
	}
	if err := wait(0); err != nil {
		return nil, err
	}
	return all, ctx.Err()
}
