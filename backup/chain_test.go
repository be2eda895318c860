package backup_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

func alike(t testing.TB, want, got *backuptest.Memory) {
	t.Helper()
	backuptest.Alike(t, want, got)
}

func restore(t testing.TB, r *backup.Repository, id string) *backuptest.Memory {
	t.Helper()
	var m backuptest.Memory
	if _, err := r.Restore(t.Context(), id, &m, backuptest.Key(t), nil); err != nil {
		t.Fatal(err)
	}
	return &m
}

func clone(m *backuptest.Memory) *backuptest.Memory {
	c := *m
	c.Tables = slices.Clone(m.Tables)
	for i := range c.Tables {
		c.Tables[i].Rows = slices.Clone(c.Tables[i].Rows)
		for k := range c.Tables[i].Rows {
			c.Tables[i].Rows[k] = slices.Clone(c.Tables[i].Rows[k])
		}
	}
	return &c
}

// wander changes a store a little, in every way.
func wander(rnd *mrand.Rand, m *backuptest.Memory, next *int64) {
	for i := range m.Tables {
		t := &m.Tables[i]
		for range rnd.IntN(6) {
			switch n := len(t.Rows); {
			case n > 0 && rnd.IntN(3) == 0:
				k := rnd.IntN(n)
				t.Rows = slices.Delete(t.Rows, k, k+1)
			case n > 0 && rnd.IntN(2) == 0:
				r := t.Rows[rnd.IntN(n)]
				r[len(r)-1] = int64(rnd.IntN(3))
			default:
				*next++
				r := make([]any, len(t.Columns))
				for k := range r {
					r[k] = int64(rnd.IntN(2)) // in tables without a key many rows are equal
				}
				for k, c := range t.Columns {
					if slices.Contains(t.Key, c) {
						r[k] = *next
					}
				}
				t.Rows = append(t.Rows, r)
			}
		}
		rnd.Shuffle(len(t.Rows), func(a, b int) { t.Rows[a], t.Rows[b] = t.Rows[b], t.Rows[a] })
	}
	switch rnd.IntN(8) {
	case 0: // tables change their places
		rnd.Shuffle(len(m.Tables), func(a, b int) { m.Tables[a], m.Tables[b] = m.Tables[b], m.Tables[a] })
	case 1: // one goes
		if len(m.Tables) > 2 {
			m.Tables = m.Tables[1:]
		}
	case 2: // one comes, perhaps in the place of one that went
		*next++
		m.Tables = append(m.Tables, backuptest.MemoryTable{Table: backup.Table{Name: fmt.Sprintf("new_%d", *next%20), Columns: []string{"a", "b"}, Key: []string{"b"}}})
		slices.SortFunc(m.Tables, func(a, b backuptest.MemoryTable) int { return strings.Compare(a.Name, b.Name) })
		m.Tables = slices.CompactFunc(m.Tables, func(a, b backuptest.MemoryTable) bool { return a.Name == b.Name })
	case 3: // one gets another form
		m.Tables[0].Columns = append(slices.Clone(m.Tables[0].Columns), fmt.Sprintf("c%d", *next))
		for k := range m.Tables[0].Rows {
			m.Tables[0].Rows[k] = append(m.Tables[0].Rows[k], "x")
		}
	case 4:
		m.Schema.Versions = map[string]int64{"crm_schema": *next}
	}
}

// TestChainsRestoreAsFullOnes lets a store wander, backed up in full and then incrementally or differentially, and restores each of its moments.
//
//crm:item 36
func TestChainsRestoreAsFullOnes(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for seed := range uint64(rounds) {
		rnd := mrand.New(mrand.NewPCG(seed, 1))
		c := &policy.Chain{Differential: seed%3 == 1, Length: []int{0, 4, 7}[seed%3]}
		b := &backuptest.Bucket{}
		r := open(t, b, nil)
		m := backuptest.Rows(rnd.IntN(400))
		m.Tables = append(m.Tables, backuptest.MemoryTable{Table: backup.Table{Name: "pairs", Columns: []string{"a", "b", "v"}, Key: []string{"b", "a"}}})
		next := int64(1000)
		var ids []string
		var was []*backuptest.Memory
		for range 10 {
			wander(rnd, m, &next)
			snap := mustBackup(t, r, m, &backup.BackupOptions{Chain: c})
			if c.Differential && snap.Depth > 1 {
				t.Fatalf("a differential one of depth %d", snap.Depth)
			}
			ids, was = append(ids, snap.ID), append(was, clone(m))
			alike(t, m, restore(t, r, ""))
		}
		for i, id := range ids {
			alike(t, was[i], restore(t, r, id))
		}
		if rep := verify(t, r, full(t)); rep.Err() != nil || !rep.Opened {
			t.Fatalf("seed %d: %+v", seed, rep)
		}
	}
}

// TestChangesAreSmall: what is written follows what changed, wherever it lies.
func TestChangesAreSmall(t *testing.T) {
	m := backuptest.Rows(10_000)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = noise(i, 100)
	}
	r := open(t, &backuptest.Bucket{}, nil)
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	first := mustBackup(t, r, m, chain)
	none := mustBackup(t, r, m, chain)
	for i := 0; i < len(m.Tables[0].Rows); i += 100 {
		m.Tables[0].Rows[i][2] = -1.0
	}
	second := mustBackup(t, r, m, chain)
	t.Logf("full %d bytes, nothing changed %d, 1 %% changed %d", first.Stored, none.Stored, second.Stored)
	if second.Depth != 2 || second.Parent != none.Head.Number || second.Rows != first.Rows || second.Stored > first.Stored/40 || none.Stored > 4000 {
		t.Fatalf("%+v", second)
	}
	alike(t, m, restore(t, r, ""))
}

func TestChainLimits(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := &backuptest.Bucket{}
	r := open(t, b, func(o *backup.Options) { o.Now = func() time.Time { return now } })
	m := backuptest.Rows(50)
	depths := func(c *policy.Chain, name string, n int, step time.Duration) (out []int) {
		for range n {
			now = now.Add(step)
			out = append(out, mustBackup(t, r, m, &backup.BackupOptions{Name: name, Chain: c}).Depth)
		}
		return out
	}
	for name, c := range map[string]struct {
		chain *policy.Chain
		step  time.Duration
		want  string
	}{
		"full":         {nil, time.Hour, "[0 0 0 0 0 0 0]"},
		"length":       {&policy.Chain{Length: 2}, time.Hour, "[0 1 2 0 1 2 0]"},
		"age":          {&policy.Chain{Age: 5 * time.Hour}, 2 * time.Hour, "[0 1 2 0 1 2 0]"},
		"a week":       {&policy.Chain{}, 48 * time.Hour, "[0 1 2 3 0 1 2]"},
		"differential": {&policy.Chain{Differential: true}, time.Hour, "[0 1 1 1 1 1 1]"},
		"clock back":   {&policy.Chain{}, -time.Hour, "[0 0 0 0 0 0 0]"},
	} {
		if got := fmt.Sprint(depths(c.chain, name, 7, c.step)); got != c.want {
			t.Errorf("%s: depths %s, want %s", name, got, c.want)
		}
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
	// Another engine begins anew, and so does what finds its parent damaged.
	m.Schema.Engine = "other"
	if s := mustBackup(t, r, m, &backup.BackupOptions{Name: "a week", Chain: &policy.Chain{}}); s.Depth != 0 {
		t.Errorf("another engine: depth %d", s.Depth)
	}
	last := mustBackup(t, r, m, &backup.BackupOptions{Name: "a week", Chain: &policy.Chain{}})
	if last.Depth != 1 {
		t.Fatalf("depth %d", last.Depth)
	}
	gone := b.Clone()
	for _, name := range added(t, b, func() { mustBackup(t, r, m, &backup.BackupOptions{Name: "a week", Chain: &policy.Chain{}}) }) {
		gone.Set(name, read(t, b, name))
		if strings.HasPrefix(name, "segments/") {
			gone.Delete(t.Context(), name)
		}
	}
	if s := mustBackup(t, open(t, gone, func(o *backup.Options) { o.Now = func() time.Time { return now } }), m, &backup.BackupOptions{Name: "a week", Chain: &policy.Chain{}}); s.Depth != 0 {
		t.Errorf("on a damaged parent: depth %d", s.Depth)
	}
}

// added returns the names of objects that do made.
func added(t testing.TB, b backup.Bucket, do func()) []string {
	t.Helper()
	before := list(t, b)
	do()
	return slices.DeleteFunc(list(t, b), func(n string) bool { return slices.Contains(before, n) })
}

// TestBrokenChains takes away, exchanges and brings back what a snapshot builds on.
func TestBrokenChains(t *testing.T) {
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	m := backuptest.Rows(60)
	mustBackup(t, r, m, chain)
	fork := b.Clone()
	step := func(b *backuptest.Bucket, r *backup.Repository, text string) []string {
		m.Tables[0].Rows[7][3] = text
		return added(t, b, func() { mustBackup(t, r, m, chain) })
	}
	second := step(b, r, "second")
	mustBackup(t, r, m, &backup.BackupOptions{Name: "between"})
	step(b, r, "third")
	other := open(t, fork, nil)
	forked := step(fork, other, "another second")
	foreign := &backuptest.Bucket{}
	fr := open(t, foreign, nil)
	mustBackup(t, fr, m, chain)
	step(foreign, fr, "foreign")

	const parent = "snapshots/0000000000000002"
	for name, c := range map[string]struct {
		change func(*backuptest.Bucket)
		named  string
		want   error
	}{
		"a hole":             {func(b *backuptest.Bucket) { b.Delete(t.Context(), parent) }, parent, backup.ErrChain},
		"a damaged parent":   {func(b *backuptest.Bucket) { b.Set(parent, read(t, b, parent)[:500]) }, parent, backup.ErrChain},
		"a replayed parent":  {func(b *backuptest.Bucket) { b.Set(parent, read(t, b, "snapshots/0000000000000001")) }, parent, backup.ErrChain},
		"a foreign parent":   {func(b *backuptest.Bucket) { b.Set(parent, read(t, foreign, parent)) }, parent, backup.ErrChain},
		"a swapped parent":   {func(b *backuptest.Bucket) { b.Set(parent, read(t, fork, parent)) }, parent, backup.ErrChain},
		"a parent and all":   {func(b *backuptest.Bucket) { put(t, b, fork, forked) }, parent, backup.ErrChain},
		"the full one's key": {func(b *backuptest.Bucket) { del(t, b, second, "keys/") }, "keys/", backup.ErrTampered},
		"the rows below":     {func(b *backuptest.Bucket) { del(t, b, second, "segments/") }, "segments/", backup.ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			d := b.Clone()
			c.change(d)
			r := open(t, d, nil)
			var into backuptest.Memory
			_, err := r.Restore(t.Context(), "", &into, backuptest.Key(t), nil)
			var oe *backup.ObjectError
			if !errors.Is(err, c.want) || !errors.As(err, &oe) || !strings.HasPrefix(oe.Object, c.named) || len(into.Tables) > 0 {
				t.Errorf("restore: %v, want %v of %s", err, c.want, c.named)
			}
			for _, o := range []*backup.VerifyOptions{nil, full(t)} {
				found := false
				for _, f := range verify(t, r, o).Faults {
					found = found || strings.HasPrefix(f.Object, c.named) && f.Snapshot != ""
				}
				if !found {
					t.Errorf("verify %v does not name %s", o != nil, c.named)
				}
			}
			// The next one does not build on it, and is whole.
			m.Tables[0].Rows[7][3] = "fourth"
			if s, err := r.Backup(t.Context(), m, chain); err != nil || s.Depth != 0 {
				t.Errorf("the next backup: depth %d, %v", s.Depth, err)
			} else {
				alike(t, m, restore(t, r, s.ID))
			}
		})
	}
}

func put(t testing.TB, to, from *backuptest.Bucket, names []string) {
	for _, n := range names {
		to.Set(n, read(t, from, n))
	}
}

func del(t testing.TB, b *backuptest.Bucket, names []string, prefix string) {
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			b.Delete(t.Context(), n)
		}
	}
}

// TestChainTampering flips bits in every object of a chain: a restore gives the rows as they were, or an error.
func TestChainTampering(t *testing.T) {
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	m := backuptest.Rows(40)
	for i := range 3 {
		m.Tables[0].Rows[i][3] = "changed"
		m.Tables[0].Rows = m.Tables[0].Rows[:len(m.Tables[0].Rows)-1]
		mustBackup(t, r, m, chain)
	}
	for _, name := range list(t, b) {
		whole := read(t, b, name)
		step := max(1, len(whole)/12)
		if testing.Short() {
			step = max(1, len(whole)/2)
		}
		for at := 0; at < len(whole); at += step {
			d := b.Clone()
			c := bytes.Clone(whole)
			c[at] ^= 4
			d.Set(name, c)
			r, err := backup.Open(t.Context(), d, pin, nil)
			if err != nil {
				continue
			}
			var got backuptest.Memory
			if _, err := r.Restore(t.Context(), "", &got, backuptest.Key(t), nil); err == nil {
				alike(t, m, &got)
			} else if !errors.Is(err, backup.ErrTampered) && !errors.Is(err, backup.ErrKey) && !errors.Is(err, backup.ErrVersion) || len(got.Tables) > 0 {
				t.Fatalf("%s, byte %d: %v", name, at, err)
			}
			if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full}); rep.Err() == nil {
				t.Fatalf("%s, byte %d: verified", name, at)
			}
		}
	}
}

// TestRowsOfOneKey: a source that is wrong about its key is backed up whole.
func TestRowsOfOneKey(t *testing.T) {
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	r := open(t, &backuptest.Bucket{}, nil)
	m := backuptest.Rows(30)
	mustBackup(t, r, m, chain)
	m.Tables[0].Rows[4][0] = m.Tables[0].Rows[3][0]
	for want := range 3 {
		if s := mustBackup(t, r, m, chain); s.Depth != want {
			t.Fatalf("depth %d, want %d", s.Depth, want)
		}
		alike(t, m, restore(t, r, ""))
		m.Tables[0].Rows[5][3] = fmt.Sprint("again ", want)
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
}

func TestBadKeys(t *testing.T) {
	for name, table := range map[string]backup.Table{
		"no such column": {Name: "a", Columns: []string{"x"}, Key: []string{"y"}},
		"a column twice": {Name: "a", Columns: []string{"x"}, Key: []string{"x", "x"}},
		"no such parent": {Name: "a", Columns: []string{"x"}, Parents: map[string]string{"y": "b"}},
	} {
		m := &backuptest.Memory{Schema: backup.Schema{Engine: "memory"}, Tables: []backuptest.MemoryTable{{Table: table}}}
		if _, err := open(t, &backuptest.Bucket{}, nil).Backup(t.Context(), m, nil); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// noisy signs indexes otherwise each time.
type noisy struct{ crypto.Signer }

func (n noisy) Sign(r io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	if bytes.HasPrefix(message, []byte("crmguard backup index key v1")) {
		b := make([]byte, 64)
		rand.Read(b)
		return b, nil
	}
	return n.Signer.Sign(r, message, o)
}

func TestSignerThatAddsNoise(t *testing.T) {
	r := open(t, &backuptest.Bucket{}, func(o *backup.Options) { o.Signer = noisy{signer} })
	m := backuptest.Rows(30)
	for range 2 {
		if s := mustBackup(t, r, m, &backup.BackupOptions{Chain: &policy.Chain{}}); s.Depth != 0 {
			t.Fatalf("depth %d", s.Depth)
		}
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
}

// numbered is a source that knows change numbers: the last column of its first table.
type numbered struct {
	*backuptest.Memory
	lie   int64 // rows that it miscounts
	calls []string
}

func (n *numbered) Dump(_ context.Context, w *backup.Writer) error {
	n.calls = nil
	if err := w.Schema(n.Schema); err != nil {
		return err
	}
	t := n.Tables[0]
	last := len(t.Columns) - 1
	for _, r := range t.Rows {
		t.Seq = max(t.Seq, r[last].(int64))
	}
	if err := w.Table(t.Table); err != nil {
		return err
	}
	since, ok := w.Since()
	n.calls = append(n.calls, fmt.Sprint("since ", since, " ", ok))
	for _, r := range t.Rows {
		if !ok || r[last].(int64) > since {
			if err := w.Row(r...); err != nil {
				return err
			}
		}
	}
	if !ok {
		return nil
	}
	all, err := w.Rest(int64(len(t.Rows)) + n.lie)
	n.calls = append(n.calls, fmt.Sprint("rest ", all))
	if err != nil || all {
		return err
	}
	for _, r := range t.Rows {
		if err := w.Key(r[0]); err != nil {
			return err
		}
	}
	return nil
}

func TestChangeNumbers(t *testing.T) {
	n := &numbered{Memory: &backuptest.Memory{Schema: backup.Schema{Engine: "memory", Versions: map[string]int64{"a": 1}},
		Tables: []backuptest.MemoryTable{{Table: backup.Table{Name: "t", Columns: []string{"id", "v", "seq"}, Key: []string{"id"}}}}}}
	rows := &n.Tables[0].Rows
	seq := int64(0)
	set := func(i int, v string) { seq++; (*rows)[i] = []any{(*rows)[i][0], v, seq} }
	for i := range 100 {
		*rows = append(*rows, []any{int64(i), "", int64(0)})
		set(i, "first")
	}
	r := open(t, &backuptest.Bucket{}, nil)
	var o backup.BackupOptions
	step := func(want ...string) {
		t.Helper()
		mustBackup(t, r, n, &o)
		if !slices.Equal(n.calls, want) {
			t.Fatalf("calls %q, want %q", n.calls, want)
		}
		var got backuptest.Memory
		if _, err := r.Restore(t.Context(), "", &got, backuptest.Key(t), nil); err != nil {
			t.Fatal(err)
		}
		alike(t, n.Memory, &got)
		if rep := verify(t, r, full(t)); rep.Err() != nil {
			t.Fatal(rep.Err())
		}
	}
	o.Chain = &policy.Chain{}
	step("since 0 false")
	step("since 100 true", "rest true")
	set(7, "second")
	set(90, "second")
	*rows = append(*rows, []any{int64(200), "new", seq + 1})
	seq++
	step("since 100 true", "rest true")
	*rows = slices.Delete(*rows, 3, 5)
	set(10, "third")
	step("since 103 true", "rest false")
	// Numbers that went back, another schema, and Scan: every row is read.
	*rows = (*rows)[:50]
	step("since 104 true", "rest false")
	for i := range *rows {
		(*rows)[i][2] = int64(i + 1)
	}
	seq = 50
	step("since 0 false")
	n.Schema.Versions = map[string]int64{"a": 2}
	step("since 0 false")
	n.Schema.Data = []byte("another")
	step("since 0 false")
	step("since 50 true", "rest true")
	o.Chain.Scan = true
	step("since 0 false")
	o.Chain.Scan = false
	// A source that says what cannot be is read in full.
	n.lie = 5
	step("since 0 false")
	n.lie = 0
	step("since 50 true", "rest true")
}
