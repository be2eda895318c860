package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// customers is a store of n companies, 3n contacts and as many notes on contacts.
func customers(n int) *backuptest.Memory {
	table := func(name string, parents map[string]string, columns ...string) backuptest.MemoryTable {
		return backuptest.MemoryTable{Table: backup.Table{Name: name, Columns: columns, Key: columns[:1], Parents: parents}}
	}
	m := &backuptest.Memory{Schema: backup.Schema{Engine: "memory"}, Tables: []backuptest.MemoryTable{
		table("companies", nil, "id", "name"),
		table("contacts", map[string]string{"company": "companies"}, "id", "company", "name", "photo"),
		table("notes", map[string]string{"contact": "contacts"}, "id", "contact", "text"),
	}}
	for i := range n {
		m.Tables[0].Rows = append(m.Tables[0].Rows, []any{int64(i), fmt.Sprint("company ", i)})
		for k := range 3 {
			id := fmt.Sprintf("c%d-%d", i, k)
			m.Tables[1].Rows = append(m.Tables[1].Rows, []any{id, int64(i), fmt.Sprint("contact ", id), noise(3*i+k, 200)})
			m.Tables[2].Rows = append(m.Tables[2].Rows, []any{int64(3*i + k), id, "first"})
		}
	}
	return m
}

// counted counts the bytes that are read.
type counted struct {
	*backuptest.Bucket
	read, gets int64
}

func (c *counted) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	b, err := c.Bucket.Get(ctx, name, offset, length)
	if !strings.HasPrefix(name, "snapshots/") {
		c.read += int64(len(b))
		c.gets++
	}
	return b, err
}

func spellRecords(all []backup.Record) string {
	var out []string
	for _, r := range all {
		if r.Row == nil {
			out = append(out, r.Table+" gone")
			continue
		}
		s := fmt.Sprintf("%s %v", r.Table, r.Row[0])
		for i, c := range r.Columns {
			if c == "name" || c == "text" {
				s += fmt.Sprintf(" %v", r.Row[i])
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestRecord(t *testing.T) {
	ctx, key := t.Context(), backuptest.Key(t)
	bucket := &counted{Bucket: &backuptest.Bucket{}}
	r := open(t, bucket, nil)
	m := customers(4000)
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	var ids []string
	var size int64
	step := func() {
		snap := mustBackup(t, r, m, chain)
		ids, size = append(ids, snap.ID), size+snap.Stored
	}
	step()
	for i := 7; i < 4000; i += 400 { // ten companies
		m.Tables[0].Rows[i][1] = fmt.Sprint("company ", i, " second")
		m.Tables[2].Rows[3*i][2] = "second"
	}
	step()
	m.Tables[0].Rows[7][1] = "company 7 third"
	m.Tables[1].Rows[22][1] = int64(8)              // c7-1 goes to company 8
	m.Tables[1].Rows[23] = m.Tables[1].Rows[23*500] // c7-2 is gone
	m.Tables[1].Rows = append(m.Tables[1].Rows[:11500], m.Tables[1].Rows[11501:]...)
	m.Tables[2].Rows = append(m.Tables[2].Rows, []any{int64(99999), "c7-0", "new"})
	step()

	for _, c := range []struct {
		snapshot string
		table    string
		key      any
		opts     *backup.RecordOptions
		want     string
	}{
		{"", "companies", int64(7), nil, "companies 7 company 7 third"},
		{ids[1], "companies", int64(7), nil, "companies 7 company 7 second"},
		{ids[0], "companies", int64(7), nil, "companies 7 company 7"},
		{ids[2], "companies", int64(3999), nil, "companies 3999 company 3999"},
		{ids[1], "companies", int64(7), &backup.RecordOptions{Children: 1}, "companies 7 company 7 second; contacts c7-0 contact c7-0; contacts c7-1 contact c7-1; contacts c7-2 contact c7-2"},
		{ids[2], "companies", int64(7), &backup.RecordOptions{Children: 2, Parents: 3}, "companies 7 company 7 third; contacts c7-0 contact c7-0; notes 21 second; notes 99999 new"},
		{ids[2], "companies", int64(8), &backup.RecordOptions{Children: 1}, "companies 8 company 8; contacts c7-1 contact c7-1; contacts c8-0 contact c8-0; contacts c8-1 contact c8-1; contacts c8-2 contact c8-2"},
		{ids[1], "notes", int64(21), &backup.RecordOptions{Parents: 1}, "notes 21 second; contacts c7-0 contact c7-0"},
		{ids[1], "notes", int64(21), &backup.RecordOptions{Parents: 9}, "notes 21 second; contacts c7-0 contact c7-0; companies 7 company 7 second"},
		{ids[2], "notes", int64(23), &backup.RecordOptions{Parents: 9}, "notes 23 first"},
	} {
		before := bucket.read
		all, err := r.Record(ctx, c.snapshot, c.table, []any{c.key}, key, c.opts)
		if err != nil {
			t.Errorf("%s %v: %v", c.table, c.key, err)
			continue
		}
		words := strings.Split(spellRecords(all), "; ")
		want := strings.Split(c.want, "; ")
		same := len(words) == len(want) && words[0] == want[0]
		for _, w := range want {
			same = same && strings.Contains(strings.Join(words, "; ")+";", w+";")
		}
		if !same {
			t.Errorf("got %s\nwant %s", strings.Join(words, "; "), c.want)
		}
		if c.opts == nil && bucket.read-before > size/6 {
			t.Errorf("%s %v: read %d bytes of %d", c.table, c.key, bucket.read-before, size)
		}
	}
	t.Logf("%d bytes read in %d gets, of %d", bucket.read, bucket.gets, size)

	for name, c := range map[string]struct {
		snapshot, table string
		key             []any
		private         *backupkey.Private
		opts            *backup.RecordOptions
		want            error
	}{
		"no such row":        {"", "companies", []any{int64(-1)}, key, nil, backup.ErrNotFound},
		"a row that is gone": {"", "contacts", []any{"c7-2"}, key, nil, backup.ErrNotFound},
		"another type":       {"", "companies", []any{"7"}, key, nil, backup.ErrNotFound},
		"no such table":      {"", "nothing", []any{"7"}, key, nil, backup.ErrNotFound},
		"no such snapshot":   {"nothing", "companies", []any{int64(7)}, key, nil, backup.ErrNotFound},
		"no key":             {"", "companies", []any{int64(7)}, nil, nil, backup.ErrKey},
		"too many values":    {"", "companies", []any{int64(7), int64(8)}, key, nil, nil},
		"an unknown type":    {"", "companies", []any{struct{}{}}, key, nil, nil},
		"too many records":   {"", "companies", []any{int64(8)}, key, &backup.RecordOptions{Children: 1, Most: 3}, nil},
	} {
		if _, err := r.Record(ctx, c.snapshot, c.table, c.key, c.private, c.opts); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	stale := open(t, bucket, func(o *backup.Options) { o.Head.Tombstones = 3 })
	if _, err := stale.Record(ctx, "", "companies", []any{int64(7)}, key, nil); !errors.Is(err, backup.ErrStale) {
		t.Errorf("a tombstone list that is gone: %v", err)
	}
}

func TestVersions(t *testing.T) {
	ctx, key := t.Context(), backuptest.Key(t)
	r := open(t, &backuptest.Bucket{}, nil)
	m := customers(30)
	chain := &backup.BackupOptions{Chain: &policy.Chain{Length: 3}}
	row := m.Tables[0].Rows[7]
	var ids []string
	step := func(o *backup.BackupOptions) { ids = append(ids, mustBackup(t, r, m, o).ID) }
	all := m.Tables
	m.Tables = all[1:] // the table is not there yet
	step(chain)
	m.Tables = all
	step(chain)
	row[1] = "second"
	step(chain)
	m.Tables[1].Rows[0][2] = "another row"
	step(chain)
	step(nil)
	rest := m.Tables[0].Rows
	m.Tables[0].Rows = rest[:7]
	step(chain)
	step(chain)
	m.Tables[0].Rows = rest
	step(nil)
	mustBackup(t, r, customers(30), &backup.BackupOptions{Name: "another"})

	found, err := r.Versions(ctx, "", "companies", []any{int64(7)}, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := spellRecords(found); got != "companies 7 company 7; companies 7 second; companies gone; companies 7 second" {
		t.Errorf("got %s", got)
	}
	for i, want := range []int{1, 2, 5, 7} {
		if i < len(found) && (found[i].Snapshot != ids[want] || found[i].Created.IsZero()) {
			t.Errorf("version %d is of another snapshot", i)
		}
	}
	for name, c := range map[string]struct {
		name string
		key  *backupkey.Private
		want error
	}{"no such name": {"nothing", key, backup.ErrNotFound}, "no key": {"", nil, backup.ErrKey}} {
		if _, err := r.Versions(ctx, c.name, "companies", []any{int64(7)}, c.key); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// TestRecordTampering flips bits wherever one record is read from: it comes as it was, or an error.
func TestRecordTampering(t *testing.T) {
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	m := customers(20)
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	mustBackup(t, r, m, chain)
	m.Tables[0].Rows[7][1] = "second"
	mustBackup(t, r, m, chain)
	o := &backup.RecordOptions{Children: 2}
	want, err := r.Record(t.Context(), "", "companies", []any{int64(7)}, backuptest.Key(t), o)
	if err != nil || len(want) != 7 {
		t.Fatalf("%d records, %v", len(want), err)
	}
	failed := 0
	for _, name := range list(t, b) {
		whole := read(t, b, name)
		for at := 0; at < len(whole); at += max(1, len(whole)/25) {
			d := b.Clone()
			c := bytes.Clone(whole)
			c[at] ^= 0x10
			d.Set(name, c)
			r, err := backup.Open(t.Context(), d, pin, nil)
			if err != nil {
				continue
			}
			got, err := r.Record(t.Context(), "", "companies", []any{int64(7)}, backuptest.Key(t), o)
			if err != nil {
				failed++
			} else if spellRecords(got) != spellRecords(want) {
				t.Fatalf("%s, byte %d: got %s", name, at, spellRecords(got))
			}
		}
	}
	if failed < 50 {
		t.Errorf("only %d errors", failed)
	}
}

func BenchmarkRecord(b *testing.B) {
	m := customers(50_000)
	r := open(b, folder(b, b.TempDir()), nil)
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	for i := range 5 {
		m.Tables[0].Rows[i][1] = "changed"
		mustBackup(b, r, m, chain)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := r.Record(b.Context(), "", "companies", []any{int64(i % 50_000)}, backuptest.Key(b), nil); err != nil {
			b.Fatal(err)
		}
	}
}
