package guard

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// Band says how sure it is that two records are one thing. It is all that somebody learns of the likeness of a record that they may not read.
type Band uint8

// The bands.
const (
	Unlike Band = iota
	Likely
	Certain
)

// String returns the band in lower case.
func (b Band) String() string {
	switch b {
	case Likely:
		return "likely"
	case Certain:
		return "certain"
	}
	return "unlike"
}

// Tell says what somebody learns of a duplicate that they may not read.
type Tell uint8

// What is told; the zero Tell is the default.
const (
	TellOwner   Tell = iota // that it exists, and the id of its owner, whom to ask
	TellExists              // that it exists
	TellNothing             // nothing: it is not reported
)

// Key asks an index where duplicates of a record lie.
type Key struct {
	Field string   // or the fields of a compound index, "name+address"
	Index string   // a kind that finds by the whole term only: "exact:phone", "exact:sound+numbers"
	Texts []string // one for each field
	Most  int      // where more records than this share the key, it says nothing; 0, and no more than: 50
}

// Verdict is what a Matcher says of two records.
type Verdict struct {
	Band  Band
	Score float64  // 0 to 1
	Why   []string // names of fields and comparators, "phone: normalised"; never values
}

// Matcher says what makes two records one thing; crm/dedupe has them as data. It is safe for concurrent use and keeps no values.
type Matcher[P any] interface {
	// Fields are those that Compare looks at. No other one is opened for it.
	Fields() []string
	// Keys are where duplicates of v lie.
	Keys(v P) []Key
	// Compare compares v with a stored record. A field that is not to be compared is not clear in stored. Of one whose access is Masked only
	// whether it is equal, after normalisation, may count: a score that grows with likeness would let it be guessed piece by piece.
	Compare(v, stored P, access map[string]Access) Verdict
	// Tell is what is told of records that the asker may not read.
	Tell() Tell
}

// Alike is one duplicate that was found.
type Alike[P Record] struct {
	Band  Band
	View  *View[P] // as Read shows it; nil when the caller may not read the record
	Score float64  // only with View, as Why
	Why   []string
	Owner crm.UUID // whom to ask, only without View; zero: nobody has it, or it is not told
}

// mostPerKey is how many records may share a key. Where more do, it says nothing: a name that hundreds have.
const mostPerKey = 50

// MostChecks is how many records one AlikeEach checks.
const MostChecks = 200

// importChecks is how many times as many checks somebody makes who may import records of the type.
const importChecks = 100

// Normalizers are those that For takes when it is given none, for who compares by the same terms as the indexes find. region is that
// of phone numbers typed without one, ISO 3166.
func Normalizers(region string) map[string]func(string) []string {
	return normalize.Normalizers(region)
}

// Alike returns the living records that m takes for duplicates of v, which need not be stored; v itself is not among them. The action check decides which records are
// compared and by which fields: a field that it hides is not compared, and the answer does not tell; one that it masks counts by equality. Candidates
// are named in one event before they are opened.
//
// Of a record that the caller may read there is a view, the best first. Of all others the caller learns what m.Tell says: one line for each owner
// (or in all), with the strongest band, in the order of owners; no id, no number, no score. Since that is an answer about records that the caller may not read,
// it costs one of Options.ChecksPerHour an actor, a hundred times as many for who may import the type, for who may read any record of the type nothing.
//
// Errors: *authz.DeniedError, ErrQuota, encrypt.ErrUnsupported for a key whose index there is not or that finds by parts.
func (r *Records[P]) Alike(ctx context.Context, c Caller, v P, m Matcher[P]) ([]Alike[P], error) {
	all, err := r.AlikeEach(ctx, c, []P{v}, m)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// AlikeEach is Alike for up to MostChecks records at once, with one event, as an import asks. It does not compare them with each other.
func (r *Records[P]) AlikeEach(ctx context.Context, c Caller, vs []P, m Matcher[P]) ([][]Alike[P], error) {
	if len(vs) == 0 {
		return nil, nil
	}
	if len(vs) > MostChecks {
		return nil, fmt.Errorf("guard: at most %d records are checked at once", MostChecks)
	}
	return again(func() (out [][]Alike[P], err error) {
		found, of, event, err := r.alike(ctx, c, vs, m, true)
		if err != nil {
			return nil, err
		}
		out = make([][]Alike[P], len(vs))
		for n, v := range vs {
			if out[n], err = r.answers(ctx, v, m, of[n], found, event); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// AlikeBands is AlikeEach for who needs to know no more than how sure it is: of each of vs the strongest band that AlikeEach would tell of. Only the
// fields that are compared are opened.
func (r *Records[P]) AlikeBands(ctx context.Context, c Caller, vs []P, m Matcher[P]) ([]Band, error) {
	if len(vs) == 0 {
		return nil, nil
	}
	if len(vs) > MostChecks {
		return nil, fmt.Errorf("guard: at most %d records are checked at once", MostChecks)
	}
	return again(func() ([]Band, error) {
		found, of, _, err := r.alike(ctx, c, vs, m, false)
		if err != nil {
			return nil, err
		}
		byID := make(map[crm.UUID]*candidate[P], len(found))
		for _, k := range found {
			byID[k.row.ID] = k
		}
		out := make([]Band, len(vs))
		for n, v := range vs {
			for id := range of[n] {
				if k := byID[id]; k != nil && out[n] != Certain && (k.reads || m.Tell() != TellNothing) {
					out[n] = max(out[n], m.Compare(v, k.value, k.compared.access).Band)
				}
			}
		}
		return out, nil
	})
}

// candidate is one stored record and what of it the check may use.
type candidate[P Record] struct {
	row      crm.Row
	check    authz.Decision
	read     authz.Decision
	reads    bool // the caller may read it
	compared *showing
	shown    *showing // of the reading
	names    []string // the fields that are compared
	value    P        // with these
}

// alike finds the candidates of vs, names them in one event and opens what is compared of them; views are meant to be made of them, too.
// of[n] are the ids of those of vs[n].
func (r *Records[P]) alike(ctx context.Context, c Caller, vs []P, m Matcher[P], views bool) (
	found []*candidate[P], of []map[crm.UUID]bool, event uint64, err error,
) {
	d := r.g.decider(c, authz.Check)
	sample, err := r.sample(ctx, c, d)
	if err != nil {
		return nil, nil, 0, err
	}
	if denial := sample.Proceed(c.met()...); denial != nil {
		return nil, nil, 0, errors.Join(denial, r.deny(ctx, c, authz.Check, nil, sample))
	}
	if ok, err := r.affords(ctx, c, c.Subject.Tenant+"/"+c.Subject.ID, len(vs)); err != nil {
		return nil, nil, 0, err
	} else if !ok {
		return nil, nil, 0, errors.Join(ErrQuota, r.deny(ctx, c, authz.Check, nil, sample))
	}
	byID, of, err := r.candidates(ctx, c, vs, m)
	if err != nil {
		return nil, nil, 0, err
	}
	found, err = r.comparable(ctx, c, d, byID)
	if err != nil {
		return nil, nil, 0, err
	}
	e := c.event(r.typ, authz.Check, sample)
	e.Count = int64(len(found))
	checks, reads := make([]authz.Decision, len(found)), make([]authz.Decision, len(found))
	for i, k := range found {
		checks[i], reads[i] = k.check, k.read
	}
	compared, shown := r.showings(checks), r.showings(reads)
	fields := map[string]bool{}
	for i, k := range found {
		k.compared, k.shown, k.names = compared[i], shown[i], r.compares(m, compared[i])
		e.Targets = append(e.Targets, audit.Target{Type: r.typ, ID: k.row.ID.String(), Version: uint64(k.row.Version)})
		for _, n := range k.names {
			fields[n+":compared"] = true
		}
		if k.reads && views {
			for _, w := range k.shown.words {
				fields[w] = true
			}
		}
	}
	e.Fields = slices.Sorted(maps.Keys(fields))
	receipt, err := r.g.log.Append(ctx, e)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("guard: no log, no data: %w", err)
	}
	if err := r.openFor(ctx, found); err != nil {
		return nil, nil, 0, err
	}
	return found, of, receipt.Index, nil
}

// affords charges a quota of the caller, unless they may read any record of the type.
func (r *kind) affords(ctx context.Context, c Caller, purse string, n int) (bool, error) {
	if all, err := r.readsAll(ctx, c); all || err != nil {
		return all, err
	}
	d, err := r.sample(ctx, c, r.g.decider(c, authz.Import))
	if err != nil {
		return false, err
	}
	if d.Allowed {
		return r.g.imports.takeN(purse, r.g.now(), n), nil
	}
	return r.g.checks.takeN(purse, r.g.now(), n), nil
}

// readsAll tells whether the caller may read any record of the type, whoever has it.
func (r *kind) readsAll(ctx context.Context, c Caller) (bool, error) {
	d, err := r.g.decider(c, authz.Read).decide(ctx, authz.Resource{Tenant: c.Subject.Tenant, Type: r.typ})
	return err == nil && d.Proceed(c.met()...) == nil, err
}

// candidates asks the indexes, all keys of all vs at once. of[n] are the ids of those of vs[n].
func (r *Records[P]) candidates(ctx context.Context, c Caller, vs []P, m Matcher[P]) (map[crm.UUID]*candidate[P], []map[crm.UUID]bool, error) {
	tenant := c.Subject.Tenant
	var keys []Key
	var asks []int // whose each key is
	for n, v := range vs {
		for _, k := range m.Keys(v) {
			keys, asks = append(keys, k), append(asks, n)
		}
	}
	tokens, err := r.keyed(ctx, tenant, keys)
	if err != nil {
		return nil, nil, err
	}
	carry, err := r.carriers(ctx, tenant, keys, tokens)
	if err != nil {
		return nil, nil, err
	}
	found := map[crm.UUID]*candidate[P]{}
	of := make([]map[crm.UUID]bool, len(vs))
	for n := range vs {
		of[n] = map[crm.UUID]bool{}
	}
	for i, n := range asks {
		own := vs[n].Header().ID
		for _, t := range tokens[i] {
			for _, id := range carry[keys[i].most()][t] {
				if id != own { // a record is not asked about itself
					of[n][id], found[id] = true, nil
				}
			}
		}
	}
	for ids := range slices.Chunk(slices.SortedFunc(maps.Keys(found), func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) }), mostLoaded) {
		rows, err := r.g.store.Load(ctx, tenant, r.typ, ids)
		if err != nil {
			return nil, nil, fmt.Errorf("guard: %w", err)
		}
		for i := range rows {
			if rows[i].Version == 0 { // gone since
				delete(found, ids[i])
				continue
			}
			found[ids[i]] = &candidate[P]{row: rows[i]}
		}
	}
	return found, of, nil
}

// most is at how many records a key says nothing.
func (k *Key) most() int {
	if k.Most <= 0 {
		return mostPerKey
	}
	return min(k.Most, mostPerKey)
}

// carriers asks the store who carries the tokens of keys, those with the same limit together.
func (r *Records[P]) carriers(ctx context.Context, tenant string, keys []Key, tokens [][]int64) (map[int]map[int64][]crm.UUID, error) {
	all := map[int][]int64{}
	for i := range keys {
		all[keys[i].most()] = append(all[keys[i].most()], tokens[i]...)
	}
	carry := map[int]map[int64][]crm.UUID{}
	for most, tokens := range all {
		carry[most] = map[int64][]crm.UUID{}
		slices.Sort(tokens)
		for some := range slices.Chunk(slices.Compact(tokens), mostTokens) {
			found, err := r.g.store.Carriers(ctx, tenant, r.typ, some, most)
			if err != nil {
				return nil, fmt.Errorf("guard: %w", err)
			}
			maps.Copy(carry[most], found)
		}
	}
	return carry, nil
}

// mostTokens and mostLoaded are how many a store is asked for at once.
const (
	mostTokens = 10_000
	mostLoaded = 1_000
)

// keyed returns the tokens of each of the keys.
func (r *Records[P]) keyed(ctx context.Context, tenant string, keys []Key) ([][]int64, error) {
	out := make([][]int64, len(keys))
	asks := make([]encrypt.Ask, len(keys))
	for i, k := range keys {
		first, _, compound := strings.Cut(k.Field, "+")
		f, ok := r.field(first)
		if !ok || !strings.HasPrefix(k.Index, "exact:") || !slices.ContainsFunc(f.Indexes, func(x encrypt.Index) bool {
			return x.Kind+":"+x.Normalizer == k.Index && (!compound && len(x.Of) == 0 || strings.Join(x.Of, "+") == k.Field)
		}) {
			return nil, fmt.Errorf("%w: %s has no index %s", encrypt.ErrUnsupported, k.Field, k.Index)
		}
		asks[i] = encrypt.Ask{Field: k.Field, Kind: k.Index, Typed: k.Texts}
	}
	if len(keys) == 0 {
		return out, nil
	}
	found, err := r.codec.QueryAll(ctx, r.g.keeper, tenant, asks)
	switch {
	case errors.Is(err, encrypt.ErrKeyMissing) && r.nothing(ctx, crm.Query{Tenant: tenant, Type: r.typ}):
		return out, nil
	case err != nil:
		return nil, fmt.Errorf("guard: %w", err)
	}
	for i, q := range found { // none where there is nothing to look for in what was typed
		out[i] = slices.Concat(q.Groups...)
	}
	return out, nil
}

// comparable checks the candidates' MACs, decides on them and returns those that may be compared, by id.
func (r *Records[P]) comparable(ctx context.Context, c Caller, d *decider, all map[crm.UUID]*candidate[P]) ([]*candidate[P], error) {
	reader := r.g.decider(c, authz.Read)
	var out []*candidate[P]
	for _, k := range all {
		if err := r.authentic(ctx, c.Subject.Tenant, []crm.Row{k.row}); err != nil {
			return nil, err
		}
		res := r.resource(&k.row)
		var err error
		if k.check, err = d.decide(ctx, res); err != nil {
			return nil, err
		}
		if k.row.Deleted || k.check.Proceed(c.met()...) != nil {
			continue
		}
		if k.read, err = reader.decide(ctx, res); err != nil {
			return nil, err
		}
		k.reads = k.read.Proceed(c.met()...) == nil
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b *candidate[P]) int { return bytes.Compare(a.row.ID[:], b.row.ID[:]) })
	return out, nil
}

// compares are the fields of a matcher that a showing lets be compared.
func (r *Records[P]) compares(m Matcher[P], s *showing) []string {
	var out []string
	for _, name := range m.Fields() {
		if access, ok := s.access[name]; ok && access != authz.Hidden {
			out = append(out, name)
		}
	}
	return out
}

// openFor opens of candidates what is compared and nothing else. Those with the same showing go together.
func (r *Records[P]) openFor(ctx context.Context, found []*candidate[P]) error {
	groups := map[*showing][]*candidate[P]{}
	for _, k := range found {
		groups[k.compared] = append(groups[k.compared], k)
	}
	space := make([]any, len(r.columns))
	for s, list := range groups {
		recs, fields, into := make([]encrypt.Record, len(list)), make([][]encrypt.SealedField, len(list)), make([]P, len(list))
		for i, k := range list {
			k.value = r.codec.New()
			if err := r.hydrateFrom(space, &k.row, k.value); err != nil {
				return err
			}
			recs[i], into[i] = recordOf(&k.row), k.value
			fields[i], _ = valuesOf(nil, k.row.Sealed)
		}
		var sealed []string
		for _, f := range r.sealed {
			if slices.Contains(list[0].names, f.Name) {
				sealed = append(sealed, f.Name)
			}
		}
		if len(sealed) > 0 {
			if _, err := r.codec.OpenAll(ctx, r.g.keeper, recs, fields, into, sealed...); err != nil {
				return fmt.Errorf("guard: %s: %w", r.typ, err)
			}
		}
		for _, name := range s.hidden {
			for _, v := range into {
				if err := r.codec.Conceal(v, name, encrypt.StateHidden); err != nil {
					return fmt.Errorf("guard: %w", err)
				}
			}
		}
	}
	return nil
}

// answers compares v with its candidates and says of each what the caller may know.
func (r *Records[P]) answers(ctx context.Context, v P, m Matcher[P], of map[crm.UUID]bool, found []*candidate[P], event uint64) ([]Alike[P], error) {
	var out []Alike[P]
	var rows []crm.Row
	var shown []*showing
	var views []View[P]
	others := map[crm.UUID]Band{} // by whom to ask
	for _, k := range found {
		if !of[k.row.ID] {
			continue
		}
		verdict := m.Compare(v, k.value, k.compared.access)
		switch {
		case verdict.Band == Unlike:
		case !k.reads:
			var owner crm.UUID
			if m.Tell() == TellOwner {
				owner = k.value.Header().Owner
			}
			others[owner] = max(others[owner], verdict.Band)
		default:
			view := View[P]{Value: r.codec.New(), Controls: k.read.Controls, Event: event}
			if err := r.hydrate(&k.row, view.Value); err != nil {
				return nil, err
			}
			rows, shown, views = append(rows, k.row), append(shown, k.shown), append(views, view)
			out = append(out, Alike[P]{Band: verdict.Band, Score: verdict.Score, Why: verdict.Why})
		}
	}
	if err := r.fill(ctx, rows, shown, views); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].View = &views[i]
	}
	slices.SortStableFunc(out, func(a, b Alike[P]) int { return cmp.Compare(b.Score, a.Score) })
	if m.Tell() == TellNothing {
		return out, nil
	}
	for _, owner := range slices.SortedFunc(maps.Keys(others), func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		out = append(out, Alike[P]{Band: others[owner], Owner: owner})
	}
	return out, nil
}
