package backup_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// TestSort: what does not fit into memory is sorted all the same, and where there can be no file it stays there.
func TestSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pairs := func(n int) [][2]uint64 {
		out := make([][2]uint64, n)
		for i := range out {
			out[i] = [2]uint64{r.Uint64N(uint64(n)), r.Uint64()}
		}
		return out
	}
	order := func(a, b [2]uint64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }
	check := func(limit, first, second int, spills bool) {
		t.Helper()
		a, b := pairs(first), pairs(second)
		once, all, spilled, err := backup.SortPairs(limit, a, b)
		if err != nil || spilled != spills {
			t.Fatalf("%v, spilled %v", err, spilled)
		}
		both := slices.Concat(a, b)
		slices.SortFunc(a, order)
		slices.SortFunc(both, order)
		if !slices.Equal(once, a) || !slices.Equal(all, both) {
			t.Fatalf("limit %d: not sorted", limit)
		}
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, limit := range []int{7, 511, 512, 513, 2000} {
		check(limit, 5000, 3000, true)
	}
	check(0, 5000, 3000, false)
	check(700, 0, 701, true)
	check(700, 0, 0, false)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "missing"))
	check(700, 5000, 3000, false)
}

// many is a source of two tables, each with more rows than are sorted in memory.
type many struct{ change, drop int }

const manyRows = 140_000

func (m many) Dump(_ context.Context, w *backup.Writer) error {
	if err := w.Schema(backup.Schema{Engine: "many"}); err != nil {
		return err
	}
	for _, t := range []backup.Table{
		{Name: "a", Columns: []string{"id", "v"}, Key: []string{"id"}},
		{Name: "b", Columns: []string{"id", "a"}, Key: []string{"id"}, Parents: map[string]string{"a": "a"}},
	} {
		if err := w.Table(t); err != nil {
			return err
		}
		for i := range int64(manyRows) {
			v := i / 7
			switch {
			case m.drop > 0 && i%int64(m.drop) == 3:
				continue
			case m.change > 0 && i%int64(m.change) == 1 && t.Name == "a":
				v = -v
			}
			if err := w.Row(i, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestManyRows: the index of large tables is whole and in order.
func TestManyRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	b := &backuptest.Bucket{}
	r := open(t, b, nil)
	mustBackup(t, r, many{}, nil)
	s := mustBackup(t, r, many{change: 1000, drop: 5000}, &backup.BackupOptions{Chain: &policy.Chain{}})
	if s.Parent != 1 || s.Rows != 2*(manyRows-28) {
		t.Fatalf("parent %d, %d rows", s.Parent, s.Rows)
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	again := mustBackup(t, r, many{change: 900, drop: 5000}, &backup.BackupOptions{Chain: &policy.Chain{}})
	if again.Parent != 2 || again.Rows != s.Rows {
		t.Fatalf("without a file: parent %d, %d rows", again.Parent, again.Rows)
	}
	changes, err := r.Compare(t.Context(), s.ID, again.ID, nil, 0)
	if err != nil || len(changes) != 1 || changes[0].Changed != 264 || changes[0].Added+changes[0].Removed != 0 {
		t.Fatalf("%+v, %v", changes, err)
	}
	if err := verify(t, r, full(t)).Err(); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int64{0, 1001, manyRows - 1} {
		all, err := r.Record(t.Context(), "", "a", []any{i}, backuptest.Key(t), &backup.RecordOptions{Children: 1})
		if err != nil {
			t.Fatal(err)
		}
		children := 0
		for k := 7 * i; k < 7*i+7 && k < manyRows; k++ {
			if k%5000 != 3 {
				children++
			}
		}
		if len(all) != 1+children || fmt.Sprint(all[0].Row[0]) != fmt.Sprint(i) {
			t.Errorf("record %d: %d records, want %d", i, len(all), 1+children)
		}
	}
}

// sizes is a source of one table whose rows have these sizes.
type sizes []int

func (s sizes) Dump(_ context.Context, w *backup.Writer) error {
	if err := w.Schema(backup.Schema{Engine: "sizes"}); err != nil {
		return err
	}
	if err := w.Table(backup.Table{Name: "t", Columns: []string{"id", "v"}, Key: []string{"id"}}); err != nil {
		return err
	}
	for i, n := range s {
		if err := w.Row(int64(i), noise(i, n)); err != nil {
			return err
		}
	}
	return nil
}

// TestLargeRows: rows that have frames of their own are found among small ones, also in a chain.
func TestLargeRows(t *testing.T) {
	s := sizes{10, 600_000, 10, 20, 1_200_000, 3_000_000, 400_000, 400_000, 700_000, 5}
	r := open(t, &backuptest.Bucket{}, nil)
	look := func() {
		t.Helper()
		if err := verify(t, r, full(t)).Err(); err != nil {
			t.Fatal(err)
		}
		for i, n := range s {
			all, err := r.Record(t.Context(), "", "t", []any{int64(i)}, backuptest.Key(t), nil)
			if err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
			if got := all[0].Row[1].([]byte); !bytes.Equal(got, noise(i, n)) {
				t.Errorf("row %d differs", i)
			}
		}
	}
	mustBackup(t, r, s, nil)
	look()
	for i := range s {
		if i%2 == 1 {
			s[i]++
		}
	}
	mustBackup(t, r, s, &backup.BackupOptions{Chain: &policy.Chain{}})
	look()
}
