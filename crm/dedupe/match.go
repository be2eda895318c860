package dedupe

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
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
	file *file // of ForFile
}

// file is what is known of the values of the last call of Bands. Its lock is held while they are compared.
type file struct {
	mu   sync.Mutex
	rows map[any]row
}

// row is a value of a file and the hashes of its blocks.
type row struct {
	record record
	blocks []uint64
}

// sharing are the rows of a file that share a block: each names the one before it in links.
type sharing struct{ last, n int32 }

type link struct{ row, before int32 }

// ForFile is the same checker for the rows of one file: Bands, asked of them in their order, does not work the terms of before out again. The values must not
// change meanwhile. It keeps the terms of its last call as long as it lives.
func (c *Checker[P]) ForFile() *Checker[P] {
	return &Checker[P]{r: c.r, m: c.m, file: &file{}}
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
	chunks := slices.Collect(slices.Chunk(vs, guard.MostChecks))
	found, errs, fresh := make([][]guard.Band, len(chunks)), make([]error, len(chunks)), make([][]row, len(chunks))
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, some := range chunks {
		slots <- struct{}{}
		all.Go(func() {
			m := c.m.remembering()
			if found[i], errs[i] = c.r.AlikeBands(ctx, caller, some, m); errs[i] == nil {
				fresh[i] = m.rows(some)
			}
			<-slots
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	out := slices.Concat(found...)
	f := c.file
	if f == nil {
		f = &file{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]row, 0, len(before)+len(vs))
	m := c.m.remembering()
	for i, v := range before {
		r, ok := f.rows[v]
		if !ok {
			r = m.rows(before[i : i+1])[0]
		}
		list = append(list, r)
	}
	list = append(list, slices.Concat(fresh...)...)
	in := make(map[uint64]sharing, len(list)*len(m.blocks)/2)
	links := make([]link, 1, 1+len(list)*len(m.blocks)) // the first is none
	compared := make([]int, len(list))
	for i := range list {
		n := i - len(before)
		for _, b := range list[i].blocks {
			others := in[b]
			for l := others.last; n >= 0 && l != 0 && out[n] != guard.Certain; l = links[l].before {
				if w := links[l].row; compared[w] != i {
					compared[w] = i
					out[n] = max(out[n], m.compare(&pair{a: list[i].record, b: list[w].record}).Band)
				}
			}
			if others.n < mostPerBlock {
				links = append(links, link{int32(i), others.last})
				in[b] = sharing{int32(len(links) - 1), others.n + 1}
			}
		}
	}
	if f == c.file {
		f.rows = make(map[any]row, len(list))
		for i, v := range before {
			f.rows[v] = list[i]
		}
		for i, v := range vs {
			f.rows[v] = list[len(before)+i]
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
	return m.verdict(&pair{a: m.record(a), b: m.record(b)}), nil
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
	score  node
	blocks [][]part
	keys   [][][]int // by key of the rules and its fields: the places of the parts of a compound one
	terms  terms
	fields []string // that Compare and Blocks look at
	reads  []int    // which fields of a value a record has: those of fields, then those of the keys alone
	known  known
}

// node is a Node with the places of its fields in a record.
type node struct {
	*Node
	at             []int
	all, any, mean []node
}

// part is a Part with the places of its fields in a record.
type part struct {
	*Part
	at []int
}

// remembering is the matcher for one goroutine and one call; see known.
func (m *matcher[P]) remembering() *matcher[P] {
	c := *m
	c.known = known{values: map[string]*value{}, records: map[any]record{}}
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
	m := &matcher[P]{rules: rules, terms: guard.Normalizers(region), fields: rules.Score.names(nil)}
	for _, b := range rules.Blocks {
		for _, p := range b {
			m.fields = add(m.fields, p.Fields...)
		}
	}
	all := slices.Clone(m.fields)
	for _, k := range rules.Keys {
		for _, f := range k.Fields {
			all = add(all, strings.Split(f, "+")...)
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
		m.reads = append(m.reads, i)
	}
	at := func(names []string) []int {
		out := make([]int, len(names))
		for i, name := range names {
			out[i] = slices.Index(all, name)
		}
		return out
	}
	m.score = placed(&rules.Score, at)
	for _, b := range rules.Blocks {
		parts := make([]part, len(b))
		for i := range b {
			parts[i] = part{&b[i], at(b[i].Fields)}
		}
		m.blocks = append(m.blocks, parts)
	}
	for _, k := range rules.Keys {
		var fields [][]int
		for _, f := range k.Fields {
			fields = append(fields, at(strings.Split(f, "+")))
		}
		m.keys = append(m.keys, fields)
	}
	return m, nil
}

// add appends the names that are not in a list yet.
func add(list []string, names ...string) []string {
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// placed finds the places of the fields of a node and those below it.
func placed(n *Node, at func([]string) []int) node {
	out := node{Node: n, at: at(n.Fields)}
	for _, list := range []struct {
		from []Node
		to   *[]node
	}{{n.All, &out.all}, {n.Any, &out.any}, {n.Mean, &out.mean}} {
		for i := range list.from {
			*list.to = append(*list.to, placed(&list.from[i], at))
		}
	}
	return out
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

// Fields are those that the rules compare.
func (m *matcher[P]) Fields() []string { return m.fields }

// Tell is what the rules say.
func (m *matcher[P]) Tell() guard.Tell { return tells[m.rules.Tell] }

// Keys asks each index of the fields of a key for each value of them.
func (m *matcher[P]) Keys(v P) []guard.Key {
	var out []guard.Key
	r := m.record(v)
	for n := range m.rules.Keys {
		k := &m.rules.Keys[n]
		var asked [][]string
	fields:
		for _, from := range m.keys[n] {
			texts := make([]string, len(from))
			for i, at := range from {
				if r[at] == nil {
					continue fields
				}
				texts[i] = r[at].text
			}
			if slices.ContainsFunc(asked, func(t []string) bool { return slices.Equal(t, texts) }) {
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
func (m *matcher[P]) Blocks(v P) []string { return m.blocksOf(m.record(v)) }

// rows are the records of values, with their blocks.
func (m *matcher[P]) rows(vs []P) []row {
	out := make([]row, len(vs))
	for i, v := range vs {
		r := m.record(v)
		blocks := m.blocksOf(r)
		out[i] = row{r, make([]uint64, len(blocks))}
		for j, b := range blocks { // two blocks of one hash are only compared in vain
			out[i].blocks[j] = maphash.String(seed, b)
		}
	}
	return out
}

var seed = maphash.MakeSeed()

func (m *matcher[P]) blocksOf(r record) []string {
	var out []string
	for n, b := range m.blocks {
		terms := []string{strconv.Itoa(n)}
		for i := range b {
			var next []string
			for _, part := range m.parts(r, &b[i]) {
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
func (m *matcher[P]) parts(r record, p *part) []string {
	var out []string
	for _, at := range p.at {
		v := r[at]
		if v == nil {
			continue
		}
		var term string
		switch p.By {
		case "date":
			if d, ok := day(v.text); ok {
				term = fmt.Sprint(d)
			}
		default:
			term = v.one(m.terms, p.By)
		}
		if p.Last > 0 || p.First > 0 {
			r := []rune(term)
			if p.Last > 0 {
				term = string(r[max(0, len(r)-p.Last):])
			} else {
				term = string(r[:min(p.First, len(r))])
			}
		}
		if term != "" && !slices.Contains(out, term) {
			out = append(out, term)
		}
	}
	return out
}

// Compare scores two records. access may be nil: everything is open. Of two that are Unlike it does not say how much.
func (m *matcher[P]) Compare(a, b P, access map[string]guard.Access) guard.Verdict {
	return m.compare(&pair{a: m.record(a), b: m.record(b), access: access})
}

func (m *matcher[P]) compare(p *pair) (v guard.Verdict) {
	p.compared = m.known.room[:0]
	if !m.unlike(p) {
		v = m.verdict(p)
	}
	if m.known.records != nil {
		m.known.room = p.compared
	}
	return v
}

// verdict scores two records by all comparisons.
func (m *matcher[P]) verdict(p *pair) guard.Verdict {
	s, ok := m.of(p, &m.score)
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
type pair struct {
	a, b     record
	access   map[string]guard.Access
	compared []compared
}

// compared is the outcome of one comparison: rules compare the same two values in several places.
type compared struct {
	as, by string
	x, y   *value
	like   float64
	ok     bool
}

func (p *pair) compare(t terms, as, by string, x, y *value) (float64, bool) {
	for i := range p.compared {
		if c := &p.compared[i]; c.x == x && c.y == y && c.as == as && c.by == by {
			return c.like, c.ok
		}
	}
	like, ok := t.compare(as, by, x, y)
	p.compared = append(p.compared, compared{as, by, x, y, like, ok})
	return like, ok
}

// of works out a node; ok is false when it is absent.
func (m *matcher[P]) of(p *pair, n *node) (s scored, ok bool) {
	switch {
	case len(n.at) > 0:
		s, ok = m.test(p, n)
	case len(n.all) > 0:
		s.like = 1
		for i := range n.all {
			x, present := m.of(p, &n.all[i])
			if !present || x.like == 0 { // what else there is does not matter
				return scored{}, present
			}
			s.like, s.why = min(s.like, x.like), append(s.why, x.why...)
		}
		ok = true
	case len(n.any) > 0:
		for i := range n.any {
			if ok && s.like >= or(n.any[i].Worth, 1) { // it cannot be more
				continue
			}
			x, present := m.of(p, &n.any[i])
			if present && (!ok || x.like > s.like) {
				s = x
			}
			ok = ok || present
		}
	default:
		for_, all := 0.0, 0.0
		for i := range n.mean {
			x, present := m.of(p, &n.mean[i])
			if !present {
				continue
			}
			w := or(n.mean[i].Weight, 1)
			for_ += x.like * w
			all += x.like*w + (1-x.like)*or(n.mean[i].Against, w)
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
func (m *matcher[P]) test(p *pair, n *node) (scored, bool) {
	best, field, found := m.best(p, n)
	s := scored{like: best}
	if found && best >= told {
		s.why = []string{field + ": " + n.As}
	}
	return s, found
}

// best compares the fields of a node, and returns which of the stored record's is most alike; found is false where none can be compared.
func (m *matcher[P]) best(p *pair, n *node) (best float64, field string, found bool) {
	for i, f := range n.Fields {
		x := p.a[n.at[i]]
		if x == nil {
			continue
		}
		for j, g := range n.Fields {
			y := p.b[n.at[j]]
			if y == nil {
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
	return best, field, found
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
