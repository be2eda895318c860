package audit_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
)

// event300 has about 300 canonical bytes.
func event300() audit.Event {
	e := full(1)
	e.Note = strings.Repeat("n", 300-len(audit.AppendEvent([16]byte{}, 0, e)))
	return e
}

// bare is the least that a durable hash chain can do: group commit, one
// SHA-256 for each entry, one write and one fdatasync for each group.
type bare struct {
	f     *os.File
	mu    sync.Mutex
	queue []bareEntry
	wake  chan struct{}
	head  [32]byte
}

type bareEntry struct {
	data []byte
	done chan error
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
	b.queue = append(b.queue, bareEntry{data, done})
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return <-done
}

func writers(b *testing.B, n int, one func() error) {
	var wg sync.WaitGroup
	work := make(chan struct{}, 4*n)
	for range n {
		wg.Go(func() {
			for range work {
				if err := one(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("bare/%d", n), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "chain"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			c := &bare{f: f, wake: make(chan struct{}, 1)}
			defer close(c.wake)
			go c.run()
			data := make([]byte, 300)
			writers(b, n, func() error { return c.append(data) })
		})
		b.Run(fmt.Sprintf("log/%d", n), func(b *testing.B) {
			l := openLog(b, fileStore(b, filepath.Join(b.TempDir(), "log")), nil)
			e := event300()
			writers(b, n, func() error { _, err := l.Append(ctx, e); return err })
			b.StopTimer()
			l.Close()
		})
		b.Run(fmt.Sprintf("log with openings/%d", n), func(b *testing.B) {
			l := openLog(b, fileStore(b, filepath.Join(b.TempDir(), "log")), &audit.Options{Sealer: clearSealer{}})
			e := event300()
			e.Details = []audit.Detail{audit.Personal("address", [16]byte{1}, "192.0.2.7")}
			writers(b, n, func() error { _, err := l.Append(ctx, e); return err })
			b.StopTimer()
			l.Close()
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	const size = 200_000
	for _, batch := range []int{1000, 50} {
		store := fileStore(b, filepath.Join(b.TempDir(), "log"))
		l := openLog(b, store, nil)
		es := make([]audit.Event, batch)
		for i := range es {
			es[i] = event300()
		}
		for range size / batch {
			if _, err := l.AppendAll(ctx, es); err != nil {
				b.Fatal(err)
			}
		}
		pin := head(b, l)
		l.Close()
		b.Run(fmt.Sprintf("batches of %d", batch), func(b *testing.B) {
			for b.Loop() {
				if v := verify(b, store, &audit.VerifyOptions{Pins: [][]byte{pin}}); !v.OK() {
					b.Fatal(v)
				}
			}
			b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
		b.Run(fmt.Sprintf("open, batches of %d", batch), func(b *testing.B) {
			for b.Loop() {
				openLog(b, store, nil).Close()
			}
			b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkQuery reads the 50 newest events of one record of 100,000 events.
func BenchmarkQuery(b *testing.B) {
	l := openLog(b, memstore.New(), nil)
	for i := 0; i < 100_000; i += 500 {
		var es []audit.Event
		for j := range 500 {
			e := event300()
			e.Targets = []audit.Target{{Type: "customer", ID: fmt.Sprint((i + j) % 2000)}}
			es = append(es, e)
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			b.Fatal(err)
		}
	}
	f := audit.Filter{TargetType: "customer", TargetID: "77"}
	for b.Loop() {
		if es, err := l.Query(ctx, f, l.Size(), 50); err != nil || len(es) != 50 {
			b.Fatal(len(es), err)
		}
	}
}

// BenchmarkInclusion makes proofs at random of a tree whose tiles are at hand.
func BenchmarkInclusion(b *testing.B) {
	l := openLog(b, memstore.New(), nil)
	es := make([]audit.Event, 1000)
	for i := range es {
		es[i] = read(i)
	}
	for range 200 {
		if _, err := l.AppendAll(ctx, es); err != nil {
			b.Fatal(err)
		}
	}
	tree := l.Tree()
	size := tree.Checkpoint().Size
	for i := uint64(0); i < size; i += 256 {
		if _, err := tree.Inclusion(ctx, i); err != nil {
			b.Fatal(err)
		}
	}
	i := uint64(0)
	for b.Loop() {
		i = (i*6364136223846793005 + 1442695040888963407) % size
		if _, err := tree.Inclusion(ctx, i); err != nil {
			b.Fatal(err)
		}
	}
}
