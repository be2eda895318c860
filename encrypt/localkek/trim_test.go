package localkek_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

var ctx = context.Background()

func open(t testing.TB, path string) *localkek.KEK {
	t.Helper()
	k, err := localkek.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// versions wraps "secret" by n versions of the key.
func versions(t testing.TB, k *localkek.KEK, n int) [][]byte {
	t.Helper()
	var out [][]byte
	for i := range n {
		if i > 0 {
			if err := k.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
		w, err := k.Wrap(ctx, []byte("secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
	}
	return out
}

// keysIn returns the encoded keys of a key file.
func keysIn(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		if words := strings.Fields(line); len(words) == 3 {
			out = append(out, words[2])
		}
	}
	return out
}

func TestTrimOverwritesTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	k := open(t, path)
	wrapped := versions(t, k, 3)
	before := keysIn(t, path)
	old, err := os.Open(path) // the file as it lies on the disk, whatever becomes of its name
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := k.Trim(ctx, wrapped[2:]); err != nil {
		t.Fatal(err)
	}
	if after := keysIn(t, path); len(after) != 1 || after[0] != before[2] {
		t.Fatalf("%d keys are left", len(after))
	}
	b, err := io.ReadAll(old)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 || len(bytes.Trim(b, "\x00")) != 0 {
		t.Fatal("the old file was not overwritten")
	}
	left, _ := filepath.Glob(path + "*")
	if left = slices.DeleteFunc(left, func(s string) bool { return s == path+".lock" }); len(left) != 1 {
		t.Fatalf("files left behind: %v", left)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if again := open(t, path); again.ID() != k.ID() {
		t.Fatal("the id has changed")
	}
}

// A Trim that was interrupted leaves files behind; the next change finishes it and loses nothing.
func TestInterruptedTrim(t *testing.T) {
	for _, tc := range []struct {
		name  string
		leave func(t *testing.T, path string)
	}{
		{"before the new file took its place", func(t *testing.T, path string) {
			if err := os.Link(path, path+".old"); err != nil {
				t.Fatal(err)
			}
		}},
		{"before the old file was overwritten", func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+".old", b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"while the new file was written", func(t *testing.T, path string) {
			if err := os.WriteFile(path+".new", []byte("crmguard-local-kek 1\nid"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			k := open(t, path)
			wrapped := versions(t, k, 2)
			tc.leave(t, path)
			var stray *os.File
			if f, err := os.Open(path + ".old"); err == nil {
				stray = f
				defer f.Close()
			}
			if err := k.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
			for i, w := range wrapped {
				if got, err := open(t, path).Unwrap(ctx, w, nil); err != nil || string(got) != "secret" {
					t.Fatalf("version %d: %v", i, err)
				}
			}
			left, _ := filepath.Glob(path + "*")
			if left = slices.DeleteFunc(left, func(s string) bool { return s == path+".lock" }); len(left) != 1 {
				t.Fatalf("files left behind: %v", left)
			}
			if stray != nil && tc.name == "before the old file was overwritten" {
				if b, _ := io.ReadAll(stray); len(bytes.Trim(b, "\x00")) != 0 {
					t.Fatal("the old file was not overwritten")
				}
			}
		})
	}
}

func TestTrimIsRefused(t *testing.T) {
	dir := t.TempDir()
	k, other := open(t, filepath.Join(dir, "kek")), open(t, filepath.Join(dir, "other"))
	wrapped := versions(t, k, 2)
	future := versions(t, other, 3)[2]
	before, err := os.ReadFile(filepath.Join(dir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	for name, living := range map[string][][]byte{
		"a version that is not there yet": {wrapped[1], future},
		"version 0":                       {wrapped[1], append([]byte{1, 0, 0, 0, 0}, wrapped[1][5:]...)},
		"another format":                  {append([]byte{2}, wrapped[1][1:]...)},
		"cut off":                         {wrapped[1][:32]},
	} {
		if err := k.Trim(ctx, living); !errors.Is(err, keys.ErrTampered) {
			t.Errorf("%s: got %v, want ErrTampered", name, err)
		}
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "kek")); !bytes.Equal(before, after) {
		t.Error("a refused Trim changed the file")
	}
}

// Nothing is wrapped or opened by a key whose file is gone, damaged, open to others or another one.
func TestFileIsLookedAt(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":    os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"open":    func(path string) error { return os.Chmod(path, 0o644) },
		"another": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			_, err := localkek.Open(path, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			k := open(t, path)
			w := versions(t, k, 1)[0]
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, err := k.Wrap(ctx, []byte("secret"), nil); !errors.Is(err, keys.ErrKMSUnavailable) {
				t.Errorf("wrap: got %v, want ErrKMSUnavailable", err)
			}
			if _, err := k.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrKMSUnavailable) {
				t.Errorf("unwrap: got %v, want ErrKMSUnavailable", err)
			}
			if err := k.Rotate(ctx); err == nil {
				t.Error("rotated")
			}
			if err := k.Trim(ctx, [][]byte{w}); err == nil {
				t.Error("trimmed")
			}
			_ = os.Remove(path)
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := k.Unwrap(ctx, w, nil); err != nil || string(got) != "secret" {
				t.Errorf("when the file is back: %v", err)
			}
		})
	}
}

// Readers never see a file that is being replaced.
func TestTrimBesideReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	k := open(t, path)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				again, err := localkek.Open(path, &localkek.Options{MustExist: true})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := again.Wrap(ctx, []byte("secret"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 6 {
		w := versions(t, k, 2)[1]
		if err := k.Trim(ctx, [][]byte{w}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	for i, first := range []int{1, 7} {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := localkek.Write(path, "9f86d081", first, [][]byte{make([]byte, 32), bytes.Repeat([]byte{1}, 32)}); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:bytes.LastIndex(b, []byte("sum "))])
	}
	f.Fuzz(func(t *testing.T, body []byte) { // with a right sum, which no fuzzer finds
		b := fmt.Appendf(bytes.Clone(body), "sum %x\n", sha256.Sum256(body))
		first, raw, id, err := localkek.Parse(b)
		if err != nil {
			if !errors.Is(err, localkek.ErrDamaged) {
				t.Fatalf("got %v, want ErrDamaged", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "kek")
		if err := localkek.Write(path, id, first, raw); err != nil {
			t.Fatal(err)
		}
		if again, _ := os.ReadFile(path); !bytes.Equal(again, b) {
			t.Fatal("two texts for one key file")
		}
	})
}
