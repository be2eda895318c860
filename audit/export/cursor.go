package export

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrCursor says that the file of a cursor is damaged, or that it does not
// belong to the log: the log is shorter than what was delivered, or has another
// history.
var ErrCursor = errors.New("export: the cursor does not fit the log")

// cursor is how far a sink has got.
type cursor struct {
	next     uint64    // the first event that is not delivered
	chain    tlog.Hash // head of the hash chain after event next-1
	gapFrom  uint64    // with gapEvent: the first event of a range given up
	gapEvent uint64    // the event that names it; 0: none that is yet to be delivered
}

const cursorHead = "crmguard export cursor v1"

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func (c *cursor) bytes() []byte {
	b := fmt.Appendf(nil, "%s %d %s %d %d ", cursorHead, c.next, c.chain, c.gapFrom, c.gapEvent)
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(b, crcTable))
}

func parseCursor(b []byte) (c cursor, err error) {
	f := strings.Split(strings.TrimPrefix(string(b), cursorHead+" "), " ")
	if len(b) > 512 || len(f) != 5 {
		return c, ErrCursor
	}
	for i, p := range map[int]*uint64{0: &c.next, 2: &c.gapFrom, 3: &c.gapEvent} {
		if *p, err = strconv.ParseUint(f[i], 10, 63); err != nil {
			return cursor{}, ErrCursor
		}
	}
	if c.chain, err = tlog.ParseHash(f[1]); err != nil || !bytes.Equal(c.bytes(), b) {
		return cursor{}, ErrCursor
	}
	return c, nil
}

// loadCursor reads a cursor; one that is not there is at the beginning.
func loadCursor(path string) (cursor, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cursor{}, nil
	}
	if err != nil {
		return cursor{}, fmt.Errorf("export: cursor: %w", err)
	}
	return parseCursor(b)
}

// store puts the cursor at path, durably and in one step.
func (c *cursor) store(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".cursor-*") // mode 0600
	if err != nil {
		return fmt.Errorf("export: cursor: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(c.bytes())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("export: cursor: %w", err)
	}
	return nil
}
