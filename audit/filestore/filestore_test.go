package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
)

func open(t testing.TB, dir string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for _, size := range []int64{0, 1000} {
		t.Run(fmt.Sprintf("segments of %d", size), func(t *testing.T) {
			audittest.TestStore(t, func(t testing.TB) (driver.Store, func() driver.Store) {
				dir := filepath.Join(t.TempDir(), "log")
				opts := &filestore.Options{SegmentBytes: size}
				return open(t, dir, opts), func() driver.Store { return open(t, dir, opts) }
			})
		})
	}
}

func TestQueries(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	opts := &filestore.Options{SegmentBytes: 50_000}
	audittest.TestQueries(t, func(t testing.TB) (driver.Store, func() driver.Store) {
		return open(t, dir, opts), func() driver.Store { return open(t, dir, opts) }
	})
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	fill(t, dir, 2)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("folder: %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir, nil).Writer(context.Background()); err == nil {
		t.Error("a folder that others may write to is taken")
	}
	if _, err := filestore.Open(filepath.Join(dir, files[0].Name()), nil); err == nil {
		t.Error("a file is taken for a folder")
	}
	if _, err := filestore.Open("", nil); err == nil {
		t.Error("no folder is taken")
	}
}

// fill writes a log of n batches, each of two events, and returns the path of
// its segment.
func fill(t testing.TB, dir string, n int) string {
	t.Helper()
	ctx := context.Background()
	w, err := open(t, dir, nil).Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range n {
		if err := w.Append(ctx, driver.Batch{First: uint64(2 * i), Count: 2, Data: []byte("some bytes of a batch\n")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.SetHead(ctx, []byte("head")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, fmt.Sprintf("%020d.seg", 0))
}

func count(t *testing.T, s driver.Store) (n int, err error) {
	t.Helper()
	for _, err := range s.Batches(context.Background(), 0) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Each cut inside a batch is torn for readers, and a writer takes the rest
// out, keeps it aside and goes on.
func TestTorn(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "log")
	path := fill(t, dir, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const head, batch = 24, 28 + 22
	tails := map[string][]byte{"zeros": append(append([]byte(nil), whole[:head+2*batch]...), make([]byte, 40)...),
		"header and zeros": append(append([]byte(nil), whole[:head+2*batch+28]...), make([]byte, 22)...)}
	for n := range whole {
		tails[fmt.Sprintf("cut at %d", n)] = whole[:n]
	}
	for name, b := range tails {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		good := max(0, len(b)-head) / batch
		if name == "zeros" || name == "header and zeros" {
			good = 2
		}
		clean := len(b) == head+good*batch || len(b) == 0 // an empty file is not torn
		n, err := count(t, open(t, dir, nil))
		if want := min(good+map[bool]int{true: 1}[name == "header and zeros"], 3); n != want && n != good {
			t.Fatalf("%s: %d batches, want %d", name, n, good)
		}
		if name[:3] == "cut" && clean != (err == nil) || err != nil && !errors.Is(err, driver.ErrTorn) && !errors.Is(err, driver.ErrDamaged) {
			t.Fatalf("%s: %v", name, err)
		}
		s := open(t, dir, nil)
		w, err := s.Writer(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if clean != (w.Torn() == nil) && len(b) > 0 {
			t.Fatalf("%s: torn %d", name, len(w.Torn()))
		}
		if n, err := count(t, s); err != nil || n != good {
			t.Fatalf("%s: beside the writer %d, %v", name, n, err)
		}
		if now, _ := os.ReadFile(path); len(now) != len(b) {
			t.Fatalf("%s: cut before the first append", name)
		}
		if err := w.Append(ctx, driver.Batch{First: uint64(2 * good), Count: 1, Data: []byte("x")}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		aside, _ := filepath.Glob(filepath.Join(dir, "torn-*"))
		if len(aside) != map[bool]int{true: 1}[w.Torn() != nil] {
			t.Fatalf("%s: %d files set aside", name, len(aside))
		}
		for _, f := range aside {
			os.Remove(f)
		}
		w.Close()
		if n, err := count(t, open(t, dir, nil)); err != nil || n != good+1 {
			t.Fatalf("%s: afterwards %d, %v", name, n, err)
		}
	}
}

// A crash between the making of a segment and the first write to it leaves an
// empty file. Nothing is missing then, with or without a writer; an empty file
// in the middle is damage.
func TestEmptySegment(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "log")
	fill(t, dir, 3)
	empty := filepath.Join(dir, fmt.Sprintf("%020d.seg", 6))
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := count(t, open(t, dir, nil)); n != 3 || err != nil {
		t.Fatalf("%d batches, %v", n, err)
	}
	for range 2 { // opened and closed without an append, it is still empty
		s := open(t, dir, nil)
		w, err := s.Writer(ctx)
		if err != nil || w.Torn() != nil {
			t.Fatalf("torn %d, %v", len(w.Torn()), err)
		}
		if n, err := count(t, s); n != 3 || err != nil {
			t.Fatalf("beside the writer: %d batches, %v", n, err)
		}
		w.Close()
	}
	w, err := open(t, dir, nil).Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(ctx, driver.Batch{First: 6, Count: 1, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if n, err := count(t, open(t, dir, nil)); n != 4 || err != nil {
		t.Fatalf("afterwards: %d batches, %v", n, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", 3)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := count(t, open(t, dir, nil)); !errors.Is(err, driver.ErrDamaged) {
		t.Fatalf("an empty segment in the middle: %v", err)
	}
}

// Damage that no crash makes is never repaired.
func TestDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	path := fill(t, dir, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := range whole {
		const head, batch = 24, 28 + 22
		if off >= head && (off-head)%batch >= 28 {
			continue // data is for the log to check
		}
		b := append([]byte(nil), whole...)
		b[off] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := count(t, open(t, dir, nil))
		if !errors.Is(err, driver.ErrDamaged) || n != max(0, off-head)/batch {
			t.Fatalf("byte %d: %d batches, %v", off, n, err)
		}
		if w, err := open(t, dir, nil).Writer(context.Background()); !errors.Is(err, driver.ErrDamaged) {
			t.Fatalf("byte %d: writer %v, %v", off, w, err)
		}
	}
}

func TestFence(t *testing.T) {
	ctx := context.Background()
	for _, what := range []string{"lock file removed", "segment grew"} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			path := fill(t, dir, 1)
			w, err := open(t, dir, nil).Writer(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if what == "segment grew" {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				f.Write([]byte("x"))
				f.Close()
			} else if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := w.Append(ctx, driver.Batch{First: 2, Count: 1, Data: []byte("x")}); err == nil {
					t.Fatal("appended")
				}
			}
		})
	}
}

// A segment that was taken away, or that a copy stands in for, takes no more.
func TestSegmentTakenAway(t *testing.T) {
	ctx := context.Background()
	for name, away := range map[string]func(path string) error{
		"removed": os.Remove,
		"copied over": func(path string) error {
			b, err := os.ReadFile(path)
			return errors.Join(err, os.Rename(path, path+".old"), os.WriteFile(path, b, 0o600))
		},
	} {
		dir := filepath.Join(t.TempDir(), "log")
		path := fill(t, dir, 2)
		w, err := open(t, dir, nil).Writer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := away(path); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(ctx, driver.Batch{First: 4, Count: 1, Data: []byte("x")}); err == nil {
			t.Errorf("%s: acknowledged", name)
		}
		w.Close()
	}
}
