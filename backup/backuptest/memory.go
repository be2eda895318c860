// Package backuptest has the suites that buckets, sources and sinks of package backup pass, and a
// bucket and a store in memory whose faults can be set.
package backuptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/backup"
)

// Bucket is a backup.Bucket in memory that locks objects, a backup.Locker. Its zero value is empty and ready.
type Bucket struct {
	// Now is the clock of modification times and locks. Nil = time.Now.
	Now func() time.Time
	// BeforePut is asked before each Put; its error is returned and nothing is written. Nil = none.
	BeforePut func(name string, data []byte) error
	// BeforeDelete is asked before each Delete; its error is returned and nothing is removed. Nil = none.
	BeforeDelete func(name string) error

	mu      sync.Mutex
	objects map[string]memoryObject
}

type memoryObject struct {
	data     []byte
	modified time.Time
	until    time.Time // locked until
}

var _ backup.Locker = (*Bucket)(nil)

// Put implements backup.Bucket.
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.BeforePut != nil {
		if err := b.BeforePut(name, data); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[name]; ok {
		return backup.ErrExists
	}
	b.set(name, bytes.Clone(data))
	return nil
}

func (b *Bucket) set(name string, data []byte) {
	if b.objects == nil {
		b.objects = map[string]memoryObject{}
	}
	b.objects[name] = memoryObject{data: data, modified: b.now(), until: b.objects[name].until}
}

func (b *Bucket) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

// Set writes or replaces an object, locked or not, as nobody may. A lock stays.
func (b *Bucket) Set(name string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(name, bytes.Clone(data))
}

// Get implements backup.Bucket.
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[name]
	if !ok {
		return nil, backup.ErrNotFound
	}
	d := o.data[min(offset, int64(len(o.data))):]
	return bytes.Clone(d[:min(length, int64(len(d)))]), nil
}

// List implements backup.Bucket.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return func(yield func(backup.Object, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(backup.Object{}, err)
			return
		}
		b.mu.Lock()
		objects := maps.Clone(b.objects)
		b.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(objects)) {
			o := objects[name]
			if strings.HasPrefix(name, prefix) && !yield(backup.Object{Name: name, Size: int64(len(o.data)), Modified: o.modified}, nil) {
				return
			}
		}
	}
}

// Delete implements backup.Bucket.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.BeforeDelete != nil {
		if err := b.BeforeDelete(name); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects[name].until.After(b.now()) {
		return backup.ErrLocked
	}
	delete(b.objects, name)
	return nil
}

// Lock implements backup.Locker.
func (b *Bucket) Lock(ctx context.Context, name string, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[name]
	if !ok {
		return backup.ErrNotFound
	}
	if until.After(o.until) {
		o.until = until
		b.objects[name] = o
	}
	return nil
}

// LockedUntil implements backup.Locker.
func (b *Bucket) LockedUntil(ctx context.Context, name string) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[name]
	if !ok {
		return time.Time{}, backup.ErrNotFound
	}
	if !o.until.After(b.now()) {
		return time.Time{}, nil
	}
	return o.until, nil
}

// Clone returns a bucket with the same objects and locks, and no faults.
func (b *Bucket) Clone() *Bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Bucket{Now: b.Now, objects: maps.Clone(b.objects)}
}

// MemoryTable is one table of a [Memory].
type MemoryTable struct {
	backup.Table
	Rows [][]any
}

// Memory is a store in memory: a backup.Source and, while it has no tables, a backup.Sink.
type Memory struct {
	Schema backup.Schema
	Tables []MemoryTable
}

// Dump implements backup.Source.
func (m *Memory) Dump(ctx context.Context, w *backup.Writer) error {
	if err := w.Schema(m.Schema); err != nil {
		return err
	}
	for _, t := range m.Tables {
		if err := w.Table(t.Table); err != nil {
			return err
		}
		for _, row := range t.Rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.Row(row...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Load implements backup.Sink.
func (m *Memory) Load(_ context.Context, r *backup.Reader) error {
	if len(m.Tables) > 0 {
		return backup.ErrNotEmpty
	}
	var tables []MemoryTable
	for {
		t, err := r.Next()
		if errors.Is(err, io.EOF) {
			m.Schema, m.Tables = r.Schema(), tables
			return nil
		}
		if err != nil {
			return err
		}
		mt := MemoryTable{Table: backup.Table{Name: t.Name, Columns: t.Columns, Key: t.Key, Parents: t.Parents}}
		for row, err := range r.Rows() {
			if err != nil {
				return err
			}
			mt.Rows = append(mt.Rows, slices.Clone(row))
		}
		tables = append(tables, mt)
	}
}

// Keys is a backup.KeySource and backup.KeySink in memory.
type Keys struct{ Records [][]byte }

// ExportKeys implements backup.KeySource.
func (k *Keys) ExportKeys(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, r := range k.Records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// ImportKeys implements backup.KeySink.
func (k *Keys) ImportKeys(_ context.Context, records iter.Seq2[[]byte, error]) error {
	var all [][]byte
	for r, err := range records {
		if err != nil {
			return err
		}
		all = append(all, bytes.Clone(r))
	}
	for _, r := range all {
		if !slices.ContainsFunc(k.Records, func(have []byte) bool { return bytes.Equal(have, r) }) {
			k.Records = append(k.Records, r)
		}
	}
	return nil
}

// Rows makes a store of n rows in a table with every type of value, and two small tables without a key, alike on each call.
func Rows(n int) *Memory {
	m := &Memory{Schema: backup.Schema{Engine: "memory", Versions: map[string]int64{"crm_schema": 3}, Data: []byte("create everything")}}
	all := MemoryTable{Table: backup.Table{Name: "all_types", Columns: []string{"id", "null", "float", "text", "bytes", "flag", "at"}, Key: []string{"id"}}}
	for i := range n {
		all.Rows = append(all.Rows, []any{int64(i) - 3, nil, float64(i) / 7, fmt.Sprintf("row %d, 客户", i),
			bytes.Repeat([]byte{byte(i), byte(i >> 8)}, i%40), i%2 == 0, time.Unix(int64(i)*86400-1e9, int64(i)%1e9).UTC()})
	}
	m.Tables = []MemoryTable{all,
		{Table: backup.Table{Name: "empty", Columns: []string{"id"}}},
		{Table: backup.Table{Name: "counter", Columns: []string{"id", "seq"}}, Rows: [][]any{{int64(1), int64(n)}}}}
	return m
}
