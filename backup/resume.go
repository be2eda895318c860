package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A journal is a file of a host that notes what a backup uploads, so that the next one need not upload it again after a crash. Its first line has the
// key of the snapshot that was being written; each further one an object, before it is put.
type journalHead struct {
	Version      int       `json:"version"`
	Repository   id16      `json:"repository"`
	Snapshot     id16      `json:"snapshot"`
	Name         string    `json:"name"`
	Created      time.Time `json:"created"`
	Key          []byte    `json:"key"`
	Parent       uint64    `json:"parent"`
	ParentDigest sum32     `json:"parent_digest"`
	Depth        uint32    `json:"depth"`
}

// journal is one that is being written.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

// newJournal begins one, in place of an old one, which stays until the new one has its head. A link in its place is replaced and not followed.
func newJournal(path string, h journalHead) (*journal, error) {
	fail := func(err error) (*journal, error) { return nil, fmt.Errorf("backup: journal: %w", err) }
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new") // of mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fail(err)
	}
	if f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return fail(err)
	}
	return &journal{f: f}, nil
}

// note writes a line, lasting.
func (j *journal) note(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err = j.f.Write(append(b, '\n')); err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("backup: journal: %w", err)
	}
	return nil
}

// journaled notes segments before they are put, one after the other in the order of their numbers: so what is there has no gap.
type journaled struct {
	Bucket
	j      *journal
	turn   *sync.Cond
	next   uint32
	failed error
}

func (b *journaled) Put(ctx context.Context, name string, data []byte) error {
	number := binary.BigEndian.Uint32(data[segmentHead-4:])
	b.turn.L.Lock()
	defer b.turn.L.Unlock()
	for b.next != number && b.failed == nil {
		b.turn.Wait()
	}
	if b.failed == nil {
		b.failed = b.j.note(manifestObject{Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data)})
	}
	if b.failed == nil {
		b.failed = b.Bucket.Put(ctx, name, data)
	}
	b.next++
	b.turn.Broadcast()
	return b.failed
}

// readJournal returns nil when there is none that can be used.
func readJournal(path string, repository id16) (*journalHead, []manifestObject, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("backup: journal: %w", err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	var h journalHead
	if strictJSON(lines[0], &h) != nil || h.Version != 1 || h.Repository != repository || len(h.Key) != len(dataKey{}) {
		return nil, nil, nil
	}
	var all []manifestObject
	for _, line := range lines[1:] {
		var o manifestObject
		if !bytes.HasSuffix(line, []byte("\n")) || strictJSON(line, &o) != nil {
			break // torn
		}
		all = append(all, o)
	}
	return &h, all, nil
}

// resume commits what an interrupted backup of the same name uploaded, as a snapshot that is only there to be built on, and returns
// it; or one that an earlier call committed, and nil when there is nothing to be used. The rows are read back, so that it is whole.
func (s *space) resume(ctx context.Context, path, name string, newest *manifest) (*manifest, error) {
	h, objects, err := readJournal(path, s.id)
	if err != nil || h == nil || h.Name != name || s.opts.Recipient == nil {
		return nil, err
	}
	if age := s.opts.Now().Sub(h.Created); age < 0 || age > s.opts.Grace/2 {
		return nil, nil // what it sent may be swept by now, and its date would be behind others
	}
	index, lasting, err := s.indexKey()
	if err != nil || !lasting {
		return nil, err
	}
	var before *manifest // what the interrupted one was built on, when that is a part too
	for m, err := range s.chain(ctx) {
		if err != nil { // not the moment for it
			return nil, ctx.Err()
		}
		if m.Snapshot == h.Snapshot && m.partial() {
			return m, nil
		}
		if m.Snapshot == h.Snapshot {
			return nil, nil
		}
		if m.Number == h.Parent && m.digest == h.ParentDigest && m.partial() {
			before = m
		}
	}
	m, err := s.uploaded(ctx, h, objects, index, newest)
	if err != nil || m == nil {
		return before, err
	}
	return m, s.commit(ctx, m)
}

// uploaded makes the manifest of what an interrupted backup uploaded; nil when it cannot be used.
func (s *space) uploaded(ctx context.Context, h *journalHead, objects []manifestObject, index *dataKey, newest *manifest) (*manifest, error) {
	m := &manifest{
		version: snapshotVersion, Repository: s.id, Kind: s.kind, Snapshot: h.Snapshot, Name: h.Name, Created: h.Created, Versions: map[string]int64{},
		Tables: []manifestTable{}, Cipher: cipherName, Compression: compressionName, Digest: digestName,
		Parent: h.Parent, ParentDigest: h.ParentDigest, Depth: h.Depth, Part: newID(), Anomalies: noAnomalies(), Index: []manifestObject{},
	}
	if newest != nil {
		m.Tombstones, m.Shards = newest.Tombstones, newest.Shards
	}
	key := dataKey(h.Key)
	defer clear(key[:])
	m.Commitment = key.commitment(s.id, m.Snapshot)
	m.IndexKey = key.sealIndexKey(index, m.Snapshot)
	var below []*level
	if m.Parent > 0 {
		p, err := s.manifest(ctx, m.Parent)
		if err != nil || p.digest != m.ParentDigest {
			return nil, ctx.Err()
		}
		list, err := s.pruned(ctx)
		if err != nil {
			return nil, err
		}
		if _, condemned := list.since(p); condemned {
			return nil, nil
		}
		if below, err = s.levels(ctx, p, nil); err != nil {
			return nil, ctx.Err()
		}
	}
	zenc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	defer zenc.Close()
	x := &indexWriter{s: s, ctx: ctx, m: m, key: index, zenc: zenc}
	defer x.close()
	again := &replay{s: s, m: m, key: &key, x: x, below: below}
	zdec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer zdec.Close()
	for _, o := range objects {
		if strings.HasPrefix(o.Name, keyPrefix) {
			if _, err := s.fetch(ctx, o); err != nil {
				return nil, ctx.Err()
			}
			m.Keys = append(m.Keys, o)
			continue
		}
		b, err := s.fetch(ctx, o)
		if err != nil || readSegment(b, &key, snapshotVersion, m.Snapshot, uint32(len(m.Segments)), zdec, func(frame) error { return nil }) != nil {
			break // not uploaded to its end
		}
		again.places = places(b)
		if err := readSegment(b, &key, snapshotVersion, m.Snapshot, uint32(len(m.Segments)), zdec, again.frame); err != nil {
			return nil, err
		}
		m.Segments = append(m.Segments, o)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	now := keyName(m.Snapshot, s.opts.Recipient.ID()) // the key may be another by now
	if len(m.Keys) != 1 || m.Keys[0].Name != now || len(m.Segments) == 0 || len(m.Tables) == 0 {
		return nil, nil
	}
	if err := again.endTable(); err != nil {
		return nil, err
	}
	if len(below) > 0 {
		for _, t := range below[0].m.Tables { // what it has not come to would have to be sent anew
			if !slices.ContainsFunc(m.Tables, func(n manifestTable) bool { return n.Name == t.Name }) {
				return nil, nil
			}
		}
	}
	if err := x.finish(again.layout, again.ends); err != nil {
		return nil, err
	}
	if err := again.states(ctx, index); err != nil {
		return nil, err
	}
	chain, err := s.below(ctx, m)
	if err != nil {
		return nil, err
	}
	return m, s.present(ctx, chain...)
}

// replay makes manifest and index of frames that were uploaded.
type replay struct {
	s      *space
	m      *manifest
	key    *dataKey
	x      *indexWriter
	below  []*level
	places []place // of the segment at hand
	layout []dataFrame
	ends   []uint32
	begun  bool // a table
	digest hash.Hash
}

// places lists the frames of an authentic segment, the footer last.
func places(b []byte) (all []place) {
	for at := segmentHead; at+frameHead < len(b)-trailerSize; {
		size := frameHead + int(binary.BigEndian.Uint32(b[at:]))
		all = append(all, place{number: uint32(len(all)), offset: uint32(at), size: uint32(size)})
		at += size
	}
	return all
}

func (r *replay) frame(f frame) error {
	p := r.places[0]
	r.places = r.places[1:]
	number := uint32(len(r.layout))
	r.layout = append(r.layout, dataFrame{segment: uint32(len(r.m.Segments)), place: place{number: p.number, offset: p.offset}, kind: f.kind, table: f.table, rows: f.rows})
	if len(r.places) == 1 {
		r.ends = append(r.ends, r.places[0].offset)
	}
	switch f.kind {
	case frameSchema:
		var s schemaFrame
		if err := strictJSON(f.plain, &s); err != nil {
			return err
		}
		r.m.Engine, r.m.Versions = s.Engine, s.Versions
		r.x.schema(f.plain)
	case frameTable:
		return r.table(f.plain)
	case frameRows:
		return r.rows(f, p, number)
	case frameGone:
		r.digest.Write(f.plain)
		for b := range slices.Chunk(f.plain, 8) {
			r.x.entries.add(entry{id: binary.BigEndian.Uint64(b), frame: noFrame})
		}
	}
	return nil
}

func (r *replay) table(b []byte) error {
	if err := r.endTable(); err != nil {
		return err
	}
	t, err := parseTable(b)
	if err != nil {
		return err
	}
	r.m.Tables = append(r.m.Tables, manifestTable{Name: t.Name})
	if err := r.x.table(t, b, 0); err != nil {
		return err
	}
	r.x.counts = nil // the rows have theirs
	if len(r.below) > 0 {
		old, err := comparable(r.below, t.Name, r.x.dir.shapes[len(r.x.dir.shapes)-1])
		if err != nil {
			return err
		}
		r.m.Tables[len(r.m.Tables)-1].Whole = old == nil // as it was decided then
	}
	r.digest, r.begun = r.key.rowDigest(r.m.Snapshot, b), true
	return nil
}

func (r *replay) rows(f frame, p place, number uint32) error {
	t := &r.m.Tables[len(r.m.Tables)-1]
	t.Held += int64(f.rows)
	t.Bytes += int64(len(f.plain))
	t.Packed += int64(p.size) - frameHead - tagSize
	r.digest.Write(f.plain)
	b := f.plain
	for range f.rows {
		rest, err := split(b, r.x.ends)
		if err != nil {
			return err
		}
		row := b[:len(b)-len(rest)]
		b = rest
		r.x.row(row, 0, number)
	}
	return nil
}

func (r *replay) endTable() error {
	if !r.begun {
		return nil
	}
	t := &r.m.Tables[len(r.m.Tables)-1]
	whole := t.Whole
	if _, err := r.x.endTable(); err != nil {
		return err
	}
	t.Whole = whole
	copy(t.Digest[:], r.digest.Sum(nil))
	r.begun = false
	return nil
}

// states counts what each table has, with what lies below.
func (r *replay) states(ctx context.Context, index *dataKey) error {
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	levels := append([]*level{{m: r.m, dir: &r.x.dir, index: index}}, r.below...)
	for i := range r.m.Tables {
		t := &r.m.Tables[i]
		if t.Whole {
			continue
		}
		rows, state := int64(0), uint64(0)
		ok, err := r.s.view(ctx, levels, t.Name, zdec, func(e viewEntry) {
			rows++
			state += e.mac
		})
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("backup: what was uploaded cannot be built on")
		}
		t.Rows, t.State = rows, state64(state)
	}
	return nil
}

// resumable returns what builds on a part; nil when that must not be: a level is condemned, damaged or not for the key of now, there are too many, or a
// full snapshot is wanted and something else lies below.
func (s *space) resumable(ctx context.Context, part *manifest, full bool) (*base, error) {
	passed := func(err error) error {
		if errors.Is(err, ErrTampered) || errors.Is(err, ErrChain) || errors.Is(err, ErrNotFound) {
			return nil // the next snapshot does without
		}
		return err
	}
	if int(part.Depth) >= mostResumed {
		return nil, nil
	}
	list, err := s.pruned(ctx)
	if err != nil {
		return nil, passed(err)
	}
	chain, err := s.below(ctx, part)
	if err != nil {
		return nil, passed(err)
	}
	for _, m := range chain {
		if _, condemned := list.since(m); condemned || full && !m.partial() {
			return nil, nil
		}
		if _, err := s.bucket.Get(ctx, keyName(m.Snapshot, s.opts.Recipient.ID()), 0, 1); err != nil {
			return nil, passed(err)
		}
	}
	if err := s.present(ctx, chain...); err != nil {
		return nil, passed(err)
	}
	levels, err := s.levels(ctx, part, nil)
	if err != nil {
		return nil, passed(err)
	}
	return &base{levels: levels, delta: true, scan: true}, nil
}
