package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// MaxBatch is the most records that one CreateAll takes and one event names.
const MaxBatch = 1000

// validator and updateChecker are what a domain type may know of its own rules.
type validator interface{ Validate() error }

type updateChecker[P Record] interface{ CheckUpdate(prev P) error }

// pending is one write between its decision and its transaction.
type pending struct {
	row    crm.Row
	expect int64
	digest []byte
	needs  []crm.Need
}

// Create stores a new record and returns it as the caller may see it. An id, a person, an owner and a
// team that are not set are made or taken from the caller. The new header is set in v.
func (r *Records[P]) Create(ctx context.Context, c Caller, v P) (View[P], error) {
	errs, err := r.create(ctx, c, authz.Create, []P{v})
	if err != nil {
		return View[P]{}, err
	}
	if errs[0] != nil {
		return View[P]{}, errs[0]
	}
	view, err := r.Get(ctx, c, v.Header().ID)
	if errors.Is(err, crm.ErrNotFound) { // who may create need not be one who may read
		view.Value = r.codec.New()
		view.Value.SetHeader(v.Header())
		err = nil
	}
	return view, err
}

// CreateAll stores up to MaxBatch new records, as an import does: one decision for each, one event for
// the batch. errs has an error for each record that was refused, and nil for each that is stored.
// err means that none was.
func (r *Records[P]) CreateAll(ctx context.Context, c Caller, vs []P) (errs []error, err error) {
	if len(vs) > MaxBatch {
		return nil, fmt.Errorf("guard: a batch has at most %d records", MaxBatch)
	}
	return r.create(ctx, c, authz.Import, vs)
}

func (r *Records[P]) create(ctx context.Context, c Caller, a authz.Action, vs []P) ([]error, error) {
	if _, ok := any(r.codec.New()).(actMade); ok {
		denial := &authz.DeniedError{Controls: []string{"fields.reserved"}}
		return nil, errors.Join(denial, r.deny(ctx, c, a, nil, authz.Decision{Controls: denial.Controls}))
	}
	errs, writes, at, last, err := r.ready(ctx, c, a, vs)
	if err != nil {
		return nil, err
	}
	// A write that the store refuses is taken out, and the others are announced and tried again.
	for len(writes) > 0 {
		err := r.commit(ctx, c, a, last, writes)
		var we *crm.WriteError
		if errors.As(err, &we) && we.Index >= 0 && we.Index < len(writes) {
			errs[at[we.Index]] = we.Err
			writes = slices.Delete(writes, we.Index, we.Index+1)
			at = slices.Delete(at, we.Index, we.Index+1)
			continue
		}
		return errs, err
	}
	return errs, nil
}

// ready decides on new records and makes the writes of those that are admitted; at are their places in vs, errs says why the others are not.
func (r *Records[P]) ready(ctx context.Context, c Caller, a authz.Action, vs []P) (errs []error, writes []pending, at []int, last authz.Decision, err error) {
	fail := func(err error) ([]error, []pending, []int, authz.Decision, error) { return nil, nil, nil, last, err }
	d := r.g.decider(c, a)
	errs = make([]error, len(vs))
	recs := make([]encrypt.Record, 0, len(vs))
	accepted := make([]P, 0, len(vs))
	for i, v := range vs {
		dec, refused, err := r.admit(ctx, c, a, d, v)
		if err != nil {
			return fail(err)
		}
		if errs[i] = refused; refused != nil {
			continue
		}
		last = dec
		accepted = append(accepted, v)
		at = append(at, i)
		recs = append(recs, r.recordOf(c, v))
	}
	if len(accepted) == 0 {
		return errs, nil, nil, last, nil
	}
	sealed, err := r.codec.SealAll(ctx, r.g.keeper, recs, accepted)
	if err != nil {
		return fail(fmt.Errorf("guard: %s: %w", r.typ, err))
	}
	writes = make([]pending, len(accepted))
	for i, v := range accepted {
		if writes[i], err = r.build(ctx, c, v, sealed[i], 0); err != nil {
			return fail(err)
		}
	}
	return errs, writes, at, last, nil
}

// admit completes the header of a new record and decides on it. refused says why it is not admitted, and is in the log where the policy
// refuses; err means that nothing was decided.
func (r *Records[P]) admit(ctx context.Context, c Caller, a authz.Action, d *decider, v P) (dec authz.Decision, refused, err error) {
	now := r.g.now().UTC()
	if _, ok := any(v).(byDay); ok {
		now = now.Truncate(24 * time.Hour)
	}
	h := v.Header()
	if h.ID.IsZero() {
		h.ID = crm.NewUUID()
	}
	if h.Person.IsZero() {
		h.Person = crm.NewUUID()
	}
	if h.Owner.IsZero() {
		if id, err := crm.ParseUUID(c.Subject.ID); err == nil {
			h.Owner = id
		}
	}
	if h.Team == "" {
		h.Team = c.Subject.Team
	}
	h.Version, h.Deleted = 1, false
	if h.CreatedAt.IsZero() || a != authz.Import { // an import brings what was made elsewhere
		h.CreatedAt = now
	}
	h.UpdatedAt = now
	v.SetHeader(h)
	if err := r.stamp(c, v); err != nil {
		return dec, nil, err
	}
	if w, ok := any(v).(validator); ok {
		if err := w.Validate(); err != nil {
			return dec, err, nil
		}
	}
	if w, ok := any(v).(starter); ok && a != authz.Import {
		if err := w.CheckNew(); err != nil {
			return dec, err, nil
		}
	}
	res, err := r.resourceOf(c.Subject.Tenant, v)
	if err != nil {
		return dec, nil, err
	}
	if dec, err = d.decide(ctx, res); err != nil {
		return dec, nil, err
	}
	denial := dec.Proceed(c.met()...)
	if denial == nil {
		denial = r.writable(v, v, true, dec)
	}
	if denial == nil {
		denial = r.keeps(v, v, true)
	}
	if denial != nil {
		if err := r.deny(ctx, c, a, nil, dec); err != nil {
			return dec, nil, err
		}
	}
	return dec, denial, nil
}

// stamp adds the caller to those who have a part in v, where the type has a column actors: who makes or changes a record does not approve
// it.
func (r *Records[P]) stamp(c Caller, v P) error {
	i, ok := r.attribute("actors")
	if !ok || c.Subject.ID == "" {
		return nil
	}
	values, err := r.codec.ClearValues(v)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	text, _ := values[i].(string)
	words := wordsOf(text)
	if slices.Contains(words, c.Subject.ID) {
		return nil
	}
	if text, err = cond.Words(append(words, c.Subject.ID)); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	values[i] = text
	if err := r.codec.SetClear(v, values); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// starter is a domain type that says how a record may begin: CheckNew refuses one that begins in a state that only an act gives. An import, which brings what
// began elsewhere, is not asked.
type starter interface{ CheckNew() error }

// actMade is a domain type whose records are made by acts only, in a Tx, such as the history of owners: a creation by itself is refused.
type actMade interface{ MadeByActs() }

// byDay is a domain type whose times are kept by the day (UTC) only, so that they tell little of what else happened then.
type byDay interface{ ByDay() }

// recordOf is v for the codec.
func (r *Records[P]) recordOf(c Caller, v P) encrypt.Record {
	h := v.Header()
	return encrypt.Record{Tenant: c.Subject.Tenant, ID: h.ID, Person: h.Person}
}

// build makes the row of v.
func (r *Records[P]) build(ctx context.Context, c Caller, v P, sealed encrypt.Sealed, expect int64) (pending, error) {
	h := v.Header()
	values, err := r.codec.ClearValues(v)
	if err != nil {
		return pending{}, fmt.Errorf("guard: %w", err)
	}
	row := crm.Row{
		Tenant: c.Subject.Tenant, Type: r.typ, ID: h.ID, Version: h.Version, Deleted: h.Deleted,
		Persons: persons(h.Person, sealed.Persons), Clear: make([]crm.Value, len(values)), Sealed: rowSealed(sealed.Fields),
	}
	for i, a := range values {
		value, ok := crm.ValueOf(a)
		if !ok {
			return pending{}, fmt.Errorf("guard: type %s: column %s has no kind", r.typ, r.columns[i].Name)
		}
		row.Clear[i] = value
	}
	return r.seal(ctx, row, expect)
}

// persons lists whose keys seal a row: the record's own person, then the others, ascending.
func persons(own crm.UUID, sealed [][16]byte) []crm.UUID {
	all := []crm.UUID{own}
	for _, p := range sealed {
		if crm.UUID(p) != own {
			all = append(all, p)
		}
	}
	slices.SortFunc(all[1:], func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
	return all
}

// seal adds digest and MAC to a row.
func (r *kind) seal(ctx context.Context, row crm.Row, expect int64) (pending, error) {
	sum := digest(&row, r.columns)
	mac, err := r.g.keeper.MAC(ctx, row.Tenant, macLabel, sum)
	if err != nil {
		return pending{}, fmt.Errorf("guard: %w", err)
	}
	row.MAC = mac
	return pending{row: row, expect: expect, digest: sum}, nil
}

// commit is Guard.commit for writes of one type by one action.
func (r *kind) commit(ctx context.Context, c Caller, a authz.Action, d authz.Decision, writes []pending) error {
	_, err := r.g.commit(ctx, c, c.event(r.typ, a, d), writes, nil)
	return err
}

// commit announces the writes in the log, then applies them in one transaction if the limits hold. When the store refuses,
// the log is told; when the outcome of the commit is unknown, the store is asked whether it has the event.
func (g *Guard) commit(ctx context.Context, c Caller, e audit.Event, writes []pending, limits []crm.Limit) (event uint64, err error) {
	above, err := g.climb(ctx, c, writes)
	if err != nil {
		return 0, err
	}
	writes = slices.Concat(writes, above)
	e.Outcome = audit.Intended
	e.Count = int64(len(writes))
	e.Ref, e.HasRef = g.open.mark()
	needs, whose := g.needed(c, writes)
	batch := crm.Batch{Log: g.name, Limits: slices.Concat(limits, needs)}
	var types []string
	for _, w := range writes {
		e.Targets = append(e.Targets, audit.Target{
			Type: w.row.Type, ID: w.row.ID.String(), Version: uint64(w.row.Version), Digest: w.digest,
		})
		batch.Writes = append(batch.Writes, crm.Write{Row: w.row, Expect: w.expect})
		if !slices.Contains(types, w.row.Type) {
			types = append(types, w.row.Type)
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("guard: %w", err)
	}
	write := g.open.begin()
	// Whether the log has taken it must be known, whoever goes away: else nothing after it would count as settled.
	receipt, err := g.log.Append(context.WithoutCancel(ctx), e)
	if err != nil {
		g.open.settle(write)
		return 0, fmt.Errorf("guard: no log, no write: %w", err)
	}
	batch.Event = receipt.Index
	g.open.announced(write, receipt.Index)
	_, err = g.store.Apply(ctx, batch)
	defer func() {
		for _, typ := range types {
			g.heard(typ) // whatever became of it: what others remember may be old
		}
	}()
	if err == nil {
		g.open.settle(write)
		return receipt.Index, nil
	}
	// What follows must happen even when the caller is gone.
	ctx = context.WithoutCancel(ctx)
	if errors.Is(err, crm.ErrUnknown) {
		applied, lookup := g.store.Applied(ctx, g.name, receipt.Index)
		if lookup != nil {
			return 0, fmt.Errorf("guard: %w", err) // the next start looks again
		}
		if _, ok := slices.BinarySearch(applied, receipt.Index); ok {
			g.open.settle(write)
			return receipt.Index, nil
		}
	}
	if logged := g.abort(ctx, c.Subject.Tenant, c.Subject.ID, receipt.Index); logged != nil {
		return 0, fmt.Errorf("guard: %w", errors.Join(err, logged))
	}
	g.open.settle(write)
	var le *crm.LimitError
	if errors.As(err, &le) && le.Index >= len(limits) && le.Index < len(batch.Limits) {
		return 0, g.unmet(ctx, needs[le.Index-len(limits)], whose[le.Index-len(limits)])
	}
	return 0, fmt.Errorf("guard: %w", err)
}

// reserver is a domain type some of whose clear fields are never set by who makes or updates a record, but by acts of their own: who has
// approved it, whose turn it is in a pool. isNew tells that the record is made.
type reserver interface{ Reserved(isNew bool) []string }

// keeps returns nil when the reserved fields of v are as in prev, or empty where v is new and prev nil, else a denial.
func (r *Records[P]) keeps(v, prev P, isNew bool) error {
	t, ok := any(v).(reserver)
	if !ok {
		return nil
	}
	names := t.Reserved(isNew)
	if isNew {
		prev = r.codec.New()
	}
	now, err := r.codec.ClearValues(v)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	before, err := r.codec.ClearValues(prev)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	for _, name := range names {
		i, ok := r.column[name]
		if !ok {
			return fmt.Errorf("guard: type %s reserves %s, which is no clear field", r.typ, name)
		}
		a, _ := crm.ValueOf(now[i])
		if b, _ := crm.ValueOf(before[i]); a != b {
			return &authz.DeniedError{Controls: []string{"fields.reserved"}}
		}
	}
	return nil
}

// writable tells whether the decision lets the caller set the fields of v that differ from what is
// stored: prev is nil when v is new. A hidden field can be set by nobody who cannot see it.
func (r *Records[P]) writable(v, prev P, isNew bool, d authz.Decision) error {
	val := reflect.ValueOf(v).Elem()
	for _, f := range r.fields {
		if d.Fields.Access(f.Name, string(f.Class)) != authz.Hidden {
			continue
		}
		field := val.FieldByName(f.GoName)
		touched := false
		switch t := field.Interface().(type) {
		case interface {
			IsEmpty() bool
			State() crm.State
		}:
			// On an update, a text that is clear replaces the stored one, even when it is empty.
			touched = t.State() == crm.Clear && (!isNew || !t.IsEmpty())
		default:
			switch {
			case isNew || !f.Clear:
				touched = !field.IsZero()
			default:
				touched = !reflect.DeepEqual(field.Interface(), reflect.ValueOf(prev).Elem().FieldByName(f.GoName).Interface())
			}
		}
		if touched {
			return &authz.DeniedError{Controls: []string{"fields." + string(f.Class)}}
		}
	}
	return nil
}

// Update stores v in the place of the version that v was read from, and returns the new one as the
// caller may see it. A personal field of v that is masked, hidden, sealed or erased keeps its stored
// value. A clear field that Get does not show open,
// or that may not be set, keeps its stored value too, and must be as Get showed it. Errors: crm.ErrNotFound, crm.ErrConflict when another version is stored, *crm.InvalidError,
// *crm.TransitionError, *authz.DeniedError.
func (r *Records[P]) Update(ctx context.Context, c Caller, v P) (View[P], error) {
	return again(func() (View[P], error) { return r.update(ctx, c, v) })
}

// mayBecome decides whether an update may change what the policy reads of a record. Who gives a record away, or raises
// its level, must be allowed to change it where it goes; a level is lowered by who may declassify; holds, compartments, who has a
// part in a record, and the pool in which it is free are not changed by updates at all.
func (r *Records[P]) mayBecome(ctx context.Context, c Caller, row *crm.Row, next P, d authz.Decision) (authz.Decision, error, error) {
	was := r.resource(row)
	will, err := r.resourceOf(c.Subject.Tenant, next)
	if err != nil {
		return d, nil, err
	}
	if will.Held != was.Held || will.Pool != was.Pool || !slices.Equal(will.Compartments, was.Compartments) || !slices.Equal(will.Actors, was.Actors) {
		return d, &authz.DeniedError{Controls: []string{"update.attributes"}}, nil
	}
	if will.Level < was.Level {
		down, err := r.g.decider(c, authz.Declassify).decide(ctx, was)
		if err != nil {
			return d, nil, err
		}
		if denial := down.Proceed(c.met()...); denial != nil {
			return down, denial, nil
		}
	}
	if will.Owner == was.Owner && will.Team == was.Team && will.Level <= was.Level {
		return d, nil, nil
	}
	was.Owner, was.Team, was.Level = will.Owner, will.Team, will.Level
	there, err := r.g.decider(c, authz.Update).decide(ctx, was)
	if err != nil {
		return d, nil, err
	}
	return there, there.Proceed(c.met()...), nil
}

func (r *Records[P]) update(ctx context.Context, c Caller, v P) (View[P], error) {
	var none View[P]
	next, w, d, err := r.revise(ctx, c, v)
	if err != nil {
		return none, err
	}
	if err := unwrapWrite(r.commit(ctx, c, authz.Update, d, []pending{w})); err != nil {
		return none, err
	}
	r.codec.Set(v, next)
	return r.Get(ctx, c, v.Header().ID)
}

// revise decides on an update and makes its write.
func (r *Records[P]) revise(ctx context.Context, c Caller, v P) (P, pending, authz.Decision, error) {
	fail := func(d authz.Decision, err error) (none P, w pending, _ authz.Decision, _ error) {
		return none, w, d, err
	}
	h := v.Header()
	row, d, err := r.mayChange(ctx, c, authz.Update, h.ID)
	if err != nil {
		return fail(d, err)
	}
	if row.Version != h.Version {
		return fail(d, crm.ErrConflict)
	}
	if row.Deleted {
		return fail(d, crm.ErrNotFound)
	}
	seen, err := r.seen(ctx, c, row)
	if err != nil {
		return fail(d, err)
	}
	prev, err := r.stored(ctx, row, seen)
	if err != nil {
		return fail(d, err)
	}
	old := prev.Header()
	next := r.codec.Copy(v)
	// Before any rule looks at what is stored and not the caller's to see.
	denial, err := r.keepUnseen(next, prev, seen, d)
	if err != nil {
		return fail(d, err)
	}
	if denial == nil {
		denial = r.writable(next, prev, false, d)
	}
	if denial != nil {
		return fail(d, errors.Join(denial, r.deny(ctx, c, authz.Update, row, d)))
	}
	h = next.Header()
	h.ID, h.Person, h.CreatedAt, h.Deleted = row.ID, old.Person, old.CreatedAt, false
	h.Version, h.UpdatedAt = old.Version+1, r.g.now().UTC()
	next.SetHeader(h)
	if w, ok := any(next).(validator); ok {
		if err := w.Validate(); err != nil {
			return fail(d, err)
		}
	}
	if err := r.checkUpdate(ctx, c, row, next, prev, seen, d); err != nil {
		return fail(d, err)
	}
	denial = r.keeps(next, prev, false)
	if denial == nil {
		var there authz.Decision
		if there, denial, err = r.mayBecome(ctx, c, row, next, d); err != nil {
			return fail(d, err)
		}
		d = there
	}
	if denial != nil {
		return fail(d, errors.Join(denial, r.deny(ctx, c, authz.Update, row, d)))
	}
	if err := r.stamp(c, next); err != nil {
		return fail(d, err)
	}
	if w, ok := any(next).(validator); ok { // which may keep that field itself
		if err := w.Validate(); err != nil {
			return fail(d, err)
		}
	}
	sealed, err := r.reseal(ctx, c, row, next, r.unseen(seen, d), d)
	if err != nil {
		return fail(d, err)
	}
	w, err := r.build(ctx, c, next, sealed, old.Version)
	w.needs = r.needs(next, prev)
	return next, w, d, err
}

// unseen lists the sealed fields without a state of their own that the caller could not have read;
// their stored value is kept.
func (r *Records[P]) unseen(seen authz.Fields, d authz.Decision) []string {
	t := reflect.ValueOf(r.codec.New()).Elem()
	var out []string
	for _, f := range r.sealed {
		_, hasState := t.FieldByName(f.GoName).Interface().(interface{ State() crm.State })
		if !hasState && (d.Fields.Access(f.Name, string(f.Class)) != authz.Open || seen.Access(f.Name, string(f.Class)) != authz.Open) {
			out = append(out, f.Name)
		}
	}
	return out
}

// mayChange loads a row and decides on a change of it. Who may not read a record, nor see it in a pool, does not learn of it.
func (r *kind) mayChange(ctx context.Context, c Caller, a authz.Action, id crm.UUID) (*crm.Row, authz.Decision, error) {
	row, err := r.load(ctx, c, id)
	if err != nil {
		return nil, authz.Decision{}, err
	}
	res := r.resource(row)
	d, err := r.g.decider(c, a).decide(ctx, res)
	if err != nil {
		return nil, d, err
	}
	denial := d.Proceed(c.met()...)
	if denial == nil && slices.Contains(handing, a) {
		return row, d, nil // who may take it may know of it
	}
	if seen, err := r.g.decider(c, authz.Browse).decide(ctx, res); err != nil {
		return nil, d, err
	} else if res.Pool == "" || seen.Proceed(c.met()...) != nil {
		if d, err := r.readable(ctx, c, row); err != nil {
			return nil, d, err
		}
	}
	if denial != nil {
		return nil, d, errors.Join(denial, r.deny(ctx, c, a, row, d))
	}
	return row, d, nil
}

// Delete puts a record into the recycle bin. version is the one that the caller saw.
func (r *kind) Delete(ctx context.Context, c Caller, id crm.UUID, version int64) error {
	return r.setDeleted(ctx, c, authz.Delete, id, version, true)
}

// Restore takes a record out of the recycle bin. crm.ErrDuplicate means that a living record has
// taken a unique value of it.
func (r *kind) Restore(ctx context.Context, c Caller, id crm.UUID, version int64) error {
	return r.setDeleted(ctx, c, authz.Restore, id, version, false)
}

func (r *kind) setDeleted(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, deleted bool) error {
	w, d, err := r.bin(ctx, c, a, id, version, deleted, r.g.now())
	if err != nil {
		return err
	}
	return unwrapWrite(r.commit(ctx, c, a, d, []pending{w}))
}

// bin decides on a deletion or a restoration and makes its write.
func (r *kind) bin(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, deleted bool, now time.Time) (pending, authz.Decision, error) {
	row, d, err := r.mayChange(ctx, c, a, id)
	if err != nil {
		return pending{}, d, err
	}
	if row.Version != version {
		return pending{}, d, crm.ErrConflict
	}
	if row.Deleted == deleted {
		return pending{}, d, crm.ErrNotFound
	}
	next := *row
	next.Deleted = deleted
	next.Version++
	next.Clear = slices.Clone(row.Clear)
	if i, ok := r.column["updated_at"]; ok {
		next.Clear[i] = crm.TimeValue(now)
	}
	w, err := r.seal(ctx, next, row.Version)
	return w, d, err
}

// unwrapWrite drops the place of a write in its batch where there is only one.
func unwrapWrite(err error) error {
	var we *crm.WriteError
	if errors.As(err, &we) {
		return we.Err
	}
	return err
}
