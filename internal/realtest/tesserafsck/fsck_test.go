// Package tesserafsck checks the tiles of an audit log with the fsck of
// Tessera. It is a module of its own, so that Tessera reaches no user.
package tesserafsck

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/tile"
)

const origin = "crm.example.com/log"

func check(t *testing.T, dir string) error {
	t.Helper()
	v, err := note.NewVerifier(audittest.Signer(t, origin).VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	hasher := func(bundle []byte) (list [][]byte, err error) {
		var b api.EntryBundle
		if err := b.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		for _, e := range b.Entries {
			list = append(list, rfc6962.DefaultHasher.HashLeaf(e))
		}
		return list, nil
	}
	return fsck.New(origin, v, client.FileFetcher{Root: dir}, hasher, fsck.Opts{N: 2}).Check(context.Background())
}

func TestFsck(t *testing.T) {
	ctx := context.Background()
	store, err := filestore.Open(filepath.Join(t.TempDir(), "log"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(ctx, store, audittest.Signer(t, origin), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	steps := filepath.Join(t.TempDir(), "steps") // grows from size to size
	old := uint64(0)
	for _, size := range []int{1, 2, 255, 256, 257, 1000, 3000, 4096, 5000} {
		es := make([]audit.Event, size-int(l.Size()))
		for i := range es {
			es[i] = audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: fmt.Sprint("emp-", i)}
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			t.Fatal(err)
		}
		whole := filepath.Join(t.TempDir(), fmt.Sprint(size))
		for dir, from := range map[string]uint64{whole: 0, steps: old} {
			if _, err := tile.Export(ctx, l.Tree(), tile.Dir(dir), from); err != nil {
				t.Fatal(err)
			}
			if err := check(t, dir); err != nil {
				t.Fatalf("%d events: %v", size, err)
			}
		}
		old = l.Size()
	}
	// What Tessera must find, it finds: the check above checks.
	for _, name := range []string{"tile/0/003", "tile/1/000.p/19", "tile/entries/007", "checkpoint"} {
		path := filepath.Join(steps, filepath.FromSlash(name))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := check(t, steps); err == nil {
			t.Errorf("%s: a flipped bit is not found", name)
		}
		os.WriteFile(path, b, 0o600)
	}
	if err := check(t, steps); err != nil {
		t.Fatal(err)
	}
}
