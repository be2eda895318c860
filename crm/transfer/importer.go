package transfer

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Checker says how surely the record of a row is there already. *dedupe.Checker is one. What it says stands in the report of the import: one whose rules tell of records that the caller may not
// read makes every import a question about them.
type Checker[P guard.Record] interface {
	// Bands answers for each of vs, none of which is stored: how like it is to what is stored, as far as the caller may know of that, and to before and the ones
	// before it in vs, which will be.
	Bands(ctx context.Context, c guard.Caller, before, vs []P) ([]guard.Band, error)
}

// OnMatch says what an import does with a row that the Checker takes for a record that is there. Updates are found by their keys and not checked.
type OnMatch string

// What is done with matches.
const (
	SkipMatches   OnMatch = "skip"   // a certain one is rejected as repeated, a likely one is created and counted as Matched; who may ask no more cannot go on
	ReportMatches OnMatch = "report" // it is created, counted as Matched and listed; when the caller may ask no more (guard.ErrQuota), the others are counted as Unchecked
)

// Eraser says which new records have a term, such as a phone number, of somebody who was erased. *privacy.Checker is one.
type Eraser[P guard.Record] interface {
	// Erased answers for each of vs. a is "import".
	Erased(ctx context.Context, c guard.Caller, a guard.Action, vs []P) ([]bool, error)
}

// OnErased says what an import does with a row of somebody who was erased. Updates are found by their keys and not checked.
type OnErased string

// What is done with the erased.
const (
	WarnErased   OnErased = "warn"   // it is created, counted as Erased and listed; when the caller may ask no more (guard.ErrQuota), the others are counted as Unchecked
	RefuseErased OnErased = "refuse" // it is rejected as erased, without a field; who may ask no more cannot go on
	IgnoreErased OnErased = "off"    // nobody is asked
)

// Options of NewImporter. Nil means the zero value of each field.
type Options[P guard.Record] struct {
	Clock    func() time.Time // nil: time.Now
	Checker  Checker[P]       // nil: nobody looks for records that are the same
	OnMatch  OnMatch          // "": SkipMatches
	Eraser   Eraser[P]        // nil: nobody knows the erased again
	OnErased OnErased         // "": WarnErased
	Progress func(Counts)     // called behind each batch, when it is durable; nil: nobody hears it
	// Owner and Team have the records and the import where neither a row nor the caller is an employee: a program imports in somebody's name.
	Owner crm.ID[crm.Employee]
	Team  string
	// Beside is what the program needs to go on with an import that Begin stores, such as where the file lies and its key. It is kept sealed under the import's own person and never
	// shown; see Beside of Importer. "": nothing.
	Beside string
}

// Doors are the doors that every import needs beside that of its type.
type Doors struct {
	Guard   *guard.Guard
	Imports *guard.Records[*Import]
	Kept    *guard.Records[*Kept]
}

// OpenDoors makes the doors of imports.
func OpenDoors(ctx context.Context, g *guard.Guard) (Doors, error) {
	d := Doors{Guard: g}
	var err error
	if d.Imports, err = guard.For[*Import](ctx, g, nil); err != nil {
		return d, err
	}
	d.Kept, err = guard.For[*Kept](ctx, g, nil)
	return d, err
}

// Importer imports records of one type. It is safe for concurrent use; each import is one at a time.
type Importer[P guard.Record] struct {
	doors   Doors
	records *guard.Records[P]
	layout  Layout[P]
	o       Options[P]
}

// NewImporter makes one; opts may be nil.
func NewImporter[P guard.Record](d Doors, records *guard.Records[P], layout Layout[P], opts *Options[P]) *Importer[P] {
	m := &Importer[P]{doors: d, records: records, layout: layout}
	if opts != nil {
		m.o = *opts
	}
	if m.o.Clock == nil {
		m.o.Clock = time.Now
	}
	if m.o.OnMatch == "" {
		m.o.OnMatch = SkipMatches
	}
	if m.o.OnErased == IgnoreErased {
		m.o.Eraser = nil
	}
	return m
}

// Rejected is one row that was not stored.
type Rejected struct {
	Row     int64    `json:"row"`  // of the file, from 1
	Line    int64    `json:"line"` // where it begins
	Reasons []Reason `json:"reasons"`
	Cells   []string `json:"cells,omitempty"` // nil where the row could not be read
}

// Report is what a rehearsal found.
type Report struct {
	Counts
	Reasons  map[string]int64 // how many rows were rejected for what: "field:rule"
	Rejected []Rejected       // the first thousand
	Matched  []Matched        // likewise
	Erased   []Erased         // likewise
}

// Matched is one row that was created although the Checker takes it for a record that is there.
type Matched struct {
	Row  int64  `json:"row"`  // of the file, from 1
	Line int64  `json:"line"` // where it begins
	Band string `json:"band"` // likely or certain
}

// Erased is one row that was created although it has a term of somebody who was erased.
type Erased struct {
	Row  int64 `json:"row"`  // of the file, from 1
	Line int64 `json:"line"` // where it begins
}

// maxReported is how many rejected rows a Report holds.
const maxReported = 1000

// keptMapping is what an import keeps of its mapping: Salt keeps the fingerprint of the rows from being guessed.
type keptMapping struct {
	Mapping Mapping `json:"mapping"`
	Salt    []byte  `json:"salt"`
}

// digest fingerprints what an import is about.
func (m *Importer[P]) digest(salt []byte, header []string, mapping *Mapping) string {
	b, _ := json.Marshal(struct {
		Type    string
		Header  []string
		Mapping *Mapping
	}{m.records.Type(), header, mapping})
	mac := hmac.New(sha256.New, salt)
	mac.Write(b)
	return hex.EncodeToString(mac.Sum(nil))
}

// Rehearse does all that Run would, batch by batch, and has the store take each back: the report is what would happen. Keys that appear twice in the file are seen; a unique
// value that two batches share is not, and of rows that are like each other only those are that are at most two batches (of 900 rows) apart. Errors: ErrFile, ErrMapping, those of guard.
func (m *Importer[P]) Rehearse(ctx context.Context, c guard.Caller, src Source, mapping Mapping, mode Mode) (Report, error) {
	rep := Report{Reasons: map[string]int64{}}
	job := &Import{Mode: mode}
	job.ID = crm.NewID[Import]()
	job.Person = crm.NewID[crm.Person]()
	p, err := m.plan(c, job, src, &mapping, make([]byte, sha256.Size))
	if err != nil {
		return rep, err
	}
	p.rehearse = true
	err = p.run(ctx, src, func(b *batch[P]) error {
		job.count(b.rejected)
		rep.Rejected = append(rep.Rejected, b.rejected[:min(len(b.rejected), maxReported-len(rep.Rejected))]...)
		same := b.same()
		rep.Matched = append(rep.Matched, same[:min(len(same), maxReported-len(rep.Matched))]...)
		gone := b.gone()
		rep.Erased = append(rep.Erased, gone[:min(len(gone), maxReported-len(rep.Erased))]...)
		return nil
	})
	rep.Counts, rep.Reasons = job.Counts(), job.ByReason()
	return rep, err
}

// Run imports a file. name is the file's, "" for none. The import that it returns is stored, and so is all that it counts, also beside an error: Resume goes on with it.
// Errors: ErrFile, ErrMapping, those of guard.
func (m *Importer[P]) Run(ctx context.Context, c guard.Caller, name string, src Source, mapping Mapping, mode Mode) (*Import, error) {
	job, err := m.Begin(ctx, c, name, src.Header(), mapping, mode)
	if err != nil {
		return nil, err
	}
	return m.Resume(ctx, c, job.ID, src)
}

// Begin stores an import that Resume carries out.
func (m *Importer[P]) Begin(ctx context.Context, c guard.Caller, name string, header []string, mapping Mapping, mode Mode) (*Import, error) {
	if _, err := newReader(&m.layout, &mapping, header); err != nil {
		return nil, err
	}
	if mode != Create && mapping.Key == "" {
		return nil, fmt.Errorf("%w: an update needs a key", ErrMapping)
	}
	salt := make([]byte, sha256.Size)
	_, _ = rand.Read(salt) // it never fails
	text, err := json.Marshal(keptMapping{Mapping: mapping, Salt: salt})
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	job := &Import{
		RecordType: m.records.Type(), Name: crm.NewText(name), Mapping: crm.NewText(string(text)), Mode: mode, State: Running,
		Digest: m.digest(salt, header, &mapping),
	}
	m.owned(c, &job.Owner, &job.Team)
	if m.o.Beside == "" {
		if _, err := m.doors.Imports.Create(ctx, c, job); err != nil {
			return nil, err
		}
		return job, nil
	}
	job.ID, job.Person = crm.NewID[Import](), crm.NewID[crm.Person]()
	tx := m.doors.Guard.Begin(c, crm.TypeImport+".create")
	if err := m.doors.Imports.CreateIn(ctx, tx, job); err != nil {
		return nil, err
	}
	k := &Kept{Import: job.ID, Kind: keptBeside, Values: crm.NewText(m.o.Beside)}
	k.ID, k.Person = crm.ID[Kept](derived(job.ID.UUID(), keptBeside, 0)), job.Person
	m.owned(c, &k.Owner, &k.Team)
	if err := m.doors.Kept.CreateIn(ctx, tx, k); err != nil {
		return nil, err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	return job, nil
}

// Beside returns what the program kept with an import, see Options: crm.ErrNotFound when that is nothing, was kept for longer than KeepRejected, or is not the caller's.
func Beside(ctx context.Context, d Doors, c guard.Caller, id crm.ID[Import]) (string, error) {
	v, err := d.Kept.Get(ctx, c, derived(id.UUID(), keptBeside, 0))
	if err != nil {
		return "", err
	}
	if v.Value.Values.State() != crm.Clear {
		return "", crm.ErrNotFound
	}
	return v.Value.Values.Expose(), nil
}

// owned sets owner and team where the caller is no employee.
func (m *Importer[P]) owned(c guard.Caller, owner *crm.ID[crm.Employee], team *string) {
	if _, err := crm.ParseUUID(c.Subject.ID); err != nil && owner.IsZero() {
		*owner = m.o.Owner
		if *team == "" {
			*team = m.o.Team
		}
	}
}

// Resume goes on with an import that was begun, with the same file from its begin: the rows that are done with are compared and passed over. Errors are those of Run, ErrOther, and a
// *crm.TransitionError for an import that is over.
func (m *Importer[P]) Resume(ctx context.Context, c guard.Caller, id crm.ID[Import], src Source) (*Import, error) {
	v, err := m.doors.Imports.Get(ctx, c, id.UUID())
	if err != nil {
		return nil, err
	}
	job := v.Value
	if job.State != Running || job.RecordType != m.records.Type() {
		return nil, &crm.TransitionError{Type: crm.TypeImport, From: string(job.State), To: string(Done)}
	}
	var kept keptMapping
	if err := json.Unmarshal([]byte(job.Mapping.Expose()), &kept); err != nil || job.Mapping.State() != crm.Clear {
		return nil, ErrOther
	}
	if m.digest(kept.Salt, src.Header(), &kept.Mapping) != job.Digest {
		return nil, ErrOther
	}
	p, err := m.plan(c, job, src, &kept.Mapping, kept.Salt)
	if err != nil {
		return nil, err
	}
	if err := p.run(ctx, src, nil); err != nil {
		return job, err
	}
	tx := m.doors.Guard.Begin(c, crm.TypeImport+".done")
	if err := p.store(ctx, tx, func(i *Import) { i.State, i.FinishedAt = Done, m.o.Clock().UTC() }); err != nil {
		return job, err
	}
	_, err = tx.Commit(ctx)
	return job, err
}

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
	before   [2][]P // new records of the two batches that may not be stored yet when the next one is prepared, for the Checker
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

// batch is what is stored in one transaction.
type batch[P guard.Record] struct {
	from     int64 // rows before it
	rows     []Row
	errs     []*RowError // of rows that could not be read
	bytes    int
	print    string
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

// run reads, seals and writes, each in a goroutine of its own: while one batch is written the next is sealed and the one behind it read.
func (p *plan[P]) run(ctx context.Context, src Source, done func(*batch[P]) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	read, sealed := make(chan *batch[P]), make(chan *batch[P], 1)
	all.Go(func() {
		defer close(read)
		p.batches(ctx, src, read)
	})
	all.Go(func() {
		defer close(sealed)
		for b := range read {
			if b.err == nil || len(b.rows) > 0 {
				if err := p.prepare(ctx, b); err != nil {
					b.err, b.rows, b.tx = err, nil, nil
				}
			}
			select {
			case sealed <- b:
			case <-ctx.Done():
				return
			}
			if b.err != nil {
				return
			}
		}
	})
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

// prepare decides on the rows of a batch and seals what is to be written.
func (p *plan[P]) prepare(ctx context.Context, b *batch[P]) error {
	m := p.m
	b.tx = m.doors.Guard.Begin(p.c, m.records.Type()+".import")
	b.made, b.kept, b.changed = map[crm.UUID]int{}, map[crm.UUID]crm.UUID{}, map[crm.UUID]bool{}
	b.matched, b.erased, b.unasked = map[crm.UUID]guard.Band{}, map[crm.UUID]bool{}, map[crm.UUID]bool{}
	var good []int
	for i := range b.rows {
		if re := b.errs[i]; re != nil {
			b.reject(i, re.Reasons...)
			continue
		}
		if p.read.key >= 0 {
			if p.read.cells[p.read.key].text(&b.rows[i]) == "" {
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "required"})
				continue
			}
			if p.repeated(&b.rows[i]) {
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "repeated"})
				continue
			}
		}
		good = append(good, i)
	}
	found := map[string]crm.UUID{}
	if p.read.key >= 0 {
		var err error
		if found, err = p.find(ctx, b, good); err != nil {
			return err
		}
	}
	var fresh []P
	var of []int
	var old []int
	var ids []crm.UUID
	for _, i := range good {
		row := &b.rows[i]
		if p.read.key >= 0 {
			id, exists := found[p.read.cells[p.read.key].text(row)]
			switch {
			case exists && p.mode == Create:
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "repeated"})
				continue
			case !exists && p.mode == Update:
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: ruleReference})
				continue
			case exists:
				old, ids = append(old, i), append(ids, id)
				continue
			}
		}
		v, reasons := p.read.read(row)
		if len(reasons) > 0 {
			b.reject(i, reasons...)
			continue
		}
		h := v.Header()
		h.ID = derived(p.id.UUID(), "record", b.from+int64(i)+1)
		if p.rehearse {
			h.Person = p.person.UUID() // one key, and not one for every row
		} else {
			h.Person = derived(p.id.UUID(), "person", b.from+int64(i)+1)
		}
		owner, team := crm.ID[crm.Employee](h.Owner), h.Team
		m.owned(p.c, &owner, &team)
		h.Owner, h.Team = owner.UUID(), team
		v.SetHeader(h)
		fresh, of = append(fresh, v), append(of, i)
	}
	if m.o.Eraser != nil && len(fresh) > 0 {
		var err error
		if fresh, of, err = p.known(ctx, b, fresh, of); err != nil {
			return err
		}
	}
	if m.o.Checker != nil && len(fresh) > 0 {
		var err error
		if fresh, of, err = p.check(ctx, b, fresh, of); err != nil {
			return err
		}
	}
	errs, err := m.records.ImportIn(ctx, b.tx, fresh)
	if err != nil {
		return err
	}
	for k, err := range errs {
		if err != nil {
			b.reject(of[k], reasonsOf(err)...)
			continue
		}
		b.made[fresh[k].Header().ID] = of[k]
	}
	return p.update(ctx, b, old, ids)
}

// same lists the rows of a batch that were made although there was a record that is the same.
func (b *batch[P]) same() []Matched {
	var out []Matched
	for id, band := range b.matched {
		if i, made := b.made[id]; made {
			out = append(out, Matched{Row: b.from + int64(i) + 1, Line: b.rows[i].Line, Band: band.String()})
		}
	}
	slices.SortFunc(out, func(x, y Matched) int { return cmp.Compare(x.Row, y.Row) })
	return out
}

// gone lists the rows of a batch that were made although they have a term of somebody who was erased.
func (b *batch[P]) gone() []Erased {
	var out []Erased
	for id := range b.erased {
		if i, made := b.made[id]; made {
			out = append(out, Erased{Row: b.from + int64(i) + 1, Line: b.rows[i].Line})
		}
	}
	slices.SortFunc(out, func(x, y Erased) int { return cmp.Compare(x.Row, y.Row) })
	return out
}

// find looks up which records have the keys of rows, among those that the caller may list.
func (p *plan[P]) find(ctx context.Context, b *batch[P], good []int) (map[string]crm.UUID, error) {
	found := map[string]crm.UUID{}
	index := p.read.cells[p.read.key].index
	for len(good) > 0 {
		some := good[:min(len(good), 200)]
		good = good[len(some):]
		clause := crm.Clause{Column: p.read.mapping.Key, Op: crm.In}
		for _, i := range some {
			clause.Values = append(clause.Values, crm.StringValue(p.read.cells[p.read.key].text(&b.rows[i])))
		}
		q := guard.Query{Clauses: []crm.Clause{clause}, Limit: 200}
		for {
			page, err := p.m.records.List(ctx, p.c, q)
			if err != nil {
				return nil, err
			}
			for i := range page.Items {
				v := page.Items[i].Value
				found[reflect.ValueOf(v).Elem().FieldByIndex(index).String()] = v.Header().ID
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return found, nil
}

// atOnce is how many records are read at once before they are changed: each is an event, and the log takes many together.
const atOnce = 32

// known asks the Eraser about new records and returns those that are to be created.
func (p *plan[P]) known(ctx context.Context, b *batch[P], fresh []P, of []int) (kept []P, rows []int, err error) {
	erased, err := p.m.o.Eraser.Erased(ctx, p.c, guard.Action("import"), fresh)
	switch {
	case guard.Denied(err):
		return fresh, of, nil // each row is denied by itself
	case errors.Is(err, guard.ErrQuota) && p.m.o.OnErased != RefuseErased:
		for _, v := range fresh {
			b.unasked[v.Header().ID] = true
		}
		return fresh, of, nil
	case err != nil:
		return nil, nil, fmt.Errorf("transfer: %w", err)
	case len(erased) != len(fresh):
		return nil, nil, fmt.Errorf("transfer: %d answers for %d records", len(erased), len(fresh))
	}
	for k, v := range fresh {
		if erased[k] && p.m.o.OnErased == RefuseErased {
			b.reject(of[k], Reason{Rule: "erased"})
			continue
		}
		if erased[k] {
			b.erased[v.Header().ID] = true
		}
		kept, rows = append(kept, v), append(rows, of[k])
	}
	return kept, rows, nil
}

// check asks the Checker about new records and returns those that are to be created.
func (p *plan[P]) check(ctx context.Context, b *batch[P], fresh []P, of []int) (kept []P, rows []int, err error) {
	bands, err := p.m.o.Checker.Bands(ctx, p.c, slices.Concat(p.before[0], p.before[1]), fresh)
	if errors.Is(err, guard.ErrQuota) && p.m.o.OnMatch == ReportMatches {
		p.before = [2][]P{p.before[1], fresh}
		for _, v := range fresh {
			b.unasked[v.Header().ID] = true
		}
		return fresh, of, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("transfer: %w", err)
	}
	if len(bands) != len(fresh) {
		return nil, nil, fmt.Errorf("transfer: %d answers for %d records", len(bands), len(fresh))
	}
	for k, v := range fresh {
		if bands[k] == guard.Certain && p.m.o.OnMatch == SkipMatches {
			b.reject(of[k], Reason{Rule: "repeated"})
			continue
		}
		id := v.Header().ID
		if bands[k] != guard.Unlike {
			b.matched[id] = bands[k]
		}
		kept, rows = append(kept, v), append(rows, of[k])
	}
	p.before = [2][]P{p.before[1], kept}
	return kept, rows, nil
}

// update adds the changes of records that exist, with their former values.
func (p *plan[P]) update(ctx context.Context, b *batch[P], rows []int, ids []crm.UUID) error {
	views, errs := make([]guard.View[P], len(ids)), make([]error, len(ids))
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for k := range ids {
		slots <- struct{}{}
		all.Go(func() {
			views[k], errs[k] = p.m.records.Get(ctx, p.c, ids[k])
			<-slots
		})
	}
	all.Wait()
	for k, i := range rows {
		if errs[k] != nil {
			if !errors.Is(errs[k], crm.ErrNotFound) && !guard.Denied(errs[k]) {
				return errs[k]
			}
			b.reject(i, reasonsOf(errs[k])...)
			continue
		}
		old := views[k].Value
		next := p.m.records.Copy(old)
		if reasons := p.read.into(next, &b.rows[i], true); len(reasons) > 0 {
			b.reject(i, reasons...)
			continue
		}
		values, seen := former(old, next)
		if !seen {
			b.reject(i, Reason{Rule: "not_open"})
			continue
		}
		if len(values) == 0 {
			b.counts.Unchanged++
			continue
		}
		text, err := json.Marshal(values)
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		h := old.Header()
		if err := p.m.records.UpdateIn(ctx, b.tx, next); err != nil {
			if rowFault(err) {
				b.reject(i, reasonsOf(err)...)
				continue
			}
			return err
		}
		b.made[h.ID], b.changed[h.ID] = i, true
		k := &Kept{
			Import: p.id, Kind: keptFormer, Row: b.from + int64(i) + 1, Record: h.ID, After: h.Version + 1, Values: crm.NewText(string(text)),
		}
		k.ID, k.Person = crm.ID[Kept](derived(p.id.UUID(), keptFormer, k.Row)), crm.ID[crm.Person](h.Person)
		p.m.owned(p.c, &k.Owner, &k.Team)
		if err := p.m.doors.Kept.CreateIn(ctx, b.tx, k); err != nil {
			return err
		}
		b.kept[h.ID] = k.ID.UUID()
	}
	return nil
}

// rowFault tells whether an error costs a row and not the import.
func rowFault(err error) bool {
	var invalid *crm.InvalidError
	var step *crm.TransitionError
	return errors.As(err, &invalid) || errors.As(err, &step) || guard.Denied(err) || errors.Is(err, crm.ErrConflict) ||
		errors.Is(err, crm.ErrDuplicate) || errors.Is(err, crm.ErrNotFound)
}

// reasonsOf says why a record was refused without saying what is in it.
func reasonsOf(err error) []Reason {
	var invalid *crm.InvalidError
	var step *crm.TransitionError
	switch {
	case errors.As(err, &invalid):
		out := make([]Reason, len(invalid.Fields))
		for i, f := range invalid.Fields {
			out[i] = Reason{Field: f.Field, Rule: f.Rule}
		}
		return out
	case errors.As(err, &step):
		return []Reason{{Field: "state", Rule: "not_in_order"}}
	case errors.Is(err, crm.ErrDuplicate):
		return []Reason{{Rule: "repeated"}}
	case errors.Is(err, crm.ErrConflict):
		return []Reason{{Rule: "changed"}}
	case errors.Is(err, crm.ErrNotFound):
		return []Reason{{Rule: ruleReference}}
	}
	return []Reason{{Rule: "denied"}}
}

// write stores a batch with the place in the file that it leads to. A record that the store refuses is rejected, and the others are tried again.
func (p *plan[P]) write(ctx context.Context, b *batch[P]) error {
	for {
		counts := b.counts
		for id := range b.made {
			if b.changed[id] {
				counts.Updated++
			} else {
				counts.Created++
			}
			if _, same := b.matched[id]; same {
				counts.Matched++
			}
			if b.erased[id] {
				counts.Erased++
			}
			if b.unasked[id] {
				counts.Unchecked++
			}
		}
		counts.Rows, counts.Rejected = int64(len(b.rows)), int64(len(b.rejected))
		slices.SortFunc(b.rejected, func(x, y Rejected) int { return cmp.Compare(x.Row, y.Row) })
		tx := b.tx.Copy()
		var err error
		next := *p.job
		if p.rehearse {
			add(&next, counts)
			if tx.Len() > 0 {
				_, err = tx.Rehearse(ctx)
			}
		} else {
			if err := keepRows(ctx, p, tx, keptRejected, b.rejected, func(r *Rejected) (int64, int) {
				size := 0
				for _, c := range r.Cells {
					size += len(c)
				}
				return r.Row, size
			}); err != nil {
				return err
			}
			if err := keepRows(ctx, p, tx, keptMatched, b.same(), func(r *Matched) (int64, int) { return r.Row, 0 }); err != nil {
				return err
			}
			if err := keepRows(ctx, p, tx, keptErased, b.gone(), func(r *Erased) (int64, int) { return r.Row, 0 }); err != nil {
				return err
			}
			var stored Import
			err = p.m.doors.Imports.ActIn(ctx, tx, guard.Action("update"), p.job.ID.UUID(), 0, func(i *Import) error {
				if i.State != Running || i.Position != b.from {
					return &crm.TransitionError{Type: crm.TypeImport, From: string(i.State), To: string(Running)} // somebody else goes on with it
				}
				add(i, counts)
				i.count(b.rejected)
				i.Seen = b.print
				stored = *i
				return nil
			})
			if err != nil {
				return err
			}
			if _, err = tx.Commit(ctx); err == nil {
				stored.Name, stored.Mapping = next.Name, next.Mapping
				next = stored
			}
		}
		if err == nil {
			*p.job = next
			return nil
		}
		typ, id, refused := tx.Refused()
		i, ours := b.made[id]
		if !refused || !ours || typ != p.m.records.Type() || !b.tx.Drop(typ, id) {
			return err
		}
		delete(b.made, id)
		if kept, has := b.kept[id]; has {
			b.tx.Drop(crm.TypeKept, kept)
		}
		b.reject(i, reasonsOf(err)...)
	}
}

func add(i *Import, n Counts) {
	i.Position += n.Rows
	i.Created += n.Created
	i.Updated += n.Updated
	i.Unchanged += n.Unchanged
	i.Rejected += n.Rejected
	i.Matched += n.Matched
	i.Unchecked += n.Unchecked
	i.Erased += n.Erased
}

// store adds a change of the import to a Tx.
func (p *plan[P]) store(ctx context.Context, tx *guard.Tx, change func(*Import)) error {
	return p.m.doors.Imports.ActIn(ctx, tx, guard.Action("update"), p.job.ID.UUID(), 0, func(i *Import) error {
		change(i)
		name, mapping := p.job.Name, p.job.Mapping
		*p.job = *i
		p.job.Name, p.job.Mapping = name, mapping
		return nil
	})
}

// keptTogether is how many rows lie in one Kept, and keptBytes about how long they are.
const (
	keptTogether = 100
	keptBytes    = 256 << 10
)

// keepRows adds what is kept of rows to a Tx, sealed under the import's own person. of tells the row and its length in bytes.
func keepRows[P guard.Record, R any](ctx context.Context, p *plan[P], tx *guard.Tx, kind string, rows []R, of func(*R) (row int64, size int)) error {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && n < keptTogether && (n == 0 || size < keptBytes) {
			_, more := of(&rows[n])
			size += more
			n++
		}
		text, err := json.Marshal(rows[:n])
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		k := &Kept{Import: p.job.ID, Kind: kind, Values: crm.NewText(string(text))}
		k.Row, _ = of(&rows[0])
		k.ID = crm.ID[Kept](derived(p.job.ID.UUID(), kind, k.Row))
		k.Person = p.job.Person
		p.m.owned(p.c, &k.Owner, &k.Team)
		if err := p.m.doors.Kept.CreateIn(ctx, tx, k); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// Fields returns the fields that a file can fill.
func (m *Importer[P]) Fields() []Field { return slices.Clone(m.layout.Fields) }

// Keys returns the fields by which records can be found.
func (m *Importer[P]) Keys() []string { return slices.Clone(m.layout.Keys) }
