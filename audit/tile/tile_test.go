package tile_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/audit/tile"
)

const origin = "crm.example.com/log"

var ctx = context.Background()

// files is a target in memory.
type files map[string][]byte

func (f files) Write(_ context.Context, path string, data []byte) error {
	if old, ok := f[path]; ok && path != "checkpoint" && string(old) != string(data) {
		return fmt.Errorf("%s is written with other content", path)
	}
	f[path] = append([]byte(nil), data...)
	return nil
}

func openLog(t testing.TB, at *time.Time, n int) *audit.Log {
	t.Helper()
	l, err := audit.Open(ctx, memstore.New(), audittest.Signer(t, origin), &audit.Options{Clock: func() time.Time { return *at }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	grow(t, l, n-1)
	return l
}

func grow(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Outcome: audit.Allowed, Actor: fmt.Sprint("emp-", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// check reads a log of tiles as a reader of the specification would.
func check(t *testing.T, f files, minimum uint64) (size uint64) {
	t.Helper()
	v, err := note.NewVerifier(audittest.Signer(t, origin).VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(f["checkpoint"], note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + n.Text[len(origin)+1:]))
	if err != nil {
		t.Fatal(err)
	}
	reader := tlog.TileHashReader(tree, source{f})
	for i := int64(0); i < tree.N; i += 1 + tree.N/150 {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, i)}) // checks the tiles up to the root
		if err != nil {
			t.Fatal(i, err)
		}
		w := min(256, tree.N-i/256*256)
		bundle, ok := f[tile.Path(tlog.Tile{H: 8, L: -1, N: i / 256, W: int(w)})]
		if !ok && uint64(i) < minimum {
			continue
		}
		for range i % 256 {
			bundle = bundle[2+binary.BigEndian.Uint16(bundle):]
		}
		if event := bundle[2 : 2+binary.BigEndian.Uint16(bundle)]; tlog.RecordHash(event) != leaf[0] {
			t.Fatalf("entry %d", i)
		}
	}
	return uint64(tree.N)
}

type source struct{ f files }

func (source) Height() int                         { return 8 }
func (source) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (s source) ReadTiles(tiles []tlog.Tile) (list [][]byte, err error) {
	for _, t := range tiles {
		data, ok := s.f[tile.Path(t)]
		if !ok {
			full := t
			full.W = 256
			if data, ok = s.f[tile.Path(full)]; !ok {
				return nil, errors.New("no tile " + tile.Path(t))
			}
			data = data[:32*t.W]
		}
		list = append(list, data)
	}
	return list, nil
}

func TestExport(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, n := range []int{1, 255, 256, 257, 1000} {
		l := openLog(t, &at, n)
		f := files{}
		if minimum, err := tile.Export(ctx, l.Tree(), f, 0); err != nil || minimum != 0 {
			t.Fatal(minimum, err)
		}
		if size := check(t, f, 0); size != uint64(n) {
			t.Fatal(size)
		}
		// In steps there is the same and some partial tiles more.
		steps := files{}
		old := uint64(0)
		g := openLog(t, &at, 1)
		for int(g.Size()) < n {
			if _, err := tile.Export(ctx, g.Tree(), steps, old); err != nil {
				t.Fatal(err)
			}
			old = g.Size()
			grow(t, g, min(117, n-int(old)))
		}
		if _, err := tile.Export(ctx, g.Tree(), steps, old); err != nil {
			t.Fatal(err)
		}
		check(t, steps, 0)
		for _, p := range slices.Sorted(maps.Keys(f)) {
			if _, ok := steps[p]; !ok {
				t.Fatalf("%s is missing", p)
			}
		}
		if _, err := tile.Export(ctx, l.Tree(), f, uint64(n)+1); err == nil {
			t.Fatal("exported beyond the end")
		}
	}
}

func TestExportPruned(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	l := openLog(t, &at, 1000)
	at = at.Add(200 * 24 * time.Hour)
	if n, err := l.Prune(ctx, 300); err != nil || n != 300 {
		t.Fatal(n, err)
	}
	f := files{}
	minimum, err := tile.Export(ctx, l.Tree(), f, 0)
	if err != nil || minimum != 512 {
		t.Fatal(minimum, err)
	}
	check(t, f, minimum)
	for p, want := range map[string]bool{"tile/0/000": true, "tile/entries/000": false, "tile/entries/001": false, "tile/entries/002": true} {
		if _, ok := f[p]; ok != want {
			t.Fatal(p, ok)
		}
	}
}

func TestPath(t *testing.T) {
	for want, p := range map[string]tlog.Tile{
		"tile/0/000":                  {H: 8, L: 0, N: 0, W: 256},
		"tile/1/x001/x234/067":        {H: 8, L: 1, N: 1234067, W: 256},
		"tile/2/003.p/17":             {H: 8, L: 2, N: 3, W: 17},
		"tile/entries/x001/234.p/255": {H: 8, L: -1, N: 1234, W: 255},
	} {
		if got := tile.Path(p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func ExampleExport() {
	at := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	signer, err := audit.OpenSigningKey(filepath.Join(os.TempDir(), fmt.Sprint("example-", os.Getpid(), ".key")), origin)
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(filepath.Join(os.TempDir(), fmt.Sprint("example-", os.Getpid(), ".key")))
	l, err := audit.Open(ctx, memstore.New(), signer, &audit.Options{Clock: at})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	dir, err := os.MkdirTemp("", "tiles")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if _, err := tile.Export(ctx, l.Tree(), tile.Dir(dir), 0); err != nil {
		log.Fatal(err)
	}
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if rel, _ := filepath.Rel(dir, path); err == nil && info.Mode().IsRegular() {
			fmt.Println(filepath.ToSlash(rel))
		}
		return err
	})
	// Output:
	// checkpoint
	// tile/0/000.p/1
	// tile/entries/000.p/1
}
