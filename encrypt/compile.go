package encrypt

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// protectedText is what the codec knows of a text type such as crm.Text.
type protectedText interface {
	Expose() string
	ExposedState() uint8
	SetExposed(value string, state uint8)
}

var (
	textType        = reflect.TypeFor[Text]()
	protectedType   = reflect.TypeFor[protectedText]()
	marshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType        = reflect.TypeFor[json.Marshaler]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType        = reflect.TypeFor[time.Time]()
	bytesType       = reflect.TypeFor[[]byte]()
	idType          = reflect.TypeFor[[16]byte]()
)

// anyWords are the normalisers that take words of any kind, also those of which there are few. Others are of
// things that hardly repeat, such as telephone numbers, or the author's own.
var anyWords = []string{"text", "name", "person", "pinyin", "sound", "company", "address"}

// fieldPlan is a compiled field.
type fieldPlan struct {
	Field
	index    []int // reflect path
	typ      reflect.Type
	pointer  bool // a pointer to a scalar; nil = absent
	text     bool // a protected text type
	own      bool // it is Text
	kindByte byte
	person   []int // reflect path of the person's id; nil = the record's own
	place    [contextSize]byte
	indexes  []indexPlan
	mask     func(string) string
	many     bool // a slice or a map of protected texts
}

// versionPlan is one version of a normaliser.
type versionPlan struct {
	name  string // "phone/2"; "sound/1+numbers/1" of a compound index with a normaliser for each field
	terms func(string) []string
	of    []versionPlan // of a compound index, for each of its fields
}

// Codec seals and opens the protected fields of a struct with protect tags; P is the pointer to it. It is compiled once
// and safe for concurrent use. See the package documentation for the tags.
type Codec[P any] struct{ codec }

// codec is a Codec that takes its values by reflection, so that one compiled copy serves all types.
type codec struct {
	of     reflect.Type // the struct
	typ    string
	fields []Field
	plans  []fieldPlan
	byName map[string]int
	clear  []int // plans of clear columns, in struct order
	sealed []int // plans of sealed fields, sorted by name
	names  []string
	moving map[string]bool
}

// NewCodec compiles the tags of the struct to which P points. Every exported field needs a tag; what is unknown, contradictory
// or would leave a delicate field in the clear is an error that names the field. So is an exact index by
// text, name, person, pinyin, company or address that is cut or admitted (leaks=equality) and says neither
// unique nor distinct=N: those take any words, of which a field such as a gender has so few that the index
// shows them all.
func NewCodec[P any](opts *CodecOptions) (*Codec[P], error) {
	c := new(Codec[P])
	rt := reflect.TypeFor[P]()
	if rt.Kind() != reflect.Pointer {
		return nil, fmt.Errorf("encrypt: codec of %s: not a pointer to a struct", rt)
	}
	if err := c.compile(rt.Elem(), opts); err != nil {
		return nil, err
	}
	return c, nil
}

// New returns an empty record.
func (c *Codec[P]) New() P { return reflect.New(c.of).Interface().(P) }

// NewAll returns n empty records, which lie side by side.
func (c *Codec[P]) NewAll(n int) []P {
	all := reflect.MakeSlice(reflect.SliceOf(c.of), n, n)
	out := make([]P, n)
	for i := range out {
		out[i] = all.Index(i).Addr().Interface().(P)
	}
	return out
}

// Set makes into a copy of v, as an assignment does.
func (c *Codec[P]) Set(into, v P) { reflect.ValueOf(into).Elem().Set(reflect.ValueOf(v).Elem()) }

// Copy returns a copy of v, as an assignment makes it: what v points to is shared.
func (c *Codec[P]) Copy(v P) P {
	next := c.New()
	c.Set(next, v)
	return next
}

// compile compiles the tags of rt.
func (c *codec) compile(rt reflect.Type, opts *CodecOptions) error {
	if rt.Kind() != reflect.Struct {
		return fmt.Errorf("encrypt: codec of %s: not a struct", rt)
	}
	if opts == nil {
		opts = &CodecOptions{}
	}
	c.of, c.typ, c.byName = rt, opts.Type, make(map[string]int)
	if c.typ == "" {
		name, _, _ := strings.Cut(rt.Name(), "[")
		c.typ = snake(name)
	}
	if c.typ == "" || len(c.typ) > 64 {
		return fmt.Errorf("encrypt: codec of %s: the type name has 1 to 64 bytes", rt)
	}
	var compounds []compound
	if err := c.walk(rt, rt, nil, "", "", opts, &compounds); err != nil {
		return err
	}
	for _, x := range compounds {
		if err := c.compound(x, opts); err != nil {
			return fmt.Errorf("encrypt: codec of %s: compound index %s: %w", rt, strings.Join(x.of, "+"), err)
		}
	}
	for i := range c.plans {
		p := &c.plans[i]
		if err := c.checkField(p); err != nil {
			return fmt.Errorf("encrypt: codec of %s: field %s: %w", rt, p.GoName, err)
		}
		p.place = fieldContext(c.typ, p.Name, string(p.Class))
		c.fields = append(c.fields, p.Field)
		if p.Clear {
			c.clear = append(c.clear, i)
		} else {
			c.sealed = append(c.sealed, i)
		}
	}
	slices.SortFunc(c.sealed, func(a, b int) int { return strings.Compare(c.plans[a].Name, c.plans[b].Name) })
	for _, at := range c.sealed {
		c.names = append(c.names, c.plans[at].Name)
	}
	if err := c.known(opts.Migrating); err != nil {
		return err
	}
	for _, name := range opts.Migrating {
		if p := &c.plans[c.byName[name]]; p.Kind != KindText && p.Kind != KindBytes {
			return fmt.Errorf("encrypt: codec of %s: field %s: only text is migrated", rt, name)
		}
		if c.moving == nil {
			c.moving = make(map[string]bool)
		}
		c.moving[name] = true
	}
	return nil
}

// walk compiles the fields of st, which lies at path in root, in the nested field in. Names begin with prefix.
func (c *codec) walk(root, st reflect.Type, path []int, in, prefix string, opts *CodecOptions, compounds *[]compound) error {
	for i := range st.NumField() {
		sf := st.Field(i)
		at := append(slices.Clone(path), i)
		tag, tagged := sf.Tag.Lookup("protect")
		fail := func(format string, args ...any) error {
			return fmt.Errorf("encrypt: codec of %s: field %s: %s", root, in+sf.Name, fmt.Sprintf(format, args...))
		}
		switch {
		case tag == "-":
			continue
		case sf.Name == "_":
			if !tagged {
				continue
			}
			x, err := parseCompound(tag)
			if err != nil {
				return fail("%v", err)
			}
			*compounds = append(*compounds, x)
			continue
		case sf.Anonymous && !tagged:
			if sf.Type.Kind() != reflect.Struct {
				return fail("only structs by value can be embedded")
			}
			if err := c.walk(root, sf.Type, at, in, prefix, opts, compounds); err != nil {
				return err
			}
			continue
		case tag == "nested":
			if sf.Type.Kind() != reflect.Struct || !sf.IsExported() {
				return fail("only exported structs by value are nested")
			}
			if err := c.walk(root, sf.Type, at, in+sf.Name+".", prefix+fieldName(sf)+"_", opts, compounds); err != nil {
				return err
			}
			continue
		case !tagged:
			return fail(`no protect tag; write protect:"-" for what is not stored`)
		case !sf.IsExported():
			return fail("an unexported field cannot be stored")
		}
		p, err := c.compileField(root, sf, tag, prefix, opts)
		if err != nil {
			return fail("%v", err)
		}
		p.index = at
		if _, twice := c.byName[p.Name]; twice {
			return fail("the name %q is used twice", p.Name)
		}
		c.byName[p.Name] = len(c.plans)
		c.plans = append(c.plans, p)
	}
	return nil
}

// checkField checks what a tag says against the fields and compound indexes around it.
func (c *codec) checkField(p *fieldPlan) error {
	if len(p.Indexes) == 0 && (p.Leaks != "" || p.Distinct > 0) {
		return fmt.Errorf("leaks and distinct are for fields with an index")
	}
	ngram := slices.ContainsFunc(p.indexes, func(x indexPlan) bool { return x.shape == ngrams })
	for i := range p.indexes {
		x := &p.indexes[i]
		if x.shape != whole || len(x.of) > 0 || x.Unique || p.Distinct > 0 || !slices.Contains(anyWords, x.Normalizer) {
			continue
		}
		// A whole token that is not admitted is refused by Plan; beside an n-gram index it shows nothing more.
		if x.Bits == 64 && (p.Leaks == "" || p.Leaks == leaksFragments && ngram) {
			continue
		}
		return fmt.Errorf("index %s:%s shows all values of a field that has few: say unique, or distinct=N with how many it can have, %d or more",
			x.Kind, x.Normalizer, smallest)
	}
	for i := range c.plans {
		if of := &c.plans[i]; p.person != nil && slices.Equal(of.index, p.person) && !of.Clear {
			return fmt.Errorf("person=%s is sealed, so nobody could know whose key opens this field", p.Person)
		}
	}
	return nil
}

func (c *codec) compileField(root reflect.Type, sf reflect.StructField, tag, prefix string, opts *CodecOptions) (fieldPlan, error) {
	p := fieldPlan{Field: Field{Name: prefix + fieldName(sf), GoName: sf.Name, Retention: keys.Ordinary}, typ: sf.Type}
	if len(p.Name) == 0 || len(p.Name) > 64 {
		return p, fmt.Errorf("a name has 1 to 64 bytes")
	}
	items := strings.Split(tag, ",")
	p.Class = Class(items[0])
	switch p.Class {
	case Public, Internal:
		p.Clear = true
	case Personal, Sensitive, Financial:
	default:
		return p, fmt.Errorf("unknown class %q", items[0])
	}
	seen := make(map[string]bool)
	for _, item := range items[1:] {
		key, val, _ := strings.Cut(item, "=")
		once := key
		if key == "index" || key == "unique" {
			once = "index=" + val
		}
		if seen[once] {
			return p, fmt.Errorf("%q is said twice", key)
		}
		seen[once] = true
		switch key {
		case "seal":
			if p.Class != Public && p.Class != Internal {
				return p, fmt.Errorf("class %s is always sealed", p.Class)
			}
			p.Clear = false
		case "clear":
			if p.Class != Public && p.Class != Internal {
				return p, fmt.Errorf("class %s cannot be a clear column", p.Class)
			}
		case "person":
			of, ok := root.FieldByName(val)
			if !ok || !of.IsExported() || !of.Type.ConvertibleTo(idType) || of.Type.Kind() != reflect.Array {
				return p, fmt.Errorf("person=%s is no field of 16 bytes", val)
			}
			if pathCrossesPointer(root, of.Index) {
				return p, fmt.Errorf("person=%s lies behind a pointer", val)
			}
			p.Person, p.person = val, of.Index
		case "retention":
			p.Retention = keys.Retention(val)
			switch p.Retention {
			case keys.Ordinary, keys.Contract, keys.Tax, keys.Evidence:
			default:
				return p, fmt.Errorf("unknown retention class %q", val)
			}
		case "index", "unique":
			x, err := parseIndex(val, key == "unique")
			if err != nil {
				return p, err
			}
			for _, other := range p.Indexes {
				if other.Kind == x.Kind && other.Normalizer == x.Normalizer {
					return p, fmt.Errorf("two indexes of kind %q and normaliser %q", x.Kind, x.Normalizer)
				}
			}
			plan, err := c.indexPlan(p.Name, x, opts)
			if err != nil {
				return p, err
			}
			p.Indexes = append(p.Indexes, x)
			p.indexes = append(p.indexes, plan)
		case "distinct":
			n, err := strconv.Atoi(val)
			if err != nil || n < 2 {
				return p, fmt.Errorf("distinct=%s is no number of values", val)
			}
			p.Distinct = n
		case "leaks":
			if val != leaksEquality && val != leaksFragments {
				return p, fmt.Errorf("unknown leak %q", val)
			}
			p.Leaks = val
		case "mask":
			if p.mask = opts.Masks[val]; p.mask == nil {
				return p, fmt.Errorf("unknown mask %q", val)
			}
			p.Mask = val
		case "indexed":
			p.Indexed = true
		default:
			return p, fmt.Errorf("unknown word %q", key)
		}
	}
	if seen["seal"] && seen["clear"] {
		return p, fmt.Errorf("both seal and clear")
	}
	if p.Clear && (p.person != nil || seen["retention"]) {
		return p, fmt.Errorf("person and retention are for sealed fields")
	}
	if p.Clear && len(p.Indexes) > 0 {
		return p, fmt.Errorf("a clear column has no blind index")
	}
	if len(p.Indexes) > 0 && p.Distinct > 0 && p.Distinct < smallest {
		return p, fmt.Errorf("an index over %d values shows them all; filter on a clear column instead", p.Distinct)
	}
	if !p.Clear && p.Indexed {
		return p, fmt.Errorf("indexed is for clear columns")
	}
	if err := p.kindOf(); err != nil {
		return p, err
	}
	if (len(p.Indexes) > 0 || p.mask != nil) && p.Kind != KindText {
		return p, fmt.Errorf("indexes and masks are for text")
	}
	return p, nil
}

// kindOf finds the encoding of the field's type.
func (p *fieldPlan) kindOf() error {
	t := p.typ
	if reflect.PointerTo(t).Implements(protectedType) {
		if p.Clear {
			return fmt.Errorf("protected text cannot be a clear column")
		}
		p.text, p.own, p.Kind, p.kindByte = true, t == textType, KindText, kindText
		return nil
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
		p.pointer = true
	}
	switch {
	case reflect.PointerTo(t).Implements(protectedType):
		return fmt.Errorf("protected text is held by value")
	case t == timeType:
		p.Kind, p.kindByte = KindTime, kindTime
	case t.Kind() == reflect.String:
		p.Kind, p.kindByte = KindText, kindText
	case t.Kind() == reflect.Bool:
		p.Kind, p.kindByte = KindBool, kindBool
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64, t.Kind() >= reflect.Uint8 && t.Kind() <= reflect.Uint32:
		p.Kind, p.kindByte = KindInt, kindInt
	case t.Kind() == reflect.Uint, t.Kind() == reflect.Uint64, t.Kind() == reflect.Uintptr:
		return fmt.Errorf("%s does not fit a signed 64-bit column", t)
	case t.Kind() == reflect.Array && t.Len() == 16 && t.Implements(marshalerType) && reflect.PointerTo(t).Implements(unmarshalerType):
		p.Kind, p.kindByte = KindID, kindID
	case p.pointer:
		t = p.typ
		p.pointer = false
		fallthrough
	default:
		switch t.Kind() {
		case reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
			if p.Clear {
				return fmt.Errorf("%s is not exact; use an integer of small units", t)
			}
		case reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
			return fmt.Errorf("%s cannot be stored", t)
		}
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && !p.Clear && t.ConvertibleTo(bytesType) {
			p.Kind, p.kindByte = KindBytes, kindBytes
			return nil
		}
		if (t.Kind() == reflect.Slice || t.Kind() == reflect.Map && t.Key().Kind() == reflect.String) &&
			reflect.PointerTo(t.Elem()).Implements(protectedType) && !p.Clear {
			p.many, p.Kind, p.kindByte = true, KindJSON, kindJSON
			return nil
		}
		if hidesText(t, make(map[reflect.Type]bool)) {
			return fmt.Errorf("%s holds protected text, which does not survive JSON", t)
		}
		if emptyJSON(t) {
			return fmt.Errorf("%s shows JSON nothing of what it holds", t)
		}
		p.Kind, p.kindByte = KindJSON, kindJSON
	}
	return nil
}

// hidesText tells whether a value of type t can hold protected text.
func hidesText(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	if reflect.PointerTo(t).Implements(protectedType) {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return hidesText(t.Elem(), seen)
	case reflect.Map:
		return hidesText(t.Key(), seen) || hidesText(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if hidesText(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// emptyJSON tells whether JSON would write every value of t as {}.
func emptyJSON(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.NumField() == 0 ||
		reflect.PointerTo(t).Implements(jsonType) || reflect.PointerTo(t).Implements(marshalerType) {
		return false
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() || f.Anonymous {
			return false
		}
	}
	return true
}

func pathCrossesPointer(t reflect.Type, path []int) bool {
	for _, i := range path {
		if t.Kind() == reflect.Pointer {
			return true
		}
		t = t.Field(i).Type
	}
	return false
}

// normalizerVersions lists the versions of the normaliser that are given, oldest first.
func normalizerVersions(all map[string]func(string) []string, base string) []versionPlan {
	type numbered struct {
		n int
		versionPlan
	}
	var found []numbered
	for key, f := range all {
		name, v, has := strings.Cut(key, "/")
		n := 1
		if has {
			var err error
			if n, err = strconv.Atoi(v); err != nil || n < 1 {
				continue
			}
		}
		if name == base && f != nil && base != "" {
			found = append(found, numbered{n, versionPlan{name: fmt.Sprintf("%s/%d", name, n), terms: f}})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return a.n - b.n })
	var out []versionPlan
	for _, f := range found {
		out = append(out, f.versionPlan)
	}
	return out
}

func fieldName(sf reflect.StructField) string {
	name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
	if name != "" && name != "-" {
		return name
	}
	return snake(sf.Name)
}

// snake turns SignerID into signer_id and HTTPServer into http_server.
func snake(s string) string {
	r := []rune(s)
	var b strings.Builder
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 {
			after := i+1 < len(r) && unicode.IsLower(r[i+1])
			if unicode.IsLower(r[i-1]) || unicode.IsDigit(r[i-1]) || (unicode.IsUpper(r[i-1]) && after) {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
