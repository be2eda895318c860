package localkek_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func TestKEK(t *testing.T) {
	dir := t.TempDir()
	encrypttest.TestKEK(t, func(t testing.TB) keys.KEK {
		k, err := localkek.Open(filepath.Join(dir, "kek"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	})
}

func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, err := localkek.Open(path, &localkek.Options{MustExist: true}); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("MustExist: %v", err)
	}
	if _, err := localkek.Open(path, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := localkek.Open(path, nil); !errors.Is(err, localkek.ErrInsecure) {
			t.Fatalf("mode %v: got %v, want ErrInsecure", mode, err)
		}
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 1 {
		t.Fatalf("files left behind: %v", left)
	}
}

func TestDamagedFileIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, err := localkek.Open(path, nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := [][]byte{{}, []byte("x"), append(bytes.Clone(good), '\n'), bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))}
	for i := range good {
		bad = append(bad, good[:i])
		flip := bytes.Clone(good)
		flip[i] ^= 1
		bad = append(bad, flip)
	}
	for i, b := range bad {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := localkek.Open(path, nil)
		if !errors.Is(err, localkek.ErrDamaged) {
			t.Fatalf("case %d: got %v, want ErrDamaged", i, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, b) {
			t.Fatalf("case %d: the file was changed", i)
		}
		if key := strings.Fields(string(good))[6]; strings.Contains(err.Error(), key) {
			t.Fatal("the error shows the key")
		}
	}
}

func TestFirstStartOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := localkek.Open(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatal("two keys were made")
		}
	}
}

func TestAnotherFileDoesNotOpen(t *testing.T) {
	dir := t.TempDir()
	a, err := localkek.Open(filepath.Join(dir, "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := localkek.Open(filepath.Join(dir, "b"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := a.Wrap(context.Background(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Unwrap(context.Background(), w, nil); !errors.Is(err, keys.ErrTampered) {
		t.Fatalf("got %v, want ErrTampered", err)
	}
}

// FuzzUnwrap: nothing but what was wrapped opens, for nothing but what it was wrapped for.
func FuzzUnwrap(f *testing.F) {
	k, err := localkek.Open(filepath.Join(f.TempDir(), "kek"), nil)
	if err != nil {
		f.Fatal(err)
	}
	ctx, ad, plain := context.Background(), []byte("tenant"), []byte("a key of thirty-two bytes, no less")
	old, err := k.Wrap(ctx, plain, ad)
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(k.Rotate(ctx), k.Rotate(ctx)); err != nil {
		f.Fatal(err)
	}
	wrapped, err := k.Wrap(ctx, plain, ad)
	if err != nil {
		f.Fatal(err)
	}
	if err := k.Trim(ctx, [][]byte{wrapped}); err != nil { // version 3 lives
		f.Fatal(err)
	}
	f.Add(old, ad, []byte{})
	f.Add(wrapped, ad, []byte{})
	f.Add([]byte{}, ad, []byte{0, 0, 0, 0, 1})
	f.Add([]byte{1, 0, 0, 0, 3}, []byte{}, []byte{})
	// mask is laid over a wrapped key, so that the fuzzer comes near it.
	f.Fuzz(func(t *testing.T, in, by, mask []byte) {
		near := bytes.Clone(wrapped)
		for i := range min(len(mask), len(near)) {
			near[i] ^= mask[i]
		}
		for _, w := range [][]byte{in, near, append(bytes.Clone(near), in...), near[:max(0, len(near)-len(in))]} {
			got, err := k.Unwrap(ctx, w, by)
			same := bytes.Equal(w, wrapped) && bytes.Equal(by, ad)
			switch {
			case same && (err != nil || !bytes.Equal(got, plain)):
				t.Fatalf("what was wrapped: %v", err)
			case !same && (err == nil || got != nil || !errors.Is(err, keys.ErrTampered) && !errors.Is(err, keys.ErrRetired)):
				t.Fatalf("%x for %q: %v", w, by, err)
			}
		}
	})
}
