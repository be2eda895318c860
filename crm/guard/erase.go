package guard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Mark stands for an identifying term of somebody, such as a phone number, and does not tell it: HMAC-SHA-256 under a key of the tenant's, over the name of a
// normaliser and what it makes of the value; see docs/formats/suppression.md. It is the same whichever type and field the value stands in.
type Mark [32]byte

// Suppressor is the list of the marks of those who were erased. crm/privacy has one. It is safe for concurrent use.
type Suppressor interface {
	// Suppress puts marks on the list of a tenant. One that is on it is not stored a second time.
	Suppress(ctx context.Context, tenant string, marks []Mark) error
	// Suppressed tells of each of the marks whether it is on the list of a tenant.
	Suppressed(ctx context.Context, tenant string, marks []Mark) ([]bool, error)
}

// EraseOptions of [Guard.Erase]. Nil means the zero value of each field.
type EraseOptions struct {
	List     Suppressor // gets the marks of the erased; nil: they are not known again when somebody brings them back
	Approved bool       // somebody else approved going beyond the keeper's limit of erasures a day
}

// Erasure is what Erase did.
type Erasure struct {
	encrypt.Receipt
	Records int    // that name the person, with fields that identify
	Marks   int    // that were made of these fields; none when the keys were blocked or gone already
	Event   uint64 // index in the log of the event that announced it; where it names more than 900 records, others follow
}

// markLabel separates marks from other uses of the tenant's MAC key.
const markLabel = "suppress"

// leastTerm is the length in bytes of the shortest term that is a mark: what is shorter, such as a phone "0" or "110", is many people's.
const leastTerm = 6

// mostTargets is how many records one event of an erasure names.
const mostTargets = 900

// Erase erases a person and everybody who was joined to them, as they asked for it: it blocks their ordinary keys at once and destroys them when it is asked again
// after the keeper's grace; see encrypt.Keeper.Erase. Their records stay, with values that no longer open, and are deleted and purged like others. Before that it makes a
// mark of each term that identifies them (Options.Identifying) in any record that names them, living or in the bin, and puts it on opts.List, so that
// Records.Erased knows them again. Only the fields that have such terms are opened, and only where they are theirs.
//
// It decides on the action erase for the function "person". The log has an event that names the persons, the records and the fields before anything is opened; it keeps the
// caller's reason sealed under an id made for it, which the erasure does not reach. A legal hold and the brake on mass erasure (encrypt.ErrHeld,
// encrypt.ErrLimit) refuse before anything but the refusal is written. An erasure that was cut off, anywhere, is asked again: what is done is not done twice.
//
// Every type of the store must have a door here (For), and the index of persons must be whole: crm.ErrReindexing.
func (g *Guard) Erase(ctx context.Context, c Caller, person crm.UUID, opts *EraseOptions) (Erasure, error) {
	if opts == nil {
		opts = &EraseOptions{}
	}
	var out Erasure
	d, err := g.authorize(ctx, c, authz.Erase, "person")
	if err != nil {
		return out, err
	}
	tenant := c.Subject.Tenant
	how := &encrypt.EraseOptions{Approved: opts.Approved}
	refused := func(err error) error {
		err = fmt.Errorf("guard: person %s: %w", person, err)
		if !errors.Is(err, encrypt.ErrHeld) && !errors.Is(err, encrypt.ErrLimit) {
			return err
		}
		e := c.event("person", authz.Erase, d)
		e.Outcome = audit.Failed
		e.Targets = []audit.Target{{Type: "person", ID: person.String()}}
		_, logged := g.log.Append(ctx, e)
		return errors.Join(err, logged)
	}
	if err := g.keeper.MayErase(ctx, tenant, person, how); err != nil {
		return out, refused(err)
	}
	joined, err := g.keeper.Joined(ctx, tenant, person)
	if err != nil {
		return out, fmt.Errorf("guard: %w", err)
	}
	persons := []crm.UUID{person}
	for _, p := range joined {
		if !slices.Contains(persons, crm.UUID(p)) {
			persons = append(persons, crm.UUID(p))
		}
	}
	var found []typeRows
	if opts.List != nil {
		if found, err = g.naming(ctx, tenant, persons); err != nil {
			return out, err
		}
	}
	if out.Event, err = g.announceErasure(ctx, c, d, persons, found); err != nil {
		return out, err
	}
	var marks []Mark
	for _, t := range found {
		out.Records += len(t.rows)
		some, err := t.door.marks(ctx, persons, t.rows)
		if err != nil {
			return out, err
		}
		for _, m := range some {
			if !slices.Contains(marks, m) {
				marks = append(marks, m)
			}
		}
	}
	if len(marks) > 0 {
		if err := opts.List.Suppress(ctx, tenant, marks); err != nil {
			return out, fmt.Errorf("guard: no list, no erasure: %w", err)
		}
	}
	out.Marks = len(marks)
	if out.Receipt, err = g.keeper.Erase(ctx, tenant, person, how); err != nil {
		return out, refused(err)
	}
	return out, nil
}

// typeRows are rows of one type.
type typeRows struct {
	typeOf
	rows []crm.Row
}

// naming finds the rows of all types with identifying fields that name persons.
func (g *Guard) naming(ctx context.Context, tenant string, persons []crm.UUID) ([]typeRows, error) {
	types, err := g.everyType(ctx)
	if err != nil {
		return nil, err
	}
	var out []typeRows
	for _, t := range types {
		if len(t.door.identifying()) == 0 {
			continue
		}
		q := ofPersons(tenant, t.schema, persons)
		found := typeRows{typeOf: t}
		for {
			page, err := g.store.List(ctx, q)
			if err != nil {
				return nil, fmt.Errorf("guard: %w", err)
			}
			found.rows = append(found.rows, page.Rows...)
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
		if len(found.rows) > 0 {
			out = append(out, found)
		}
	}
	return out, nil
}

// announceErasure logs who is erased and what of which records is opened for it, and returns the index of its first event.
func (g *Guard) announceErasure(ctx context.Context, c Caller, d authz.Decision, persons []crm.UUID, found []typeRows) (first uint64, err error) {
	var targets []audit.Target
	for _, p := range persons {
		targets = append(targets, audit.Target{Type: "person", ID: p.String()})
	}
	var fields []string
	for _, t := range found {
		for _, name := range t.door.identifying() {
			fields = append(fields, name+":marked")
		}
		for i := range t.rows {
			targets = append(targets, audit.Target{Type: t.schema.Type, ID: t.rows[i].ID.String(), Version: uint64(t.rows[i].Version)})
		}
	}
	slices.Sort(fields)
	e := c.event("person", authz.Erase, d)
	e.Fields = slices.Compact(fields)
	if c.Reason != "" {
		e.Details = []audit.Detail{audit.Personal("reason", crm.NewUUID(), c.Reason)}
	}
	for some := range slices.Chunk(targets, mostTargets) {
		e.Targets = some
		receipt, err := g.log.Append(ctx, e)
		if err != nil {
			return first, fmt.Errorf("guard: no log, no erasure: %w", err)
		}
		if first == 0 {
			first = receipt.Index
		}
		e.Details = nil
	}
	return first, nil
}

// identifying lists the fields of which marks are made.
func (r *Records[P]) identifying() []string {
	var out []string
	for _, f := range r.sealed {
		if slices.ContainsFunc(f.Indexes, r.identifies) {
			out = append(out, f.Name)
		}
	}
	return out
}

// identifies tells whether an index finds one person.
func (r *kind) identifies(x encrypt.Index) bool {
	return x.Kind == "exact" && len(x.Of) == 0 && slices.Contains(r.g.identifying, x.Normalizer)
}

// mark adds the marks of a value to marks.
func (r *Records[P]) mark(ctx context.Context, tenant string, f encrypt.Field, text string, marks []Mark) ([]Mark, error) {
	var failed error
	err := r.codec.Terms(f.Name, text, func(normalizer, term string) {
		base, _, _ := strings.Cut(normalizer, "/")
		if failed != nil || len(term) < leastTerm || !slices.Contains(r.g.identifying, base) {
			return
		}
		sum, err := r.g.keeper.MAC(ctx, tenant, markLabel, []byte(normalizer+"\x00"+term))
		if err != nil {
			failed = fmt.Errorf("guard: %w", err)
			return
		}
		marks = append(marks, Mark(sum))
	})
	return marks, errors.Join(err, failed)
}

// marksOf returns the marks of what is clear in v.
func (r *Records[P]) marksOf(ctx context.Context, tenant string, v P) ([]Mark, error) {
	var marks []Mark
	val := reflect.ValueOf(v).Elem()
	for _, f := range r.sealed {
		if !slices.ContainsFunc(f.Indexes, r.identifies) {
			continue
		}
		t, ok := val.FieldByName(f.GoName).Interface().(interface {
			State() crm.State
			Expose() string
		})
		if !ok || t.State() != crm.Clear || t.Expose() == "" {
			continue
		}
		var err error
		if marks, err = r.mark(ctx, tenant, f, t.Expose(), marks); err != nil {
			return nil, err
		}
	}
	return marks, nil
}

// personOfField returns whose a field is.
func (r *kind) personOfField(f encrypt.Field, val reflect.Value, own crm.UUID) crm.UUID {
	if f.Person == "" {
		return own
	}
	var person crm.UUID
	if p := val.FieldByName(f.Person); p.Kind() == reflect.Array && p.Len() == len(person) {
		reflect.Copy(reflect.ValueOf(&person).Elem(), p)
	}
	return person
}

// marks opens what identifies persons in rows and returns its marks.
func (r *Records[P]) marks(ctx context.Context, persons []crm.UUID, rows []crm.Row) ([]Mark, error) {
	var out []Mark
	for i := range rows {
		row := &rows[i]
		if err := r.authentic(ctx, row.Tenant, rows[i:i+1]); err != nil {
			return nil, err
		}
		v := r.codec.New()
		if err := r.hydrate(row, v); err != nil {
			return nil, err
		}
		val := reflect.ValueOf(v).Elem()
		var names []string
		for _, f := range r.sealed {
			if slices.ContainsFunc(f.Indexes, r.identifies) && slices.Contains(persons, r.personOfField(f, val, personOf(row))) {
				names = append(names, f.Name)
			}
		}
		if len(names) == 0 {
			continue
		}
		fields, _ := valuesOf(nil, row.Sealed)
		if _, err := r.codec.Open(ctx, r.g.keeper, recordOf(row), fields, v, names...); err != nil {
			return nil, fmt.Errorf("guard: %s %s: %w", r.typ, row.ID, err)
		}
		some, err := r.marksOf(ctx, row.Tenant, v)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// Erased tells of each of vs, which need not be stored, whether it has an identifying term of somebody who was erased, in whichever type that stood. a is what the caller is
// about to do with them, authz.Create or authz.Import: who may not do that to a record of their own is denied and learns nothing. The log has the question, with the fields
// and how many records it was about, never whom.
//
// Whoever may ask learns that somebody with this number was erased here. So each record costs one of a quota of its own, which is as large as that of Alike
// and is not charged where that one is not.
//
// Errors: *authz.DeniedError, ErrQuota, those of list.
func (r *Records[P]) Erased(ctx context.Context, c Caller, a Action, vs []P, list Suppressor) ([]bool, error) {
	if a != authz.Create && a != authz.Import {
		return nil, fmt.Errorf("guard: nobody is erased by %s", a)
	}
	out := make([]bool, len(vs))
	fields := r.identifying()
	if len(vs) == 0 || len(fields) == 0 {
		return out, nil
	}
	sample, err := r.sample(ctx, c, r.g.decider(c, a))
	if err != nil {
		return nil, err
	}
	if denial := sample.Proceed(c.met()...); denial != nil {
		return nil, errors.Join(denial, r.deny(ctx, c, a, nil, sample))
	}
	tenant := c.Subject.Tenant
	if ok, err := r.affords(ctx, c, "erased/"+tenant+"/"+c.Subject.ID, len(vs)); err != nil {
		return nil, err
	} else if !ok {
		return nil, errors.Join(ErrQuota, r.deny(ctx, c, authz.Check, nil, sample))
	}
	var all []Mark
	var of []int // which of vs a mark is of
	for i, v := range vs {
		marks, err := r.marksOf(ctx, tenant, v)
		if err != nil {
			return nil, err
		}
		for _, m := range marks {
			all, of = append(all, m), append(of, i)
		}
	}
	e := c.event(r.typ, authz.Check, sample)
	e.Count = int64(len(vs))
	for _, name := range fields {
		e.Fields = append(e.Fields, name+":erased")
	}
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return nil, fmt.Errorf("guard: no log, no data: %w", err)
	}
	if len(all) == 0 {
		return out, nil
	}
	found, err := list.Suppressed(ctx, tenant, all)
	if Denied(err) { // the program, and not the caller
		return nil, fmt.Errorf("guard: the list of the erased does not answer: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if len(found) != len(all) {
		return nil, fmt.Errorf("guard: %d answers for %d marks", len(found), len(all))
	}
	for i, hit := range found {
		out[of[i]] = out[of[i]] || hit
	}
	return out, nil
}
