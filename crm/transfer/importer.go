package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
// value that two batches share is not, and of rows that are like each other only those are that are at most three batches (of 900 rows) apart. Errors: ErrFile, ErrMapping, those of guard.
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
	k.ID, k.Person = crm.ID[Kept](derive(job.ID.UUID(), keptBeside, 0)), job.Person
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
	if errors.Is(err, crm.ErrNotFound) {
		v, err = d.Kept.Get(ctx, c, derivedFirst(id.UUID(), keptBeside, 0))
	}
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

// Fields returns the fields that a file can fill.
func (m *Importer[P]) Fields() []Field { return slices.Clone(m.layout.Fields) }

// Keys returns the fields by which records can be found.
func (m *Importer[P]) Keys() []string { return slices.Clone(m.layout.Keys) }
