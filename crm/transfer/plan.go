package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// plan is one passage over a file.
type plan[P guard.Record] struct {
	m        *Importer[P]
	c        guard.Caller
	job      *Import // as it is stored, or will be; only the writing goroutine reads it
	id       crm.ID[Import]
	person   crm.ID[crm.Person]
	mode     Mode
	start    int64  // rows that are done with
	seen     string // their fingerprint
	read     *reader[P]
	print    hash.Hash // of the rows so far
	keys     map[uint64]struct{}
	rehearse bool
	before   [inFlight][]P // new records of the batches that may not be stored yet when the next one is checked, for the Checker
}

func (m *Importer[P]) plan(c guard.Caller, job *Import, src Source, mapping *Mapping, salt []byte) (*plan[P], error) {
	r, err := newReader(&m.layout, mapping, src.Header())
	if err != nil {
		return nil, err
	}
	if job.Mode != Create && r.key < 0 {
		return nil, fmt.Errorf("%w: an update needs a key", ErrMapping)
	}
	return &plan[P]{m: m, c: c, job: job, id: job.ID, person: job.Person, mode: job.Mode, start: job.Position, seen: job.Seen, read: r, print: hmac.New(sha256.New, salt), keys: map[uint64]struct{}{}}, nil
}

// Bounds of a batch: what fits into one transaction with the rows that were rejected, and what is held in memory.
const (
	batchRows  = 900
	batchPairs = 450 // rows that change records need two writes
	batchBytes = 4 << 20
)

// inFlight is how many batches may be on their way between the check and the store: one is sealed, one waits, one is written.
const inFlight = 3

// batch is what is stored in one transaction.
type batch[P guard.Record] struct {
	from     int64 // rows before it
	rows     []Row
	errs     []*RowError // of rows that could not be read
	bytes    int
	print    string
	fresh    []P        // new records
	of       []int      // the row of each
	old      []int      // rows that change a record
	ids      []crm.UUID // that record
	tx       *guard.Tx
	made     map[crm.UUID]int // which row made a record that is in tx
	kept     map[crm.UUID]crm.UUID
	matched  map[crm.UUID]guard.Band // how surely a record that was made was there already
	erased   map[crm.UUID]bool       // which of them have a term of somebody who was erased
	unasked  map[crm.UUID]bool       // about which the Checker or the Eraser was not asked any more
	changed  map[crm.UUID]bool
	counts   Counts
	rejected []Rejected
	err      error // that ended the reading
}

func (b *batch[P]) reject(i int, reasons ...Reason) {
	r := Rejected{Row: b.from + int64(i) + 1, Line: b.rows[i].Line, Reasons: reasons, Cells: b.rows[i].Cells}
	b.rejected = append(b.rejected, r)
}

// run reads, checks, seals and writes, each in a goroutine of its own: while one batch is written the next is sealed, the one behind it checked and a fourth read.
func (p *plan[P]) run(ctx context.Context, src Source, done func(*batch[P]) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	read, checked, sealed := make(chan *batch[P]), make(chan *batch[P]), make(chan *batch[P], 1)
	all.Go(func() {
		defer close(read)
		p.batches(ctx, src, read)
	})
	step := func(from <-chan *batch[P], to chan<- *batch[P], do func(context.Context, *batch[P]) error) {
		all.Go(func() {
			defer close(to)
			for b := range from {
				if len(b.rows) > 0 {
					if err := do(ctx, b); err != nil {
						b.err, b.rows, b.tx = err, nil, nil
					}
				}
				select {
				case to <- b:
				case <-ctx.Done():
					return
				}
				if b.err != nil {
					return
				}
			}
		})
	}
	step(read, checked, p.prepare)
	step(checked, sealed, p.seal)
	for b := range sealed {
		if len(b.rows) > 0 {
			if err := p.write(ctx, b); err != nil {
				return err
			}
			if done != nil {
				if err := done(b); err != nil {
					return err
				}
			}
			if p.m.o.Progress != nil {
				p.m.o.Progress(p.job.Counts())
			}
		}
		if b.err != nil {
			return b.err
		}
	}
	return ctx.Err()
}

// batches reads the file, passes over what is done with, and cuts the rest into batches.
func (p *plan[P]) batches(ctx context.Context, src Source, out chan<- *batch[P]) {
	most := batchRows
	if p.mode != Create {
		most = batchPairs
	}
	start := p.start
	n := int64(0)
	b := &batch[P]{from: start}
	send := func() bool {
		b.print = hex.EncodeToString(p.print.Sum(nil))
		select {
		case out <- b:
			b = &batch[P]{from: n}
			return true
		case <-ctx.Done():
			return false
		}
	}
	fail := func(err error) {
		b.err = err
		send()
	}
	compared := start == 0
	for row, err := range steady(src) {
		var re *RowError
		if err != nil && !errors.As(err, &re) {
			fail(err)
			return
		}
		n++
		p.fingerprint(&row, re)
		if n <= start {
			if p.read.key >= 0 && re == nil {
				p.repeated(&row)
			}
			if n == start {
				if compared = hex.EncodeToString(p.print.Sum(nil)) == p.seen; !compared {
					fail(ErrOther)
					return
				}
			}
			continue
		}
		b.rows, b.errs = append(b.rows, row), append(b.errs, re)
		for _, cell := range row.Cells {
			b.bytes += len(cell)
		}
		if (len(b.rows) == most || b.bytes > batchBytes) && !send() {
			return
		}
	}
	if !compared {
		fail(ErrOther)
		return
	}
	if len(b.rows) > 0 {
		send()
	}
}

// fingerprint takes a row into the fingerprint of the file.
func (p *plan[P]) fingerprint(row *Row, re *RowError) {
	var n [8]byte
	put := func(s string) {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		p.print.Write(n[:])
		p.print.Write([]byte(s))
	}
	if re != nil {
		put(re.Error())
	}
	binary.BigEndian.PutUint64(n[:], uint64(len(row.Cells)))
	p.print.Write(n[:])
	for _, c := range row.Cells {
		put(c)
	}
}

// repeated notes the key of a row and tells whether one before it has the same.
func (p *plan[P]) repeated(row *Row) bool {
	key := p.read.cells[p.read.key].text(row)
	if key == "" {
		return false
	}
	sum := sha256.Sum256([]byte(key))
	h := binary.BigEndian.Uint64(sum[:])
	_, twice := p.keys[h]
	p.keys[h] = struct{}{}
	return twice
}
