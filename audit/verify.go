package audit

import (
	"context"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// State is what a verification found.
type State uint8

// The states. Only Pinned and Anchored are good.
const (
	Unanchored State = iota // consistent, but no head kept elsewhere was given
	Pinned                  // consistent and contains the given heads
	Anchored                // as Pinned, and witnesses have signed the head
	Truncated               // shorter than a given head, or ends inside a batch
	Forked                  // has another history than a given head
	Altered                 // an event, an opening or a checkpoint was changed
	Reordered               // events are moved, doubled or left out
	Withheld                // an opening is missing or wrong, and the person is not erased
	Missing                 // there is no log
	Foreign                 // an event or a head of another log
	KeyUnknown              // signed by a key that was not given
)

// VerifyOptions of Verify. Nil means the zero value of each field.
type VerifyOptions struct {
	Pins           [][]byte          // checkpoints kept elsewhere; nil: the verdict is Unanchored at best
	Sealer         Sealer            // opens and checks details; nil: they are counted as unchecked
	EverySignature bool              // check each checkpoint's signature; false: the last one and the pins, which vouch for all before them
	Clock          func() time.Time  // nil: time.Now
	Progress       func(done uint64) // called now and then; nil: none
}

// Verdict is the result of a verification.
type Verdict struct {
	State     State
	At        int64         // index of the first bad event, -1 when State names none
	Reason    string        // one line for people, without personal data
	Origin    string        // name of the log
	Size      uint64        // events found consistent
	Pinned    uint64        // size of the largest given head that was met
	Root      tlog.Hash     // root hash over Size events
	Signed    time.Time     // when the last checkpoint was signed
	Age       time.Duration // how long ago that was
	Opened    uint64        // details opened and equal to their commitment
	Erased    uint64        // details whose person is erased
	Unchecked uint64        // details that nobody opened
}

// Verify checks the whole log of store against the verifier keys.
func Verify(ctx context.Context, store driver.Store, keys []string, opts *VerifyOptions) (Verdict, error) {
	return Verdict{}, errors.New("audit: not ready")
}

// OK reports whether the log is proven whole: Pinned or Anchored.
func (v Verdict) OK() bool { return v.State == Pinned || v.State == Anchored }
