package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/internal/realtest"
	"github.com/crmguard/crmguard/internal/realtest/faults"
)

const faultEnv = "CRMGUARD_AUDIT_FAULTS"

func init() {
	if dir := os.Getenv(faultEnv); dir != "" {
		if err := faults.Enter(); err != nil {
			fmt.Println("no", err)
			os.Exit(4)
		}
		faultChild(dir)
		os.Exit(0)
	}
}

// pruneBelow is the index that the child prunes below.
const pruneBelow = 6

// faultChild does what a log does in a fixed order, goes on after each error, and prints what it was told is done.
func faultChild(dir string) {
	store, err := filestore.Open(dir, &filestore.Options{SegmentBytes: 1000})
	if err != nil {
		fmt.Println("no", err)
		os.Exit(4)
	}
	seed := make([]byte, ed25519.SeedSize) // the key of audittest.Signer
	copy(seed, origin)
	signer, err := audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		fmt.Println("no", err)
		os.Exit(4)
	}
	now := clock().Add(-300 * day)
	opts := audit.Options{Sealer: clearSealer{}, CheckpointEvery: time.Hour, Clock: func() time.Time { return now }}
	for round := range 2 { // what is left of the first one is opened anew
		l, err := audit.Open(ctx, store, signer, &opts)
		if err != nil {
			fmt.Println("failed", err)
			continue
		}
		add := func(n int) {
			for i := range n {
				e := read(i)
				e.Time, e.Note = now, fmt.Sprintf("r%d-%d", round, i)
				e.Details = []audit.Detail{audit.Personal("reason", [16]byte{1}, "x")}
				r, err := l.Append(ctx, e)
				if err != nil {
					fmt.Println("failed", err)
					continue
				}
				c, err := l.Checkpoint(ctx)
				if err != nil {
					fmt.Println("failed", err)
					continue
				}
				fmt.Println("ack", r.Index, e.Note, base64.StdEncoding.EncodeToString(c.Note))
			}
		}
		if round == 0 {
			add(8)
			now = clock()
			add(2)
			if n, err := l.Prune(ctx, pruneBelow); err != nil {
				fmt.Println("failed", err)
			} else {
				fmt.Println("pruned", n)
			}
		}
		add(2)
		if err := l.Close(); err != nil {
			fmt.Println("failed", err)
		}
	}
}

// A system call that fails, writes half, or is the last one of the process, wherever it is: the log opens again, every
// acknowledged event is in it, every head that was handed out is its prefix, and it takes events.
func TestFaults(t *testing.T) {
	type outcome struct {
		calls  []faults.Call
		acks   map[uint64]string
		last   []byte // the newest head
		failed int
	}
	run := func(t *testing.T, dir string, decide func(n int, c faults.Call) faults.Fate) (outcome, error) {
		o := outcome{acks: map[uint64]string{}}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), faultEnv+"="+dir)
		var out bytes.Buffer
		cmd.Stdout = &out
		err := faults.Run(cmd, dir, 20*time.Second, func(c faults.Call) faults.Fate {
			o.calls = append(o.calls, c)
			return decide(len(o.calls)-1, c)
		})
		for line := range strings.Lines(out.String()) {
			f := strings.Fields(line)
			switch {
			case f[0] == "ack" && len(f) == 4 && strings.HasSuffix(line, "\n"):
				index, err := strconv.ParseUint(f[1], 10, 64)
				if err != nil {
					t.Fatal(line)
				}
				if o.last, err = base64.StdEncoding.DecodeString(f[3]); err != nil {
					t.Fatal(line)
				}
				if old, ok := o.acks[index]; ok {
					t.Fatalf("event %d acknowledged as %s and as %s", index, old, f[2])
				}
				o.acks[index] = f[2]
			case f[0] == "failed":
				o.failed++
			case f[0] == "no":
				return o, errors.New(line)
			}
		}
		return o, err
	}
	whole, err := run(t, filepath.Join(t.TempDir(), "log"), func(int, faults.Call) faults.Fate { return faults.Fate{} })
	if err != nil && len(whole.calls) == 0 {
		realtest.Require(t, "faults", err) // no seccomp here
	}
	if err != nil || len(whole.acks) != 14 || whole.failed != 0 {
		t.Fatal(err, len(whole.acks), whole.failed)
	}
	counts := map[string]int{}
	for _, c := range whole.calls {
		counts[c.Name]++
	}
	t.Logf("%d system calls: %v", len(whole.calls), counts)

	type fault struct {
		name string
		fate faults.Fate
		last bool // so does every later one
	}
	var cases, acked atomic.Int64
	try := func(t *testing.T, at int, call faults.Call) {
		list := []fault{
			{"fails once", faults.Fate{Err: syscall.EIO}, false}, {"fails from then on", faults.Fate{Err: syscall.EIO}, true},
			{"is the last", faults.Fate{Kill: true}, false},
		}
		if call.Size > 0 {
			list = append(list, fault{"writes half on a full disk", faults.Fate{Err: syscall.ENOSPC, Half: true}, true})
		}
		for _, f := range list {
			dir := filepath.Join(t.TempDir(), "log")
			hit := false
			got, err := run(t, dir, func(n int, c faults.Call) faults.Fate {
				if n < at || n > at && !f.last {
					return faults.Fate{}
				}
				hit = true
				return f.fate
			})
			what := fmt.Sprintf("call %d, %s of %s, %s", at, call.Name, filepath.Base(call.Path), f.name)
			if !hit {
				if at >= len(whole.calls)-5 {
					return // the run that was counted copied one head more
				}
				t.Fatalf("%s: not reached", what)
			}
			if exit := (*exec.ExitError)(nil); err != nil && !(f.fate.Kill && errors.As(err, &exit)) {
				t.Fatalf("%s: %v", what, err)
			}
			cases.Add(1)
			acked.Add(int64(len(got.acks)))
			l, err := audit.Open(ctx, fileStore(t, dir), audittest.Signer(t, origin), &audit.Options{PinnedHead: got.last, Clock: clock, Sealer: clearSealer{}})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if l.Pruned() > pruneBelow {
				t.Fatalf("%s: %d events are pruned", what, l.Pruned())
			}
			found := map[uint64]string{}
			for e, err := range l.Events(ctx, 0) {
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				found[e.Index] = e.Event.Note
			}
			for index, note := range got.acks {
				if index >= l.Pruned() && found[index] != note {
					t.Fatalf("%s: event %d is %q, acknowledged was %q", what, index, found[index], note)
				}
			}
			if _, err := l.Append(ctx, read(0)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			pins := [][]byte{head(t, l)}
			if got.last != nil {
				pins = append(pins, got.last)
			}
			if err := l.Close(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: pins, Sealer: clearSealer{}}); !v.OK() {
				t.Fatalf("%s: %v", what, v)
			}
		}
	}
	places := 0
	t.Run("calls", func(t *testing.T) {
		for at, call := range whole.calls {
			if testing.Short() && at%4 != 0 {
				continue
			}
			places++
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				t.Parallel()
				try(t, at, call)
			})
		}
	})
	t.Logf("%d faults at %d system calls; %d events acknowledged before or after them, all there", cases.Load(), places, acked.Load())
}
