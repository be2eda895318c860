package dedupe

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Options of New. Nil means the zero value of each field.
type Options struct {
	Region string // of phone numbers typed without one, ISO 3166; "": "CN"
}

// Checker finds duplicates of records of one type. It is safe for concurrent use.
type Checker[P guard.Record] struct {
	r    *guard.Records[P]
	m    *matcher[P]
	file *blocks[P] // of ForFile
}

// blocks are those of the values of the last call of Bands.
type blocks[P guard.Record] struct {
	mu   sync.Mutex
	last map[any][]string
}

// of returns the blocks of each value of a list, and keeps them for the next call. A nil one keeps nothing.
func (b *blocks[P]) of(m *matcher[P], list []P) [][]string {
	out := make([][]string, len(list))
	var last map[any][]string
	if b != nil {
		b.mu.Lock()
		last = b.last
		b.mu.Unlock()
	}
	next := make(map[any][]string, len(list))
	for i, v := range list {
		var ok bool
		if out[i], ok = last[v]; !ok {
			out[i] = m.Blocks(v)
		}
		next[v] = out[i]
	}
	if b != nil {
		b.mu.Lock()
		b.last = next
		b.mu.Unlock()
	}
	return out
}

// ForFile is the same checker for the rows of one file: Bands, asked of them in their order, does not work the terms of before out again. The values must not
// change meanwhile. It keeps the terms of its last call as long as it lives.
func (c *Checker[P]) ForFile() *Checker[P] {
	return &Checker[P]{r: c.r, m: c.m, file: &blocks[P]{}}
}

// Match is one duplicate.
type Match struct {
	ID    crm.UUID   // zero when the caller may not read the record
	Band  guard.Band // likely or certain
	Score float64    // 0 to 1; only with an ID, as Why
	Why   []string   // fields and comparators, such as "phone: normalised"
	Owner crm.UUID   // without an ID: whom to ask; zero when nobody has it or the rules do not tell
}

// New makes a checker of records by rules of their type; nil are the default ones. Errors: *crm.InvalidError, also for a field that the type does not have.
func New[P guard.Record](r *guard.Records[P], rules *Rules, opts *Options) (*Checker[P], error) {
	if rules == nil {
		var ok bool
		if rules, ok = Default(r.Type()); !ok {
			return nil, invalid("type", "unknown_value")
		}
	}
	if rules.Type != r.Type() {
		return nil, invalid("type", "mismatch")
	}
	places := map[string]int{}
	t := reflect.TypeFor[P]().Elem()
	for _, f := range r.Fields() {
		if sf, ok := t.FieldByName(f.GoName); ok && len(sf.Index) == 1 {
			places[f.Name] = sf.Index[0]
		}
	}
	m, err := newMatcher[P](rules, places, opts)
	if err != nil {
		return nil, err
	}
	return &Checker[P]{r: r, m: m}, nil
}

// Check returns the duplicates of v, which need not be stored, as far as the caller may know of them: see guard.Records.Alike, whose errors are these.
func (c *Checker[P]) Check(ctx context.Context, caller guard.Caller, v P) ([]Match, error) {
	found, err := c.r.Alike(ctx, caller, v, c.m.remembering())
	if err != nil {
		return nil, err
	}
	return matches(found), nil
}

// CheckEach is Check for up to guard.MostChecks records, with one event. They are not compared with each other.
func (c *Checker[P]) CheckEach(ctx context.Context, caller guard.Caller, vs []P) ([][]Match, error) {
	found, err := c.r.AlikeEach(ctx, caller, vs, c.m.remembering())
	if err != nil {
		return nil, err
	}
	out := make([][]Match, len(found))
	for i, f := range found {
		out[i] = matches(f)
	}
	return out, nil
}

// Bands says for each of vs, which are not stored, how surely it is there already: what Check says of what is stored, and how like it is to any of before and to the ones
// before it in vs, as an import asks whose last rows are not stored yet. Within a file only values that share a block of the rules, with at most 50 others, are compared.
func (c *Checker[P]) Bands(ctx context.Context, caller guard.Caller, before, vs []P) ([]guard.Band, error) {
	out := make([]guard.Band, 0, len(vs))
	chunks := slices.Collect(slices.Chunk(vs, guard.MostChecks))
	found, errs := make([][]guard.Band, len(chunks)), make([]error, len(chunks))
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, some := range chunks {
		slots <- struct{}{}
		all.Go(func() {
			found[i], errs[i] = c.r.AlikeBands(ctx, caller, some, c.m.remembering())
			<-slots
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, f := range found {
		out = append(out, f...)
	}
	m := c.m.remembering()
	in := map[string][]int{} // places in list, by block
	list := slices.Concat(before, vs)
	terms := c.file.of(m, list)
	for i, v := range list {
		compared := map[int]bool{}
		for _, b := range terms[i] {
			if i >= len(before) {
				for _, w := range in[b] {
					if !compared[w] {
						compared[w] = true
						out[i-len(before)] = max(out[i-len(before)], m.Compare(v, list[w], nil).Band)
					}
				}
			}
			if len(in[b]) < mostPerBlock {
				in[b] = append(in[b], i)
			}
		}
	}
	return out, nil
}

// mostPerBlock is how many values of one file that share a block the next one is compared with.
const mostPerBlock = 50

func matches[P guard.Record](found []guard.Alike[P]) []Match {
	var out []Match
	for _, f := range found {
		m := Match{Band: f.Band, Score: f.Score, Why: f.Why, Owner: f.Owner}
		if f.View != nil {
			m.ID = any(f.View.Value).(interface{ Header() crm.Header }).Header().ID
		}
		out = append(out, m)
	}
	return out
}

// All finds every pair of living records that are one thing: see guard.Records.AlikeAll.
func (c *Checker[P]) All(ctx context.Context, caller guard.Caller, opts *guard.AlikeOptions, found func(guard.Pair) error) (guard.AlikeReport, error) {
	return c.r.AlikeAll(ctx, caller, c.m, opts, found)
}

// Compare compares two values by the rules, all of their fields: for trying rules out on data of one's own.
func Compare[P any](rules *Rules, a, b P, opts *Options) (guard.Verdict, error) {
	m, err := newMatcher[P](rules, jsonPlaces[P](), opts)
	if err != nil {
		return guard.Verdict{}, err
	}
	return m.Compare(a, b, nil), nil
}

// jsonPlaces are the fields by their json names.
func jsonPlaces[P any]() map[string]int {
	places := map[string]int{}
	t := reflect.TypeFor[P]().Elem()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
			places[name] = i
		}
	}
	return places
}

// matcher is the rules for one type; it is a guard.Blocker.
type matcher[P any] struct {
	rules  *Rules
	terms  terms
	places map[string]int // fields by name
	fields []string       // that Compare and Blocks look at
}

// remembering is the matcher for one goroutine and one call; see terms.
func (m *matcher[P]) remembering() *matcher[P] {
	c := *m
	c.terms = m.terms.remembering()
	return &c
}

func newMatcher[P any](rules *Rules, places map[string]int, opts *Options) (*matcher[P], error) {
	if err := rules.Validate(); err != nil {
		return nil, err
	}
	region := "CN"
	if opts != nil && opts.Region != "" {
		region = opts.Region
	}
	m := &matcher[P]{rules: rules, terms: guard.Normalizers(region), places: places, fields: rules.Score.names(nil)}
	all := slices.Clone(m.fields)
	for _, b := range rules.Blocks {
		for _, p := range b {
			all = append(all, p.Fields...)
			for _, f := range p.Fields {
				if !slices.Contains(m.fields, f) {
					m.fields = append(m.fields, f)
				}
			}
		}
	}
	for _, k := range rules.Keys {
		for _, f := range k.Fields {
			all = append(all, strings.Split(f, "+")...)
		}
	}
	t := reflect.New(reflect.TypeFor[P]().Elem()).Elem()
	for _, name := range all {
		i, ok := places[name]
		if ok {
			_, ok = text(t.Field(i))
			ok = ok || t.Field(i).Type() == reflect.TypeFor[time.Time]()
		}
		if !ok {
			return nil, fmt.Errorf("dedupe: %w", &crm.InvalidError{Type: rules.Type, Fields: []crm.FieldError{{Field: name, Rule: "unknown_value"}}})
		}
	}
	return m, nil
}

// text is the value of a field as a text; ok is false for what has none. One that is not clear is empty.
func text(v reflect.Value) (string, bool) {
	switch x := v.Interface().(type) {
	case crm.Text:
		if x.State() != crm.Clear {
			return "", true
		}
		return x.Expose(), true
	case time.Time:
		if x.IsZero() {
			return "", true
		}
		return x.Format(time.DateOnly), true
	}
	if v.Kind() == reflect.String {
		return v.String(), true
	}
	return "", false
}

func (m *matcher[P]) get(v P, name string) string {
	s, _ := text(reflect.ValueOf(v).Elem().Field(m.places[name]))
	return s
}

// Fields are those that the rules compare.
func (m *matcher[P]) Fields() []string { return m.fields }

// Tell is what the rules say.
func (m *matcher[P]) Tell() guard.Tell { return tells[m.rules.Tell] }

// Keys asks each index of the fields of a key for each value of them.
func (m *matcher[P]) Keys(v P) []guard.Key {
	var out []guard.Key
	for _, k := range m.rules.Keys {
		var asked [][]string
		for _, from := range k.Fields {
			var texts []string
			for name := range strings.SplitSeq(from, "+") {
				texts = append(texts, m.get(v, name))
			}
			if slices.Contains(texts, "") || slices.ContainsFunc(asked, func(t []string) bool { return slices.Equal(t, texts) }) {
				continue
			}
			asked = append(asked, texts)
			for _, in := range k.Fields {
				out = append(out, guard.Key{Field: in, Index: k.Index, Texts: texts, Most: k.Most})
			}
		}
	}
	return out
}

// Blocks are the terms of v, each block of the rules under its own number.
func (m *matcher[P]) Blocks(v P) []string {
	var out []string
	for n, b := range m.rules.Blocks {
		terms := []string{strconv.Itoa(n)}
		for _, p := range b {
			var next []string
			for _, part := range m.parts(v, p) {
				for _, t := range terms {
					if len(next) < 16 {
						next = append(next, t+"\x00"+part)
					}
				}
			}
			terms = next
		}
		out = append(out, terms...)
	}
	return out
}

// parts are the values of a part of a block.
func (m *matcher[P]) parts(v P, p Part) []string {
	var out []string
	for _, name := range p.Fields {
		s := m.get(v, name)
		if s == "" {
			continue
		}
		var term string
		switch p.By {
		case "date":
			if d, ok := day(s); ok {
				term = fmt.Sprint(d)
			}
		default:
			term = m.terms.one(p.By, s)
		}
		if r := []rune(term); p.Last > 0 {
			term = string(r[max(0, len(r)-p.Last):])
		} else if p.First > 0 {
			term = string(r[:min(p.First, len(r))])
		}
		if term != "" && !slices.Contains(out, term) {
			out = append(out, term)
		}
	}
	return out
}

// Compare scores two records. access may be nil: everything is open.
func (m *matcher[P]) Compare(a, b P, access map[string]guard.Access) guard.Verdict {
	s, ok := m.score(&pair[P]{a: a, b: b, access: access}, &m.rules.Score)
	v := guard.Verdict{Score: s.like, Why: s.why}
	switch {
	case !ok || s.like < m.rules.Likely:
		v.Band = guard.Unlike
	case s.like < m.rules.Certain:
		v.Band = guard.Likely
	default:
		v.Band = guard.Certain
	}
	return v
}

// scored is what became of a node.
type scored struct {
	like float64
	why  []string
}

// pair is what is compared, and what is known of it by now.
type pair[P any] struct {
	a, b     P
	access   map[string]guard.Access
	compared []compared
}

// compared is the outcome of one comparison: rules compare the same two values in several places.
type compared struct {
	as, by, x, y string
	like         float64
	ok           bool
}

func (p *pair[P]) compare(t terms, as, by, x, y string) (float64, bool) {
	for i := range p.compared {
		if c := &p.compared[i]; c.as == as && c.by == by && c.x == x && c.y == y {
			return c.like, c.ok
		}
	}
	like, ok := t.compare(as, by, x, y)
	p.compared = append(p.compared, compared{as, by, x, y, like, ok})
	return like, ok
}

// score works out a node; ok is false when it is absent.
func (m *matcher[P]) score(p *pair[P], n *Node) (s scored, ok bool) {
	switch {
	case len(n.Fields) > 0:
		s, ok = m.test(p, n)
	case len(n.All) > 0:
		s.like = 1
		for i := range n.All {
			x, present := m.score(p, &n.All[i])
			if !present || x.like == 0 { // what else there is does not matter
				return scored{}, present
			}
			s.like, s.why = min(s.like, x.like), append(s.why, x.why...)
		}
		ok = true
	case len(n.Any) > 0:
		for i := range n.Any {
			if ok && s.like >= or(n.Any[i].Worth, 1) { // it cannot be more
				continue
			}
			x, present := m.score(p, &n.Any[i])
			if present && (!ok || x.like > s.like) {
				s = x
			}
			ok = ok || present
		}
	default:
		for_, all := 0.0, 0.0
		for i := range n.Mean {
			x, present := m.score(p, &n.Mean[i])
			if !present {
				continue
			}
			w := or(n.Mean[i].Weight, 1)
			for_ += x.like * w
			all += x.like*w + (1-x.like)*or(n.Mean[i].Against, w)
			s.why = append(s.why, x.why...)
		}
		if all == 0 || for_ < n.Least {
			return scored{}, false
		}
		s.like, ok = for_/all, true
	}
	s.like *= or(n.Worth, 1)
	return s, ok
}

func or(x, otherwise float64) float64 {
	if x == 0 {
		return otherwise
	}
	return x
}

// told is from which likeness on a comparison is part of the explanation.
const told = 0.8

// test compares fields.
func (m *matcher[P]) test(p *pair[P], n *Node) (scored, bool) {
	best, found, field := 0.0, false, ""
	for _, f := range n.Fields {
		x := m.get(p.a, f)
		if x == "" {
			continue
		}
		for _, g := range n.Fields {
			y := m.get(p.b, g)
			if y == "" {
				continue
			}
			like, ok := p.compare(m.terms, n.As, n.By, x, y)
			if !ok {
				continue
			}
			if like < or(n.Floor, 0.7) || like < 1 && p.access != nil && (masked(p.access, f) || masked(p.access, g)) {
				like = 0
			}
			if !found || like > best {
				best, field = like, g
			}
			found = true
		}
	}
	s := scored{like: best}
	if found && best >= told {
		s.why = []string{field + ": " + n.As}
	}
	return s, found
}

// masked tells whether a field counts by equality only.
func masked(access map[string]guard.Access, name string) bool {
	x, ok := access[name]
	return !ok || x.String() != "open"
}

// Blocks returns the blocks of a value by the rules, for trying rules out on data of one's own.
func Blocks[P any](rules *Rules, v P, opts *Options) ([]string, error) {
	m, err := newMatcher[P](rules, jsonPlaces[P](), opts)
	if err != nil {
		return nil, err
	}
	return m.Blocks(v), nil
}
