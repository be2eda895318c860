package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Query asks for one page of a list.
type Query struct {
	Clauses []crm.Clause // over fields that are clear columns and that the policy opens
	Bin     bool         // the recycle bin instead of living records
	Browse  bool         // what is free in the caller's pools, as it is shown before a claim, instead of what they may list
	Hide    []string     // fields that are not shown, filtered or sorted by, whatever the policy says
	Sort    string       // such a field; "": by creation
	Desc    bool
	After   string // Page.Next of the page before; "" for the first
	Limit   int    // 1 to 200; 0: 50
	Most    int64  // where Count ends: more records are not looked for; 0: it counts all
}

// Page is one page of a list.
type Page[P Record] struct {
	Items []View[P]
	Next  string // "" on the last page
	Event uint64 // the log's event of this reading; it names each record
}

// Get returns one record. Errors: crm.ErrNotFound, also for a record that the caller may not read.
func (r *Records[P]) Get(ctx context.Context, c Caller, id crm.UUID) (View[P], error) {
	return again(func() (View[P], error) { return r.get(ctx, c, id) })
}

func (r *Records[P]) get(ctx context.Context, c Caller, id crm.UUID) (View[P], error) {
	row, err := r.load(ctx, c, id)
	if err != nil {
		return View[P]{}, err
	}
	d, err := r.readable(ctx, c, row)
	if err != nil {
		return View[P]{}, err
	}
	return r.open(ctx, c, authz.Read, row, d)
}

// again does an operation a second time when the key of a row has ended since the row was read: the row
// is under a newer one by then.
func again[V any](do func() (V, error)) (V, error) {
	v, err := do()
	if errors.Is(err, encrypt.ErrRetired) {
		return do()
	}
	return v, err
}

// load returns an authentic row of the caller's tenant, or crm.ErrNotFound.
func (r *kind) load(ctx context.Context, c Caller, id crm.UUID) (*crm.Row, error) {
	rows, err := r.g.store.Load(ctx, c.Subject.Tenant, r.typ, []crm.UUID{id})
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if len(rows) != 1 || rows[0].Version == 0 {
		return nil, crm.ErrNotFound
	}
	if rows[0].ID != id {
		return nil, fmt.Errorf("%w: %s %s", ErrForged, r.typ, id)
	}
	if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {
		return nil, err
	}
	if r.purged(&rows[0]) {
		return nil, crm.ErrNotFound
	}
	return &rows[0], nil
}

// readable decides whether the caller may know of a row at all; a refusal is logged and looks like
// crm.ErrNotFound.
func (r *kind) readable(ctx context.Context, c Caller, row *crm.Row) (authz.Decision, error) {
	d, err := r.g.decider(c, authz.Read).decide(ctx, r.resource(row))
	if err != nil {
		return d, err
	}
	if d.Proceed(c.met()...) != nil {
		if err := r.deny(ctx, c, authz.Read, row, d); err != nil {
			return d, err
		}
		return d, crm.ErrNotFound
	}
	return d, nil
}

// deny logs a denial. A nil error means that it is in the log.
func (r *kind) deny(ctx context.Context, c Caller, a authz.Action, row *crm.Row, d authz.Decision) error {
	e := c.event(r.typ, a, d)
	e.Outcome = audit.Denied
	if row != nil {
		e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
	}
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return fmt.Errorf("guard: no log, no data: %w", err)
	}
	return nil
}

// open logs that the caller reads one row, then opens it.
func (r *Records[P]) open(ctx context.Context, c Caller, a authz.Action, row *crm.Row, d authz.Decision) (View[P], error) {
	views, event, err := r.openAll(ctx, c, a, []crm.Row{*row}, []authz.Decision{d})
	if err != nil {
		return View[P]{}, err
	}
	views[0].Event = event
	return views[0], nil
}

// openAll logs one event that names each row, then opens what the decisions allow.
func (r *Records[P]) openAll(ctx context.Context, c Caller, a authz.Action, rows []crm.Row, ds []authz.Decision) ([]View[P], uint64, error) {
	e := c.event(r.typ, a, authz.Decision{})
	e.Count = int64(len(rows))
	e.Targets = make([]audit.Target, len(rows))
	shown := r.showings(ds)
	var fields []string // for the event: no list of a decision is appended to
	for i := range rows {
		e.Targets[i] = audit.Target{Type: r.typ, ID: rows[i].ID.String(), Version: uint64(rows[i].Version)}
		e.Policy = ds[i].Revision
		if i == 0 || !sameList(ds[i].Controls, ds[i-1].Controls) {
			e.Controls = union(e.Controls, ds[i].Controls)
		}
		if i == 0 || shown[i] != shown[i-1] {
			fields = union(fields, shown[i].words)
		}
	}
	e.Fields = fields
	receipt, err := r.g.log.Append(ctx, e)
	if err != nil {
		return nil, 0, fmt.Errorf("guard: no log, no data: %w", err)
	}
	views := make([]View[P], len(rows))
	values := make([]any, len(r.columns))
	for i, v := range r.codec.NewAll(len(rows)) {
		views[i].Value = v
		if err := r.hydrateFrom(values, &rows[i], views[i].Value); err != nil {
			return nil, 0, err
		}
		views[i].Controls = ds[i].Controls
		views[i].Event = receipt.Index
	}
	return views, receipt.Index, r.fill(ctx, rows, shown, views)
}

// union appends those of b that a lacks.
func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// sameList tells whether two lists are the same memory, as those of decisions by one plan are.
func sameList(a, b []string) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// showing is what a field policy means for the fields of a type. It is worked out once for all rows that share it.
type showing struct {
	access map[string]Access // of every field, by name
	open   []string          // the sealed fields that are opened
	masked []string
	hidden []string
	words  []string // for the event
}

// showings returns the showing of each decision: one for all with equal field policies.
func (r *kind) showings(ds []authz.Decision) []*showing {
	out := make([]*showing, len(ds))
	var others map[string]*showing
	for i := range ds {
		if i > 0 && sameFields(ds[i].Fields, ds[i-1].Fields) {
			out[i] = out[i-1]
			continue
		}
		key := make([]byte, len(r.fields))
		for j, f := range r.fields {
			key[j] = byte(ds[i].Fields.Access(f.Name, string(f.Class)))
		}
		if out[i] = others[string(key)]; out[i] != nil {
			continue
		}
		if others == nil {
			others = map[string]*showing{}
		}
		out[i] = r.showing(ds[i].Fields)
		others[string(key)] = out[i]
	}
	return out
}

// sameFields tells whether two field policies are the same maps, as those of decisions by one plan are.
func sameFields(a, b authz.Fields) bool {
	same := func(a, b map[string]Access) bool {
		return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
	}
	return same(a.ByClass, b.ByClass) && same(a.ByName, b.ByName)
}

func (r *kind) showing(fields authz.Fields) *showing {
	s := &showing{access: make(map[string]Access, len(r.fields))}
	for _, f := range r.fields {
		access := fields.Access(f.Name, string(f.Class))
		s.access[f.Name] = access
		switch access {
		case authz.Masked:
			s.masked = append(s.masked, f.Name)
		case authz.Hidden:
			s.hidden = append(s.hidden, f.Name)
		}
		if f.Clear || access == authz.Hidden {
			continue
		}
		s.open = append(s.open, f.Name)
		switch access {
		case authz.Open:
			s.words = append(s.words, f.Name)
		case authz.Masked:
			s.words = append(s.words, f.Name+":masked")
		}
	}
	return s
}

// fill opens the allowed fields of rows into views and masks or hides the rest. Rows with equal field
// policies are opened together, so that their keys are loaded in one query.
func (r *Records[P]) fill(ctx context.Context, rows []crm.Row, shown []*showing, views []View[P]) error {
	done := make([]bool, len(rows))
	pooled := fieldSpaces.Get().(*[]encrypt.SealedField)
	space := (*pooled)[:0]
	defer func() {
		clear(space)
		*pooled = space
		fieldSpaces.Put(pooled)
	}()
	for from := range rows {
		if done[from] {
			continue
		}
		s := shown[from]
		var recs []encrypt.Record
		var fields [][]encrypt.SealedField
		var into []P
		for i := from; i < len(rows); i++ {
			if shown[i] != s {
				continue
			}
			if recs == nil {
				most := len(rows) - from
				recs, fields, into = make([]encrypt.Record, 0, most), make([][]encrypt.SealedField, 0, most), make([]P, 0, most)
			}
			done[i] = true
			var values []encrypt.SealedField
			values, space = valuesOf(space, rows[i].Sealed)
			recs, fields, into = append(recs, recordOf(&rows[i])), append(fields, values), append(into, views[i].Value)
		}
		if len(s.open) > 0 {
			if _, err := r.codec.OpenAll(ctx, r.g.keeper, recs, fields, into, s.open...); err != nil {
				return fmt.Errorf("guard: %s: %w", r.typ, err)
			}
		}
	}
	for i := range views {
		if err := r.conceal(&views[i], shown[i]); err != nil {
			return err
		}
	}
	return nil
}

// conceal masks and hides the fields of a view.
func (r *Records[P]) conceal(v *View[P], s *showing) error {
	v.Fields = s.access
	for _, name := range s.masked {
		if err := r.codec.Conceal(v.Value, name, encrypt.StateMasked); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	for _, name := range s.hidden {
		if err := r.codec.Conceal(v.Value, name, encrypt.StateHidden); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return nil
}

// Reveal returns one field in clear, where the policy allows it for the reason that the caller gives.
// The log keeps the reason under the record's person.
func (r *Records[P]) Reveal(ctx context.Context, c Caller, id crm.UUID, field string) (View[P], error) {
	return again(func() (View[P], error) { return r.reveal(ctx, c, id, field) })
}

func (r *Records[P]) reveal(ctx context.Context, c Caller, id crm.UUID, field string) (View[P], error) {
	var none View[P]
	f, ok := r.field(field)
	if !ok {
		return none, fmt.Errorf("guard: type %s has no field %s", r.typ, field)
	}
	row, err := r.load(ctx, c, id)
	if err != nil {
		return none, err
	}
	if _, err := r.readable(ctx, c, row); err != nil {
		return none, err
	}
	d, err := r.g.decider(c, authz.Reveal).decide(ctx, r.resource(row))
	if err != nil {
		return none, err
	}
	denial := d.Proceed(c.met()...)
	if denial == nil && d.Fields.Access(f.Name, string(f.Class)) != authz.Open {
		denial = &authz.DeniedError{Controls: []string{"fields." + string(f.Class)}}
	}
	if denial != nil {
		return none, errors.Join(denial, r.deny(ctx, c, authz.Reveal, row, d))
	}
	e := c.event(r.typ, authz.Reveal, d)
	e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
	e.Fields = []string{f.Name}
	if c.Reason != "" {
		e.Details = []audit.Detail{audit.Personal("reason", personOf(row), c.Reason)}
	}
	receipt, err := r.g.log.Append(ctx, e)
	if err != nil {
		return none, fmt.Errorf("guard: no log, no data: %w", err)
	}
	// Every other field is hidden in the answer.
	only := authz.Decision{Allowed: true, Fields: authz.Fields{ByName: map[string]authz.Access{f.Name: authz.Open}}}
	v := []View[P]{{Value: r.codec.New(), Controls: d.Controls, Event: receipt.Index}}
	if f.Clear {
		if err := r.hydrate(row, v[0].Value); err != nil {
			return none, err
		}
	}
	if err := r.fill(ctx, []crm.Row{*row}, r.showings([]authz.Decision{only}), v); err != nil {
		return none, err
	}
	return v[0], nil
}

// List returns one page of the records that the caller may list. A field that the policy does not
// open can be neither filtered nor sorted.
func (r *Records[P]) List(ctx context.Context, c Caller, q Query) (Page[P], error) {
	return again(func() (Page[P], error) { return r.list(ctx, c, q) })
}

func (r *Records[P]) list(ctx context.Context, c Caller, q Query) (Page[P], error) {
	a := q.action()
	d := r.g.decider(c, a)
	d.hide = q.Hide
	sq, err := r.prepare(ctx, c, a, d, q)
	if err != nil {
		return Page[P]{}, err
	}
	page, err := r.g.store.List(ctx, sq)
	if err != nil {
		return Page[P]{}, fmt.Errorf("guard: %w", err)
	}
	return r.page(ctx, c, a, d, page)
}

// action is what a query does.
func (q *Query) action() authz.Action {
	if q.Browse {
		return authz.Browse
	}
	return authz.List
}

// Count counts the records that List would return over all pages, up to q.Most.
func (r *kind) Count(ctx context.Context, c Caller, q Query) (int64, error) {
	a := q.action()
	d := r.g.decider(c, a)
	d.hide = q.Hide
	sq, err := r.prepare(ctx, c, a, d, q)
	if err != nil {
		return 0, err
	}
	e := c.event(r.typ, a, authz.Decision{})
	e.Action = r.typ + ".count"
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return 0, fmt.Errorf("guard: no log, no data: %w", err)
	}
	n, err := r.g.store.Count(ctx, sq)
	if err != nil {
		return 0, fmt.Errorf("guard: %w", err)
	}
	return n, nil
}

// prepare turns a list's query into one for the store, or denies.
func (r *kind) prepare(ctx context.Context, c Caller, a authz.Action, d *decider, q Query) (crm.Query, error) {
	sample, err := r.sample(ctx, c, d)
	if err != nil {
		return crm.Query{}, err
	}
	return r.prepared(ctx, c, a, q, sample, sample.Proceed(c.met()...))
}

// prepared is prepare for who has decided on the sample: denial is nil where it allows.
func (r *kind) prepared(ctx context.Context, c Caller, a authz.Action, q Query, sample authz.Decision, denial error) (crm.Query, error) {
	if denial == nil {
		names := []string{q.Sort}
		for _, cl := range q.Clauses {
			names = append(names, cl.Column)
		}
		for _, name := range names {
			f, ok := r.field(name)
			switch {
			case name == "":
			case !ok || !f.Clear:
				return crm.Query{}, fmt.Errorf("%w: %s is not sorted or filtered by", encrypt.ErrUnsupported, r.typ)
			case sample.Fields.Access(f.Name, string(f.Class)) != authz.Open:
				denial = &authz.DeniedError{Controls: []string{"fields." + string(f.Class)}}
			}
		}
	}
	if denial != nil {
		return crm.Query{}, errors.Join(denial, r.deny(ctx, c, a, nil, sample))
	}
	filter, err := r.g.of(c).Filter(ctx, authz.Request{
		Subject: c.subject(a), Action: a, Environment: c.Environment,
		Resource: authz.Resource{Tenant: c.Subject.Tenant, Type: r.typ},
	})
	if err != nil {
		return crm.Query{}, fmt.Errorf("guard: %w", err)
	}
	sq := crm.Query{
		Tenant: c.Subject.Tenant, Type: r.typ, Where: r.where(filter),
		Clauses: q.Clauses, Sort: q.Sort, Desc: q.Desc, After: q.After, Limit: q.Limit, Most: q.Most,
	}
	if q.Bin { // what was purged has no time of creation any more
		sq.Deletion = crm.InBin
		sq.Clauses = append(slices.Clone(q.Clauses), crm.Clause{Column: "created_at", Op: crm.NotNull})
	}
	if sq.Limit == 0 {
		sq.Limit = 50
	}
	if sq.Limit < 1 || sq.Limit > 200 {
		return crm.Query{}, errors.New("guard: a page has 1 to 200 records")
	}
	return sq, nil
}

// page checks what the store returned, logs it and opens it.
func (r *Records[P]) page(ctx context.Context, c Caller, a authz.Action, d *decider, p crm.Page) (Page[P], error) {
	ds, err := r.decideAll(ctx, c, a, d, p.Rows)
	if err != nil {
		return Page[P]{}, err
	}
	views, event, err := r.openAll(ctx, c, a, p.Rows, ds)
	if err != nil {
		return Page[P]{}, err
	}
	return Page[P]{Items: views, Next: p.Next, Event: event}, nil
}

// decideAll checks what the store returned and decides on each row.
func (r *kind) decideAll(ctx context.Context, c Caller, a authz.Action, d *decider, rows []crm.Row) ([]authz.Decision, error) {
	if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {
		return nil, err
	}
	ds := make([]authz.Decision, len(rows))
	for i := range rows {
		var err error
		if ds[i], err = d.decide(ctx, r.resource(&rows[i])); err != nil {
			return nil, err
		}
		if ds[i].Proceed(c.met()...) != nil {
			// The filter admitted what the decision refuses: a fault of the policy engine or a store
			// that returns what was not asked for. Nothing leaves.
			return nil, errors.Join(errors.New("guard: list and decision disagree"),
				r.deny(ctx, c, a, &rows[i], ds[i]))
		}
	}
	return ds, nil
}

// mostCandidates is how many records a search opens at most to find those that match.
const mostCandidates = 1000

// ErrBroad says that a search has too many candidates: more must be typed.
var ErrBroad = errors.New("guard: too many records could match; type more")

// probe is one index of one field that a search asks.
type probe struct {
	query encrypt.Query
	field string
	full  bool // it finds by the full value only
	last  bool // it finds by the last digits
}

// Search returns the records, at most limit (1 to 200), that one of the fields' indexes finds under what was
// typed, after normalisation: a phone in another spelling or by its last digits, a name by a part of it or in
// pinyin, as the tags of the fields say. A whole number that is found as such is not looked for by its last digits too. The fields must be indexed. One that the policy masks is found by
// its full value under the actor's quota, and by what its mask shows; one that it hides is not searched, and the answer does not
// tell. Where too many could match, those that match by their full value are found alone. Candidates are opened to compare them, and logged like what is found. Errors: encrypt.ErrUnsupported,
// ErrBroad, ErrQuota.
func (r *Records[P]) Search(ctx context.Context, c Caller, term string, limit int, fields ...string) (Page[P], error) {
	return again(func() (Page[P], error) { return r.search(ctx, c, term, limit, fields) })
}

func (r *Records[P]) search(ctx context.Context, c Caller, term string, limit int, fields []string) (Page[P], error) {
	d := r.g.decider(c, authz.Search)
	sq, err := r.prepare(ctx, c, authz.Search, d, Query{Limit: limit})
	if err != nil {
		return Page[P]{}, err
	}
	sample, err := r.sample(ctx, c, d)
	if err != nil {
		return Page[P]{}, err
	}
	probes, masked, err := r.probes(ctx, c, sq, sample, term, fields)
	if err != nil {
		return Page[P]{}, err
	}
	if masked && !r.g.quota.take(c.Subject.Tenant+"/"+c.Subject.ID, r.g.now()) {
		return Page[P]{}, errors.Join(ErrQuota, r.deny(ctx, c, authz.Search, nil, sample))
	}
	if whole := exact(probes, term); whole != nil {
		if page, err := r.find(ctx, c, d, sq, whole, masked); err != nil || len(page.Items) > 0 {
			return page, err
		}
	}
	page, err := r.find(ctx, c, d, sq, probes, masked)
	if whole := fullOf(probes); errors.Is(err, ErrBroad) && len(whole) > 0 {
		// Among millions a whole name has parts that thousands share.
		if found, alone := r.find(ctx, c, d, sq, whole, masked); alone == nil && len(found.Items) > 0 {
			return found, nil
		}
	}
	return page, err
}

// fullOf returns the probes that find by the full value.
func fullOf(probes []probe) []probe {
	var out []probe
	for _, p := range probes {
		if p.full {
			out = append(out, p)
		}
	}
	return out
}

// exact returns the probes without those by last digits, for a term that is a whole number. nil: there is nothing to be left out. That index has many candidates
// for each four digits, and whoever typed the number and finds it does not need them.
func exact(probes []probe, term string) []probe {
	digits := 0
	for _, c := range term {
		if unicode.IsDigit(c) {
			digits++
		}
	}
	var out []probe
	for _, p := range probes {
		if !p.last {
			out = append(out, p)
		}
	}
	if digits < 7 || len(out) == len(probes) {
		return nil
	}
	return out
}

// find returns the records that one of the probes finds.
func (r *Records[P]) find(ctx context.Context, c Caller, d *decider, sq crm.Query, probes []probe, masked bool) (Page[P], error) {
	limit := sq.Limit
	sq.Tokens = []int64{}
	for _, p := range probes {
		// A match carries a token of each group. The middle of a name says more than its ends, which are
		// cities and legal forms.
		sq.Tokens = append(sq.Tokens, p.query.Groups[len(p.query.Groups)/2]...)
	}
	var out Page[P]
	for seen := 0; ; {
		var found crm.Page
		if len(sq.Tokens) > 0 {
			var err error
			if found, err = r.g.store.List(ctx, sq); err != nil {
				return Page[P]{}, fmt.Errorf("guard: %w", err)
			}
		}
		page, err := r.page(ctx, c, authz.Search, d, found)
		if err != nil {
			return Page[P]{}, err
		}
		if err := r.recheck(ctx, c, &page, found.Rows, probes, masked); err != nil {
			return Page[P]{}, err
		}
		out.Event = page.Event
		out.Items = append(out.Items, page.Items...)
		seen += len(found.Rows)
		switch {
		case len(out.Items) >= limit:
			out.Items = out.Items[:limit]
			return out, nil
		case found.Next == "":
			return out, nil
		case seen >= mostCandidates:
			return Page[P]{}, ErrBroad
		}
		sq.After, sq.Limit = found.Next, 200
	}
}

// probes asks the indexes of all fields that the caller may search.
func (r *Records[P]) probes(ctx context.Context, c Caller, sq crm.Query, sample authz.Decision, term string, fields []string) (all []probe, masked bool, err error) {
	var unsupported error
	searched := false
	for _, name := range fields {
		f, ok := r.field(name)
		if !ok || len(f.Indexes) == 0 {
			return nil, false, fmt.Errorf("%w: %s", encrypt.ErrUnsupported, name)
		}
		access := sample.Fields.Access(f.Name, string(f.Class))
		if access == authz.Hidden {
			continue
		}
		masked = masked || access == authz.Masked
		found, err := r.fieldProbes(ctx, c, f, term)
		switch {
		case errors.Is(err, encrypt.ErrUnsupported) && len(fields) > 1:
			unsupported = err // a name is no phone: the other fields are searched
			continue
		case errors.Is(err, encrypt.ErrKeyMissing) && r.nothing(ctx, sq):
			// A tenant that has never written has no keys.
		case err != nil:
			return nil, false, fmt.Errorf("guard: %w", err)
		}
		searched = true
		all = append(all, found...)
	}
	if !searched && unsupported != nil {
		return nil, false, fmt.Errorf("guard: %w", unsupported)
	}
	return all, masked, nil
}

// nothing tells whether the tenant has no record of the type at all.
func (r *kind) nothing(ctx context.Context, q crm.Query) bool {
	page, err := r.g.store.List(ctx, crm.Query{
		Tenant: q.Tenant, Type: q.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1,
	})
	return err == nil && len(page.Rows) == 0
}

// fieldProbes asks the indexes of one field. ErrUnsupported when none can answer.
func (r *Records[P]) fieldProbes(ctx context.Context, c Caller, f encrypt.Field, term string) ([]probe, error) {
	var found []probe
	var unsupported error
	for _, x := range f.Indexes {
		p := probe{field: f.Name, last: strings.HasPrefix(x.Kind, "suffix"), full: x.Kind == "exact" && x.Normalizer != "pinyin"}
		if len(x.Of) > 0 {
			continue
		}
		if x.Normalizer == "pinyin" && strings.ContainsFunc(term, func(c rune) bool { return unicode.Is(unicode.Han, c) }) {
			continue // characters are looked for as such, not as everything that sounds like them
		}
		var err error
		p.query, err = r.codec.Query(ctx, r.g.keeper, c.Subject.Tenant, f.Name, x.Kind+":"+x.Normalizer, term)
		if errors.Is(err, encrypt.ErrUnsupported) {
			unsupported = err // too short for this index: perhaps not for another
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	if len(found) == 0 {
		return nil, cmp.Or(unsupported, fmt.Errorf("%w: field %s", encrypt.ErrUnsupported, f.Name))
	}
	return found, nil
}

// recheck opens the searched fields of the candidates and keeps those that match in a field that the caller
// sees in this very record: a masked one counts by its full value, or where the mask itself matches (the last
// four digits of 138****5678), a hidden one never.
func (r *Records[P]) recheck(ctx context.Context, c Caller, page *Page[P], rows []crm.Row, probes []probe, paid bool) error {
	if len(rows) == 0 {
		return nil
	}
	var names []string
	for _, p := range probes {
		if !slices.Contains(names, p.field) {
			names = append(names, p.field)
		}
	}
	recs := make([]encrypt.Record, len(rows))
	fields := make([][]encrypt.SealedField, len(rows))
	into := r.codec.NewAll(len(rows))
	for i := range rows {
		recs[i] = recordOf(&rows[i])
		fields[i], _ = valuesOf(nil, rows[i].Sealed)
	}
	if _, err := r.codec.OpenAll(ctx, r.g.keeper, recs, fields, into, names...); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	kept := page.Items[:0]
	for i := range rows {
		access := page.Items[i].Fields
		hit := slices.ContainsFunc(probes, func(p probe) bool {
			switch {
			case access[p.field] == authz.Hidden:
				return false
			case access[p.field] == authz.Masked && !p.full:
				return r.codec.Match(p.query, page.Items[i].Value) // the mask shows it anyway
			case !r.codec.Match(p.query, into[i]):
				return false
			case access[p.field] == authz.Masked && !paid:
				paid = r.g.quota.take(c.Subject.Tenant+"/"+c.Subject.ID, r.g.now())
				return paid
			}
			return true
		})
		if hit {
			kept = append(kept, page.Items[i])
		}
	}
	page.Items = kept
	return nil
}

// History returns the newest events about one record that the caller may read, newest first, below
// index before (0: from the end). Reasons are opened for who has the action history on it. It is a reading and logged as one.
func (r *kind) History(ctx context.Context, c Caller, id crm.UUID, before uint64, limit int) ([]audit.Entry, error) {
	row, err := r.load(ctx, c, id)
	if err != nil {
		return nil, err
	}
	d, err := r.readable(ctx, c, row)
	if err != nil {
		return nil, err
	}
	e := c.event(r.typ, authz.Read, d)
	e.Action = r.typ + ".history"
	e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return nil, fmt.Errorf("guard: no log, no data: %w", err)
	}
	if before == 0 {
		before = math.MaxUint64
	}
	entries, err := r.g.log.Query(ctx, audit.Filter{Tenant: c.Subject.Tenant, TargetType: r.typ, TargetID: id.String()}, before, limit)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	reasons, err := r.g.decider(c, authz.History).decide(ctx, r.resource(row))
	if err != nil {
		return nil, err
	}
	for i := range entries {
		// What else an event was about, and in which session, is not of this record.
		e := &entries[i].Event
		e.Session = ""
		e.Targets = slices.DeleteFunc(slices.Clone(e.Targets), func(t audit.Target) bool { return t.Type != r.typ || t.ID != id.String() })
		if len(entries[i].Event.Details) == 0 || reasons.Proceed(c.met()...) != nil {
			continue
		}
		if entries[i].Event.Details, err = r.g.log.Reveal(ctx, entries[i]); err != nil {
			return nil, fmt.Errorf("guard: %w", err)
		}
	}
	return entries, nil
}

// GetAll returns those of the records that exist and that the caller may list, in the order of ids, at
// most 200, with what a list shows of them: the records that others refer to.
func (r *Records[P]) GetAll(ctx context.Context, c Caller, ids []crm.UUID) ([]View[P], error) {
	if len(ids) == 0 {
		return nil, nil
	}
	if len(ids) > 200 {
		return nil, errors.New("guard: at most 200 records at once")
	}
	return again(func() ([]View[P], error) { return r.getAll(ctx, c, ids) })
}

func (r *Records[P]) getAll(ctx context.Context, c Caller, ids []crm.UUID) ([]View[P], error) {
	rows, err := r.g.store.Load(ctx, c.Subject.Tenant, r.typ, ids)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(row crm.Row) bool { return row.Version == 0 || row.Deleted })
	if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {
		return nil, err
	}
	d := r.g.decider(c, authz.List)
	var ds []authz.Decision
	kept := rows[:0]
	for i := range rows {
		dec, err := d.decide(ctx, r.resource(&rows[i]))
		if err != nil {
			return nil, err
		}
		if dec.Proceed(c.met()...) == nil {
			kept = append(kept, rows[i])
			ds = append(ds, dec)
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	views, _, err := r.openAll(ctx, c, authz.List, kept, ds)
	return views, err
}

// May tells whether the caller may do a, and with which fields, to the record v. It opens nothing and is for pages that offer only what will be
// allowed; each operation decides for itself.
func (r *Records[P]) May(ctx context.Context, c Caller, a authz.Action, v P) (bool, map[string]Access, error) {
	res, err := r.resourceOf(c.Subject.Tenant, v)
	if err != nil {
		return false, nil, err
	}
	return r.may(ctx, c, a, res)
}

// MayOwn is May for a record of the caller's own, such as one that they would make.
func (r *kind) MayOwn(ctx context.Context, c Caller, a authz.Action) (bool, map[string]Access, error) {
	return r.may(ctx, c, a, authz.Resource{Tenant: c.Subject.Tenant, Type: r.typ, Owner: c.Subject.ID, Team: c.Subject.Team})
}

func (r *kind) may(ctx context.Context, c Caller, a authz.Action, res authz.Resource) (bool, map[string]Access, error) {
	d, err := r.g.decider(c, a).decide(ctx, res)
	if err != nil {
		return false, nil, err
	}
	fields := make(map[string]Access, len(r.fields))
	for _, f := range r.fields {
		fields[f.Name] = d.Fields.Access(f.Name, string(f.Class))
	}
	return d.Allowed, fields, nil
}
