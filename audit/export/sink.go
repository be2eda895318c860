package export

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// Sink takes records. One Pump uses it, one call at a time.
type Sink interface {
	// Deliver returns nil when the records are acknowledged, or, for an
	// Unacknowledged sink, sent. After an error any of them may have arrived.
	Deliver(ctx context.Context, records []Record) error
	// Close gives back what the sink holds.
	Close() error
}

// Unacknowledged is a Sink whose receiver does not say what it has got.
type Unacknowledged interface {
	Sink
	// Overlap returns how many records are sent again after a start or failure.
	Overlap() uint64
	// Err returns an error when what was sent last may be lost, and nil after
	// the next Deliver that succeeds.
	Err() error
}

// errRecord says that a Format made a record that is not one line.
var errRecord = errors.New("export: a record is empty or has a line end or a zero in it")

func checkLines(records []Record) error {
	for i := range records {
		b := records[i].Body
		if len(b) == 0 || bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0 || bytes.IndexByte(b, 0) >= 0 {
			return errRecord
		}
	}
	return nil
}

// lines joins records, each with a line end.
func lines(records []Record) []byte {
	n := 0
	for i := range records {
		n += len(records[i].Body) + 1
	}
	b := make([]byte, 0, n)
	for i := range records {
		b = append(append(b, records[i].Body...), '\n')
	}
	return b
}

// backoff is how long to wait after n failures: doubling from first to at most
// most, and between half and all of that, never the same for two programs.
func backoff(n int, first, most time.Duration) time.Duration {
	d := first
	for range n {
		if d *= 2; d >= most {
			d = most
			break
		}
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
