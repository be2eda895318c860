// Package tile writes an audit log as static files in the layout of C2SP
// tlog-tiles, which public tools read: hash tiles under tile/0 and up, bundles
// of events under tile/entries, and the signed checkpoint.
package tile

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
)

const (
	height = 8
	width  = 1 << height
)

// Target is where the files go: a folder by Dir, or a bucket.
type Target interface {
	// Write stores a file, whole or not at all. Paths have slashes. Only
	// "checkpoint" is ever written anew with other content.
	Write(ctx context.Context, path string, data []byte) error
}

// Dir is a folder. Files have mode 0600 and folders 0700.
type Dir string

// Write implements Target.
func (d Dir) Write(_ context.Context, path string, data []byte) error {
	name := filepath.Join(string(d), filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("tile: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("tile: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("tile: %w", err)
	}
	return nil
}

// Export writes what a reader needs for the tree beyond its first old events,
// which an earlier Export of the same log wrote; 0 writes everything. The
// checkpoint comes last, so that readers never miss a file.
//
// It returns the minimum index in the sense of the specification: entries below
// it are not there, because they were pruned. It is a multiple of 256, and 0
// unless old events were pruned.
func Export(ctx context.Context, tree *audit.Tree, to Target, old uint64) (minimum uint64, err error) {
	c := tree.Checkpoint()
	if old > c.Size {
		return 0, fmt.Errorf("tile: the tree has %d events", c.Size)
	}
	for _, t := range tlog.NewTiles(height, int64(old), int64(c.Size)) {
		data, err := tlog.ReadTileData(t, tree)
		if err != nil {
			return 0, err
		}
		if err := to.Write(ctx, Path(t), data); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	first := old / width * width
	minimum = first
	var bundle []byte
	n, whole := first, true
	for event, err := range tree.Records(ctx, first) {
		if err != nil {
			return 0, err
		}
		if event == nil {
			whole = false
		} else {
			bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(event)))
			bundle = append(bundle, event...)
		}
		if n++; n%width != 0 && n != c.Size {
			continue
		}
		start := (n - 1) / width * width
		if whole {
			t := tlog.Tile{H: height, L: -1, N: int64(start / width), W: int(n - start)}
			if err := to.Write(ctx, Path(t), bundle); err != nil {
				return 0, err
			}
		} else {
			minimum = n
		}
		bundle, whole = bundle[:0], true
	}
	if minimum == first { // nothing pruned was met
		minimum = 0
	}
	return minimum, to.Write(ctx, "checkpoint", c.Note)
}

// Path returns the path of a tile of height 8; level -1 is a bundle of entries.
func Path(t tlog.Tile) string {
	p := strings.TrimPrefix(t.Path(), "tile/8/")
	return "tile/" + strings.Replace(p, "data/", "entries/", 1)
}
