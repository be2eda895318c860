package dedupe

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// value is a text of a record and what the comparators have made of it, each worked out once: a row of a file is compared with many records, and
// a record with many rows. It is for one goroutine at a time.
type value struct {
	text  string
	terms []term
	more  *parts // nil: none is worked out, as of most values that are compared whole
}

// term is what one normaliser makes of a text.
type term struct{ by, is string }

// parts are what a value is divided into.
type parts struct {
	made  made
	sound []string
	read  []string
	word  []string
	where place
}

// made says which parts of a value are worked out.
type made uint8

const (
	madeSound made = 1 << iota
	madeReadings
	madeWords
	madePlace
)

// part returns the parts of a value, with those of m yet to be worked out when first is true.
func (v *value) part(m made) (p *parts, first bool) {
	if v.more == nil {
		v.more = &parts{}
	}
	p, first = v.more, v.more.made&m == 0
	p.made |= m
	return p, first
}

// one is the first term of a normaliser.
func (v *value) one(t terms, by string) string {
	for i := range v.terms {
		if v.terms[i].by == by {
			return v.terms[i].is
		}
	}
	var s string
	if by == "numbers" && t[by] != nil { // as normalize.Numbers, of an address that is known mostly
		s = strings.Join(numbers(v.one(t, "address")), "-")
	} else {
		s = t.one(by, v.text)
	}
	v.terms = append(v.terms, term{by, s})
	return s
}

func (v *value) soundWords(t terms) []string {
	p, first := v.part(madeSound)
	if first {
		p.sound = strings.Fields(v.one(t, "sound"))
	}
	return p.sound
}

func (v *value) readings(t terms) []string {
	p, first := v.part(madeReadings)
	if first {
		p.read = t.readings(v.text)
	}
	return p.read
}

func (v *value) words(t terms) []string {
	p, first := v.part(madeWords)
	if first {
		p.word = t.words(v.text)
	}
	return p.word
}

// place is an address as it is compared.
type place struct {
	folded  string
	han     bool
	numbers []string
	pairs   []uint64 // of one with Han characters
	words   []string // of one without
}

func (v *value) place(t terms) *place {
	all, first := v.part(madePlace)
	p := &all.where
	if first {
		p.folded = v.one(t, "address")
		p.han = strings.ContainsFunc(p.folded, func(r rune) bool { return unicode.Is(unicode.Han, r) })
		p.numbers, p.pairs = numbers(p.folded), pairs(p.folded)
		if !p.han {
			p.words = addressWords(v.text)
		}
	}
	return p
}

// record is the values of a record's fields, as the reads of a matcher have them; nil where it has none.
type record []*value

// record reads the values of v. A matcher that remembers reads each record once, and works out what it makes of a text once for all records.
func (m *matcher[P]) record(v P) record {
	if r, ok := m.known.records[v]; ok {
		return r
	}
	r := make(record, len(m.reads))
	of := reflect.ValueOf(v).Elem()
	for i, at := range m.reads {
		s, _ := text(of.Field(at))
		if s == "" {
			continue
		}
		if r[i] = m.known.values[s]; r[i] == nil {
			r[i] = &value{text: s}
			if m.known.values != nil {
				m.known.values[s] = r[i]
			}
		}
	}
	if m.known.records != nil {
		m.known.records[v] = r
	}
	return r
}

// known is what a matcher remembers.
type known struct {
	values  map[string]*value
	records map[any]record
	room    []compared // of the last pair
}

// unlike tells that two records cannot be one, whatever the comparisons say that cost most: it works out the highest score that is left, first by the terms
// that are compared whole, then by sound and address as well.
func (m *matcher[P]) unlike(p *pair) bool {
	for _, dear := range [][]string{{"phonetic", "pinyin", "address", "edit", "jaro"}, {"pinyin", "edit", "jaro"}} {
		if most := m.most(p, &m.score, dear); !most.may || most.like < m.rules.Likely-rounding {
			return true
		}
	}
	return false
}

// rounding is by how much two ways of adding the same numbers may differ.
const rounding = 1e-9

// bound is the highest score that a node can have.
type bound struct {
	like float64
	may  bool // it may be present
	must bool // it is
}

// most works out the bound of a node without the comparators in dear. It never is less than what score makes of the node.
func (m *matcher[P]) most(p *pair, n *node, dear []string) bound {
	var b bound
	switch {
	case len(n.at) > 0 && !slices.Contains(dear, n.As):
		like, _, found := m.best(p, n)
		b = bound{like: like, may: found, must: found}
	case len(n.at) > 0:
		if some(p.a, n.at) && some(p.b, n.at) {
			b = bound{like: 1, may: true}
		}
	case len(n.all) > 0:
		b = bound{like: 1, may: true}
		for i := range n.all {
			x := m.most(p, &n.all[i], dear)
			if !x.may {
				x.like = 0
			}
			if b.like = min(b.like, x.like); b.like == 0 {
				break
			}
		}
	case len(n.any) > 0:
		for i := range n.any {
			if x := m.most(p, &n.any[i], dear); x.may {
				b = bound{like: max(b.like, x.like), may: true, must: b.must || x.must}
			}
		}
	default:
		for_, against := 0.0, 0.0
		for i := range n.mean {
			x := m.most(p, &n.mean[i], dear)
			if !x.may {
				continue
			}
			w := or(n.mean[i].Weight, 1)
			for_ += x.like * w
			if x.must {
				against += (1 - x.like) * or(n.mean[i].Against, w)
			}
		}
		if for_ > 0 && for_ >= n.Least-rounding {
			b = bound{like: for_ / (for_ + against), may: true}
		} else {
			b = bound{may: n.Least == 0}
		}
	}
	b.like *= or(n.Worth, 1)
	return b
}

// some tells whether a record has a value in any of these fields.
func some(r record, at []int) bool {
	return slices.ContainsFunc(at, func(i int) bool { return r[i] != nil })
}
