// Package auditbench measures package audit: durable appends beside a bare hash chain and Tessera,
// verification beside the hashes it cannot do without, proofs, and the memory of a large log.
package auditbench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

const (
	origin = "crm.example.com/log"
	size   = 300 // bytes of an event
)

// event has about 300 canonical bytes: 285 here, and the salt of the details beside them.
func event(i int) audit.Event {
	return audit.Event{
		Action: "customer.update", Activity: audit.Update, Outcome: audit.Intended, Actor: fmt.Sprint("emp-", i%97), Session: "s-1",
		Tenant: "default", Targets: []audit.Target{{Type: "customer", ID: fmt.Sprintf("0190b2a0-0000-7000-8000-%012x", i), Version: 7, Digest: make([]byte, 32)}},
		Fields: []string{"name", "phone"}, Purpose: "support", Decision: "d-9", Policy: "p-1", Controls: []string{"rbac", "owner"},
		Note: strings.Repeat("n", 92),
	}
}

// made are events made beforehand, as the data of the bare chain and of Tessera are.
var made, personal = func() (made, personal []audit.Event) {
	for i := range 4096 {
		e := event(i)
		made = append(made, e)
		e.Note = "" // the commitment stands in its place
		e.Details = []audit.Detail{audit.Personal("address", [16]byte{byte(i)}, "192.0.2.7, and a browser")}
		personal = append(personal, e)
	}
	return made, personal
}()

// writer is one that is measured.
type writer struct {
	name   string
	append func(ctx context.Context, i int) error
	close  func() error
}

func blob(i int) []byte {
	data := make([]byte, size)
	binary.BigEndian.PutUint64(data, uint64(i))
	return data
}

// bare is the least that a durable hash chain can do: group commit, one SHA-256 for each entry, one
// write and one fdatasync for each group.
type bare struct {
	f     *os.File
	mu    sync.Mutex
	queue []entry
	wake  chan struct{}
	head  [32]byte
}

type entry struct {
	data []byte
	done chan error
}

func newBare(dir string) (writer, error) {
	f, err := os.Create(filepath.Join(dir, "chain"))
	if err != nil {
		return writer{}, err
	}
	b := &bare{f: f, wake: make(chan struct{}, 1)}
	go b.run()
	return writer{"bare hash chain", func(_ context.Context, i int) error {
		return b.append(blob(i))
	}, func() error { close(b.wake); return f.Close() }}, nil
}

func (b *bare) run() {
	var buf, scratch []byte
	for range b.wake {
		b.mu.Lock()
		list := b.queue
		b.queue = nil
		b.mu.Unlock()
		if len(list) == 0 {
			continue
		}
		buf = buf[:0]
		for _, e := range list {
			scratch = append(append(scratch[:0], b.head[:]...), e.data...)
			b.head = sha256.Sum256(scratch)
			buf = append(append(buf, e.data...), b.head[:]...)
		}
		_, err := b.f.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(b.f.Fd()))
		}
		for _, e := range list {
			e.done <- err
		}
	}
}

func (b *bare) append(data []byte) error {
	done := make(chan error, 1)
	b.mu.Lock()
	b.queue = append(b.queue, entry{data, done})
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return <-done
}

func signer() (audit.Signer, error) {
	return audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
}

func newLog(ctx context.Context, dir string, openings bool) (writer, error) {
	store, err := filestore.Open(dir, nil)
	if err != nil {
		return writer{}, err
	}
	s, err := signer()
	if err != nil {
		return writer{}, err
	}
	l, err := audit.Open(ctx, store, s, &audit.Options{Sealer: audittest.NewSealer()})
	if err != nil {
		return writer{}, err
	}
	w := writer{"audit", func(ctx context.Context, i int) error {
		_, err := l.Append(ctx, made[i%len(made)])
		return err
	}, l.Close}
	if openings {
		w.name = "audit, with an opening"
		w.append = func(ctx context.Context, i int) error {
			_, err := l.Append(ctx, personal[i%len(personal)])
			return err
		}
	}
	return w, nil
}

func newTessera(ctx context.Context, dir string) (writer, error) {
	skey, _, err := note.GenerateKey(rand.Reader, "tessera.example.com/log")
	if err != nil {
		return writer{}, err
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		return writer{}, err
	}
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(ctx)
	d, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		cancel()
		return writer{}, err
	}
	a, stop, _, err := tessera.NewAppender(ctx, d, tessera.NewAppendOptions().WithCheckpointSigner(s).
		WithBatching(64, 5*time.Millisecond).WithCheckpointInterval(100*time.Millisecond))
	if err != nil {
		cancel()
		return writer{}, err
	}
	return writer{"Tessera POSIX, 64 and 5 ms", func(ctx context.Context, i int) error {
		_, err := a.Add(ctx, tessera.NewEntry(blob(i)))()
		return err
	}, func() error { defer cancel(); return stop(ctx) }}, nil
}

// turn is one measured stretch of one writer.
type turn struct {
	rate, p50, p99, cpu float64 // events/s, ms, ms, µs of processor for an event
}

// run lets n goroutines append for a time.
func (w writer) run(ctx context.Context, n int, d time.Duration, next *atomic.Int64) (turn, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	cpu, start := measure.ProcessorTime(), time.Now()
	end := start.Add(d)
	for range n {
		wg.Go(func() {
			var own []time.Duration
			for {
				at := time.Now()
				if at.After(end) {
					break
				}
				if err := w.append(ctx, int(next.Add(1))); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				own = append(own, time.Since(at))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	all := time.Since(start)
	cpu = measure.ProcessorTime() - cpu
	if failed != nil {
		return turn{}, fmt.Errorf("%s: %w", w.name, failed)
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	return turn{float64(len(took)) / all.Seconds(), ms(took[len(took)/2]), ms(took[len(took)*99/100]), float64(cpu.Microseconds()) / float64(len(took))}, nil
}

// Append compares durable appends. The writers take turns, and ratios are of turns of the same round.
func Append(ctx context.Context, out io.Writer, dir string, rounds int, round time.Duration) error {
	fmt.Fprintf(out, "\ndurable appends of %d-byte events, sync on; medians of %d rounds of %v; ratios to the bare chain are of the same round\n\n", size, rounds, round)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "writers\twhat\tevents/s\tp50 ms\tp99 ms\tCPU µs\trate/bare\tp50/bare\t")
	for _, n := range []int{1, 64, 256} {
		var list []writer
		for i := range 4 {
			d := filepath.Join(dir, fmt.Sprintf("%d-%d", n, i))
			if err := os.MkdirAll(d, 0o700); err != nil {
				return err
			}
			var w writer
			var err error
			switch i {
			case 0:
				w, err = newBare(d)
			case 1:
				w, err = newLog(ctx, d, false)
			case 2:
				w, err = newLog(ctx, d, true)
			case 3:
				w, err = newTessera(ctx, d)
			}
			if err != nil {
				return err
			}
			list = append(list, w)
		}
		turns := make([][]turn, len(list))
		var next atomic.Int64
		for r := range rounds + 1 {
			for i, w := range list {
				t, err := w.run(ctx, n, round, &next)
				if err != nil {
					return err
				}
				if r > 0 { // the first round warms up
					turns[i] = append(turns[i], t)
				}
			}
		}
		for i, w := range list {
			if err := w.close(); err != nil {
				return err
			}
			mid := func(f func(r int) float64) float64 {
				var v []float64
				for r := range turns[i] {
					v = append(v, f(r))
				}
				slices.Sort(v)
				return v[len(v)/2]
			}
			fmt.Fprintf(tw, "%d\t%s\t%.0f\t%.2f\t%.2f\t%.1f\t%.2f\t%.2f\t\n", n, w.name,
				mid(func(r int) float64 { return turns[i][r].rate }), mid(func(r int) float64 { return turns[i][r].p50 }),
				mid(func(r int) float64 { return turns[i][r].p99 }), mid(func(r int) float64 { return turns[i][r].cpu }),
				mid(func(r int) float64 { return turns[i][r].rate / turns[0][r].rate }), mid(func(r int) float64 { return turns[i][r].p50 / turns[0][r].p50 }))
		}
	}
	return tw.Flush()
}
