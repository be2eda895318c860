package auditbench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// heap returns the live bytes after a collection, in MiB.
func heap() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// perSecond returns how often f, which does n things, does one in a second of processor time; the
// best of three.
func perSecond(n int, f func() error) (best float64, err error) {
	for range 3 {
		cpu := measure.ProcessorTime()
		if err := f(); err != nil {
			return 0, err
		}
		best = max(best, float64(n)/(measure.ProcessorTime()-cpu).Seconds())
	}
	return best, nil
}

// Large writes a log of so many events and measures memory on the way, verification, proofs and queries.
func Large(ctx context.Context, out io.Writer, dir string, events int) error {
	store, err := filestore.Open(dir, nil)
	if err != nil {
		return err
	}
	s, err := signer()
	if err != nil {
		return err
	}
	sealer := audittest.NewSealer()
	l, err := audit.Open(ctx, store, s, &audit.Options{Sealer: sealer})
	if err != nil {
		return err
	}
	defer l.Close()
	const batch = 256
	fmt.Fprintf(out, "\na log of %d events of %d bytes in batches of %d\n\n", events, size, batch)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "events\tlive heap MiB\twhile\t")
	es := make([]audit.Event, batch)
	start := time.Now()
	for n, mark := 1, events/8; n < events; {
		k := min(batch, events-n)
		for i := range es[:k] {
			es[i] = event(n + i)
		}
		if _, err := l.AppendAll(ctx, es[:k]); err != nil {
			return err
		}
		if n += k; n >= mark {
			fmt.Fprintf(tw, "%d\t%.1f\tgrowing\t\n", n, heap())
			mark += events / 8
		}
	}
	grew := time.Since(start)
	pin, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	opts := &audit.VerifyOptions{Pins: [][]byte{pin.Note}}
	mark := uint64(events / 4)
	opts.Progress = func(done uint64) {
		if done >= mark {
			fmt.Fprintf(tw, "%d\t%.1f\tverified, with the open log\t\n", done, heap())
			mark += uint64(events / 4)
		}
	}
	verify := func() error {
		v, err := audit.Verify(ctx, store, []string{s.VerifierKey()}, opts)
		if err == nil && (v.State != audit.Pinned || v.Size != uint64(events)) {
			err = fmt.Errorf("verdict %v", v)
		}
		return err
	}
	if err := verify(); err != nil {
		return err
	}
	opts.Progress = nil
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "written in %v\n\n", grew.Round(time.Second))

	tw = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tin a second of one processor")
	line := func(what string, n int, f func() error) error {
		rate, err := perSecond(n, f)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Fprintf(tw, "%s\t%.0f\n", what, rate)
		return nil
	}
	floor := make([]byte, 1+size)
	var chain [65]byte
	if err := line("the hashes alone: leaf, chain and node of an event", 300_000, func() error {
		for range 300_000 {
			leaf := sha256.Sum256(floor)
			copy(chain[33:], leaf[:])
			head := sha256.Sum256(chain[:])
			copy(chain[1:], head[:])
			node := tlog.NodeHash(leaf, head)
			floor[1] = node[0]
		}
		return nil
	}); err != nil {
		return err
	}
	if err := line("events verified, hashes, chain, tree and checkpoints", events, verify); err != nil {
		return err
	}
	if err := line("events read and indexed by Open", events, func() error {
		l.Close()
		var err error
		l, err = audit.Open(ctx, store, s, &audit.Options{Sealer: sealer})
		return err
	}); err != nil {
		return err
	}
	if err := openings(ctx, line, dir+"-openings", s); err != nil {
		return err
	}

	tree := l.Tree()
	c := tree.Checkpoint()
	const proofs = 100_000
	index := make([]uint64, proofs)
	kept := make([]tlog.RecordProof, proofs)
	leaf := make([]tlog.Hash, proofs)
	prove := func() error {
		for i := range index {
			p, err := tree.Inclusion(ctx, index[i])
			if err != nil {
				return err
			}
			kept[i] = p
		}
		return nil
	}
	for i := range index {
		index[i] = rand.Uint64N(c.Size)
	}
	// Once to have the tiles at hand; a log of more than a million events does not keep them all.
	if err := prove(); err != nil {
		return err
	}
	if err := line("inclusion proofs made, at random", proofs, prove); err != nil {
		return err
	}
	if err := line("the same by package tlog alone, all hashes in memory", proofs, memory(int64(c.Size), index)); err != nil {
		return err
	}
	for i := range index {
		hs, err := tree.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index[i]))})
		if err != nil {
			return err
		}
		leaf[i] = hs[0]
	}
	if err := line("inclusion proofs checked", proofs, func() error {
		for i := range index {
			if err := tlog.CheckRecord(kept[i], int64(c.Size), c.Root, int64(index[i]), leaf[i]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := line("consistency proofs made", 20_000, func() error {
		for range 20_000 {
			if _, err := tree.Consistency(ctx, 1+rand.Uint64N(c.Size)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := line("receipts made, with event and checkpoint", 2000, func() error {
		for range 2000 {
			if _, err := tree.Receipt(ctx, rand.Uint64N(c.Size)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, back := range []int{1000, events / 2, events - 1000} {
		id := event(max(1, events-back)).Targets[0].ID
		if err := line(fmt.Sprintf("queries for one record that was touched once, %d events ago", back), 5, func() error {
			for range 5 {
				es, err := l.Query(ctx, audit.Filter{TargetType: "customer", TargetID: id}, l.Size(), 10)
				if err != nil || len(es) != 1 {
					return fmt.Errorf("%d entries, %v", len(es), err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "live heap at the end, with the tiles of the proofs: %.1f MiB\n", heap())
	return os.RemoveAll(dir)
}

// openings verifies a smaller log in which each event has an opening, with the keys and without.
func openings(ctx context.Context, line func(string, int, func() error) error, dir string, s audit.Signer) error {
	const events = 100_000
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		return err
	}
	sealer := audittest.NewSealer()
	l, err := audit.Open(ctx, store, s, &audit.Options{Sealer: sealer})
	if err != nil {
		return err
	}
	es := make([]audit.Event, 250)
	for n := 0; n < events; n += len(es) {
		for i := range es {
			es[i] = event(n + i)
			es[i].Note = ""
			es[i].Details = []audit.Detail{audit.Personal("address", [16]byte{byte(i)}, "192.0.2.7, and a browser")}
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			return err
		}
	}
	pin, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	for _, c := range []struct {
		what string
		s    audit.Sealer
	}{{"events with an opening verified, unopened", nil}, {"events with an opening verified, opened with AES-GCM", sealer}} {
		if err := line(c.what, events, func() error {
			v, err := audit.Verify(ctx, store, []string{s.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{pin.Note}, Sealer: c.s})
			if err == nil && v.State != audit.Pinned {
				err = fmt.Errorf("verdict %v", v)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// memory makes the same proofs over hashes that lie in memory, of other leaves: what package tlog costs.
func memory(size int64, index []uint64) func() error {
	all := make([]tlog.Hash, tlog.StoredHashCount(size))
	reader := tlog.HashReaderFunc(func(list []int64) ([]tlog.Hash, error) {
		hs := make([]tlog.Hash, len(list))
		for i, x := range list {
			hs[i] = all[x]
		}
		return hs, nil
	})
	return func() error {
		for _, i := range index {
			if _, err := tlog.ProveRecord(size, int64(i), reader); err != nil {
				return err
			}
		}
		return nil
	}
}
