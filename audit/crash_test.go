package audit_test

import (
	"bufio"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/filestore"
)

const childEnv = "CRMGUARD_AUDIT_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child appends for ever and prints what was acknowledged.
func child(dir string) {
	store, err := filestore.Open(dir, &filestore.Options{SegmentBytes: 20000})
	if err != nil {
		panic(err)
	}
	seed := make([]byte, ed25519.SeedSize) // the key of audittest.Signer
	copy(seed, origin)
	signer, err := audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		panic(err)
	}
	l, err := audit.Open(ctx, store, signer, &audit.Options{Sealer: clearSealer{}, CheckpointEvery: time.Millisecond})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(3)
	}
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := read(i)
				e.Note = fmt.Sprintf("w%d-%d", w, i)
				if i%5 == 0 {
					e.Details = []audit.Detail{audit.Personal("reason", [16]byte{1}, "x")}
				}
				r, err := l.Append(ctx, e)
				if err != nil {
					panic(err)
				}
				mu.Lock()
				os.Stdout.WriteString(fmt.Sprintf("%d %s\n", r.Index, e.Note))
				mu.Unlock()
			}
		}()
	}
	select {}
}

// A writer that is killed at any moment loses nothing that it acknowledged.
func TestKill(t *testing.T) {
	rounds := 5
	if os.Getenv("CRMGUARD_SOAK") != "" {
		rounds = 50
	}
	dir := filepath.Join(t.TempDir(), "log")
	acked := map[uint64]string{}
	var pin []byte
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var index uint64
			var note string
			if _, err := fmt.Sscanf(lines.Text(), "%d %s", &index, &note); err != nil {
				if n >= 100+37*(round%10) {
					break // cut off by the kill
				}
				t.Fatal(lines.Text())
			}
			acked[index] = note
			if n == 100+37*(round%10) {
				cmd.Process.Kill() // what is printed meanwhile counts as well
			}
			if n == 50 {
				if _, err := audit.Open(ctx, fileStore(t, dir), audittest.Signer(t, origin), nil); err == nil {
					t.Fatal("a second process may write")
				}
			}
		}
		cmd.Wait()
		store := fileStore(t, dir)
		l := openLog(t, store, &audit.Options{PinnedHead: pin})
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
		pin = head(t, l)
		l.Close()
		if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: clearSealer{}}); !v.OK() {
			t.Fatal(v)
		}
	}
	t.Logf("%d rounds, %d acknowledged events, none lost", rounds, len(acked))
}
