package sqlstore_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/sqlstore"
)

const childEnv = "CRMGUARD_AUDIT_SQL_CHILD"

// The test binary is also the other process of these tests.
func TestMain(m *testing.M) {
	if at := os.Getenv(childEnv); at != "" {
		if err := child(at); err != nil {
			fmt.Println("failed:", err)
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

// child appends for ever and prints what was acknowledged.
func child(env string) error {
	ctx := context.Background()
	var at place
	if err := json.Unmarshal([]byte(env), &at); err != nil {
		return err
	}
	w, r, err := at.handles(ctx)
	if err != nil {
		return err
	}
	store, err := sqlstore.Open(ctx, w, at.Dialect, &sqlstore.Options{Reads: r})
	if err != nil {
		return err
	}
	seed := make([]byte, ed25519.SeedSize) // the key of audittest.Signer
	copy(seed, origin)
	signer, err := audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return err
	}
	l, err := audit.Open(ctx, store, signer, &audit.Options{CheckpointEvery: time.Millisecond})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := event(i)
				e.Note = fmt.Sprintf("w%d-%d", w, i)
				r, err := l.Append(ctx, e)
				mu.Lock()
				if err != nil {
					fmt.Println("failed:", err)
					os.Exit(4)
				}
				os.Stdout.WriteString(fmt.Sprintf("%d %s\n", r.Index, e.Note))
				mu.Unlock()
			}
		}()
	}
	select {}
}

// process is a child and what it prints.
type process struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func start(t testing.TB, at place) process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p := process{cmd, bufio.NewScanner(out)}
	if !p.lines.Scan() || p.lines.Text() != "open" {
		t.Fatal("the other process: ", p.lines.Text())
	}
	return p
}

// A writer that is killed at any moment loses nothing that it acknowledged, and
// keeps others out as long as it lives.
func TestKill(t *testing.T) {
	rounds := 5
	if os.Getenv("CRMGUARD_SOAK") != "" {
		rounds = 50
	}
	ctx := context.Background()
	signer := audittest.Signer(t, origin)
	places(t, func(t *testing.T, at place) {
		store := at.store(t, nil)
		acked := map[uint64]string{}
		var pin []byte
		for round := range rounds {
			p := start(t, at)
			if w, err := store.Writer(ctx); !errors.Is(err, audit.ErrLocked) {
				t.Fatalf("beside another process: %v, %v", w, err)
			}
			enough := 100 + 37*(round%10)
			for n := 0; p.lines.Scan(); n++ {
				var index uint64
				var note string
				if _, err := fmt.Sscanf(p.lines.Text(), "%d %s", &index, &note); err != nil {
					if n > enough {
						break // cut off by the kill
					}
					t.Fatal(p.lines.Text())
				}
				acked[index] = note
				if n == enough {
					p.Process.Kill() // what is printed meanwhile counts as well
				}
			}
			p.Wait()
			l, err := audit.Open(ctx, store, signer, &audit.Options{PinnedHead: pin})
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for e, err := range l.Events(ctx, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if want, ok := acked[e.Index]; ok {
					if e.Event.Note != want {
						t.Fatalf("event %d is %q, acknowledged was %q", e.Index, e.Event.Note, want)
					}
					found++
				}
			}
			if found != len(acked) {
				t.Fatalf("round %d: %d of %d acknowledged events", round, found, len(acked))
			}
			c, err := l.Checkpoint(ctx)
			if err != nil {
				t.Fatal(err)
			}
			pin = c.Note
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			v, err := audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{pin}})
			if err != nil || !v.OK() {
				t.Fatal(v, err)
			}
		}
		t.Logf("%d kills, %d acknowledged events, none lost", rounds, len(acked))
	})
}
