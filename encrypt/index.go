package encrypt

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What the tag of a field can say that its indexes may show; see [Codec.Plan].
const (
	leaksEquality  = "equality"  // which records share a value: for values that hardly ever repeat
	leaksFragments = "fragments" // which records share a pair of characters: the price of search inside names
)

// smallest is the number of values below which a field gets no index.
const smallest = 1000

// indexRef names the keys of one index: a field, a kind and a normaliser.
type indexRef struct {
	typ, field, kind, normalizer string
	bits                         uint8
}

// indexPlan is a compiled index.
type indexPlan struct {
	Index
	shape    shape
	n        int
	versions []versionPlan // oldest first
	refs     []*indexRef   // one for each version
	of       []int         // of a compound index: its plans
}

// shape is what of a term becomes tokens.
type shape uint8

const (
	whole    shape = iota // the term
	prefixes              // its first n characters
	suffixes              // its last n characters
	ngrams                // pairs of CJK characters, triples of others
)

// parseIndex reads KIND:NORMALISER[:BITS].
func parseIndex(val string, unique bool) (Index, error) {
	parts := strings.Split(val, ":")
	x := Index{Kind: parts[0], Unique: unique, Bits: 64}
	if len(parts) < 2 || len(parts) > 3 {
		return x, fmt.Errorf("an index is KIND:NORMALISER or KIND:NORMALISER:BITS")
	}
	x.Normalizer = parts[1]
	s, _, err := parseKind(x.Kind)
	if err != nil {
		return x, err
	}
	if len(parts) == 3 {
		if x.Bits, err = strconv.Atoi(parts[2]); err != nil || x.Bits < 4 || x.Bits > 32 {
			return x, fmt.Errorf("a token is cut to 4 to 32 bits")
		}
	}
	if unique && (s != whole || x.Bits != 64) {
		return x, errors.New("only a whole exact index can be unique")
	}
	return x, nil
}

func parseKind(kind string) (shape, int, error) {
	switch {
	case kind == "exact":
		return whole, 0, nil
	case kind == "ngram":
		return ngrams, 0, nil
	}
	for name, s := range map[string]shape{"prefix": prefixes, "suffix": suffixes} {
		if digits, ok := strings.CutPrefix(kind, name); ok {
			if n, err := strconv.Atoi(digits); err == nil && n >= 1 && n <= 16 && strconv.Itoa(n) == digits {
				return s, n, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("unknown index kind %q", kind)
}

// indexPlan compiles an index of the field, or of the compound, called name.
func (c *codec) indexPlan(name string, x Index, opts *CodecOptions) (indexPlan, error) {
	p := indexPlan{Index: x}
	if len(x.Of) > 0 {
		p.versions = compoundVersions(opts.Normalizers, x.Normalizer, len(x.Of))
	} else {
		p.versions = normalizerVersions(opts.Normalizers, x.Normalizer)
	}
	if len(p.versions) == 0 {
		return p, fmt.Errorf("unknown normaliser %q", x.Normalizer)
	}
	for i := range p.versions[1:] {
		if p.versions[i].name == p.versions[i+1].name {
			return p, fmt.Errorf("normaliser %q is given twice", p.versions[i].name)
		}
	}
	var err error
	if p.shape, p.n, err = parseKind(x.Kind); err != nil {
		return p, err
	}
	for _, v := range p.versions {
		p.refs = append(p.refs, &indexRef{typ: c.typ, field: name, kind: x.Kind, normalizer: v.name, bits: uint8(x.Bits)})
	}
	return p, nil
}

// compoundVersions returns the versions of the normaliser of a compound index of n fields: one normaliser for all of them, or as many with "+"
// between, of which every combination of versions is one. None when there is an unknown one, or another number of them.
func compoundVersions(all map[string]func(string) []string, names string, n int) []versionPlan {
	if !strings.Contains(names, "+") {
		out := normalizerVersions(all, names)
		for i := range out {
			out[i].of = slices.Repeat([]versionPlan{out[i]}, n)
		}
		return out
	}
	bases := strings.Split(names, "+")
	if len(bases) != n {
		return nil
	}
	out := []versionPlan{{}}
	for _, base := range bases {
		var next []versionPlan
		for _, before := range out {
			for _, v := range normalizerVersions(all, base) {
				name := v.name
				if before.name != "" {
					name = before.name + "+" + name
				}
				next = append(next, versionPlan{name: name, of: append(slices.Clone(before.of), v)})
			}
		}
		out = next
	}
	return out
}

// compound is the tag of a compound index: index=exact:NORMALISER[:BITS],of=FIELD+FIELD…, or
// index=exact:NORMALISER+NORMALISER…[:BITS],of=FIELD+FIELD….
type compound struct {
	index Index
	of    []string
}

func parseCompound(tag string) (compound, error) {
	var x compound
	for item := range strings.SplitSeq(tag, ",") {
		key, val, _ := strings.Cut(item, "=")
		var err error
		switch {
		case (key == "index" || key == "unique") && x.index.Kind == "":
			x.index, err = parseIndex(val, key == "unique")
		case key == "of" && x.of == nil:
			x.of = strings.Split(val, "+")
		default:
			err = fmt.Errorf("unknown word %q of a compound index", key)
		}
		if err != nil {
			return x, err
		}
	}
	if x.index.Kind != "exact" || len(x.of) < 2 {
		return x, errors.New("a compound index is exact, of two fields or more")
	}
	return x, nil
}

// compound adds a compound index to its first field.
func (c *codec) compound(x compound, opts *CodecOptions) error {
	x.index.Of = x.of
	plan, err := c.indexPlan(strings.Join(x.of, "+"), x.index, opts)
	if err != nil {
		return err
	}
	for _, name := range x.of {
		at, ok := c.byName[name]
		if !ok || c.plans[at].Kind != KindText || slices.Contains(plan.of, at) {
			return fmt.Errorf("%q is no other field of text", name)
		}
		if c.plans[at].Clear {
			return fmt.Errorf("%q is a clear column, which can change without the others being opened", name)
		}
		plan.of = append(plan.of, at)
	}
	first := &c.plans[plan.of[0]]
	for _, other := range first.Indexes {
		if slices.Equal(other.Of, x.of) && other.Normalizer == x.index.Normalizer {
			return errors.New("declared twice")
		}
	}
	first.Indexes = append(first.Indexes, x.index)
	first.indexes = append(first.indexes, plan)
	return nil
}

// cut calls emit for the parts of a term that become tokens.
func (x *indexPlan) cut(term string, emit func(part string)) {
	switch x.shape {
	case whole:
		if term != "" {
			emit(term)
		}
	case prefixes:
		if at := runes(term, x.n); at > 0 {
			emit(term[:at])
		}
	case suffixes:
		at := len(term)
		for range x.n {
			_, size := utf8.DecodeLastRuneInString(term[:at])
			if size == 0 {
				return
			}
			at -= size
		}
		emit(term[at:])
	case ngrams:
		windows(term, emit)
	}
}

// runes returns where the first n characters of s end; 0 when there are fewer.
func runes(s string, n int) int {
	at := 0
	for range n {
		_, size := utf8.DecodeRuneInString(s[at:])
		if size == 0 {
			return 0
		}
		at += size
	}
	return at
}

// windows calls emit for each pair of neighbouring CJK characters and each triple of other ones. A
// window never spans both kinds.
func windows(s string, emit func(string)) {
	var starts [3]int // of the last characters of this run
	run, cjk := 0, false
	for at, r := range s {
		if is := wide(r); is != cjk || run == 0 {
			run, cjk = 0, is
		}
		starts[0], starts[1], starts[2] = starts[1], starts[2], at
		run++
		end := at + utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size := utf8.DecodeRuneInString(s[at:])
			end = at + size
		}
		switch {
		case cjk && run >= 2:
			emit(s[starts[1]:end])
		case !cjk && run >= 3:
			emit(s[starts[0]:end])
		}
	}
}

func wide(r rune) bool {
	// The mark that lengthens a vowel of Katakana belongs to no script.
	return r == 'ー' || unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo)
}

// maxParts bounds the parts of one value under one index.
const maxParts = 512

var errParts = errors.New("encrypt: too long for its index")

// tokens appends the tokens of a field's value, each once: of every index, every version of its normaliser
// and every version of the index key. text gives the plain text of another field, of compounds; nil leaves those
// out.
func (p *fieldPlan) tokens(dst []Token, tk *tenantKeys, sc *scratch, plain string, text func(at int) string) ([]Token, error) {
	from := len(dst)
	var terms []string
	var of *versionPlan // which terms are
	for i := range p.indexes {
		x := &p.indexes[i]
		for v := range x.versions {
			// Several indexes of a field mostly share a normaliser.
			if of == nil || of.name != x.versions[v].name || len(x.of) > 0 {
				terms, of = x.terms(v, plain, text), &x.versions[v]
				if len(x.of) > 0 {
					of = nil
				}
			}
			for root := range tk.index {
				key := tk.indexKey(x.refs[v], root)
				parts := 0
				for _, term := range terms {
					if x.shape == whole {
						if parts++; term != "" {
							dst = addToken(dst, from, Token{key.token(sc, term), x.Unique})
						}
						continue
					}
					x.cut(term, func(part string) {
						if parts++; parts <= maxParts {
							dst = addToken(dst, from, Token{key.token(sc, part), x.Unique})
						}
					})
				}
				if parts > maxParts {
					return dst, errParts // half an index would lose records without a word
				}
			}
		}
	}
	return dst, nil
}

// TokensTo appends to dst the index tokens of a text of one field, each once: for those who store fields on
// their own, beside SealTo. Compound indexes are left out: they need the whole record. Errors as for Seal.
func (c *codec) TokensTo(ctx context.Context, k *Keeper, rec *Record, dst []Token, field, text string) ([]Token, error) {
	p, err := c.textField(field)
	if err != nil || text == "" {
		return dst, err
	}
	v, err := k.enter(ctx, rec.Tenant, rec.Erasure, true)
	if err != nil {
		return dst, err
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	if dst, err = p.tokens(dst, v.tk, sc, text, nil); err != nil {
		return dst, fieldError(err, p.Name)
	}
	return dst, nil
}

// Terms calls f with the terms that each exact index of a field of text, but for compounds, makes of a value, and with the name and version of its normaliser, such as
// "phone/1". It is for who must know a value again without its field: two types whose fields have one normaliser give one term. Error: the type has no such sealed field
// of text.
func (c *codec) Terms(field, text string, f func(normalizer, term string)) error {
	p, err := c.textField(field)
	if err != nil {
		return err
	}
	for i := range p.indexes {
		x := &p.indexes[i]
		if x.shape != whole || len(x.of) > 0 {
			continue
		}
		for v := range x.versions {
			for _, term := range x.versions[v].terms(text) {
				if term != "" {
					f(x.versions[v].name, term)
				}
			}
		}
	}
	return nil
}

func addToken(dst []Token, from int, t Token) []Token {
	if slices.Contains(dst[from:], t) {
		return dst
	}
	return append(dst, t)
}

// terms normalises a value, or the values of a compound.
func (x *indexPlan) terms(version int, plain string, text func(at int) string) []string {
	if len(x.of) == 0 {
		return x.versions[version].terms(plain)
	}
	if text == nil {
		return nil
	}
	values := make([]string, len(x.of))
	values[0] = plain
	for i, at := range x.of[1:] {
		values[i+1] = text(at)
	}
	return compoundTerms(x.versions[version].of, values, nil)
}

// compoundTerms joins the first term of each value; none when a value has none.
func compoundTerms(of []versionPlan, values []string, known map[termsOf][]string) []string {
	var b []byte
	for i, v := range values {
		terms := of[i].known(v, known)
		if len(terms) == 0 || terms[0] == "" {
			return nil
		}
		b = appendPart(b, terms[0])
	}
	return []string{string(b)}
}

// Query is a search by one index. A record that matches carries at least one token of each group, so a
// store may look for those of any one group. Not everything it finds matches: the tokens of an index may
// be cut, and an n-gram says nothing of order. Open the candidates and ask [Codec.Match].
type Query struct {
	Groups [][]int64

	field int
	index int
	terms func() [][]string // what was typed, by version of the normaliser; a function, so that no verb of fmt shows it
}

// Query asks the index of a kind ("exact", "suffix4", "ngram", …) of a field for what was typed. For a
// compound index field is its fields joined by "+", and one value is typed for each. When a field has
// several indexes of a kind, kind says which: "exact:pinyin". It never returns a Query that could not
// find what is there: ErrUnsupported when there is no such index or too little was typed.
// Errors: ErrUnsupported, ErrKeyMissing for a tenant without keys, ErrKMSUnavailable, ErrAuth.
func (c *codec) Query(ctx context.Context, k *Keeper, tenant, field, kind string, typed ...string) (Query, error) {
	q, err := c.plan(field, kind)
	if err != nil {
		return Query{}, err
	}
	v, err := k.enter(ctx, tenant, 0, false)
	if err != nil {
		return Query{}, err
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	return c.query(q, v.tk, sc, field, typed, nil)
}

// Ask is one question to an index: the arguments of Query.
type Ask struct {
	Field, Kind string
	Typed       []string // one value; of a compound index one for each of its fields
}

// QueryAll is Query for many questions at once, under the keys of one moment. One for which Query returns ErrUnsupported has a Query without groups.
// Errors: ErrKeyMissing for a tenant without keys, ErrKMSUnavailable, ErrAuth.
func (c *codec) QueryAll(ctx context.Context, k *Keeper, tenant string, asks []Ask) ([]Query, error) {
	v, err := k.enter(ctx, tenant, 0, false)
	if err != nil {
		return nil, err
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	out := make([]Query, len(asks))
	known := map[termsOf][]string{}
	for i, a := range asks {
		q, err := c.plan(a.Field, a.Kind)
		if err == nil {
			q, err = c.query(q, v.tk, sc, a.Field, a.Typed, known)
		}
		if err != nil && !errors.Is(err, ErrUnsupported) {
			return nil, err
		}
		if err == nil {
			out[i] = q
		}
	}
	return out, nil
}

// termsOf is a value under one version of a normaliser.
type termsOf struct{ name, typed string }

// known are the terms of a value, worked out once.
func (v *versionPlan) known(typed string, known map[termsOf][]string) []string {
	of := termsOf{v.name, typed}
	terms, ok := known[of]
	if !ok {
		if terms = v.terms(typed); known != nil {
			known[of] = terms
		}
	}
	return terms
}

// query fills in what plan began. known are terms of values that were asked for before in one call; nil: there are none.
func (c *codec) query(q Query, tk *tenantKeys, sc *scratch, field string, typed []string, known map[termsOf][]string) (Query, error) {
	x := &c.plans[q.field].indexes[q.index]
	if len(typed) != max(1, len(x.of)) {
		return Query{}, fmt.Errorf("%w: %d values typed for index %s", ErrUnsupported, len(typed), field)
	}
	var all [][]string
	for i := range x.versions {
		var terms []string
		if len(x.of) > 0 {
			terms = compoundTerms(x.versions[i].of, typed, known)
		} else {
			terms = x.versions[i].known(typed[0], known)
		}
		terms = slices.DeleteFunc(slices.Clone(terms), func(s string) bool { return s == "" })
		all = append(all, terms)
		if err := c.group(&q, tk, sc, x, i, terms); err != nil {
			return Query{}, fieldError(err, field)
		}
	}
	if len(q.Groups) == 0 || len(q.Groups[0]) == 0 {
		return Query{}, fieldError(ErrUnsupported, field)
	}
	q.terms = func() [][]string { return all }
	return q, nil
}

// plan finds the index that answers a query.
func (c *codec) plan(field, kind string) (Query, error) {
	first, _, compound := strings.Cut(field, "+")
	at, ok := c.byName[first]
	if !ok {
		return Query{}, fieldError(ErrUnsupported, field)
	}
	kind, norm, _ := strings.Cut(kind, ":")
	for i := range c.plans[at].indexes {
		x := &c.plans[at].indexes[i]
		if (kind == "" || x.Kind == kind) && (norm == "" || x.Normalizer == norm) &&
			compound == (len(x.of) > 0) && (!compound || strings.Join(x.Of, "+") == field) {
			return Query{field: at, index: i}, nil
		}
	}
	return Query{}, fieldError(ErrUnsupported, field)
}

// group adds the tokens of one version of the normaliser to the groups of a query. Every group names, for each
// version, what a match of that version carries.
func (c *codec) group(q *Query, tk *tenantKeys, sc *scratch, x *indexPlan, version int, terms []string) error {
	var parts [][]string // by term: what a record that matches it carries, all of it
	for _, term := range terms {
		var all []string
		x.cut(term, func(part string) {
			if len(all) <= maxParts && !slices.Contains(all, part) {
				all = append(all, part)
			}
		})
		if len(all) == 0 || len(all) > maxParts {
			return ErrUnsupported // too short: it could match what no token finds; or longer than any value
		}
		parts = append(parts, all)
	}
	// Alternatives (several terms, several versions) go into one group; only a single term of the only
	// version can ask for all of its parts.
	single := len(terms) == 1 && len(x.versions) == 1
	for _, all := range parts {
		for i, part := range all {
			at := 0
			if single {
				at = i
			} else if i > 0 {
				break
			}
			for len(q.Groups) <= at {
				q.Groups = append(q.Groups, nil)
			}
			for root := range tk.index {
				if t := tk.indexKey(x.refs[version], root).token(sc, part); !slices.Contains(q.Groups[at], t) {
					q.Groups[at] = append(q.Groups[at], t)
				}
			}
		}
	}
	return nil
}

// Match tells whether an opened record is what q looks for. The fields of q's index must be open.
func (c *Codec[P]) Match(q Query, v P) bool { return c.match(q, reflect.ValueOf(v).Elem()) }

func (c *codec) match(q Query, rv reflect.Value) bool {
	if q.terms == nil {
		return false // of no codec
	}
	typed := q.terms()
	x := &c.plans[q.field].indexes[q.index]
	for i := range x.versions {
		has := x.terms(i, c.text(rv, q.field), func(at int) string { return c.text(rv, at) })
		for _, want := range typed[i] {
			for _, term := range has {
				if term == "" {
					continue
				}
				switch x.shape {
				case whole:
					if term == want {
						return true
					}
				case prefixes:
					if strings.HasPrefix(term, want) {
						return true
					}
				case suffixes:
					if strings.HasSuffix(term, want) {
						return true
					}
				case ngrams:
					if strings.Contains(term, want) {
						return true
					}
				}
			}
		}
	}
	return false
}
