package backup_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

func TestCompare(t *testing.T) {
	ctx := t.Context()
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	m := backuptest.Rows(200)
	m.Tables = append(m.Tables, backuptest.MemoryTable{Table: backup.Table{Name: "goes", Columns: []string{"a"}}, Rows: [][]any{{"x"}, {"x"}}},
		backuptest.MemoryTable{Table: backup.Table{Name: "formed", Columns: []string{"a"}, Key: []string{"a"}}, Rows: [][]any{{"x"}}})
	chain := &backup.BackupOptions{Chain: &policy.Chain{}}
	var ids []string
	keep := func(o *backup.BackupOptions) { ids = append(ids, mustBackup(t, r, m, o).ID) }
	keep(chain)
	m.Tables[0].Rows[7][3] = "changed"
	m.Tables[0].Rows = m.Tables[0].Rows[:190]
	keep(chain)
	m.Tables[0].Rows = append(m.Tables[0].Rows, []any{int64(9000), nil, nil, "new", nil, nil, nil})
	m.Tables[1].Rows = [][]any{{int64(5)}, {int64(5)}} // has no key
	m.Tables[3].Name = "comes"
	m.Tables[4].Columns, m.Tables[4].Rows = []string{"a", "b"}, [][]any{{"x", "y"}, {"z", nil}}
	keep(chain)
	keep(nil) // full and the same

	spell := func(all []backup.Change) string {
		var out []string
		for _, c := range all {
			s := fmt.Sprintf("%s +%d ~%d -%d", c.Table, c.Added, c.Changed, c.Removed)
			if c.Reshaped {
				s += " reshaped"
			}
			if n := len(c.AddedKeys) + len(c.ChangedKeys) + len(c.RemovedKeys); n > 0 {
				s += fmt.Sprint(" ", c.AddedKeys, c.ChangedKeys, c.RemovedKeys)
			}
			out = append(out, s)
		}
		return strings.Join(out, "; ")
	}
	for _, c := range []struct {
		from, to int
		keys     int
		want     string
	}{
		{0, 1, 0, "all_types +0 ~1 -10"},
		{1, 0, 0, "all_types +10 ~1 -0"},
		{1, 1, 9, ""},
		{2, 3, 9, ""},
		{1, 2, 0, "all_types +1 ~0 -0; empty +2 ~0 -0; goes +0 ~0 -2; formed +2 ~0 -1 reshaped; comes +2 ~0 -0"},
		{0, 3, 0, "all_types +1 ~1 -10; empty +2 ~0 -0; goes +0 ~0 -2; formed +2 ~0 -1 reshaped; comes +2 ~0 -0"},
		{0, 3, 2, "all_types +1 ~1 -10 [[9000]] [[4]] %; empty +2 ~0 -0 [[5] [5]] [] []; goes +0 ~0 -2; formed +2 ~0 -1 reshaped; comes +2 ~0 -0"},
	} {
		for _, key := range []*backupkey.Private{nil, backuptest.Key(t)} {
			if key == nil && c.keys > 0 {
				continue
			}
			all, err := r.Compare(ctx, ids[c.from], ids[c.to], key, c.keys)
			if err != nil {
				t.Fatal(err)
			}
			got, want := spell(all), c.want
			if head, tail, ok := strings.Cut(want, "%"); ok { // two of ten, whichever they are
				if len(all[0].RemovedKeys) != 2 || !strings.HasPrefix(got, head) || !strings.HasSuffix(got, tail) {
					t.Errorf("%d to %d: got %s", c.from, c.to, got)
				}
			} else if got != want {
				t.Errorf("%d to %d: got %s, want %s", c.from, c.to, got, want)
			}
		}
	}
	for name, c := range map[string]struct {
		from string
		keys int
		want error
	}{
		"no such snapshot": {"nothing", 0, backup.ErrNotFound},
		"keys without key": {ids[0], 1, backup.ErrKey},
	} {
		if _, err := r.Compare(ctx, c.from, ids[1], nil, c.keys); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	reader, err := backup.Open(ctx, b, pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Compare(ctx, ids[0], ids[1], nil, 0); !errors.Is(err, backup.ErrKey) {
		t.Errorf("by a reader without a key: %v", err)
	}
	old, err := backup.Open(ctx, folder(t, abs(t, "testdata", "v1", "data")), pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := old.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Compare(ctx, all[0].ID, all[1].ID, nil, 0); err == nil {
		t.Error("snapshots of version 1 were compared")
	}
}

// letters is text that compresses, as clear columns do.
func letters(i int) string {
	return strings.Repeat(fmt.Sprintf("customer %d of the region north; ", i%7), 8)
}

func TestGate(t *testing.T) {
	fill := func(n int) *backuptest.Memory {
		m := backuptest.Rows(n)
		for i := range m.Tables[0].Rows {
			m.Tables[0].Rows[i][3] = letters(i)
		}
		return m
	}
	for name, c := range map[string]struct {
		gate   policy.Gate
		change func(*backuptest.Memory)
		want   string
	}{
		"nothing":          {policy.Gate{}, func(*backuptest.Memory) {}, ""},
		"much that is new": {policy.Gate{}, func(m *backuptest.Memory) { *m = *fill(3000) }, ""},
		"half":             {policy.Gate{}, func(m *backuptest.Memory) { change(m, 500) }, ""},
		"mass change":      {policy.Gate{}, func(m *backuptest.Memory) { change(m, 501) }, "[all_types changed 0.50]"},
		"a wide gate":      {policy.Gate{Changed: 1}, func(m *backuptest.Memory) { change(m, 1000) }, ""},
		"mass deletion":    {policy.Gate{}, func(m *backuptest.Memory) { m.Tables[0].Rows = m.Tables[0].Rows[300:] }, "[all_types removed 0.30]"},
		"a table is gone":  {policy.Gate{}, func(m *backuptest.Memory) { m.Tables = m.Tables[1:] }, "[all_types removed 1.00]"},
		"another form": {policy.Gate{}, func(m *backuptest.Memory) {
			m.Tables[0].Columns = append([]string{"id", "x"}, m.Tables[0].Columns[2:]...)
			m.Tables[0].Rows = m.Tables[0].Rows[:10]
		}, "[all_types removed 0.99]"},
		"a small table": {policy.Gate{Rows: 2000}, func(m *backuptest.Memory) { m.Tables[0].Rows = nil }, ""},
		"less than half is encrypted": {policy.Gate{}, func(m *backuptest.Memory) {
			for i := range 450 {
				m.Tables[0].Rows[i][3] = string(noise(i, 270))
			}
		}, "entropy"},
	} {
		for _, chain := range []*policy.Chain{nil, {}, {Differential: true}} {
			now := epoch
			r := open(t, &backuptest.Bucket{}, func(o *backup.Options) { o.Now = func() time.Time { return now } })
			m := fill(1000)
			o := &backup.BackupOptions{Chain: chain, Gate: &c.gate}
			first := mustBackup(t, r, m, o)
			c.change(m)
			now = now.Add(time.Hour)
			snap, err := r.Backup(t.Context(), m, o)
			var got []string
			for _, a := range snap.Anomalies {
				got = append(got, fmt.Sprintf("%s %s %.2f", a.Table, a.Kind, a.Share))
			}
			s := fmt.Sprint(got)
			if len(got) == 0 {
				s = ""
			}
			if s != c.want && (c.want != "entropy" || !strings.Contains(s, "all_types entropy")) {
				t.Errorf("%s, %v: got %s, want %s", name, chain, s, c.want)
			}
			var a policy.Anomaly
			if (err != nil) != (c.want != "") || err != nil && (!errors.Is(err, backup.ErrAnomaly) || !errors.As(err, &a)) {
				t.Errorf("%s: %v", name, err)
			}
			alike(t, m, restore(t, r, snap.ID))
			if c.want == "" {
				continue
			}
			// The chain before stays until somebody looked.
			now = now.Add(48 * time.Hour)
			if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); !errors.Is(err, backup.ErrAnomaly) {
				t.Errorf("%s: prune: %v", name, err)
			}
			mustBackup(t, r, m, nil)
			if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); !errors.Is(err, backup.ErrAnomaly) {
				t.Errorf("%s: prune later: %v", name, err)
			}
			restore(t, r, first.ID)
			if err := r.Accept(t.Context(), snap.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil {
				t.Errorf("%s: prune after it was accepted: %v", name, err)
			}
		}
	}
}

func change(m *backuptest.Memory, n int) {
	for i := range n {
		m.Tables[0].Rows[i][2] = -5.0
	}
}

// TestGateThatCannotCompare: who damages the snapshot before does not get past the gate.
func TestGateThatCannotCompare(t *testing.T) {
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	m := backuptest.Rows(300)
	o := &backup.BackupOptions{Chain: &policy.Chain{}, Gate: &policy.Gate{}}
	mustBackup(t, r, m, o)
	for _, n := range list(t, b) {
		if strings.HasPrefix(n, "segments/") {
			b.Delete(t.Context(), n)
		}
	}
	m.Tables[0].Rows = nil
	snap, err := r.Backup(t.Context(), m, o)
	if !errors.Is(err, backup.ErrAnomaly) || len(snap.Anomalies) != 1 || snap.Anomalies[0].Kind != "uncompared" {
		t.Fatalf("%+v, %v", snap.Anomalies, err)
	}
	if _, err := r.Backup(t.Context(), m, o); err != nil { // the next one is compared with this one
		t.Fatal(err)
	}
}
