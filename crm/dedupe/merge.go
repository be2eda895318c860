package dedupe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Persons joins and parts the persons of records; an encrypt.Keeper is one.
type Persons interface {
	Join(ctx context.Context, tenant string, a, b [16]byte) error
	Part(ctx context.Context, tenant string, a, b [16]byte) error
}

// Reference is a type of records that refer to those that are merged.
type Reference struct {
	typ     string
	columns []string
	find    func(ctx context.Context, c guard.Caller, id crm.UUID) ([]crm.UUID, error)
	point   func(ctx context.Context, tx *guard.Tx, id, from, to crm.UUID, columns []string) ([]string, error)
}

// Refers says that records of a type refer to merged ones by these columns.
func Refers[P guard.Record](r *guard.Records[P], columns ...string) Reference {
	return Reference{
		typ: r.Type(), columns: columns,
		find: func(ctx context.Context, c guard.Caller, id crm.UUID) ([]crm.UUID, error) {
			var ids []crm.UUID
			for _, column := range columns {
				for _, bin := range []bool{false, true} {
					q := guard.Query{Bin: bin, Limit: 200, Clauses: []crm.Clause{{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}}}}
					for {
						page, err := r.List(ctx, c, q)
						if err != nil {
							return nil, err
						}
						for i := range page.Items {
							if id := headerOf(page.Items[i].Value).ID; !slices.Contains(ids, id) {
								ids = append(ids, id)
							}
						}
						if q.After = page.Next; page.Next == "" {
							break
						}
					}
				}
			}
			return ids, nil
		},
		point: func(ctx context.Context, tx *guard.Tx, id, from, to crm.UUID, columns []string) ([]string, error) {
			return r.PointIn(ctx, tx, id, from, to, columns...)
		},
	}
}

// MergeOptions of NewMerger. Nil means the zero value of each field.
type MergeOptions struct {
	Clock func() time.Time // nil: time.Now
	// Program reads what the caller may see masked and a merge copies, and finds what refers to a record. nil: the caller.
	Program    func(act string) guard.Caller
	References []Reference
	// Shares are those of records: the ones of a record that is dropped end with the merge. nil: they are not looked at.
	Shares *guard.Records[*crm.Sharing]
}

// Merger merges records of one type. It is safe for concurrent use.
type Merger[P guard.Record] struct {
	g       *guard.Guard
	r       *guard.Records[P]
	merges  *guard.Records[*crm.Merge]
	persons Persons
	o       MergeOptions
	places  map[string]int // fields that can be chosen, by name
}

// NewMerger makes a merger of records.
func NewMerger[P guard.Record](g *guard.Guard, r *guard.Records[P], merges *guard.Records[*crm.Merge], persons Persons, opts *MergeOptions) *Merger[P] {
	m := &Merger[P]{g: g, r: r, merges: merges, persons: persons, places: map[string]int{}}
	if opts != nil {
		m.o = *opts
	}
	if m.o.Clock == nil {
		m.o.Clock = time.Now
	}
	if m.o.Program == nil {
		m.o.Program = func(string) guard.Caller { return guard.Caller{} }
	}
	var reserved []string
	if t, ok := any(r.New()).(interface{ Reserved(bool) []string }); ok {
		reserved = t.Reserved(false)
	}
	t := reflect.TypeFor[P]().Elem()
	for _, f := range r.Fields() { // what is embedded, such as the header, is not chosen
		if sf, ok := t.FieldByName(f.GoName); ok && len(sf.Index) == 1 && !slices.Contains(reserved, f.Name) {
			m.places[f.Name] = sf.Index[0]
		}
	}
	return m
}

// Target is a record as its caller saw it.
type Target struct {
	ID      crm.UUID
	Version int64
}

// Choice says what of the dropped record the kept one takes: the named fields. All others stay as they are in the kept one.
type Choice []string

// Fields are the names that a Choice may have.
func (m *Merger[P]) Fields() []string {
	var names []string
	for _, f := range m.r.Fields() {
		if _, ok := m.places[f.Name]; ok {
			names = append(names, f.Name)
		}
	}
	return names
}

// moved is one record that referred to the dropped one, or a share of it that ended.
type moved struct {
	Type    string    `json:"type"`
	ID      string    `json:"id"`
	Columns []string  `json:"columns"`
	Until   time.Time `json:"until,omitzero"` // of a share: when it would have ended
}

func headerOf(v any) crm.Header { return v.(interface{ Header() crm.Header }).Header() }

// program is who reads for a merge.
func (m *Merger[P]) program(c guard.Caller, act string) guard.Caller {
	if p := m.o.Program(act); p.Subject.ID != "" {
		return p
	}
	return c
}

// Merge makes one record of two, in one transaction: keep takes the chosen fields of drop, what refers to drop refers to keep, drop goes into the recycle
// bin, its shares end (they open nothing of keep), and a crm.Merge says so. Then their persons are joined, so that erasing one erases both; when that is cut off, Resume makes up for it. The caller
// must be allowed to merge both records, to update keep, to delete drop, and to merge what refers to it: where that is something that they may not
// see, it is a denial with the control merge.relations. What they see masked is copied whole.
//
// Errors: crm.ErrConflict when one of the records is not as the caller saw it, crm.ErrNotFound, *crm.InvalidError for a field that cannot be chosen or for keep as it would
// be, *authz.DeniedError, guard.ErrTx when more refers to drop than one transaction takes.
func (m *Merger[P]) Merge(ctx context.Context, c guard.Caller, keep, drop Target, choice Choice) (*crm.Merge, error) {
	if keep.ID == drop.ID {
		return nil, invalid("drop", "mismatch")
	}
	taken := slices.Compact(slices.Sorted(slices.Values(choice)))
	for _, name := range taken {
		if _, ok := m.places[name]; !ok {
			return nil, invalid(name, "unknown_value")
		}
	}
	// The caller may merge both: decided before anything is read for them.
	for _, t := range []Target{keep, drop} {
		if _, err := m.r.Authorize(ctx, c, "merge", t.ID); err != nil {
			return nil, err
		}
	}
	p := m.program(c, "merge")
	into, err := m.r.Get(ctx, c, keep.ID)
	if err != nil {
		return nil, err
	}
	whole, err := m.r.Get(ctx, p, keep.ID)
	if err != nil {
		return nil, err
	}
	from, err := m.r.Get(ctx, p, drop.ID)
	if err != nil {
		return nil, err
	}
	kept, dropped := headerOf(whole.Value), headerOf(from.Value)
	if kept.Version != keep.Version || headerOf(into.Value).Version != keep.Version || dropped.Version != drop.Version {
		return nil, crm.ErrConflict
	}
	if kept.Deleted || dropped.Deleted {
		return nil, crm.ErrNotFound
	}
	before := map[string]json.RawMessage{}
	for _, name := range taken {
		was, now := m.field(whole.Value, name), m.field(from.Value, name)
		if !clearField(was) || !clearField(now) { // erased, or masked for the program too
			return nil, invalid(name, "not_open")
		}
		if before[name], err = write(was); err != nil {
			return nil, err
		}
		m.field(into.Value, name).Set(now)
	}
	text, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("dedupe: %w", err)
	}
	tx := m.g.Begin(c, m.r.Type()+".merge")
	// Also where it takes nothing: of two merges at once, one that keeps a record and one that drops it, one is too late.
	if err := m.r.UpdateIn(ctx, tx, into.Value); err != nil {
		return nil, err
	}
	if err := m.r.DeleteIn(ctx, tx, drop.ID, drop.Version); err != nil {
		return nil, err
	}
	refs := []moved{}
	for _, ref := range m.o.References {
		ids, err := ref.find(ctx, p, drop.ID)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			columns, err := ref.point(ctx, tx, id, drop.ID, keep.ID, ref.columns)
			if errors.Is(err, crm.ErrNotFound) {
				err = guard.Deny("merge.relations")
			}
			if err != nil {
				return nil, err
			}
			refs = append(refs, moved{Type: ref.typ, ID: id.String(), Columns: columns})
		}
		var l crm.Limit // also what was made since it was looked for
		for _, column := range ref.columns {
			l.Of = append(l.Of, crm.Measure{Type: ref.typ, Clauses: []crm.Clause{{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(drop.ID.String())}}}})
		}
		tx.Require(l, crm.ErrConflict)
	}
	at := m.o.Clock().UTC()
	ended, err := m.endShares(ctx, p, tx, dropped, at)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(append(refs, ended...))
	if err != nil {
		return nil, fmt.Errorf("dedupe: %w", err)
	}
	rec := &crm.Merge{
		RecordType: m.r.Type(), Kept: keep.ID, Dropped: drop.ID, DroppedPerson: crm.ID[crm.Person](dropped.Person), State: crm.MergeJoining,
		Taken: strings.Join(taken, " "), Before: crm.NewText(string(text)), Moved: string(list), At: at,
	}
	rec.Person, rec.Owner, rec.Team = crm.ID[crm.Person](kept.Person), crm.ID[crm.Employee](kept.Owner), kept.Team
	if id, err := crm.ParseUUID(c.Subject.ID); err == nil {
		rec.By = crm.ID[crm.Employee](id)
		if rec.Owner.IsZero() {
			rec.Owner = rec.By
		}
	}
	if err := m.merges.CreateIn(ctx, tx, rec); err != nil {
		return nil, err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	return rec, m.settle(ctx, c, rec)
}

// field is a field of v by its name.
func (m *Merger[P]) field(v P, name string) reflect.Value {
	return reflect.ValueOf(v).Elem().Field(m.places[name])
}

// clearField tells whether a field holds its value.
func clearField(v reflect.Value) bool {
	t, ok := v.Interface().(crm.Text)
	return !ok || t.State() == crm.Clear
}

// write and read keep a value as JSON; a text as what it says.
func write(v reflect.Value) (json.RawMessage, error) {
	x := v.Interface()
	if t, ok := x.(crm.Text); ok {
		x = t.Expose()
	}
	b, err := json.Marshal(x)
	if err != nil {
		return nil, errors.New("dedupe: a field cannot be kept")
	}
	return b, nil
}

func read(b json.RawMessage, into reflect.Value) error {
	if into.Type() == reflect.TypeFor[crm.Text]() {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return errors.New("dedupe: a field cannot be brought back")
		}
		into.Set(reflect.ValueOf(crm.NewText(s)))
		return nil
	}
	if err := json.Unmarshal(b, into.Addr().Interface()); err != nil {
		return errors.New("dedupe: a field cannot be brought back")
	}
	return nil
}

// settle joins or parts the persons of a merge and says in its record that it is done.
func (m *Merger[P]) settle(ctx context.Context, c guard.Caller, rec *crm.Merge) error {
	next := crm.MergeDone
	var err error
	switch {
	case rec.State == crm.MergeJoining && rec.Person != rec.DroppedPerson:
		err = m.persons.Join(ctx, c.Subject.Tenant, rec.Person, rec.DroppedPerson)
	case rec.State == crm.MergeParting:
		next = crm.MergeUndone
		if rec.Person != rec.DroppedPerson {
			err = m.persons.Part(ctx, c.Subject.Tenant, rec.Person, rec.DroppedPerson)
		}
	}
	if err != nil {
		return fmt.Errorf("dedupe: persons of a merge: %w", err)
	}
	if err := m.merges.Act(ctx, m.program(c, "merge"), "merge", rec.ID.UUID(), 0, func(v *crm.Merge) error { v.State = next; return nil }); err != nil {
		return err
	}
	rec.State = next
	return nil
}

// Resume does what merges and undoings of this type left when they were cut off between their transaction and the persons. It returns how many there were. Call it at start.
func (m *Merger[P]) Resume(ctx context.Context, c guard.Caller) (int, error) {
	n := 0
	for _, state := range []crm.MergeState{crm.MergeJoining, crm.MergeParting} {
		for {
			page, err := m.merges.List(ctx, c, guard.Query{Limit: 200, Clauses: []crm.Clause{is("state", string(state)), is("record_type", m.r.Type())}})
			if err != nil {
				return n, err
			}
			for i := range page.Items {
				if err := m.settle(ctx, c, page.Items[i].Value); err != nil {
					return n, err
				}
				n++
			}
			if len(page.Items) == 0 {
				break
			}
		}
	}
	return n, nil
}

func is(column, word string) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(word)}}
}

// ReplacedBy returns the record that a merged one became part of, or crm.ErrNotFound.
func (m *Merger[P]) ReplacedBy(ctx context.Context, c guard.Caller, id crm.UUID) (crm.UUID, error) {
	page, err := m.merges.List(ctx, c, guard.Query{Limit: 200, Clauses: []crm.Clause{is("dropped", id.String()), is("record_type", m.r.Type())}})
	if err != nil {
		return crm.UUID{}, err
	}
	for _, v := range page.Items {
		if s := v.Value.State; s == crm.MergeJoining || s == crm.MergeDone {
			return v.Value.Kept, nil
		}
	}
	return crm.UUID{}, crm.ErrNotFound
}

// Sweep deletes for good the merges of before a time of which a record was purged: they undo nothing any more, and what they keep and whom they name must not outlive the
// records. Call it before persons are forgotten (guard.Guard.Forget). c is the program. It returns how many there were.
func (m *Merger[P]) Sweep(ctx context.Context, c guard.Caller, before time.Time) (int, error) {
	n := 0
	for _, bin := range []bool{true, false} { // what a sweep that was cut off left in the bin goes first
		q := guard.Query{Limit: 200, Bin: bin, Sort: "at", Hide: []string{"before"}, Clauses: []crm.Clause{
			is("record_type", m.r.Type()), {Column: "at", Op: crm.Less, Values: []crm.Value{crm.TimeValue(before)}},
		}}
		for {
			page, err := m.merges.List(ctx, c, q)
			if err != nil {
				return n, err
			}
			for i := range page.Items {
				v := page.Items[i].Value
				if !bin {
					if over, err := m.over(ctx, c, v); err != nil {
						return n, err
					} else if !over {
						continue
					}
					if err := m.merges.Delete(ctx, c, v.ID.UUID(), v.Version); err != nil {
						return n, err
					}
					v.Version++
				}
				if err := m.merges.Purge(ctx, c, v.ID.UUID(), v.Version); err != nil {
					return n, err
				}
				n++
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return n, nil
}

// over tells whether a record of a merge is no longer there, in the recycle bin either.
func (m *Merger[P]) over(ctx context.Context, c guard.Caller, v *crm.Merge) (bool, error) {
	living, err := m.r.GetAll(ctx, c, []crm.UUID{v.Kept, v.Dropped})
	if err != nil || len(living) == 2 {
		return false, err
	}
	for _, id := range []crm.UUID{v.Kept, v.Dropped} {
		if _, err := m.r.Get(ctx, c, id); errors.Is(err, crm.ErrNotFound) {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, nil
}
