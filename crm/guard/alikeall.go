package guard

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Blocker is a Matcher that can go over all records.
type Blocker[P any] interface {
	Matcher[P]
	// Blocks are terms of v. Two records are compared when they share one. They never leave the process.
	Blocks(v P) []string
}

// AlikeOptions of AlikeAll. Nil means the zero value of each field.
type AlikeOptions struct {
	Dir      string                  // for temporary files; "": that of the system
	Memory   int                     // bytes for sorting, about; 0: 64 MiB
	Block    int                     // records of a block that are compared with each other; 0: 50. Larger blocks are counted and left out
	Progress func(done, total int64) // records read, then pairs compared after all of them; nil: nobody is told
}

// Pair is two records that are one thing.
type Pair struct {
	A, B  crm.UUID
	Band  Band
	Score float64
	Why   []string
}

// AlikeReport is what AlikeAll did.
type AlikeReport struct {
	Rows      int64 // records read
	Skipped   int64 // that the policy does not let the caller compare
	Blocks    int64 // with two records or more
	Large     int64 // of them left out because they are too large
	LargeRows int64 // places in these
	Largest   int64 // records in the largest
	Compared  int64 // pairs, each once
	Likely    int64
	Certain   int64
}

// AlikeAll finds all pairs of living records that m takes for one thing, and gives each to found, never two at once, in no particular order. It is for
// who may check and read any record of the type; others get an *authz.DeniedError with the control check.all.
//
// It reads all records in pages, opens the fields of m, and writes 24 bytes for each block of a record to temporary files: a keyed hash of the block, under a random key that
// ends with the call, and the record's id. These are sorted; what shares a block is opened again and compared. Each page, and each batch of
// pairs, is an event before it is opened: that of a page has its number of records, its first and its last id, that of pairs names all of them. Memory does not grow with the
// number of records. What is written meanwhile may be missed or seen as it was. A record that does not authenticate ends it: ErrForged.
func (r *Records[P]) AlikeAll(ctx context.Context, c Caller, m Blocker[P], opts *AlikeOptions, found func(Pair) error) (AlikeReport, error) {
	var o AlikeOptions
	if opts != nil {
		o = *opts
	}
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	if o.Block == 0 {
		o.Block = 50
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	var rep AlikeReport
	sample, err := r.sample(ctx, c, r.g.decider(c, authz.Check))
	if err != nil {
		return rep, err
	}
	denial := sample.Proceed(c.met()...)
	if all, err := r.readsAll(ctx, c); err != nil {
		return rep, err
	} else if denial == nil && !all {
		denial = Deny("check.all")
	}
	if denial != nil {
		return rep, errors.Join(denial, r.deny(ctx, c, authz.Check, nil, sample))
	}
	b := &batch[P]{r: r, c: c, m: m, o: o, rep: &rep, sample: sample, key: make([]byte, 32)}
	_, _ = rand.Read(b.key) // it never fails
	return rep, b.run(ctx, found)
}

// batch is one AlikeAll.
type batch[P Record] struct {
	r      *Records[P]
	c      Caller
	m      Blocker[P]
	o      AlikeOptions
	rep    *AlikeReport
	sample authz.Decision
	key    []byte
	total  int64

	mu sync.Mutex // of rep and of what workers write to
}

// sizes of what is spilled: a block's key and an id; two ids.
const (
	entrySize = 8 + 16
	pairSize  = 16 + 16
)

func (b *batch[P]) run(ctx context.Context, found func(Pair) error) error {
	entries := newSorter(b.o.Dir, entrySize, b.o.Memory)
	pairs := newSorter(b.o.Dir, pairSize, b.o.Memory)
	defer entries.close()
	defer pairs.close()
	var err error
	if b.total, err = b.r.g.store.Count(ctx, crm.Query{Tenant: b.c.Subject.Tenant, Type: b.r.typ, Where: crm.Everything{}}); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := b.read(ctx, entries); err != nil {
		return err
	}
	if err := b.block(ctx, entries, pairs); err != nil {
		return err
	}
	entries.close()
	return b.compare(ctx, pairs, found)
}

// workers lets several goroutines do the jobs that produce sends, and returns the first error.
func workers[J any](ctx context.Context, produce func(ctx context.Context, jobs chan<- J) error, do func(ctx context.Context, j J) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := min(runtime.GOMAXPROCS(0), 4)
	jobs := make(chan J, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for j := range jobs {
				if ctx.Err() == nil {
					if err := do(ctx, j); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	err := produce(ctx, jobs)
	close(jobs)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// send gives a job to a worker.
func send[J any](ctx context.Context, jobs chan<- J, j J) error {
	select {
	case jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read goes over all records and spills their blocks.
func (b *batch[P]) read(ctx context.Context, entries *sorter) error {
	return workers(ctx, func(ctx context.Context, jobs chan<- []crm.Row) error {
		q := crm.Query{Tenant: b.c.Subject.Tenant, Type: b.r.typ, Where: crm.Everything{}, Limit: MaxBatch}
		for {
			page, err := b.r.g.store.List(ctx, q)
			if err != nil {
				return fmt.Errorf("guard: %w", err)
			}
			if len(page.Rows) > 0 {
				if err := send(ctx, jobs, page.Rows); err != nil {
					return err
				}
			}
			if q.After = page.Next; page.Next == "" {
				return nil
			}
		}
	}, func(ctx context.Context, rows []crm.Row) error {
		ids := make([]crm.UUID, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID
		}
		list, err := b.open(ctx, ids, rows, false)
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, b.key)
		var out []byte
		var sum [sha256.Size]byte
		for _, k := range list {
			for _, term := range b.m.Blocks(k.value) {
				mac.Reset()
				mac.Write([]byte(term))
				out = append(append(out, mac.Sum(sum[:0])[:8]...), k.row.ID[:]...)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.rep.Rows += int64(len(rows))
		b.rep.Skipped += int64(len(rows) - len(list))
		b.o.Progress(b.rep.Rows, max(b.total, b.rep.Rows))
		return entries.add(out)
	})
}

// open checks rows, decides on them, logs and opens what is compared. rows may be nil: they are loaded. Each row is named when named.
func (b *batch[P]) open(ctx context.Context, ids []crm.UUID, rows []crm.Row, named bool) ([]*candidate[P], error) {
	tenant := b.c.Subject.Tenant
	var err error
	return again(func() ([]*candidate[P], error) {
		if rows == nil {
			if rows, err = b.r.g.store.Load(ctx, tenant, b.r.typ, ids); err != nil {
				return nil, fmt.Errorf("guard: %w", err)
			}
			rows = slices.DeleteFunc(rows, func(row crm.Row) bool { return row.Version == 0 || row.Deleted })
		}
		if err := b.r.authentic(ctx, tenant, rows); err != nil {
			return nil, err
		}
		d := b.r.g.decider(b.c, authz.Check)
		list := make([]*candidate[P], 0, len(rows))
		checks := make([]authz.Decision, 0, len(rows))
		for i := range rows {
			dec, err := d.decide(ctx, b.r.resource(&rows[i]))
			if err != nil {
				return nil, err
			}
			if dec.Proceed(b.c.met()...) == nil {
				list, checks = append(list, &candidate[P]{row: rows[i]}), append(checks, dec)
			}
		}
		e := b.c.event(b.r.typ, authz.Check, b.sample)
		e.Action, e.Count = b.r.typ+".check_all", int64(len(list))
		fields := map[string]bool{}
		for i, s := range b.r.showings(checks) {
			if i == 0 || s != list[i-1].compared {
				list[i].names = b.r.compares(b.m, s)
				for _, n := range list[i].names {
					if !fields[n] {
						fields[n] = true
						e.Fields = append(e.Fields, n+":compared")
					}
				}
			} else {
				list[i].names = list[i-1].names
			}
			list[i].compared = s
			if named || i == 0 || i == len(list)-1 {
				e.Targets = append(e.Targets, audit.Target{Type: b.r.typ, ID: list[i].row.ID.String(), Version: uint64(list[i].row.Version)})
			}
		}
		if len(list) > 0 {
			if _, err := b.r.g.log.Append(ctx, e); err != nil {
				return nil, fmt.Errorf("guard: no log, no data: %w", err)
			}
		}
		err := b.r.openFor(ctx, list)
		if errors.Is(err, encrypt.ErrRetired) {
			rows = nil // the row is under a newer key by now
		}
		return list, err
	})
}

// block makes pairs of what shares a block.
func (b *batch[P]) block(ctx context.Context, entries, pairs *sorter) error {
	var key [8]byte
	var ids [][16]byte // of the block, at most one more than are compared
	n := int64(0)      // records in it
	end := func() error {
		if n < 2 {
			return nil
		}
		b.rep.Blocks++
		b.rep.Largest = max(b.rep.Largest, n)
		if len(ids) > b.o.Block {
			b.rep.Large++
			b.rep.LargeRows += n
			return nil
		}
		var out []byte
		for i, x := range ids {
			for _, y := range ids[i+1:] { // ascending, as they are sorted
				out = append(append(out, x[:]...), y[:]...)
			}
		}
		return pairs.add(out)
	}
	err := entries.each(ctx, func(e []byte) error {
		if n > 0 && !bytes.Equal(e[:8], key[:]) {
			if err := end(); err != nil {
				return err
			}
			ids, n = ids[:0], 0
		}
		copy(key[:], e)
		n++
		if len(ids) <= b.o.Block {
			ids = append(ids, [16]byte(e[8:]))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return end()
}

// compare opens the records of the pairs again, many at a time.
func (b *batch[P]) compare(ctx context.Context, pairs *sorter, found func(Pair) error) error {
	type job struct {
		ids   []crm.UUID
		pairs [][2]crm.UUID
	}
	total := pairs.n // with those that several blocks have
	seen := int64(0)
	return workers(ctx, func(ctx context.Context, jobs chan<- job) error {
		j := job{}
		in := map[crm.UUID]bool{}
		err := pairs.each(ctx, func(e []byte) error {
			p := [2]crm.UUID{crm.UUID(e[:16]), crm.UUID(e[16:])}
			j.pairs = append(j.pairs, p)
			for _, id := range p {
				if !in[id] {
					in[id] = true
					j.ids = append(j.ids, id)
				}
			}
			if len(j.ids) < MaxBatch-1 {
				return nil
			}
			full := j
			j = job{}
			clear(in)
			return send(ctx, jobs, full)
		})
		if err == nil && len(j.pairs) > 0 {
			err = send(ctx, jobs, j)
		}
		return err
	}, func(ctx context.Context, j job) error {
		list, err := b.open(ctx, j.ids, nil, true)
		if err != nil {
			return err
		}
		of := make(map[crm.UUID]*candidate[P], len(list))
		for _, k := range list {
			of[k.row.ID] = k
		}
		var out []Pair
		for _, p := range j.pairs {
			x, y := of[p[0]], of[p[1]]
			if x == nil || y == nil { // deleted meanwhile
				continue
			}
			access := x.compared.access
			if y.compared != x.compared {
				access = lower(access, y.compared.access)
			}
			if v := b.m.Compare(x.value, y.value, access); v.Band != Unlike {
				out = append(out, Pair{A: p[0], B: p[1], Band: v.Band, Score: v.Score, Why: v.Why})
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range out {
			if p.Band == Certain {
				b.rep.Certain++
			} else {
				b.rep.Likely++
			}
			if err := found(p); err != nil {
				return err
			}
		}
		b.rep.Compared += int64(len(j.pairs))
		seen += int64(len(j.pairs))
		b.o.Progress(b.rep.Rows+seen, b.rep.Rows+max(total, seen))
		return nil
	})
}

// lower is the lesser access of two to each field.
func lower(a, b map[string]Access) map[string]Access {
	out := make(map[string]Access, len(a))
	for name, x := range a {
		out[name] = min(x, b[name])
	}
	return out
}
